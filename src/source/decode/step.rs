//! One decoding step: a codec with its settings and with what it has learnt of the stream.
//!
//! Not here: how steps follow each other (`decode`). One invariant: whatever goes in comes out, as
//! records or as faults, or is held, and then `waiting_from` says so.

use bytes::Bytes;
use jiff::tz::TimeZone;

use super::container::{Container, Runtime};
use super::csv::CsvDecoder;
use super::pattern::Pattern;
use super::pick::{Keys, Picked};
use super::unit::{Flush, Outcome, Unit, Unreadable};
use super::{json, logfmt, object, syslog, utf8};
use crate::clock;
use crate::config::source::{Codec, DecodingStep};

#[derive(Debug, Clone)]
pub(super) struct Step {
    state: State,
    /// Behind the first step: where it reads and writes, and what its record stands under.
    link: Option<Link>,
    /// How its faults are introduced, where there are several steps.
    label: Option<String>,
}

/// How a step hangs on the one before.
#[derive(Debug, Clone)]
struct Link {
    from: Keys,
    into: Keys,
    /// What the record of the step before is called under `%decoded`.
    earlier: String,
    /// Whether what stands at `from` may be a value instead of text.
    takes_values: bool,
}

#[derive(Debug, Clone)]
enum State {
    Json,
    Text,
    Csv(Box<CsvDecoder>),
    Logfmt,
    Pattern(Pattern),
    Syslog(TimeZone),
    Container(Box<Container>),
}

impl Step {
    pub(super) fn new(
        settings: &DecodingStep,
        limit: usize,
        zone: &TimeZone,
    ) -> Result<Self, String> {
        let state = match settings.codec {
            Codec::Json => State::Json,
            Codec::Text => State::Text,
            Codec::Csv => State::Csv(Box::new(CsvDecoder::new(
                settings.columns.as_deref(),
                settings.delimiter.as_deref(),
                limit,
            )?)),
            Codec::Logfmt => State::Logfmt,
            Codec::Regex => State::Pattern(Pattern::new(settings.pattern.as_deref())?),
            Codec::Syslog => State::Syslog(zone.clone()),
            Codec::Cri => State::Container(Box::new(Container::new(Runtime::Cri, limit))),
            Codec::Docker => State::Container(Box::new(Container::new(Runtime::Docker, limit))),
        };
        Ok(Self { state, link: None, label: None })
    }

    /// As one of several steps, the `number`th; `earlier` is the name of the one before.
    pub(super) fn linked(
        self,
        settings: &DecodingStep,
        number: usize,
        earlier: Option<String>,
    ) -> Result<Self, String> {
        let codec = settings.codec.as_str();
        let Some(earlier) = earlier else {
            return Ok(Self { label: Some(format!("step {number} (`{codec}`)")), ..self });
        };
        let path = |key: &str, written: Option<&str>, default: &str| {
            Keys::parse(written.unwrap_or(default))
                .map_err(|why| format!("`decoding.{key}`: {why}"))
        };
        let from = path("from", settings.from.as_deref(), ".message")?;
        let into = path("into", settings.into.as_deref(), ".")?;
        let label = Some(format!("step {number} (`{codec}` from `{}`)", from.written()));
        let takes_values = settings.codec == Codec::Json;
        Ok(Self { link: Some(Link { from, into, earlier, takes_values }), label, ..self })
    }

    pub(super) fn is_json(&self) -> bool {
        matches!(self.state, State::Json)
    }

    /// Whether a message is to be taken line by line.
    pub(super) fn reads_lines(&self) -> bool {
        matches!(self.state, State::Csv(_))
    }

    pub(super) fn feed(&mut self, unit: Unit, out: &mut Vec<Outcome>) {
        let before = out.len();
        match self.input(unit) {
            Ok(unit) => self.read(unit, out),
            Err(broken) => out.push(Err(broken)),
        }
        self.output(out, before);
    }

    /// A piece of the stream that a step before could not read.
    pub(super) fn pass(&mut self, broken: Unreadable, out: &mut Vec<Outcome>) {
        let before = out.len();
        if let State::Csv(csv) = &mut self.state {
            csv.pass(&broken, out);
        }
        self.output(out, before);
        out.push(Err(broken));
    }

    pub(super) fn flush(&mut self, why: Flush, out: &mut Vec<Outcome>) {
        let before = out.len();
        match &mut self.state {
            State::Csv(csv) => csv.flush(why, out),
            State::Container(container) => container.flush(why, out),
            _ => {}
        }
        self.output(out, before);
    }

    pub(super) fn waiting_from(&self) -> Option<u64> {
        match &self.state {
            State::Csv(csv) => csv.waiting_from(),
            State::Container(container) => container.waiting_from(),
            _ => None,
        }
    }

    /// Whether lines wait that a time limit would complete.
    pub(super) fn holds_lines(&self) -> bool {
        match &self.state {
            State::Csv(csv) => csv.holds_lines(),
            State::Container(container) => container.holds_lines(),
            _ => false,
        }
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

    /// What this step reads: the line, or what the step before made of it.
    fn input(&self, unit: Unit) -> Outcome {
        let Some(Link { from, earlier, takes_values, .. }) = &self.link else {
            return Ok(unit);
        };
        let why = match from.pick(&unit.text) {
            Picked::Text(text) => {
                let record = unit.text.clone();
                let mut unit = unit.with_text(text);
                unit.earlier.push((earlier.clone(), record.clone()));
                unit.record = record;
                return Ok(unit);
            }
            Picked::Json(json) if *takes_values => {
                let record = unit.text.clone();
                let mut unit = unit.with_text(json);
                unit.earlier.push((earlier.clone(), record.clone()));
                unit.record = record;
                return Ok(unit);
            }
            Picked::Nothing => "there is nothing at that path in what the step before made",
            Picked::Json(_) | Picked::Other => "what stands at that path is no text",
        };
        Err(unit.unreadable(why))
    }

    fn read(&mut self, unit: Unit, out: &mut Vec<Outcome>) {
        match &mut self.state {
            State::Csv(csv) => return csv.feed(unit, out),
            State::Container(container) => return container.feed(unit, out),
            _ => {}
        }
        let text = match unit.text.last() {
            Some(b'\r') => unit.text.slice(..unit.text.len() - 1),
            _ => unit.text.clone(),
        };
        match self.decode(text) {
            Ok(mut values) => match values.len() {
                1 => out.extend(values.pop().map(|value| Ok(unit.with_text(value)))),
                _ => out.extend(values.into_iter().map(|value| Ok(unit.clone().with_text(value)))),
            },
            Err(why) => out.push(Err(unit.unreadable(why))),
        }
    }

    /// What a text holds, where that depends on nothing that came before.
    fn decode(&self, text: Bytes) -> Result<json::Values, String> {
        let one = match &self.state {
            State::Json => return json::decode(text),
            State::Text => Some(object([("message", String::from_utf8_lossy(&text).as_ref())])),
            State::Logfmt => logfmt::decode(utf8(&text)?)?,
            State::Pattern(pattern) => Some(pattern.decode(utf8(&text)?)?),
            State::Syslog(zone) => syslog::decode(utf8(&text)?, zone, clock::now())?,
            State::Csv(_) | State::Container(_) => None,
        };
        Ok(one.into_iter().collect())
    }

    /// Puts results where they belong, and names the step in its faults.
    fn output(&self, out: &mut [Outcome], from: usize) {
        let Some(label) = &self.label else {
            return;
        };
        for outcome in &mut out[from..] {
            if let (Ok(unit), Some(link)) = (&*outcome, &self.link)
                && !link.into.is_whole()
            {
                *outcome = match link.into.put(&unit.record, &unit.text) {
                    Some(record) => Ok(unit.clone().with_text(record)),
                    None => Err(unit.clone().unreadable(format!(
                        "`{}` leads through a value that is no object",
                        link.into.written()
                    ))),
                };
            }
            if let Err(broken) = outcome {
                broken.why = format!("{label}: {}", broken.why);
            }
        }
    }
}
