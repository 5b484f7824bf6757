//! The records of one source that have no verdict yet.
//!
//! Not here: which positions they hold (`watermark`). One invariant: every record that was counted
//! out is counted in exactly once, because its acknowledgement tells a verdict exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::ack::{Ack, Verdict};

/// Counts records out and verdicts in. Shared by everything of one source that sends.
#[derive(Debug, Default)]
pub(super) struct InFlightTracker {
    open: AtomicUsize,
    /// Told when `open` falls to zero. One waiter: the source.
    idle: Notify,
}

impl InFlightTracker {
    /// An acknowledgement that is counted, and calls `callback` before it counts itself in.
    pub(super) fn ack(
        self: &Arc<Self>,
        callback: impl FnOnce(Verdict) + Send + Sync + 'static,
    ) -> Ack {
        self.ack_with_reason(|verdict, _| callback(verdict))
    }

    /// As [`ack`](Self::ack); `callback` also hears why a record was rejected.
    pub(super) fn ack_with_reason(
        self: &Arc<Self>,
        callback: impl FnOnce(Verdict, Option<Arc<str>>) + Send + Sync + 'static,
    ) -> Ack {
        self.open.fetch_add(1, Ordering::AcqRel);
        let tracker = Arc::clone(self);
        Ack::with_reason(move |verdict, reason| {
            callback(verdict, reason);
            if tracker.open.fetch_sub(1, Ordering::AcqRel) == 1 {
                tracker.idle.notify_one();
            }
        })
    }

    /// Waits until every record has its verdict.
    pub(super) async fn wait_until_idle(&self) {
        while self.open.load(Ordering::Acquire) > 0 {
            self.idle.notified().await;
        }
    }
}
