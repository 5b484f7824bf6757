//! The codecs `cri` and `docker`: lines that a container runtime wrapped, and long ones that it
//! split.
//!
//! `cri`: `2024-05-21T10:11:12.123456789Z stdout P text`; the flag is `P` for a part and `F` for
//! the last part. `docker`: `{"log":"text\n","stream":"stdout","time":"…"}`; a part has no newline
//! at its end.
//!
//! Parts are joined by stream, because the streams of one container share a file.
//!
//! # Invariants
//!
//! A message whose last part is missing never becomes a record. (With `docker` this is known only
//! where the last received part has the length at which the runtime splits; a shorter one is the
//! last part.)

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::unit::{DecodeResult, Flush, Joined, Unit};

/// The container runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContainerRuntime {
    Cri,
    Docker,
}

/// Docker splits messages longer than this, in bytes.
const DOCKER_PART: usize = 16 << 10;

/// Parts wait for their last one until at least this many bytes of other lines were read.
const MIN_DISTANCE: u64 = 1 << 20;

#[derive(Debug, Clone)]
pub(super) struct Container {
    runtime: ContainerRuntime,
    limit: usize,
    /// Incomplete messages by stream: standard output, standard error.
    waiting: [PartialLine; 2],
}

#[derive(Debug, Clone)]
enum PartialLine {
    Nothing,
    LineParts(Box<LineParts>),
    /// Some parts of the message became decode errors already, so the rest must too.
    Lost {
        from: u64,
    },
}

/// The first parts of a message.
#[derive(Debug, Clone)]
struct LineParts {
    joined: Joined,
    head: PartHeader,
    /// The length of the last part.
    last: usize,
}

/// The fields of a line besides its text.
#[derive(Debug, Clone)]
struct PartHeader {
    time: String,
    stream: OutputStream,
    /// Docker's labels and variables, unchanged.
    attrs: Option<Box<RawValue>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutputStream {
    Out,
    Error,
}

impl OutputStream {
    fn of(word: &str) -> Result<Self, String> {
        match word {
            "stdout" => Ok(Self::Out),
            "stderr" => Ok(Self::Error),
            _ => Err("the stream is neither `stdout` nor `stderr`".to_owned()),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Out => "stdout",
            Self::Error => "stderr",
        }
    }
}

/// A parsed line.
struct WrappedLine {
    head: PartHeader,
    text: Bytes,
    is_last: bool,
}

impl Container {
    pub(super) fn new(runtime: ContainerRuntime, limit: usize) -> Self {
        Self { runtime, limit, waiting: [PartialLine::Nothing, PartialLine::Nothing] }
    }

    pub(super) fn feed(&mut self, unit: Unit, out: &mut Vec<DecodeResult>) {
        self.give_up_on_old_parts(unit.span.end, out);
        let wrapped = match self.runtime {
            ContainerRuntime::Cri => cri(&unit.text),
            ContainerRuntime::Docker => docker(&unit.text),
        };
        let WrappedLine { head, text, is_last } = match wrapped {
            Ok(Some(wrapped)) => wrapped,
            Ok(None) => return,
            Err(why) => return out.push(Err(unit.unreadable(why))),
        };
        let limit = self.limit;
        let waiting = &mut self.waiting[head.stream as usize];
        let length = text.len();
        let unit = unit.with_text(text);
        match (std::mem::replace(waiting, PartialLine::Nothing), is_last) {
            (PartialLine::Nothing, true) => out.push(Ok(record(&head, unit))),
            (PartialLine::Nothing, false) => {
                let joined = Joined::of(unit);
                *waiting =
                    PartialLine::LineParts(Box::new(LineParts { joined, head, last: length }));
            }
            (PartialLine::LineParts(parts), _) if !parts.joined.fits(&unit, limit) => {
                let from = parts.joined.span().start;
                let why = format!("the joined line is longer than `max_line_bytes`, {limit}");
                out.push(Err(parts.joined.finish().unreadable(why)));
                out.push(Err(unit.unreadable(ORPHAN_PART)));
                if !is_last {
                    *waiting = PartialLine::Lost { from };
                }
            }
            (PartialLine::LineParts(mut parts), _) => {
                parts.joined.push(&unit, b"");
                parts.last = length;
                match is_last {
                    true => out.push(Ok(record(&parts.head, parts.joined.finish()))),
                    false => *waiting = PartialLine::LineParts(parts),
                }
            }
            (PartialLine::Lost { from }, is_last) => {
                out.push(Err(unit.unreadable(ORPHAN_PART)));
                if !is_last {
                    *waiting = PartialLine::Lost { from };
                }
            }
        }
    }

    pub(super) fn flush(&mut self, why: Flush, out: &mut Vec<DecodeResult>) {
        let runtime = self.runtime;
        let mut flushed = Vec::new();
        for waiting in &mut self.waiting {
            let lost = match std::mem::replace(waiting, PartialLine::Nothing) {
                PartialLine::Nothing => continue,
                PartialLine::LineParts(parts)
                    if runtime == ContainerRuntime::Docker && parts.last < DOCKER_PART =>
                {
                    flushed.push(Ok(record(&parts.head, parts.joined.finish())));
                    continue;
                }
                PartialLine::LineParts(parts) => {
                    let from = parts.joined.span().start;
                    flushed.push(Err(parts.joined.finish().unreadable(NO_LAST)));
                    from
                }
                PartialLine::Lost { from } => from,
            };
            if why != Flush::NewGeneration {
                *waiting = PartialLine::Lost { from: lost };
            }
        }
        flushed.sort_by_key(|outcome| match outcome {
            Ok(unit) => unit.span.end,
            Err(broken) => broken.span.end,
        });
        out.extend(flushed);
    }

    pub(super) fn waiting_from(&self) -> Option<u64> {
        let from = self.waiting.iter().filter_map(|waiting| match waiting {
            PartialLine::Nothing => None,
            PartialLine::LineParts(parts) => Some(parts.joined.span().start),
            PartialLine::Lost { from } => Some(*from),
        });
        from.min()
    }

    pub(super) fn holds_lines(&self) -> bool {
        self.waiting.iter().any(|waiting| matches!(waiting, PartialLine::LineParts(_)))
    }

    /// Incomplete messages must not hold the checkpoint of a whole file.
    fn give_up_on_old_parts(&mut self, now: u64, out: &mut Vec<DecodeResult>) {
        let distance = MIN_DISTANCE.max(self.limit as u64);
        for waiting in &mut self.waiting {
            let from = match waiting {
                PartialLine::Nothing => continue,
                PartialLine::LineParts(parts) => parts.joined.span().start,
                PartialLine::Lost { from } => *from,
            };
            if now.saturating_sub(from) <= distance {
                continue;
            }
            if let PartialLine::LineParts(parts) = std::mem::replace(waiting, PartialLine::Nothing)
            {
                out.push(Err(parts.joined.finish().unreadable(NO_LAST)));
            }
        }
    }
}

const NO_LAST: &str = "the last part of the line is missing";
const ORPHAN_PART: &str = "this is a part of a line whose first parts could not be joined";

fn record(head: &PartHeader, unit: Unit) -> Unit {
    let message = String::from_utf8_lossy(&unit.text);
    let mut fields = vec![
        ("time", head.time.as_str()),
        ("stream", head.stream.word()),
        ("message", message.as_ref()),
    ];
    if head.time.is_empty() {
        fields.remove(0);
    }
    let mut object = super::object(fields);
    if let Some(attrs) = &head.attrs {
        let text = std::str::from_utf8(&object).unwrap_or("{}");
        let open = text.strip_suffix('}').unwrap_or("{");
        object = format!("{open},\"attrs\":{attrs}}}").into();
    }
    unit.with_text(object)
}

/// `TIME STREAM FLAGS TEXT`; flags are separated by colons, the first says whether it is a part.
fn cri(line: &Bytes) -> Result<Option<WrappedLine>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let mut rest = &line[..];
    let mut word = |what: &str| {
        let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        rest = behind.strip_prefix(b" ").unwrap_or_default();
        match std::str::from_utf8(word) {
            Ok(word) if !word.is_empty() => Ok(word),
            _ => Err(format!("no {what} where one is expected: TIME STREAM FLAG TEXT")),
        }
    };
    let time = word("time")?;
    if time.parse::<jiff::Timestamp>().is_err() {
        return Err("the line does not begin with a time (RFC 3339)".to_owned());
    }
    let stream = OutputStream::of(word("stream")?)?;
    let is_last = match word("flag")?.split(':').next() {
        Some("F") => true,
        Some("P") => false,
        _ => return Err("the flag is neither `F` (whole or last part) nor `P` (part)".to_owned()),
    };
    let head = PartHeader { time: time.to_owned(), stream, attrs: None };
    Ok(Some(WrappedLine { head, text: line.slice_ref(rest), is_last }))
}

#[derive(Deserialize)]
struct DockerLine {
    log: String,
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    attrs: Option<Box<RawValue>>,
}

fn docker(line: &Bytes) -> Result<Option<WrappedLine>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let DockerLine { mut log, stream, time, attrs } = serde_json::from_slice(line)
        .map_err(|error| format!("not a line of Docker's json-file: {error}"))?;
    let stream = stream.as_deref().map_or(Ok(OutputStream::Out), OutputStream::of)?;
    let is_last = log.ends_with('\n');
    if is_last {
        log.pop();
        if log.ends_with('\r') {
            log.pop();
        }
    }
    let head = PartHeader { time: time.unwrap_or_default(), stream, attrs };
    Ok(Some(WrappedLine { head, text: log.into(), is_last }))
}

#[cfg(test)]
mod tests {
    use super::super::unit::Span;
    use super::*;
    use serde_json::{Value, json};

    fn feed(container: &mut Container, lines: &[&str]) -> Vec<Result<Value, String>> {
        let mut out = Vec::new();
        for (n, line) in (0..).zip(lines) {
            let span = Span { start: n * 10, end: n * 10 + 10, line: n, lines: 1 };
            container.feed(Unit::of((*line).to_owned().into(), span), &mut out);
        }
        shown(out)
    }

    fn shown(out: Vec<DecodeResult>) -> Vec<Result<Value, String>> {
        let value = |unit: Unit| serde_json::from_slice(&unit.text).unwrap();
        out.into_iter().map(|outcome| outcome.map(value).map_err(|broken| broken.why)).collect()
    }

    const T: &str = "2024-05-21T10:11:12.123456789Z";

    #[test]
    fn interleaved_parts_are_joined_by_stream() {
        // Interleaved parts of two streams are joined, each message under its first time.
        let mut cri = Container::new(ContainerRuntime::Cri, 1000);
        let lines = [
            format!("{T} stdout P one "),
            format!("{T} stderr P bad "),
            format!("{T} stdout P  two"),
            format!("{T} stderr F "),
            format!("{T} stdout F:x  end "),
            format!("{T} stdout F"),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let got = feed(&mut cri, &lines);
        let message =
            |stream: &str, text: &str| Ok(json!({"time": T, "stream": stream, "message": text}));
        assert_eq!(
            got,
            [message("stderr", "bad "), message("stdout", "one  two end "), message("stdout", "")]
        );
        assert_eq!(cri.waiting_from(), None);
    }

    #[test]
    fn message_without_its_last_part_becomes_a_fault() {
        // An incomplete message at the end of a run is a decode error, and the next run reads it
        // whole; no incomplete message is a record.
        let mut cri = Container::new(ContainerRuntime::Cri, 1000);
        assert_eq!(feed(&mut cri, &[&format!("{T} stdout P half")]), []);
        assert_eq!(cri.waiting_from(), Some(0));
        let mut out = Vec::new();
        cri.flush(Flush::EndOfStream, &mut out);
        assert!(out[0].as_ref().is_err_and(|broken| broken.why.contains("last part")));
        assert_eq!((cri.waiting_from(), cri.holds_lines()), (Some(0), false));
        let got = feed(&mut cri, &[&format!("{T} stdout F rest"), &format!("{T} stdout F next")]);
        assert!(got[0].is_err() && got[1].is_ok(), "{got:?}");
        assert_eq!(cri.waiting_from(), None);
    }

    #[test]
    fn joined_line_over_the_limit_is_one_fault_per_line_to_its_end() {
        // Every part of a too long line is a decode error, and the next line is a record.
        let mut cri = Container::new(ContainerRuntime::Cri, 100);
        let part = format!("{T} stdout P {}", "x".repeat(40));
        let (last, next) = (format!("{T} stdout F end"), format!("{T} stdout F next"));
        let got = feed(&mut cri, &[&part, &part, &part, &last, &next]);
        let (next, faults) = got.split_last().unwrap();
        assert!(next.is_ok() && faults.len() == 4 && faults.iter().all(Result::is_err), "{got:?}");
    }

    #[test]
    fn lines_of_another_format_are_faults() {
        // Without a time, a known stream or a known flag a line is a decode error that says which
        // is missing.
        let mut cri = Container::new(ContainerRuntime::Cri, 1000);
        for (line, why) in [
            ("plain text", "time"),
            (&format!("{T} stdin F x"), "stream"),
            (&format!("{T} stdout X x"), "flag"),
            (T, "stream"),
        ] {
            let got = feed(&mut cri, &[line]);
            assert!(got[0].as_ref().unwrap_err().contains(why), "{line}: {got:?}");
        }
        assert_eq!(feed(&mut cri, &["", " "]), []);
    }

    #[test]
    fn docker_lines_end_with_their_newline() {
        // Lines without a newline are parts; attributes are kept; a short last part is recognised.
        let mut docker = Container::new(ContainerRuntime::Docker, 100_000);
        let got = feed(
            &mut docker,
            &[
                r#"{"log":"one, ","stream":"stdout","time":"t1"}"#,
                r#"{"log":"oops\r\n","stream":"stderr","time":"t2","attrs":{"a":"b"}}"#,
                r#"{"log":"two\n","stream":"stdout","time":"t3"}"#,
                r#"{"log":"prompt> ","stream":"stdout","time":"t4"}"#,
                r#"{"stream":"stdout"}"#,
            ],
        );
        let oops =
            json!({"time": "t2", "stream": "stderr", "message": "oops", "attrs": {"a": "b"}});
        assert_eq!(got[0], Ok(oops));
        assert_eq!(got[1], Ok(json!({"time": "t1", "stream": "stdout", "message": "one, two"})));
        assert!(got[2].as_ref().unwrap_err().contains("log"), "{got:?}");
        let mut out = Vec::new();
        docker.flush(Flush::EndOfStream, &mut out);
        let prompt = json!({"time": "t4", "stream": "stdout", "message": "prompt> "});
        assert_eq!(shown(out), [Ok(prompt)]);
        let part = json!({"log": "x".repeat(DOCKER_PART), "stream": "stdout"}).to_string();
        let got = feed(&mut docker, &[&part]);
        assert_eq!(got, []);
        let mut out = Vec::new();
        docker.flush(Flush::NewGeneration, &mut out);
        assert!(out[0].is_err());
        assert_eq!(docker.waiting_from(), None);
    }
}
