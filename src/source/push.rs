//! Records that are pushed to a source in requests: into the pipeline, and their verdicts back.
//!
//! Invariant: a request has its outcome only when every record of it was taken and settled; what it
//! holds (the memory it takes) is given back no earlier.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::flight::Flight;
use crate::ack::Verdict;
use crate::record::Record;

/// How long a record waits for room before the request is sent back.
const ROOM: Duration = Duration::from_secs(5);

/// What became of a request's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Records that were sent.
    pub(super) received: u64,
    /// Those in the dead letters.
    pub(super) rejected: u64,
}

/// Why a request has to come again. Part of it may be on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// There is no room.
    Busy,
    /// Nobody settled some of it.
    Unsettled,
}

/// A request whose records are all on their way.
pub(super) struct Entered {
    received: u64,
    told: oneshot::Receiver<(u64, u64)>,
}

impl Entered {
    /// Waits until all records are settled.
    pub(super) async fn settled(self) -> Result<Outcome, NotTaken> {
        match self.told.await {
            Ok((rejected, 0)) => Ok(Outcome { received: self.received, rejected }),
            _ => Err(NotTaken::Unsettled),
        }
    }
}

/// The way into the pipeline.
pub(super) struct Push {
    out: mpsc::Sender<Record>,
    flight: Arc<Flight>,
}

/// The verdicts of one request; told when the last record has its own.
struct Verdicts<H> {
    rejected: AtomicU64,
    errored: AtomicU64,
    tell: Option<oneshot::Sender<(u64, u64)>>,
    _held: H,
}

impl<H> Verdicts<H> {
    fn count(&self, verdict: Verdict, faulty: bool) {
        match verdict {
            Verdict::Errored => self.errored.fetch_add(1, Ordering::AcqRel),
            // A durable buffer takes what cannot be decoded too; it is rejected all the same.
            Verdict::Delivered if !faulty => 0,
            _ => self.rejected.fetch_add(1, Ordering::AcqRel),
        };
    }
}

impl<H> Drop for Verdicts<H> {
    fn drop(&mut self) {
        let counts = (*self.rejected.get_mut(), *self.errored.get_mut());
        if let Some(tell) = self.tell.take() {
            // Where the request has gone, nobody hears it.
            tell.send(counts).ok();
        }
    }
}

impl Push {
    pub(super) fn new(out: mpsc::Sender<Record>) -> Self {
        Self { out, flight: Arc::default() }
    }

    /// Sends a request's records, in order, and waits until all are settled. Whoever stops waiting
    /// leaves them where they are.
    pub(super) async fn take<H: Send + Sync + 'static>(
        &self,
        records: Vec<Record>,
        held: H,
    ) -> Result<Outcome, NotTaken> {
        self.enter(records, held).await?.settled().await
    }

    /// Sends a request's records, in order.
    pub(super) async fn enter<H: Send + Sync + 'static>(
        &self,
        records: Vec<Record>,
        held: H,
    ) -> Result<Entered, NotTaken> {
        let received = records.len() as u64;
        let (tell, told) = oneshot::channel();
        let verdicts = Arc::new(Verdicts {
            rejected: AtomicU64::new(0),
            errored: AtomicU64::new(0),
            tell: Some(tell),
            _held: held,
        });
        for mut record in records {
            // A request that goes half way in comes again as a whole: at least once, not at most.
            let Ok(Ok(room)) = timeout(ROOM, self.out.reserve()).await else {
                return Err(NotTaken::Busy);
            };
            let counted = Arc::clone(&verdicts);
            let faulty = record.decode_error.is_some();
            record.ack = self.flight.ack(move |verdict| counted.count(verdict, faulty));
            room.send(record);
        }
        Ok(Entered { received, told })
    }

    /// Waits until every record that was sent has its verdict.
    pub(super) async fn landed(&self) {
        self.flight.landed().await;
    }
}
