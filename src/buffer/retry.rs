//! Writing until it is written: failed commands are repeated with backoff, and said so now and
//! then.
//!
//! One invariant: it ends only when told to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::error::StoreError;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How one command to the store is repeated.
pub(super) struct StorageRetry<'a> {
    what: &'static str,
    sink: &'a str,
    stop: &'a CancellationToken,
    /// Counts what failed.
    errors: &'a AtomicU64,
    delay: Duration,
    logged: Option<Instant>,
}

impl<'a> StorageRetry<'a> {
    /// For a command, until `stop` is cancelled.
    pub(super) fn new(
        what: &'static str,
        sink: &'a str,
        stop: &'a CancellationToken,
        errors: &'a AtomicU64,
    ) -> Self {
        Self { what, sink, stop, errors, delay: FIRST_DELAY, logged: None }
    }

    /// Waits before the command is tried again. Gives its error back if it must not be: because of
    /// the stop, or because the store is closed or may not be written.
    pub(super) async fn wait(&mut self, error: StoreError) -> Result<(), StoreError> {
        if is_final(&error) {
            return Err(error);
        }
        self.errors.fetch_add(1, Ordering::Relaxed);
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            let (sink, what) = (self.sink, self.what);
            tracing::error!(sink, what, %error, "storage failed, trying again");
            self.logged = Some(Instant::now());
        }
        tokio::select! {
            () = self.stop.cancelled() => return Err(error),
            () = sleep(self.delay) => {}
        }
        self.delay = (self.delay * 2).min(MAX_DELAY);
        Ok(())
    }

    /// The command worked.
    pub(super) fn succeeded(self) {
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
    let mut retry = StorageRetry::new("settle", sink, stop, errors);
    while let Err(e) = store.settle(sink, batch.clone()).await {
        retry.wait(e).await?;
    }
    retry.succeeded();
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
    let mut retry = StorageRetry::new("mark", sink, stop, errors);
    while let Err(e) = store.change_marks(sink, sent.clone(), not_sent.clone()).await {
        retry.wait(e).await?;
    }
    retry.succeeded();
    Ok(())
}
