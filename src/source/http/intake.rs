//! Records of one request into the pipeline, and their verdicts back.
//!
//! Invariant: a request has its outcome only when every record of it was taken and settled; the
//! memory its body takes is given back no earlier.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::body::Share;
use super::records::Item;
use super::reply::Refusal;
use crate::ack::Verdict;
use crate::record::Record;
use crate::source::flight::Flight;

/// How long a record waits for room before the request is sent back.
const ROOM: Duration = Duration::from_secs(5);

/// What is common to the records of a request.
pub(super) struct Consignment {
    pub(super) items: Vec<Item>,
    /// See [`Record::meta`].
    pub(super) meta: Bytes,
    /// The request's idempotency key.
    pub(super) key: Option<String>,
    /// The memory it takes.
    pub(super) share: Share,
}

/// What became of a request's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Records that were sent.
    pub(super) received: u64,
    /// Those in the dead letters.
    pub(super) rejected: u64,
}

/// The way into the pipeline.
pub(super) struct Intake {
    out: mpsc::Sender<Record>,
    flight: Arc<Flight>,
    timeout: Duration,
}

/// The verdicts of one request; told when the last record has its own.
struct Verdicts {
    rejected: AtomicU64,
    errored: AtomicU64,
    tell: Option<oneshot::Sender<(u64, u64)>>,
    _share: Share,
}

impl Verdicts {
    fn count(&self, verdict: Verdict, faulty: bool) {
        match verdict {
            Verdict::Errored => self.errored.fetch_add(1, Ordering::AcqRel),
            // A durable buffer takes what cannot be decoded too; it is rejected all the same.
            Verdict::Delivered if !faulty => 0,
            _ => self.rejected.fetch_add(1, Ordering::AcqRel),
        };
    }
}

impl Drop for Verdicts {
    fn drop(&mut self) {
        let counts = (*self.rejected.get_mut(), *self.errored.get_mut());
        if let Some(tell) = self.tell.take() {
            // Where the request has gone, nobody hears it.
            tell.send(counts).ok();
        }
    }
}

impl Intake {
    pub(super) fn new(out: mpsc::Sender<Record>, timeout: Duration) -> Self {
        Self { out, flight: Arc::default(), timeout }
    }

    /// Sends the records and waits until all are settled.
    pub(super) async fn take(&self, consignment: Consignment) -> Result<Outcome, Refusal> {
        let deadline = Instant::now() + self.timeout;
        let Consignment { items, meta, key, share } = consignment;
        let received = items.len() as u64;
        let (tell, told) = oneshot::channel();
        let verdicts = Arc::new(Verdicts {
            rejected: AtomicU64::new(0),
            errored: AtomicU64::new(0),
            tell: Some(tell),
            _share: share,
        });
        for item in items {
            let room = timeout(ROOM, timeout_at(deadline, self.out.reserve()));
            // A request that goes half way in comes again as a whole: at least once, not at most.
            let Ok(Ok(Ok(room))) = room.await else {
                return Err(Refusal::Busy);
            };
            let counted = Arc::clone(&verdicts);
            let faulty = item.fault.is_some();
            let mut record = Record::new(item.body);
            record.meta = Some(meta.clone());
            record.transport_id = key.as_ref().map(|key| format!("{key}#{}", item.number).into());
            record.fault = item.fault.map(Into::into);
            record.ack = self.flight.ack(move |verdict| counted.count(verdict, faulty));
            room.send(record);
        }
        drop(verdicts);
        match timeout_at(deadline, told).await {
            Ok(Ok((rejected, 0))) => Ok(Outcome { received, rejected }),
            _ => Err(Refusal::Unsettled),
        }
    }

    /// Waits until every record that was sent has its verdict.
    pub(super) async fn landed(&self) {
        self.flight.landed().await;
    }
}
