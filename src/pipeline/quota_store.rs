//! Stores what a sink learned of its account's quota, so that a restart does not learn it again.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::buffer::{Store, StoreError};
use crate::clock;
use crate::deliver::{HttpTransport, LearnedQuota};

/// What was stored longer ago is learned again.
const VALID_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// What does not change is stored again after this long, so that it stays valid.
const STORE_AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// What the store holds.
#[derive(Debug, Clone, Copy, Default)]
struct StoredQuota {
    learned: LearnedQuota,
    at: Option<Timestamp>,
}

/// Reads and writes what one sink learned.
pub(super) struct QuotaStore {
    store: Store,
    sink: String,
    /// The account's base URL: what was learned of another account is of no use.
    account: String,
    transport: Arc<HttpTransport>,
    stored: Mutex<StoredQuota>,
}

impl QuotaStore {
    pub(super) fn new(
        store: Store,
        sink: String,
        account: String,
        transport: Arc<HttpTransport>,
    ) -> Self {
        Self { store, sink, account, transport, stored: Mutex::default() }
    }

    /// Continues with what an earlier process learned. Only before the first request.
    pub(super) async fn restore(&self) -> Result<(), StoreError> {
        let now = clock::now();
        let since = now.checked_sub(VALID_FOR).unwrap_or(Timestamp::MIN);
        let Some((text, at)) = self.store.load_quota(&self.sink, &self.account, since).await?
        else {
            return Ok(());
        };
        match serde_json::from_str::<LearnedQuota>(&text) {
            Ok(learned) => {
                tracing::debug!(
                    sink = self.sink,
                    ?learned,
                    "the rate limit learned before is used"
                );
                self.transport.restore_quota(learned);
                // A clock that was set back must not keep the row from being stored again.
                *self.stored.lock() = StoredQuota { learned, at: Some(at.min(now)) };
            }
            Err(error) => tracing::warn!(
                sink = self.sink, %error,
                "what was learned of the rate limit cannot be read from the store; it is learned \
                 again, nothing need be done"
            ),
        }
        Ok(())
    }

    /// Stores what was learned if it changed. A failure costs refused requests after a restart,
    /// never records.
    pub(super) async fn save(&self) {
        let Some(learned) = self.transport.learned_quota() else { return };
        let now = clock::now();
        let stored = *self.stored.lock();
        let is_fresh = match stored.at {
            Some(at) => now.duration_since(at) < STORE_AGAIN_AFTER,
            None => learned.is_empty(),
        };
        if is_fresh && learned.is_close_to(&stored.learned) {
            return;
        }
        let text = serde_json::to_string(&learned).expect("numbers are JSON");
        match self.store.save_quota(&self.sink, &self.account, text).await {
            Ok(()) => *self.stored.lock() = StoredQuota { learned, at: Some(now) },
            Err(error) => tracing::warn!(
                sink = self.sink, %error,
                "what was learned of the rate limit could not be stored; after a restart it is \
                 learned again, which costs some refused requests"
            ),
        }
    }
}
