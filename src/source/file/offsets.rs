//! Tracks how far one generation of a file is settled.
//!
//! # Invariants
//!
//! A verdict only changes a map under a lock that is never held during slow work, so that no code
//! that settles a record waits.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::ack::Ack;
use crate::source::in_flight::InFlightTracker;
use crate::source::offset_tracker::{OffsetTracker, StreamPosition};

/// An offset tracker that the acknowledgements of its records share.
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

    /// The bytes between the last record and `end` are not a record.
    pub(super) fn skipped(&self, end: StreamPosition) {
        self.watermark().skipped(end);
    }

    pub(super) fn mark(&self) -> StreamPosition {
        self.watermark().mark()
    }

    /// The end of everything that was sent or skipped.
    pub(super) fn sent_to(&self) -> u64 {
        self.watermark().high().position
    }

    /// Whether every record has its verdict.
    pub(super) fn is_idle(&self) -> bool {
        self.watermark().in_flight() == 0
    }

    fn watermark(&self) -> MutexGuard<'_, OffsetTracker> {
        self.watermark.lock()
    }
}
