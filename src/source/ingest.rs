//! Records that are pushed to a source in requests: into the pipeline, and their verdicts back.
//!
//! Invariant: a request has its outcome only when every record of it was taken and settled; what it
//! holds (the memory it takes) is given back no earlier.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::in_flight::InFlightTracker;
use crate::ack::Verdict;
use crate::record::Record;
use crate::telemetry::{OpenRequest, OpenRequests, SourceMetrics};

/// How long a record waits for room before the request is sent back.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of a request's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IngestOutcome {
    /// Records that were sent.
    pub(super) received: u64,
    /// Those in the dead letters.
    pub(super) rejected: u64,
}

/// Why a request has to come again. Part of it may be on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IngestError {
    /// There is no room.
    Full,
    /// Some of it was not settled.
    Unacknowledged,
}

/// A request whose records are all on their way.
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

/// The way into the pipeline.
pub(super) struct RequestIngest {
    out: mpsc::Sender<Record>,
    flight: Arc<InFlightTracker>,
    open: OpenRequests,
}

/// The verdicts of one request; told when the last record has its own.
struct RequestVerdicts<H> {
    rejected: AtomicU64,
    errored: AtomicU64,
    tell: Option<oneshot::Sender<(u64, u64)>>,
    _open: OpenRequest,
    _held: H,
}

impl<H> RequestVerdicts<H> {
    fn count(&self, verdict: Verdict, faulty: bool) {
        match verdict {
            Verdict::Errored => self.errored.fetch_add(1, Ordering::AcqRel),
            // A durable buffer takes what cannot be decoded too; it is rejected all the same.
            Verdict::Delivered if !faulty => 0,
            _ => self.rejected.fetch_add(1, Ordering::AcqRel),
        };
    }
}

impl<H> Drop for RequestVerdicts<H> {
    fn drop(&mut self) {
        let counts = (*self.rejected.get_mut(), *self.errored.get_mut());
        if let Some(tell) = self.tell.take() {
            // The request may be gone: then the counts are dropped.
            tell.send(counts).ok();
        }
    }
}

impl RequestIngest {
    /// `metrics` count the requests that are not answered yet.
    pub(super) fn new(out: mpsc::Sender<Record>, metrics: Option<&SourceMetrics>) -> Self {
        let open = metrics.map(SourceMetrics::open_requests).unwrap_or_default();
        Self { out, flight: Arc::default(), open }
    }

    /// Sends a request's records, in order, and waits until all are settled. A caller that stops waiting
    /// leaves them where they are.
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
            _open: self.open.open(),
            _held: held,
        });
        for mut record in records {
            // A request that goes half way in comes again as a whole: at least once, not at most.
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
