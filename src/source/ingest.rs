//! Sends records that arrive in requests into the pipeline and returns their verdicts to the
//! request.
//!
//! # Invariants
//!
//! A request has its outcome only when every record of it was sent and settled; the memory that it
//! holds is released no earlier.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::in_flight::InFlightTracker;
use crate::ack::Verdict;
use crate::record::Record;

/// How long a record waits for room in the pipeline before the request is refused.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// The verdicts of a request's records, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IngestOutcome {
    /// Records that were accepted.
    pub(super) received: u64,
    /// Records among them that are in the dead letters.
    pub(super) rejected: u64,
}

/// Why the client must send a request again. Some of its records may already be in the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IngestError {
    /// The pipeline has no room.
    Full,
    /// Some records were not settled.
    Unacknowledged,
}

/// A request whose records were all sent.
pub(super) struct PendingRequest {
    received: u64,
    told: oneshot::Receiver<(u64, u64)>,
}

impl PendingRequest {
    /// Waits until all records are settled.
    pub(super) async fn settled(self) -> Result<IngestOutcome, IngestError> {
        match self.told.await {
            Ok((rejected, 0)) => Ok(IngestOutcome { received: self.received, rejected }),
            _ => Err(IngestError::Unacknowledged),
        }
    }
}

/// Sends requests into the pipeline.
pub(super) struct RequestIngest {
    out: mpsc::Sender<Record>,
    flight: Arc<InFlightTracker>,
}

/// The verdicts of one request; reported when the last record has its verdict.
struct RequestVerdicts<H> {
    rejected: AtomicU64,
    errored: AtomicU64,
    tell: Option<oneshot::Sender<(u64, u64)>>,
    _held: H,
}

impl<H> RequestVerdicts<H> {
    fn count(&self, verdict: Verdict, faulty: bool) {
        match verdict {
            Verdict::Errored => self.errored.fetch_add(1, Ordering::AcqRel),
            // A durable buffer accepts a record that cannot be decoded, but the record is rejected
            // later.
            Verdict::Delivered if !faulty => 0,
            _ => self.rejected.fetch_add(1, Ordering::AcqRel),
        };
    }
}

impl<H> Drop for RequestVerdicts<H> {
    fn drop(&mut self) {
        let counts = (*self.rejected.get_mut(), *self.errored.get_mut());
        if let Some(tell) = self.tell.take() {
            // The request may have been dropped: then the counts are not needed.
            tell.send(counts).ok();
        }
    }
}

impl RequestIngest {
    pub(super) fn new(out: mpsc::Sender<Record>) -> Self {
        Self { out, flight: Arc::default() }
    }

    /// Sends a request's records in order and waits until all are settled. If the caller stops
    /// waiting, records that were sent stay in the pipeline.
    pub(super) async fn take<H: Send + Sync + 'static>(
        &self,
        records: Vec<Record>,
        held: H,
    ) -> Result<IngestOutcome, IngestError> {
        self.enter(records, held).await?.settled().await
    }

    /// Sends a request's records, in order.
    pub(super) async fn enter<H: Send + Sync + 'static>(
        &self,
        records: Vec<Record>,
        held: H,
    ) -> Result<PendingRequest, IngestError> {
        let received = records.len() as u64;
        let (tell, told) = oneshot::channel();
        let verdicts = Arc::new(RequestVerdicts {
            rejected: AtomicU64::new(0),
            errored: AtomicU64::new(0),
            tell: Some(tell),
            _held: held,
        });
        for mut record in records {
            // A request that is refused halfway is sent again by its client as a whole: at least
            // once, never lost.
            let Ok(Ok(room)) = timeout(SEND_TIMEOUT, self.out.reserve()).await else {
                return Err(IngestError::Full);
            };
            let counted = Arc::clone(&verdicts);
            let faulty = record.decode_error.is_some();
            record.ack = self.flight.ack(move |verdict| counted.count(verdict, faulty));
            room.send(record);
        }
        Ok(PendingRequest { received, told })
    }

    /// Waits until every record that was sent has its verdict.
    pub(super) async fn wait_until_idle(&self) {
        self.flight.wait_until_idle().await;
    }
}
