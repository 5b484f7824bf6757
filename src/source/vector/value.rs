//! Converts a value of an event from the request's bytes directly to JSON text.
//!
//! Invalid UTF-8 is replaced, timestamps are RFC 3339 in UTC, numbers that JSON does not know (NaN,
//! the infinities) and timestamps outside the years 1 to 9999 are null. A value of an unknown kind
//! is omitted from its object and null in a list. The keys of an object are sorted; of equal ones
//! the last wins.
//!
//! # Invariants
//!
//! Memory is reserved from the request's share before it is used, so that a small request of very
//! many values cannot use more than the budget has.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use jiff::Timestamp;

use super::wire::{Malformed, MessageFields, WireValue};
use crate::source::memory::{MemoryReservation, OutOfMemoryBudget};

/// How deep objects and lists may be nested.
const MAX_DEPTH: u32 = 100;

/// Why a value is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    #[error(transparent)]
    OutOfMemoryBudget(#[from] OutOfMemoryBudget),
}

/// JSON text under construction.
pub(super) struct JsonText<'s> {
    text: Vec<u8>,
    reservation: &'s mut MemoryReservation,
}

impl<'s> JsonText<'s> {
    pub(super) fn new(reservation: &'s mut MemoryReservation) -> Self {
        Self { text: Vec::new(), reservation }
    }

    /// The text; its memory stays reserved.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let spare = self.text.capacity() - self.text.len();
        self.text.shrink_to_fit();
        self.reservation.shrink(spare);
        self.text
    }

    /// Discards the text; its memory is released.
    pub(super) fn discard(self) {
        self.reservation.shrink(self.text.capacity());
    }

    /// Writes an object of map entries, which are in field 1 of `message`.
    pub(super) fn object(&mut self, message: &[u8], depth: u32) -> Result<(), ValueError> {
        if depth > MAX_DEPTH {
            return Err(ValueError::TooDeep);
        }
        let mut reserved = 0;
        let written = self.entries(message, depth, &mut reserved);
        self.reservation.shrink(reserved);
        written
    }

    fn entries(
        &mut self,
        message: &[u8],
        depth: u32,
        reserved: &mut usize,
    ) -> Result<(), ValueError> {
        let mut entries: Vec<(&[u8], Option<ValueKind<'_>>)> = Vec::new();
        for field in MessageFields::of(message) {
            let (1, field) = field? else { continue };
            if entries.len() == entries.capacity() {
                let more = entries.len().max(8);
                let bytes = more * size_of::<(&[u8], Option<ValueKind<'_>>)>();
                self.reservation.grow(bytes)?;
                *reserved += bytes;
                entries.reserve_exact(more);
            }
            entries.push(entry(field.bytes()?)?);
        }
        // Stable: of equal keys the last one in the message stays last.
        entries.sort_by_key(|(key, _)| *key);
        self.put(b"{")?;
        let mut first = true;
        for (at, (key, kind)) in entries.iter().enumerate() {
            let last_of_its_key = entries.get(at + 1).is_none_or(|(next, _)| next != key);
            let (true, Some(kind)) = (last_of_its_key, kind) else { continue };
            if !first {
                self.put(b",")?;
            }
            first = false;
            self.string(key)?;
            self.put(b":")?;
            self.kind(*kind, depth)?;
        }
        self.put(b"}")
    }

    /// Writes the value of a message.
    pub(super) fn value(&mut self, message: &[u8], depth: u32) -> Result<(), ValueError> {
        match kind_of(message)? {
            Some(kind) => self.kind(kind, depth),
            None => self.put(b"null"),
        }
    }

    fn kind(&mut self, kind: ValueKind<'_>, depth: u32) -> Result<(), ValueError> {
        match kind {
            ValueKind::Text(bytes) => self.string(bytes),
            ValueKind::Moment(message) => match moment(message)? {
                Some(at) => {
                    self.reserve(64)?;
                    write!(ReservedWriter(&mut self.text), "\"{at}\"")
                        .map_err(|_| OutOfMemoryBudget)?;
                    Ok(())
                }
                None => self.put(b"null"),
            },
            ValueKind::Integer(number) => self.plain(&number),
            ValueKind::Float(number) if number.is_finite() => self.plain(&number),
            ValueKind::Float(_) | ValueKind::Null => self.put(b"null"),
            ValueKind::Boolean(true) => self.put(b"true"),
            ValueKind::Boolean(false) => self.put(b"false"),
            ValueKind::Map(message) => self.object(message, depth + 1),
            ValueKind::Array(message) => self.array(message, depth + 1),
        }
    }

    fn array(&mut self, message: &[u8], depth: u32) -> Result<(), ValueError> {
        if depth > MAX_DEPTH {
            return Err(ValueError::TooDeep);
        }
        self.put(b"[")?;
        let mut first = true;
        for field in MessageFields::of(message) {
            let (1, item) = field? else { continue };
            if !first {
                self.put(b",")?;
            }
            first = false;
            self.value(item.bytes()?, depth)?;
        }
        self.put(b"]")
    }

    /// Writes a quoted string, invalid bytes replaced.
    pub(super) fn string(&mut self, bytes: &[u8]) -> Result<(), ValueError> {
        self.put(b"\"")?;
        for chunk in bytes.utf8_chunks() {
            self.escaped(chunk.valid().as_bytes())?;
            if !chunk.invalid().is_empty() {
                self.put("\u{fffd}".as_bytes())?;
            }
        }
        self.put(b"\"")
    }

    fn escaped(&mut self, text: &[u8]) -> Result<(), ValueError> {
        let mut rest = text;
        while let Some(at) = rest.iter().position(|byte| needs_escape(*byte)) {
            self.put(&rest[..at])?;
            let byte = rest[at];
            rest = &rest[at + 1..];
            match byte {
                b'"' => self.put(b"\\\"")?,
                b'\\' => self.put(b"\\\\")?,
                b'\n' => self.put(b"\\n")?,
                b'\r' => self.put(b"\\r")?,
                b'\t' => self.put(b"\\t")?,
                0x08 => self.put(b"\\b")?,
                0x0c => self.put(b"\\f")?,
                other => self.put(format!("\\u{other:04x}").as_bytes())?,
            }
        }
        self.put(rest)
    }

    /// Writes a number.
    fn plain(&mut self, number: &impl serde::Serialize) -> Result<(), ValueError> {
        self.reserve(32)?;
        serde_json::to_writer(ReservedWriter(&mut self.text), number)
            .map_err(|_| OutOfMemoryBudget)?;
        Ok(())
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), ValueError> {
        self.reserve(bytes.len())?;
        self.text.extend_from_slice(bytes);
        Ok(())
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), OutOfMemoryBudget> {
        let spare = self.text.capacity() - self.text.len();
        if spare < bytes {
            let more = (bytes - spare).max(self.text.capacity()).max(256);
            self.reservation.grow(more)?;
            self.text.reserve_exact(spare + more);
        }
        Ok(())
    }
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\')
}

/// Writes into text whose memory is reserved.
struct ReservedWriter<'t>(&'t mut Vec<u8>);

impl io::Write for ReservedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Write for ReservedWriter<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// A value of a known kind.
#[derive(Debug, Clone, Copy)]
enum ValueKind<'a> {
    Text(&'a [u8]),
    Moment(&'a [u8]),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Map(&'a [u8]),
    Array(&'a [u8]),
    Null,
}

/// The key and value of a map's entry.
fn entry(message: &[u8]) -> Result<(&[u8], Option<ValueKind<'_>>), Malformed> {
    let (mut key, mut value): (&[u8], _) = (&[], None);
    for field in MessageFields::of(message) {
        match field? {
            (1, field) => key = field.bytes()?,
            (2, field) => value = kind_of(field.bytes()?)?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// The kind of a value; of several the last, and `None` for an unknown kind.
fn kind_of(message: &[u8]) -> Result<Option<ValueKind<'_>>, Malformed> {
    let mut kind = None;
    for field in MessageFields::of(message) {
        kind = Some(match field? {
            (1, field) => ValueKind::Text(field.bytes()?),
            (2, field) => ValueKind::Moment(field.bytes()?),
            (4, field) => ValueKind::Integer(field.varint()?.cast_signed()),
            (5, WireValue::Fixed64(bits)) => ValueKind::Float(f64::from_bits(bits)),
            (6, field) => ValueKind::Boolean(field.varint()? != 0),
            (7, field) => ValueKind::Map(field.bytes()?),
            (8, field) => ValueKind::Array(field.bytes()?),
            (9, _) => ValueKind::Null,
            (5, _) => return Err(Malformed),
            _ => continue,
        });
    }
    Ok(kind)
}

fn moment(message: &[u8]) -> Result<Option<Timestamp>, Malformed> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in MessageFields::of(message) {
        match field? {
            (1, field) => seconds = field.varint()?.cast_signed(),
            // An int32 is encoded as 64 bits; what does not fit is not a valid timestamp.
            (2, field) => nanos = i32::try_from(field.varint()?.cast_signed()).unwrap_or(i32::MIN),
            _ => {}
        }
    }
    Ok(Timestamp::new(seconds, nanos).ok())
}

/// Text in which invalid bytes are replaced.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
