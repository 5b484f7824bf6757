//! Decodes lines, or whole messages, into the JSON text of records.
//!
//! | file | what it does |
//! |---|---|
//! | `unit` | the input and output of steps |
//! | `step` | one step: a codec and its state |
//! | `json`, `csv`, `logfmt`, `regex`, `syslog`, `container` | the codecs |
//! | `charset`, `multiline` | process lines before the first step |
//! | `pick` | where a step reads and writes |
//!
//! # Invariants
//!
//! No input causes a panic. A line becomes records, nothing, or a decode error, or it is held until
//! more lines arrive.

mod charset;
mod container;
mod csv;
mod json;
mod logfmt;
mod multiline;
mod pick;
mod regex;
mod step;
mod syslog;
mod unit;

#[cfg(any(feature = "fluvio", feature = "kafka"))]
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use jiff::tz::TimeZone;

use self::charset::{Charset, IsFirst};
use self::multiline::LineJoiner;
use self::step::DecodeStep;
pub use self::unit::Decoded;
pub(super) use self::unit::Flush;
use self::unit::{DecodeResult, Span, Unit, Unreadable};
use super::line::{Content, Line, LineSplitter, Separator};
use crate::coerce::zone;
use crate::config::source::{Decoding, MultilineConfig as MultilineSettings};
#[cfg(any(feature = "fluvio", feature = "kafka"))]
use crate::record::Record;

/// How long an incomplete row or message waits while no line arrives, before it becomes a decode
/// error.
const INCOMPLETE_AFTER: Duration = Duration::from_secs(60);

/// The longest line, in bytes, where no limit is given.
const DEFAULT_LIMIT: usize = 1 << 20;

/// Decoding steps with their state for one stream of lines: the columns of a CSV file, and the
/// lines that they hold (an incomplete row).
///
/// Every stream needs its own decoder: clone one that has read nothing yet.
///
/// | codec | record |
/// |---|---|
/// | `json` | the bytes of the line, which must be one JSON value; each element of an array is a record, and so is each of several adjacent objects |
/// | `text` | `{"message": line}`, each invalid UTF-8 sequence replaced by U+FFFD |
/// | `csv` | an object of strings by column; a quoted value may contain newlines |
/// | `logfmt` | an object of strings; a bare key has the value `"true"`; of equal keys the last wins |
/// | `regex` | an object of strings by named group; groups that did not match are absent |
/// | `syslog` | an object with Vector's field names |
/// | `cri`, `docker` | `time`, `stream`, `message`; parts of a line are joined |
///
/// With several steps, each reads a string from the record of the one before; see [`Decoding`].
///
/// A line that is not a record yields nothing: an empty line (for `json` and `logfmt` also a blank
/// one; `text` and `regex` have no such lines), an empty array, the line that names the columns.
#[derive(Debug, Clone)]
pub struct Decoder {
    charset: Charset,
    multiline: Option<LineJoiner>,
    steps: Vec<DecodeStep>,
    /// Lines fed so far.
    fed: u64,
    /// The end of the last record, and how many parts ended there.
    last: (u64, u32),
    /// Reused buffer.
    units: Vec<DecodeResult>,
}

impl Decoder {
    /// A decoder that has read nothing, for lines of at most 1 MiB.
    ///
    /// # Errors
    ///
    /// Settings that contradict each other, a pattern that is not a regular expression or has no
    /// named group, repeated columns. The text is for the author of the pipeline file.
    pub fn new(decoding: &Decoding) -> Result<Self, String> {
        Self::bounded(decoding, DEFAULT_LIMIT, None)
    }

    /// As [`new`](Self::new), with the source's `timezone`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn in_zone(decoding: &Decoding, timezone: Option<&str>) -> Result<Self, String> {
        Self::bounded(decoding, DEFAULT_LIMIT, timezone)
    }

    /// As [`new`](Self::new), where joined lines may be `limit` bytes long, and times without a
    /// zone are in `timezone`, UTC by default.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn bounded(
        decoding: &Decoding,
        limit: usize,
        timezone: Option<&str>,
    ) -> Result<Self, String> {
        let zone = match timezone {
            None => TimeZone::UTC,
            Some(name) => {
                zone::find(name).ok_or_else(|| format!("there is no time zone {name:?}"))?
            }
        };
        let mut steps = Vec::new();
        let mut names: Vec<String> = Vec::new();
        let several = !decoding.then.is_empty();
        for (number, settings) in (1..).zip(decoding.steps()) {
            let mut step = DecodeStep::new(settings, limit, &zone)?;
            if several {
                step = step.linked(settings, number, names.last().cloned())?;
            }
            steps.push(step);
            names.push(name_of(decoding, number));
        }
        Ok(Self {
            charset: Charset::named(decoding.first.charset.as_deref())
                .map_err(|why| format!("`decoding.charset`: {why}"))?,
            multiline: None,
            steps,
            fed: 0,
            last: (0, 0),
            units: Vec::new(),
        })
    }

    /// Joins lines by patterns before they are decoded, up to `limit` bytes.
    ///
    /// # Errors
    ///
    /// Patterns that are not regular expressions.
    pub fn with_multiline(
        self,
        settings: Option<&MultilineSettings>,
        limit: usize,
    ) -> Result<Self, String> {
        let multiline = settings.map(|settings| LineJoiner::new(settings, limit)).transpose()?;
        Ok(Self { multiline, ..self })
    }

    /// The separator of the lines of its stream. Where reading starts in the middle of a stream, it
    /// is known only after [`learn_beginning`](Self::learn_beginning).
    pub(super) fn separator(&self) -> Separator {
        self.charset.separator()
    }

    /// Whether lines end with one byte, so that they can be counted without decoding.
    pub fn has_plain_newlines(&self) -> bool {
        self.separator() == Separator::Byte
    }

    /// How many lines were fed.
    pub(super) fn fed(&self) -> u64 {
        self.fed
    }

    /// Takes a line; appends the records that it completes to `out`, in the order of their ends.
    pub(super) fn feed(&mut self, line: Line, out: &mut Vec<Decoded>) {
        let span = Span { start: line.start, end: line.end, line: self.fed, lines: 1 };
        self.fed += 1;
        let first = match line.content {
            Content::Whole(raw) => {
                let is_first = if line.start == 0 { IsFirst::Yes } else { IsFirst::No };
                match self.charset.decode(&raw, is_first) {
                    Ok(text) => Ok(Unit::of(text, span)),
                    Err(why) => Err(Unreadable { span, raw, why }),
                }
            }
            Content::TooLong { head, length } => {
                let limit = head.len();
                let why = format!("the line is {length} bytes long, `max_line_bytes` is {limit}");
                Err(Unreadable { span, raw: head, why })
            }
        };
        self.take(first, out);
    }

    /// Completes what is held.
    pub(super) fn flush(&mut self, why: Flush, out: &mut Vec<Decoded>) {
        // A time limit completes only what has waited that long.
        let due = self.flush_after();
        let mut units = Vec::new();
        if let Some(multiline) = &mut self.multiline
            && (why != Flush::Timeout || multiline.flush_after() == due)
        {
            multiline.flush(why, &mut units);
        }
        for step in &mut self.steps {
            units = through(step, units);
            if why != Flush::Timeout || due == Some(INCOMPLETE_AFTER) {
                step.flush(why, &mut units);
            }
        }
        self.finish(units, out);
    }

    /// Where the first held line starts: a checkpoint must not pass it.
    pub(super) fn waiting_from(&self) -> Option<u64> {
        let steps = self.steps.iter().filter_map(DecodeStep::waiting_from);
        steps.chain(self.multiline.as_ref().and_then(LineJoiner::waiting_from)).min()
    }

    /// How long to wait for another line before `flush(Timeout)`; `None` where nothing is held that
    /// a time limit completes.
    pub(super) fn flush_after(&self) -> Option<Duration> {
        let steps = self.steps.iter().any(DecodeStep::holds_lines).then_some(INCOMPLETE_AFTER);
        steps.into_iter().chain(self.multiline.as_ref().and_then(LineJoiner::flush_after)).min()
    }

    /// The records of a whole message, which is a stream of its own. May be empty; decode errors
    /// are among them.
    pub fn message(&self, message: &Bytes) -> Vec<Decoded> {
        let mut out = if self.steps.first().is_some_and(DecodeStep::reads_lines) {
            self.lines(message)
        } else {
            let mark = matches!(self.charset, Charset::Utf8).then_some(b"\xef\xbb\xbf");
            let bare = mark.and_then(|mark| message.strip_prefix(mark)).unwrap_or(message);
            let (start, end) = (0, message.len() as u64);
            let mut decoder = self.clone();
            let mut out = Vec::new();
            let content = Content::Whole(message.slice_ref(bare));
            decoder.feed(Line { content, start, end }, &mut out);
            decoder.flush(Flush::NewGeneration, &mut out);
            out
        };
        // Parts are numbered over the whole message, which has one position in its stream.
        for (part, decoded) in (0..).zip(&mut out) {
            decoded.part = part;
        }
        out
    }

    /// The records of a whole stream of lines that ends where the text ends.
    pub fn lines(&self, text: &Bytes) -> Vec<Decoded> {
        let mut decoder = self.clone();
        let mut out = Vec::new();
        let mut lines = LineSplitter::new(0, usize::MAX).separated_by(self.separator());
        lines.feed(text.clone());
        while let Some(line) = lines.next_line().or_else(|| lines.finish()) {
            decoder.feed(line, &mut out);
        }
        decoder.flush(Flush::NewGeneration, &mut out);
        out
    }

    /// Whether the beginning of the stream is needed to decode the rest (the columns of a CSV
    /// file).
    pub(super) fn awaits_beginning(&self) -> bool {
        self.charset.awaits_mark() || self.steps.iter().any(DecodeStep::awaits_header)
    }

    /// Reads the first bytes of the stream, where reading starts after them; `limit` is the longest
    /// line. `false` where they are too few: then more bytes are needed, or
    /// [`forgo_beginning`](Self::forgo_beginning).
    pub(super) fn learn_beginning(&mut self, beginning: &Bytes, limit: usize) -> bool {
        if beginning.len() < 2 {
            return false;
        }
        self.charset.learn(beginning);
        let mut probe = self.clone();
        let mut lines = LineSplitter::new(0, limit).separated_by(self.separator());
        let mut out = Vec::new();
        lines.feed(beginning.clone());
        while probe.awaits_beginning() {
            let Some(line) = lines.next_line() else {
                return false;
            };
            probe.feed(line, &mut out);
            out.clear();
        }
        for (step, learnt) in self.steps.iter_mut().zip(&probe.steps) {
            step.adopt_header(learnt);
        }
        true
    }

    /// The beginning is not available, for this reason: lines that need it are decode errors from
    /// now on.
    pub(super) fn forgo_beginning(&mut self, why: &str) {
        self.charset.learn(b"");
        for step in &mut self.steps {
            step.forgo_header(why);
        }
    }

    /// Whether a last line is a complete record though it has no newline yet: nothing that could
    /// still be appended would change it.
    pub(super) fn is_complete_without_newline(&self, line: &[u8]) -> bool {
        let is_json = matches!(self.steps.as_slice(), [only] if only.is_json());
        let is_plain = self.multiline.is_none() && matches!(self.charset, Charset::Utf8);
        is_json && is_plain && json::is_whole(line)
    }

    fn take(&mut self, first: DecodeResult, out: &mut Vec<Decoded>) {
        let mut units = std::mem::take(&mut self.units);
        match (&mut self.multiline, first) {
            (None, first) => units.push(first),
            (Some(multiline), Ok(unit)) => multiline.feed(unit, &mut units),
            (Some(multiline), Err(broken)) => multiline.pass(broken, &mut units),
        }
        for step in &mut self.steps {
            units = through(step, units);
        }
        self.finish(units, out);
    }

    fn finish(&mut self, mut units: Vec<DecodeResult>, out: &mut Vec<Decoded>) {
        for unit in units.drain(..) {
            let (span, body, meta, fault) = match unit {
                Ok(unit) => (unit.span, unit.text, earlier(&unit.earlier), None),
                Err(broken) => (broken.span, broken.raw, None, Some(broken.why)),
            };
            // A record that was held while later ones were yielded ends where the last of them did.
            let (end, part) = match self.last {
                (last, part) if span.end <= last => (last, part + 1),
                _ => (span.end, 0),
            };
            self.last = (end, part);
            let Span { start, line, lines, .. } = span;
            out.push(Decoded { body, meta, fault, start, end, line, lines, part });
        }
        self.units = units;
    }
}

/// The records of a decoded message, at least one. `place` is its location for messages.
#[cfg(any(feature = "fluvio", feature = "kafka"))]
pub(super) fn records_of(
    decoded: Result<Vec<Decoded>, String>,
    message: &Bytes,
    place: &dyn std::fmt::Display,
) -> Vec<Record> {
    let fault = |body: Bytes, why: String| {
        let mut record = Record::new(body);
        record.decode_error = Some(format!("{place}: {why}").into());
        record
    };
    match decoded {
        Err(why) => vec![fault(message.clone(), why)],
        Ok(decoded) if decoded.is_empty() => {
            vec![fault(message.clone(), "the message holds no record".to_owned())]
        }
        Ok(decoded) => {
            let record = |Decoded { body, meta, fault: why, .. }| match why {
                None => Record { meta, ..Record::new(body) },
                Some(why) => Record { meta, ..fault(body, why) },
            };
            decoded.into_iter().map(record).collect()
        }
    }
}

/// The id of a part of a message, for deduplication: parts are different records.
#[cfg(any(feature = "fluvio", feature = "kafka"))]
pub(super) fn id_of_part(message: impl Into<Arc<str>>, part: usize) -> Arc<str> {
    let message = message.into();
    match part {
        0 => message,
        part => format!("{message}#{part}").into(),
    }
}

/// Passes the results of earlier steps to this one.
fn through(step: &mut DecodeStep, units: Vec<DecodeResult>) -> Vec<DecodeResult> {
    let mut out = Vec::new();
    for unit in units {
        match unit {
            Ok(unit) => step.feed(unit, &mut out),
            Err(broken) => step.pass(broken, &mut out),
        }
    }
    out
}

/// The name of a step's record under `%decoded`: its codec, with a number where an earlier step has
/// the same codec.
fn name_of(decoding: &Decoding, number: usize) -> String {
    let codecs: Vec<_> = decoding.steps().take(number).map(|step| step.codec).collect();
    let codec = codecs[number - 1];
    match codecs.iter().filter(|other| **other == codec).count() {
        1 => codec.as_str().to_owned(),
        n => format!("{}_{n}", codec.as_str()),
    }
}

/// The records of the steps before the last one, for `%decoded`.
fn earlier(steps: &[(String, Bytes)]) -> Option<Bytes> {
    if steps.is_empty() {
        return None;
    }
    let mut out = b"{\"decoded\":{".to_vec();
    for (n, (name, record)) in steps.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        text(&mut out, name);
        out.push(b':');
        out.extend_from_slice(record);
    }
    out.extend_from_slice(b"}}");
    Some(out.into())
}

/// The line as a string, or where it stops being UTF-8.
fn utf8(line: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(line)
        .map_err(|e| format!("not valid UTF-8 at column {}", e.valid_up_to() + 1))
}

/// A JSON object of strings. Keys must be distinct.
fn object<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Bytes {
    let mut out = Vec::with_capacity(128);
    out.push(b'{');
    for (key, value) in fields {
        if out.len() > 1 {
            out.push(b',');
        }
        text(&mut out, key);
        out.push(b':');
        text(&mut out, value);
    }
    out.push(b'}');
    out.into()
}

fn text(out: &mut Vec<u8>, value: &str) {
    serde_json::to_writer(out, value).expect("a text is always JSON, and a Vec takes any bytes");
}

#[cfg(test)]
mod tests;
