//! Decodes one `PushEventsRequest`: from the body of the call to its records.
//!
//! # Invariants
//!
//! Whatever a request holds is reserved in the budget first: its bytes as they arrive, their
//! decompressed form, and its records.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tonic::body::Body;

use super::event::{EventKind, read};
use super::unwanted::UnwantedEvents;
use super::wire::{Malformed, MessageFields};
use crate::record::{AckOn, Record};
use crate::source::inflate::{ContentCoding, InflateError, inflate};
use crate::source::memory::{MemoryReservation, OutOfMemoryBudget};

/// The most events of one request. Vector's own default is 1,000.
pub(super) const MAX_EVENTS: usize = 100_000;

/// Memory that a record takes besides its body, in bytes.
const RECORD_BYTES: usize = 512;

/// The header of a gRPC message: a flag and the length.
const FRAME_HEADER_BYTES: usize = 5;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PushError {
    #[error("the request has {size} bytes, more than max_message_bytes ({limit})")]
    TooLarge { size: usize, limit: usize },
    #[error("the request is larger than max_message_bytes ({limit}) after decompression")]
    InflatesTooLarge { limit: usize },
    #[error("the request has more than {MAX_EVENTS} events")]
    TooMany,
    #[error(transparent)]
    OutOfMemoryBudget(#[from] OutOfMemoryBudget),
    #[error("the compression of the request is unknown: use gzip or zstd")]
    UnknownCompression,
    #[error("the request ended early")]
    Torn,
    #[error("the request cannot be decompressed")]
    Broken,
    #[error("the request cannot be decoded: {0}")]
    Malformed(#[from] Malformed),
}

impl PushError {
    /// Its label in metrics.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::InflatesTooLarge { .. } => "request_too_large",
            Self::TooMany => "too_many_events",
            Self::OutOfMemoryBudget(_) => "no_room",
            Self::UnknownCompression => "unknown_compression",
            Self::Torn => "torn",
            Self::Broken | Self::Malformed(_) => "malformed",
        }
    }

    /// The size of a request that is too large, as far as it is known.
    pub(super) fn size(self) -> String {
        match self {
            Self::TooLarge { size, .. } => size.to_string(),
            Self::InflatesTooLarge { limit } => format!("more than {limit} after decompression"),
            _ => "unknown".to_owned(),
        }
    }
}

/// The message of a call as it arrived.
#[derive(Debug)]
pub(super) struct Framed {
    compressed: bool,
    message: Bytes,
}

impl Framed {
    /// Reads a body to its end; memory is reserved as it arrives.
    pub(super) async fn read(
        mut body: Body,
        limit: usize,
        reservation: &mut MemoryReservation,
    ) -> Result<Self, PushError> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame.map_err(|_| PushError::Torn)?.into_data() else {
                continue;
            };
            let size = bytes.len() + chunk.len();
            let declared = told_length(&bytes, &chunk)
                .unwrap_or(0)
                .max(size.saturating_sub(FRAME_HEADER_BYTES));
            if declared > limit {
                return Err(PushError::TooLarge { size: declared, limit });
            }
            let spare = bytes.capacity() - bytes.len();
            if chunk.len() > spare {
                let rest = (declared + FRAME_HEADER_BYTES).saturating_sub(bytes.len() + spare);
                let more = (chunk.len() - spare).max(bytes.len().min(rest));
                reservation.grow(more)?;
                bytes.reserve(spare + more);
            }
            bytes.extend_from_slice(&chunk);
        }
        let declared = told_length(&bytes, &[]).ok_or(PushError::Torn)?;
        // A call has one message; a shorter one was cut off.
        if bytes.len() != declared + FRAME_HEADER_BYTES {
            return Err(PushError::Torn);
        }
        let bytes = bytes.freeze();
        Ok(Self { compressed: bytes[0] != 0, message: bytes.slice(FRAME_HEADER_BYTES..) })
    }

    /// The message, decompressed.
    pub(super) async fn inflated(
        self,
        encoding: Option<&str>,
        limit: usize,
        reservation: &mut MemoryReservation,
    ) -> Result<Bytes, PushError> {
        let coding = match (self.compressed, encoding) {
            (false, _) => return Ok(self.message),
            (true, Some("gzip")) => ContentCoding::Gzip,
            (true, Some("zstd")) => ContentCoding::Zstd,
            (true, _) => return Err(PushError::UnknownCompression),
        };
        let packed = self.message.len();
        let inflated = inflate(coding, &self.message[..], limit, reservation).await;
        drop(self.message);
        reservation.shrink(packed);
        inflated.map_err(|error| match error {
            InflateError::TooLarge => PushError::InflatesTooLarge { limit },
            InflateError::OutOfMemoryBudget(no_room) => no_room.into(),
            InflateError::Broken => PushError::Broken,
        })
    }
}

/// The length in the header of a message, once it has arrived.
fn told_length(first: &[u8], second: &[u8]) -> Option<usize> {
    let mut head = first.iter().chain(second).skip(1).copied();
    let length = [head.next()?, head.next()?, head.next()?, head.next()?];
    usize::try_from(u32::from_be_bytes(length)).ok()
}

/// The records of a message, in their order.
///
/// Equal events that share an id are numbered, so that none counts as a duplicate of another. A
/// repeated request gives each the same id.
pub(super) fn records(
    message: &[u8],
    reservation: &mut MemoryReservation,
    unwanted: &UnwantedEvents,
    ack_on: AckOn,
) -> Result<Vec<Record>, PushError> {
    let mut count = 0;
    for field in MessageFields::of(message) {
        count += usize::from(field?.0 == 1);
        if count > MAX_EVENTS {
            return Err(PushError::TooMany);
        }
    }
    reservation.grow(count * RECORD_BYTES)?;
    let mut records = Vec::with_capacity(count);
    let mut equals: HashMap<String, u32> = HashMap::new();
    for field in MessageFields::of(message) {
        let (1, field) = field? else { continue };
        let mut event = read(field.bytes()?, reservation)?;
        if event.kind != EventKind::Event && !unwanted.admit(&mut event) {
            continue;
        }
        let name = event.transport_id().map(|name| numbered(&mut equals, name));
        records.push(event.into_record(name, ack_on));
    }
    Ok(records)
}

/// The id of an event, numbered among equal ones of the same request.
fn numbered(equals: &mut HashMap<String, u32>, name: String) -> String {
    match equals.get_mut(&name) {
        Some(count) => {
            *count += 1;
            format!("{name}/{count}")
        }
        None => {
            equals.insert(name.clone(), 0);
            name
        }
    }
}
