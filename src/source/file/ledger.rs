//! What of one generation of a file is settled.
//!
//! Not here: saving it. One invariant: a verdict only touches a map under a lock that is never held
//! across anything slow, so that whoever settles a record is not held up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ack::Ack;
use crate::source::flight::Flight;
use crate::source::watermark::{Mark, Watermark};

/// A watermark shared with the acknowledgements of the records in flight.
#[derive(Debug)]
pub(super) struct Ledger {
    watermark: Mutex<Watermark>,
    flight: Arc<Flight>,
}

impl Ledger {
    pub(super) fn new(start: Mark, flight: Arc<Flight>) -> Arc<Self> {
        Arc::new(Self { watermark: Mutex::new(Watermark::new(start)), flight })
    }

    /// The acknowledgement of a record that starts and ends here and is about to be sent.
    pub(super) fn ack(self: &Arc<Self>, start: Mark, end: Mark, part: u32) -> Ack {
        self.watermark().sent_part(start, end, part);
        let ledger = Arc::clone(self);
        self.flight.ack(move |verdict| {
            ledger.watermark().settled_part(end.position, part, verdict);
        })
    }

    /// What lies between the last record and `end` is no record.
    pub(super) fn skipped(&self, end: Mark) {
        self.watermark().skipped(end);
    }

    pub(super) fn mark(&self) -> Mark {
        self.watermark().mark()
    }

    /// Behind everything that was sent or skipped.
    pub(super) fn sent_to(&self) -> u64 {
        self.watermark().high().position
    }

    /// Whether no record waits for its verdict.
    pub(super) fn is_idle(&self) -> bool {
        self.watermark().in_flight() == 0
    }

    fn watermark(&self) -> MutexGuard<'_, Watermark> {
        // Nothing panics under the lock; if it ever did, the map is still whole.
        self.watermark.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
