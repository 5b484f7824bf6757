//! One decoding step: a codec with its settings and its state for the stream.
//!
//! # Invariants
//!
//! All input is yielded as records or decode errors, or is held; then `waiting_from` says so.

use bytes::Bytes;
use jiff::tz::TimeZone;

use super::container::{Container, ContainerRuntime};
use super::csv::CsvDecoder;
use super::pick::{Keys, Picked};
use super::regex::RegexDecoder;
use super::unit::{DecodeResult, Flush, Unit, Unreadable};
use super::{json, logfmt, object, syslog, utf8};
use crate::clock;
use crate::config::source::{Codec, DecodingStep};

#[derive(Debug, Clone)]
pub(super) struct DecodeStep {
    state: StepState,
    /// For every step but the first: where it reads and writes, and the name of its input record.
    link: Option<StepDecoder>,
    /// The prefix of its errors, where there are several steps.
    label: Option<String>,
}

/// How a step is connected to the one before.
#[derive(Debug, Clone)]
struct StepDecoder {
    from: Keys,
    into: Keys,
    /// The name of the previous step's record under `%decoded`.
    earlier: String,
    /// Whether the value at `from` may be JSON instead of a string.
    takes_values: bool,
}

#[derive(Debug, Clone)]
enum StepState {
    Json,
    Text,
    Csv(Box<CsvDecoder>),
    Logfmt,
    RegexDecoder(RegexDecoder),
    Syslog(TimeZone),
    Container(Box<Container>),
}

impl DecodeStep {
    pub(super) fn new(
        settings: &DecodingStep,
        limit: usize,
        zone: &TimeZone,
    ) -> Result<Self, String> {
        let state = match settings.codec {
            Codec::Json => StepState::Json,
            Codec::Text => StepState::Text,
            Codec::Csv => StepState::Csv(Box::new(CsvDecoder::new(
                settings.columns.as_deref(),
                settings.delimiter.as_deref(),
                limit,
            )?)),
            Codec::Logfmt => StepState::Logfmt,
            Codec::Regex => {
                StepState::RegexDecoder(RegexDecoder::new(settings.pattern.as_deref())?)
            }
            Codec::Syslog => StepState::Syslog(zone.clone()),
            Codec::Cri => {
                StepState::Container(Box::new(Container::new(ContainerRuntime::Cri, limit)))
            }
            Codec::Docker => {
                StepState::Container(Box::new(Container::new(ContainerRuntime::Docker, limit)))
            }
        };
        Ok(Self { state, link: None, label: None })
    }

    /// Connects it as the `number`th of several steps; `earlier` is the name of the one before.
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
        Ok(Self { link: Some(StepDecoder { from, into, earlier, takes_values }), label, ..self })
    }

    pub(super) fn is_json(&self) -> bool {
        matches!(self.state, StepState::Json)
    }

    /// Whether a message is decoded line by line.
    pub(super) fn reads_lines(&self) -> bool {
        matches!(self.state, StepState::Csv(_))
    }

    pub(super) fn feed(&mut self, unit: Unit, out: &mut Vec<DecodeResult>) {
        let before = out.len();
        match self.input(unit) {
            Ok(unit) => self.read(unit, out),
            Err(broken) => out.push(Err(broken)),
        }
        self.output(out, before);
    }

    /// A piece of the stream that an earlier step could not read.
    pub(super) fn pass(&mut self, broken: Unreadable, out: &mut Vec<DecodeResult>) {
        let before = out.len();
        if let StepState::Csv(csv) = &mut self.state {
            csv.pass(&broken, out);
        }
        self.output(out, before);
        out.push(Err(broken));
    }

    pub(super) fn flush(&mut self, why: Flush, out: &mut Vec<DecodeResult>) {
        let before = out.len();
        match &mut self.state {
            StepState::Csv(csv) => csv.flush(why, out),
            StepState::Container(container) => container.flush(why, out),
            _ => {}
        }
        self.output(out, before);
    }

    pub(super) fn waiting_from(&self) -> Option<u64> {
        match &self.state {
            StepState::Csv(csv) => csv.waiting_from(),
            StepState::Container(container) => container.waiting_from(),
            _ => None,
        }
    }

    /// Whether lines are held that a time limit would complete.
    pub(super) fn holds_lines(&self) -> bool {
        match &self.state {
            StepState::Csv(csv) => csv.holds_lines(),
            StepState::Container(container) => container.holds_lines(),
            _ => false,
        }
    }

    pub(super) fn awaits_header(&self) -> bool {
        matches!(&self.state, StepState::Csv(csv) if csv.awaits_header())
    }

    pub(super) fn forgo_header(&mut self, why: &str) {
        if let StepState::Csv(csv) = &mut self.state
            && csv.awaits_header()
        {
            csv.forgo_header(why);
        }
    }

    pub(super) fn adopt_header(&mut self, other: &Self) {
        if let (StepState::Csv(csv), StepState::Csv(other)) = (&mut self.state, &other.state) {
            csv.adopt_header(other);
        }
    }

    /// The input of this step: the line, or a string from the result of the step before.
    fn input(&self, unit: Unit) -> DecodeResult {
        let Some(StepDecoder { from, earlier, takes_values, .. }) = &self.link else {
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
            Picked::Nothing => "there is nothing at that path in the result of the step before",
            Picked::Json(_) | Picked::Other => "the value at that path is not a string",
        };
        Err(unit.unreadable(why))
    }

    fn read(&mut self, unit: Unit, out: &mut Vec<DecodeResult>) {
        match &mut self.state {
            StepState::Csv(csv) => return csv.feed(unit, out),
            StepState::Container(container) => return container.feed(unit, out),
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

    /// The records of a string, for codecs whose result does not depend on earlier lines.
    fn decode(&self, text: Bytes) -> Result<json::JsonValues, String> {
        let one = match &self.state {
            StepState::Json => return json::decode(text),
            StepState::Text => Some(object([("message", String::from_utf8_lossy(&text).as_ref())])),
            StepState::Logfmt => logfmt::decode(utf8(&text)?)?,
            StepState::RegexDecoder(pattern) => Some(pattern.decode(utf8(&text)?)?),
            StepState::Syslog(zone) => syslog::decode(utf8(&text)?, zone, clock::now())?,
            StepState::Csv(_) | StepState::Container(_) => None,
        };
        Ok(one.into_iter().collect())
    }

    /// Inserts results at their path, and names the step in its errors.
    fn output(&self, out: &mut [DecodeResult], from: usize) {
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
                        "`{}` leads through a value that is not an object",
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
