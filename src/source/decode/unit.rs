//! The input and output of decoding steps.

use bytes::{Bytes, BytesMut};

/// Why a decoder must complete what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) enum Flush {
    /// The stream ends here, at least for this run. What is incomplete becomes a record with a
    /// decode error, and [`waiting_from`](super::Decoder::waiting_from) still returns its start: a
    /// source that can be read again does not let its checkpoint pass it, so that the next run
    /// reads it whole.
    EndOfStream,
    /// No line arrived for as long as [`flush_after`](super::Decoder::flush_after) says.
    Timeout,
    /// Nothing more will arrive: the file was replaced, or it is deleted and read to its end.
    /// Afterwards the decoder holds nothing.
    NewGeneration,
}

/// One record of a decoder, or a piece of the stream that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The record as JSON text; with a decode error, the lines as received.
    pub body: Bytes,
    /// The results of the steps before the last one, as a JSON object for `%` paths:
    /// `{"decoded":{"cri":{…}}}`. `None` with one step.
    pub meta: Option<Bytes>,
    /// Why it cannot be decoded.
    pub fault: Option<String>,
    /// Where its first line starts.
    pub start: u64,
    /// The position after its last line. Grows from one record to the next, and is equal only
    /// between parts.
    pub end: u64,
    /// How many lines were fed before the record's first line.
    pub line: u64,
    /// How many lines there are from its first to its last.
    pub lines: u64,
    /// Numbers the records that end at the same position, from 0: the elements of an array on one
    /// line.
    pub part: u32,
}

/// A range in the stream of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) line: u64,
    pub(super) lines: u64,
}

impl Span {
    /// All lines of both and between them. Either may come first: a step that joins the lines of
    /// two streams may yield an earlier start after a later one.
    pub(super) fn with(self, other: Self) -> Self {
        let line = self.line.min(other.line);
        let behind = (self.line + self.lines).max(other.line + other.lines);
        Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
            line,
            lines: behind - line,
        }
    }
}

/// What one step passes to the next.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub(super) span: Span,
    /// The lines as received, for a dead letter.
    pub(super) raw: Bytes,
    /// What the next step reads; after the last step, the record.
    pub(super) text: Bytes,
    /// The result of the previous step; empty before the first.
    pub(super) record: Bytes,
    /// The results of earlier steps, by their names.
    pub(super) earlier: Vec<(String, Bytes)>,
}

/// A piece of the stream that a step could not read, and why.
#[derive(Debug, Clone)]
pub(super) struct Unreadable {
    pub(super) span: Span,
    pub(super) raw: Bytes,
    pub(super) why: String,
}

/// The result of a step, in the order of the stream.
pub(super) type DecodeResult = Result<Unit, Unreadable>;

impl Unit {
    /// One line, or one whole message, before the first step.
    pub(super) fn of(raw: Bytes, span: Span) -> Self {
        Self { span, text: raw.clone(), raw, record: Bytes::new(), earlier: Vec::new() }
    }

    pub(super) fn with_text(self, text: Bytes) -> Self {
        Self { text, ..self }
    }

    pub(super) fn unreadable(self, why: impl Into<String>) -> Unreadable {
        Unreadable { span: self.span, raw: self.raw, why: why.into() }
    }
}

/// Several units that become one.
#[derive(Debug, Clone)]
pub(super) struct Joined {
    first: Unit,
    span: Span,
    raw: BytesMut,
    text: BytesMut,
}

impl Joined {
    pub(super) fn of(unit: Unit) -> Self {
        let (raw, text) = (BytesMut::from(&unit.raw[..]), BytesMut::from(&unit.text[..]));
        Self { span: unit.span, first: unit, raw, text }
    }

    /// Its present range.
    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// Whether a unit can be added within the limit.
    pub(super) fn fits(&self, unit: &Unit, limit: usize) -> bool {
        let fits = |have: &BytesMut, more: &Bytes| have.len() + 1 + more.len() <= limit;
        fits(&self.raw, &unit.raw) && fits(&self.text, &unit.text)
    }

    /// Adds a unit: lines as lines, and their texts with `glue` between them.
    pub(super) fn push(&mut self, unit: &Unit, glue: &[u8]) {
        self.span = self.span.with(unit.span);
        self.raw.extend_from_slice(b"\n");
        self.raw.extend_from_slice(&unit.raw);
        self.text.extend_from_slice(glue);
        self.text.extend_from_slice(&unit.text);
    }

    pub(super) fn finish(self) -> Unit {
        let Self { first, span, raw, text } = self;
        Unit { span, raw: raw.freeze(), text: text.freeze(), ..first }
    }
}
