//! What of one generation of a file is settled.
//!
//! # Invariants
//!
//! A verdict only touches a map under a lock that is never held across anything slow, so that
//! no code that settles a record waits.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::ack::Ack;
use crate::source::in_flight::InFlightTracker;
use crate::source::offset_tracker::{OffsetTracker, StreamPosition};

/// A watermark shared with the acknowledgements of the records in flight.
#[derive(Debug)]
pub(super) struct FileOffsetTracker {
    watermark: Mutex<OffsetTracker>,
    in_flight: Arc<InFlightTracker>,
}

impl FileOffsetTracker {
    pub(super) fn new(start: StreamPosition, in_flight: Arc<InFlightTracker>) -> Arc<Self> {
        Arc::new(Self { watermark: Mutex::new(OffsetTracker::new(start)), in_flight })
    }

    /// The acknowledgement of a record that starts and ends here and is about to be sent.
    pub(super) fn ack(
        self: &Arc<Self>,
        start: StreamPosition,
        end: StreamPosition,
        part: u32,
    ) -> Ack {
        self.watermark().sent_part(start, end, part);
        let tracker = Arc::clone(self);
        self.in_flight.ack(move |verdict| {
            tracker.watermark().settled_part(end.position, part, verdict);
        })
    }

    /// What lies between the last record and `end` is no record.
    pub(super) fn skipped(&self, end: StreamPosition) {
        self.watermark().skipped(end);
    }

    pub(super) fn mark(&self) -> StreamPosition {
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

    fn watermark(&self) -> MutexGuard<'_, OffsetTracker> {
        // Nothing panics under the lock; if it ever did, the map is still whole.
        self.watermark.lock()
    }
}
