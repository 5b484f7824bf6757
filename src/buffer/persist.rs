//! Writing until it is written: failed commands are repeated with backoff, and said so now and
//! then.
//!
//! One invariant: patience ends only when told to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::error::StoreError;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How one command to the store is repeated.
pub(super) struct Patience<'a> {
    what: &'static str,
    sink: &'a str,
    stop: &'a CancellationToken,
    /// Counts what failed.
    errors: &'a AtomicU64,
    wait: Duration,
    logged: Option<Instant>,
}

impl<'a> Patience<'a> {
    /// For a command, until `stop` is cancelled.
    pub(super) fn new(
        what: &'static str,
        sink: &'a str,
        stop: &'a CancellationToken,
        errors: &'a AtomicU64,
    ) -> Self {
        Self { what, sink, stop, errors, wait: FIRST_WAIT, logged: None }
    }

    /// Waits before the command is tried again. Gives its error back if it must not be: because of
    /// the stop, or because the store is closed or may not be written.
    pub(super) async fn after(&mut self, error: StoreError) -> Result<(), StoreError> {
        if is_final(&error) {
            return Err(error);
        }
        self.errors.fetch_add(1, Ordering::Relaxed);
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            let (sink, what) = (self.sink, self.what);
            tracing::error!(sink, what, %error, "storage failed, trying again");
            self.logged = Some(Instant::now());
        }
        tokio::select! {
            () = self.stop.cancelled() => return Err(error),
            () = sleep(self.wait) => {}
        }
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Ok(())
    }

    /// The command worked.
    pub(super) fn rewarded(self) {
        if self.logged.is_some() {
            let (sink, what) = (self.sink, self.what);
            tracing::info!(sink, what, "storage works again");
        }
    }
}

/// Whether trying again is of no use.
pub(super) fn is_final(error: &StoreError) -> bool {
    matches!(error, StoreError::Closed | StoreError::ReadOnly | StoreError::Removed { .. })
}

/// Settles a batch, however often that takes.
pub(super) async fn settle(
    store: &super::Store,
    sink: &str,
    stop: &CancellationToken,
    errors: &AtomicU64,
    batch: Vec<super::Settlement>,
) -> Result<(), StoreError> {
    let mut patience = Patience::new("settle", sink, stop, errors);
    while let Err(e) = store.settle(sink, batch.clone()).await {
        patience.after(e).await?;
    }
    patience.rewarded();
    Ok(())
}

/// Marks records as possibly sent, and takes the marks of others away, however often that takes.
pub(super) async fn mark(
    store: &super::Store,
    sink: &str,
    stop: &CancellationToken,
    errors: &AtomicU64,
    sent: Vec<i64>,
    not_sent: Vec<i64>,
) -> Result<(), StoreError> {
    if sent.is_empty() && not_sent.is_empty() {
        return Ok(());
    }
    let mut patience = Patience::new("mark", sink, stop, errors);
    while let Err(e) = store.change_marks(sink, sent.clone(), not_sent.clone()).await {
        patience.after(e).await?;
    }
    patience.rewarded();
    Ok(())
}
