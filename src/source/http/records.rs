//! Splits a body from a pipeline into records: lines; with the codec `json` also one array or one
//! object in any layout.
//!
//! # Invariants
//!
//! Every part of a body becomes a record, a record with a decode error, or is white space.

use bytes::Bytes;
use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::form;
use super::reply::RequestError;
use crate::config::source::Codec;
use crate::source::decode::{Decoded, Decoder, Flush};
use crate::source::line::LineSplitter;
use crate::source::memory::MemoryReservation;

/// The most records of one request; their memory besides their bytes is bounded by it.
pub(super) const MAX_RECORDS: usize = 100_000;

/// Memory that a [`BodyRecord`] takes besides its bytes.
pub(super) const ITEM_BYTES: usize = 128;

/// A record of a body.
#[derive(Debug)]
pub(super) struct BodyRecord {
    pub(super) body: Bytes,
    /// Its line, or its position in the array, counted from 1.
    pub(super) number: u64,
    /// Counts the records of one line, from 0.
    pub(super) part: u32,
    /// Metadata that decoding found: see [`Decoded::meta`].
    pub(super) meta: Option<Bytes>,
    /// Why it cannot be decoded.
    pub(super) fault: Option<String>,
}

impl BodyRecord {
    /// A record whose body is used unchanged, without metadata.
    pub(super) fn plain(body: Bytes, number: u64) -> Self {
        Self { body, number, part: 0, meta: None, fault: None }
    }
}

/// The records of a body.
pub(super) fn items(
    codec: Option<Codec>,
    decoder: &Decoder,
    body: &Bytes,
) -> Result<Vec<BodyRecord>, RequestError> {
    if codec != Some(Codec::Json) {
        return lines(decoder.clone(), body);
    }
    let body = trimmed(body);
    // Blank lines before it count as lines.
    match body.trim_ascii_start().first() {
        None => Ok(Vec::new()),
        Some(b'[') => match elements(&body)? {
            Some(items) => Ok(items),
            None if first_line_is_json(&body) => lines(decoder.clone(), &body),
            // An incomplete array: the ends of its elements are unknown.
            None => Ok(vec![whole(decoder, body)]),
        },
        Some(b'{') if !first_line_is_json(&body) && is_json(&body) => {
            let body = body.slice_ref(body.trim_ascii_start());
            Ok(vec![BodyRecord::plain(body, 1)])
        }
        _ => lines(decoder.clone(), &body),
    }
}

/// The record of a form.
pub(super) fn form(
    body: &Bytes,
    reservation: &mut MemoryReservation,
) -> Result<Vec<BodyRecord>, RequestError> {
    if body.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let values = memchr::memchr_iter(b'&', body).count() + 1;
    reservation.grow(body.len().saturating_add(values.saturating_mul(form::VALUE_BYTES)))?;
    let record = form::record(body.trim_ascii())?;
    Ok(vec![BodyRecord::plain(record.to_string().into(), 1)])
}

/// Whether a body begins like JSON. A form never does: its `{` and `[` are escaped.
pub(super) fn begins_as_json(body: &Bytes) -> bool {
    matches!(trimmed(body).trim_ascii_start().first(), Some(b'{' | b'[' | b'"'))
}

fn lines(mut decoder: Decoder, body: &Bytes) -> Result<Vec<BodyRecord>, RequestError> {
    let mut items = Vec::new();
    let mut decoded = Vec::new();
    let mut lines = LineSplitter::new(0, usize::MAX).separated_by(decoder.separator());
    lines.feed(body.clone());
    while let Some(line) = lines.next_line().or_else(|| lines.finish()) {
        decoder.feed(line, &mut decoded);
        take(&mut items, &mut decoded)?;
    }
    decoder.flush(Flush::NewGeneration, &mut decoded);
    take(&mut items, &mut decoded)?;
    Ok(items)
}

fn take(items: &mut Vec<BodyRecord>, decoded: &mut Vec<Decoded>) -> Result<(), RequestError> {
    for Decoded { body, meta, fault, line, part, .. } in decoded.drain(..) {
        let number = line + 1;
        let fault = fault.map(|why| format!("line {number}: {why}"));
        add(items, BodyRecord { body, number, part, meta, fault })?;
    }
    Ok(())
}

fn add(items: &mut Vec<BodyRecord>, item: BodyRecord) -> Result<(), RequestError> {
    if items.len() == MAX_RECORDS {
        return Err(RequestError::TooMany);
    }
    items.push(item);
    Ok(())
}

/// A body that is one record, valid or not.
fn whole(decoder: &Decoder, body: Bytes) -> BodyRecord {
    let fault = decoder.message(&body).into_iter().find_map(|decoded| decoded.fault);
    let why = fault.unwrap_or_else(|| "not one JSON value".to_owned());
    BodyRecord { fault: Some(format!("line 1: {why}")), ..BodyRecord::plain(body, 1) }
}

/// The elements of an array as slices of the body; `None` where it is not a complete array.
fn elements(body: &Bytes) -> Result<Option<Vec<BodyRecord>>, RequestError> {
    let Ok(text) = std::str::from_utf8(body) else {
        return Ok(None);
    };
    let mut de = serde_json::Deserializer::from_str(text);
    let mut too_many = false;
    let read = de.deserialize_seq(BodyElements { body, too_many: &mut too_many });
    if too_many {
        return Err(RequestError::TooMany);
    }
    Ok(read.and_then(|items| de.end().map(|()| items)).ok())
}

struct BodyElements<'a> {
    body: &'a Bytes,
    too_many: &'a mut bool,
}

impl<'de> Visitor<'de> for BodyElements<'_> {
    type Value = Vec<BodyRecord>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<BodyRecord>, A::Error> {
        let mut items = Vec::new();
        while let Some(element) = seq.next_element::<&RawValue>()? {
            if items.len() == MAX_RECORDS {
                *self.too_many = true;
                return Err(A::Error::custom("too many records"));
            }
            let body = self.body.slice_ref(element.get().as_bytes());
            items.push(BodyRecord::plain(body, items.len() as u64 + 1));
        }
        Ok(items)
    }
}

fn first_line_is_json(body: &Bytes) -> bool {
    let body = body.trim_ascii_start();
    let end = memchr::memchr(b'\n', body).unwrap_or(body.len());
    is_json(&body[..end])
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

/// Without surrounding white space and byte order mark.
fn trimmed(body: &Bytes) -> Bytes {
    let bytes = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.slice_ref(bytes.trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::Decoding;
    use proptest::prelude::*;

    fn read(body: &str) -> Vec<(String, bool)> {
        let decoder = Decoder::new(&Decoding::default()).unwrap();
        let items =
            items(Some(Codec::Json), &decoder, &Bytes::copy_from_slice(body.as_bytes())).unwrap();
        let text = |item: &BodyRecord| String::from_utf8(item.body.to_vec()).unwrap();
        items.iter().map(|item| (text(item), item.fault.is_none())).collect()
    }

    fn good(bodies: &[&str]) -> Vec<(String, bool)> {
        bodies.iter().map(|body| ((*body).to_owned(), true)).collect()
    }

    #[test]
    fn every_body_layout_yields_its_records() {
        // Lines, an array, one object on one line or several: each record is unchanged.
        assert_eq!(read("{\"a\":1}\n\n{\"a\":2}\r\n"), good(&["{\"a\":1}", "{\"a\":2}"]));
        assert_eq!(read(" [ {\"a\":1} , 2,[]]\n"), good(&["{\"a\":1}", "2", "[]"]));
        assert_eq!(read("{\n \"a\": 1\n}"), good(&["{\n \"a\": 1\n}"]));
        assert_eq!(read("[1]\n[2,{}]\n"), good(&["1", "2", "{}"]));
        assert_eq!(read("\n \n"), good(&[]));
        assert_eq!(read("[]"), good(&[]));
    }

    #[test]
    fn bad_body_parts_are_faulty_records() {
        // A bad line is a faulty record among good ones; an incomplete array is one faulty record.
        let found = read("{\"a\":1}\n{oops\n{\"a\":2}");
        assert_eq!(found.iter().map(|(_, good)| *good).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(found[1].0, "{oops");
        assert_eq!(read("[{\"a\":1},"), [("[{\"a\":1},".to_owned(), false)]);
    }

    proptest! {
        #[test]
        fn every_posted_line_is_in_a_record(lines in proptest::collection::vec("[ -~]{0,20}", 0..10)) {
            // No body causes a panic; each line that is not blank is in some record.
            let body = lines.join("\n");
            let found = read(&body);
            let all: String = found.iter().map(|(text, _)| text.as_str()).collect();
            if !body.trim_start().starts_with(['[', '{']) {
                for line in lines.iter().filter(|line| !line.trim().is_empty()) {
                    prop_assert!(all.contains(line.trim()), "{line:?} is not in {all:?}");
                }
            }
        }
    }
}
