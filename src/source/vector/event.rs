//! Decodes an event of a request into a record.
//!
//! # Invariants
//!
//! Every event becomes a record or is counted as unwanted. An event that cannot be delivered
//! becomes a record with a decode error, and its neighbours are delivered.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::value::{JsonText, ValueError, text};
use super::wire::{Malformed, MessageFields};
use crate::record::{AckOn, Record};
use crate::source::memory::{MemoryBudget, MemoryReservation, OutOfMemoryBudget};

/// The most bytes of a malformed event that are kept for its dead letter.
const MAX_RAW: usize = 64 << 10;

/// A decoded event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedEvent {
    /// The event as JSON; its own bytes where it cannot be decoded.
    pub body: Bytes,
    /// Vector's metadata: `source_id`, `source_type`, `upstream`, for `%` paths. Vector's secrets
    /// are not read.
    pub meta: Option<Bytes>,
    /// Vector's id of the source event. Events that a transform made from one event share it.
    pub id: Option<Uuid>,
    /// What it is.
    pub kind: EventKind,
    /// Why it cannot be delivered.
    pub fault: Option<String>,
}

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// A log or a trace, which this source delivers.
    Event,
    /// A metric.
    Metric,
    /// A kind that a later version of Vector added.
    Unknown,
}

impl DecodedEvent {
    fn new(body: Vec<u8>) -> Self {
        Self { body: body.into(), meta: None, id: None, kind: EventKind::Event, fault: None }
    }

    fn unwanted(kind: EventKind, body: Vec<u8>, fault: &str) -> Self {
        Self { kind, fault: Some(fault.to_owned()), ..Self::new(body) }
    }

    /// The id of the event for deduplication: Vector's id and a digest of the event, because events
    /// that were made from one event share Vector's id. `None` without an id.
    pub fn transport_id(&self) -> Option<String> {
        let id = self.id?;
        let mut digest = Sha256::new();
        digest.update(&self.body);
        digest.update([0]);
        digest.update(self.meta.as_deref().unwrap_or_default());
        let digest = digest.finalize();
        let half = u128::from_be_bytes(digest[..16].try_into().expect("a digest has 32 bytes"));
        Some(format!("vector/{id}/{half:032x}"))
    }

    /// The record of the event, with the id that its request gives it.
    pub(super) fn into_record(self, transport_id: Option<String>, ack_on: AckOn) -> Record {
        let mut record = Record::new(self.body);
        record.meta = self.meta;
        record.transport_id = transport_id.map(Into::into);
        record.decode_error = self.fault.map(Into::into);
        record.ack_on = ack_on;
        record
    }
}

/// Decodes one `event.EventWrapper`.
///
/// # Panics
///
/// Never: the memory of this caller is not limited.
pub fn decode(event: &[u8]) -> DecodedEvent {
    let budget = MemoryBudget::new(usize::MAX >> 1);
    let mut reservation = budget.try_reserve().expect("nothing else draws on this budget");
    read(event, &mut reservation).expect("the budget is never used up")
}

/// Decodes one `event.EventWrapper` within the memory of its request.
pub(super) fn read(
    event: &[u8],
    reservation: &mut MemoryReservation,
) -> Result<DecodedEvent, OutOfMemoryBudget> {
    match try_read(event, reservation) {
        Ok(decoded) => Ok(decoded),
        Err(ValueError::OutOfMemoryBudget(no_room)) => Err(no_room),
        Err(error @ (ValueError::Malformed(_) | ValueError::TooDeep)) => {
            let kept = event.len().min(MAX_RAW);
            reservation.grow(kept)?;
            let mut raw = DecodedEvent::new(event[..kept].to_vec());
            raw.fault = Some(match kept == event.len() {
                true => format!("an event of Vector cannot be decoded: {error}"),
                false => format!(
                    "an event of Vector cannot be decoded: {error}; of its {} bytes the first \
                     {kept} are kept",
                    event.len()
                ),
            });
            Ok(raw)
        }
    }
}

fn try_read(event: &[u8], reservation: &mut MemoryReservation) -> Result<DecodedEvent, ValueError> {
    let mut found = None;
    for field in MessageFields::of(event) {
        match field? {
            (number @ 1..=3, field) => found = Some((number, field.bytes()?)),
            _ => continue,
        }
    }
    match found {
        Some((1, log)) => with_metadata(log, Some(2), 4, reservation),
        Some((3, trace)) => with_metadata(trace, None, 3, reservation),
        Some((_, metric)) => {
            let (mut name, mut namespace) = (String::new(), String::new());
            for field in MessageFields::of(metric) {
                match field? {
                    (1, field) => name = short(field.bytes()?),
                    (11, field) => namespace = short(field.bytes()?),
                    _ => {}
                }
            }
            let body = json!({ "metric": name, "namespace": namespace }).to_string();
            let fault = "a metric is not a user event: send only logs or traces to this source";
            Ok(DecodedEvent::unwanted(EventKind::Metric, body.into_bytes(), fault))
        }
        None => {
            let fault = "an event of an unknown kind";
            Ok(DecodedEvent::unwanted(EventKind::Unknown, b"{}".to_vec(), fault))
        }
    }
}

/// A log or a trace: its root is in field 1 as an object, or in `root` as any other value.
fn with_metadata(
    message: &[u8],
    root: Option<u32>,
    metadata: u32,
    reservation: &mut MemoryReservation,
) -> Result<DecodedEvent, ValueError> {
    let (mut other_root, mut known) = (None, None);
    for field in MessageFields::of(message) {
        let (number, field) = field?;
        if Some(number) == root {
            other_root = Some(field.bytes()?);
        } else if number == metadata {
            known = Some(field.bytes()?);
        }
    }
    let mut json = JsonText::new(reservation);
    let written = match other_root {
        Some(value) => json.value(value, 0),
        None => json.object(message, 0),
    };
    if let Err(error) = written {
        json.discard();
        return Err(error);
    }
    let mut decoded = DecodedEvent::new(json.finish());
    if let Some(known) = known {
        (decoded.meta, decoded.id) = read_metadata(known)?;
    }
    Ok(decoded)
}

fn read_metadata(message: &[u8]) -> Result<(Option<Bytes>, Option<Uuid>), Malformed> {
    let mut known: BTreeMap<&str, String> = BTreeMap::new();
    let mut id = None;
    for field in MessageFields::of(message) {
        match field? {
            (3, field) => drop(known.insert("source_id", short(field.bytes()?))),
            (4, field) => drop(known.insert("source_type", short(field.bytes()?))),
            (5, field) => drop(known.insert("upstream", output(field.bytes()?)?)),
            (7, field) => id = Uuid::from_slice(field.bytes()?).ok(),
            _ => {}
        }
    }
    let meta = (!known.is_empty()).then(|| json!(known).to_string().into());
    Ok((meta, id))
}

/// The name of a component, with its port where it has one.
fn output(message: &[u8]) -> Result<String, Malformed> {
    let (mut component, mut port) = (String::new(), None);
    for field in MessageFields::of(message) {
        match field? {
            (1, field) => component = short(field.bytes()?),
            (2, field) => port = Some(short(field.bytes()?)),
            _ => {}
        }
    }
    Ok(match port {
        Some(port) => format!("{component}.{port}"),
        None => component,
    })
}

/// The longest name of a component or a metric that is kept, in bytes.
const MAX_NAME: usize = 256;

fn short(bytes: &[u8]) -> String {
    text(&bytes[..bytes.len().min(MAX_NAME)]).into_owned()
}
