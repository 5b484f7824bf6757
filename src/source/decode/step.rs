//! One decoding step: a codec with its settings and with what it has learnt of the stream.
//!
//! Not here: how steps follow each other (`decode`). One invariant: whatever goes in comes out, as
//! records or as faults, or is held, and then `waiting_from` says so.

use bytes::Bytes;

use super::csv::CsvDecoder;
use super::pattern::Pattern;
use super::unit::{Flush, Outcome, Unit, Unreadable};
use super::{json, logfmt, object, utf8};
use crate::config::source::{Codec, Decoding};

#[derive(Debug, Clone)]
pub(super) struct Step {
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Json,
    Text,
    Csv(Box<CsvDecoder>),
    Logfmt,
    Pattern(Pattern),
}

impl Step {
    pub(super) fn new(decoding: &Decoding, limit: usize) -> Result<Self, String> {
        let codec = decoding.codec;
        belongs("pattern", decoding.pattern.is_some(), codec, Codec::Regex)?;
        belongs("columns", decoding.columns.is_some(), codec, Codec::Csv)?;
        belongs("delimiter", decoding.delimiter.is_some(), codec, Codec::Csv)?;
        let state = match codec {
            Codec::Json => State::Json,
            Codec::Text => State::Text,
            Codec::Csv => State::Csv(Box::new(CsvDecoder::new(
                decoding.columns.as_deref(),
                decoding.delimiter.as_deref(),
                limit,
            )?)),
            Codec::Logfmt => State::Logfmt,
            Codec::Regex => State::Pattern(Pattern::new(decoding.pattern.as_deref())?),
        };
        Ok(Self { state })
    }

    pub(super) fn is_json(&self) -> bool {
        matches!(self.state, State::Json)
    }

    /// Whether a message is to be taken line by line.
    pub(super) fn reads_lines(&self) -> bool {
        matches!(self.state, State::Csv(_))
    }

    pub(super) fn feed(&mut self, unit: Unit, out: &mut Vec<Outcome>) {
        if let State::Csv(csv) = &mut self.state {
            return csv.feed(unit, out);
        }
        let text = match unit.text.last() {
            Some(b'\r') => unit.text.slice(..unit.text.len() - 1),
            _ => unit.text.clone(),
        };
        match self.decode(text) {
            Ok(values) => {
                out.extend(values.into_iter().map(|value| Ok(unit.clone().with_text(value))));
            }
            Err(why) => out.push(Err(unit.unreadable(why))),
        }
    }

    /// What the text holds, where that depends on nothing that came before.
    pub(super) fn decode(&self, text: Bytes) -> Result<json::Values, String> {
        let one = match &self.state {
            State::Json => return json::decode(text),
            State::Text => Some(object([("message", String::from_utf8_lossy(&text).as_ref())])),
            State::Logfmt => logfmt::decode(utf8(&text)?)?,
            State::Pattern(pattern) => Some(pattern.decode(utf8(&text)?)?),
            State::Csv(_) => None,
        };
        Ok(one.into_iter().collect())
    }

    /// A piece of the stream that a step before could not read, or whose first bytes are `head`.
    pub(super) fn pass(&mut self, broken: Unreadable, out: &mut Vec<Outcome>) {
        match &mut self.state {
            State::Csv(csv) => {
                let head = broken.raw.clone();
                csv.pass(broken, &head, out);
            }
            _ => out.push(Err(broken)),
        }
    }

    pub(super) fn flush(&mut self, why: Flush, out: &mut Vec<Outcome>) {
        if let State::Csv(csv) = &mut self.state {
            csv.flush(why, out);
        }
    }

    pub(super) fn waiting_from(&self) -> Option<u64> {
        match &self.state {
            State::Csv(csv) => csv.waiting_from(),
            _ => None,
        }
    }

    /// Whether lines wait that a time limit would complete.
    pub(super) fn holds_lines(&self) -> bool {
        matches!(&self.state, State::Csv(csv) if csv.holds_lines())
    }

    pub(super) fn awaits_header(&self) -> bool {
        matches!(&self.state, State::Csv(csv) if csv.awaits_header())
    }

    pub(super) fn forgo_header(&mut self, why: &str) {
        if let State::Csv(csv) = &mut self.state
            && csv.awaits_header()
        {
            csv.forgo_header(why);
        }
    }

    pub(super) fn adopt_header(&mut self, other: &Self) {
        if let (State::Csv(csv), State::Csv(other)) = (&mut self.state, &other.state) {
            csv.adopt_header(other);
        }
    }
}

fn belongs(key: &str, given: bool, codec: Codec, owner: Codec) -> Result<(), String> {
    if given && codec != owner {
        let owner = format!("{owner:?}").to_lowercase();
        return Err(format!(
            "`decoding.{key}` is for the codec `{owner}` alone; set `decoding.codec = \"{owner}\"` or remove it"
        ));
    }
    Ok(())
}
