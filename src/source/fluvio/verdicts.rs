//! What became of the records of one partition.
//!
//! Not here: offsets that are kept. One invariant: once all have landed, `errored` is the first
//! record nobody settled, if there is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::ack::{Ack, Verdict};
use crate::source::flight::Flight;

/// No record was left unsettled.
const NONE: i64 = i64::MAX;

/// Counts records out and verdicts in.
#[derive(Debug)]
pub(super) struct Verdicts {
    flight: Arc<Flight>,
    errored: Arc<AtomicI64>,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self { flight: Arc::default(), errored: Arc::new(AtomicI64::new(NONE)) }
    }
}

impl Verdicts {
    /// The acknowledgement of the record at `offset`.
    pub(super) fn ack(&self, offset: i64) -> Ack {
        let errored = Arc::clone(&self.errored);
        self.flight.ack(move |verdict| {
            if verdict == Verdict::Errored {
                errored.fetch_min(offset, Ordering::AcqRel);
            }
        })
    }

    /// Waits until every record has its verdict.
    pub(super) async fn landed(&self) {
        self.flight.landed().await;
    }

    /// Records without a verdict.
    pub(super) fn open(&self) -> usize {
        self.flight.open()
    }

    /// The first record nobody settled, and forgets it. Asked when all have landed.
    pub(super) fn take_errored(&self) -> Option<i64> {
        let errored = self.errored.swap(NONE, Ordering::AcqRel);
        (errored != NONE).then_some(errored)
    }
}
