//! Counts the records of one source that have no final status yet.
//!
//! # Invariants
//!
//! Each record is counted once when it is sent and once when its verdict arrives, because an
//! acknowledgement reports exactly one verdict.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::ack::{Ack, Verdict};

/// Counts records that were sent and verdicts that arrived. Shared by all tasks of one source that
/// send.
#[derive(Debug, Default)]
pub(super) struct InFlightTracker {
    open: AtomicUsize,
    /// Notified when `open` falls to zero. The source is the only waiter.
    idle: Notify,
}

impl InFlightTracker {
    /// An acknowledgement that is counted here. It calls `callback` before it counts itself as
    /// settled.
    pub(super) fn ack(
        self: &Arc<Self>,
        callback: impl FnOnce(Verdict) + Send + Sync + 'static,
    ) -> Ack {
        self.ack_with_reason(|verdict, _| callback(verdict))
    }

    /// As [`ack`](Self::ack); `callback` also receives the reason of a rejection.
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
