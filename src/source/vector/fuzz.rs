//! Reads the body of a call as the server does, for [`crate::fuzz`].

use bytes::Bytes;
use futures::FutureExt;
use http_body_util::Full;
use tonic::body::Body;

use super::request::{Framed, PushError, records};
use super::unwanted::UnwantedEvents;
use crate::record::{AckOn, Record};
use crate::source::memory::{MemoryBudget, MemoryReservation};

/// The largest message, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The records of a body: as a frame with each compression, and as a message without its frame.
pub(crate) fn records_of_call(body: &Bytes) -> Vec<Record> {
    let budget = MemoryBudget::new(64 << 20);
    let mut reservation = budget.try_reserve().expect("nothing else draws on this budget");
    let mut found = Vec::new();
    for encoding in [None, Some("gzip"), Some("zstd")] {
        if let Ok(message) = message(body, encoding, &mut reservation) {
            found.extend(records_of(&message, &mut reservation));
        }
    }
    found.extend(records_of(body, &mut reservation));
    found
}

fn message(
    body: &Bytes,
    encoding: Option<&str>,
    reservation: &mut MemoryReservation,
) -> Result<Bytes, PushError> {
    let body = Body::new(Full::new(body.clone()));
    let read = async {
        let framed = Framed::read(body, MAX_MESSAGE_BYTES, reservation).await?;
        framed.inflated(encoding, MAX_MESSAGE_BYTES, reservation).await
    };
    let message = Box::pin(read).now_or_never().expect("a whole body is always ready")?;
    assert!(message.len() <= MAX_MESSAGE_BYTES, "more was inflated than is allowed");
    Ok(message)
}

fn records_of(message: &[u8], reservation: &mut MemoryReservation) -> Vec<Record> {
    let unwanted = UnwantedEvents::new("fuzz", None);
    records(message, reservation, &unwanted, AckOn::Persisted).unwrap_or_default()
}
