//! Retries of storage commands, with backoff, until they succeed or the process stops.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::StoreError;
use crate::backoff::Backoff;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The retries of one storage command.
pub(super) struct StorageRetry<'a> {
    what: &'static str,
    sink: &'a str,
    stop: &'a CancellationToken,
    /// Counts failures.
    errors: &'a AtomicU64,
    backoff: Backoff,
    logged: Option<Instant>,
}

impl<'a> StorageRetry<'a> {
    /// Retries a command until `stop` is cancelled.
    pub(super) fn new(
        what: &'static str,
        sink: &'a str,
        stop: &'a CancellationToken,
        errors: &'a AtomicU64,
    ) -> Self {
        Self {
            what,
            sink,
            stop,
            errors,
            backoff: Backoff::new(FIRST_DELAY, MAX_DELAY),
            logged: None,
        }
    }

    /// Waits before the next try. Returns the error if there must be none: the process stops, or
    /// the store is closed or read-only.
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
        match self.backoff.wait(self.stop).await {
            true => Ok(()),
            false => Err(error),
        }
    }

    /// Logs that the command worked, if a failure was logged.
    pub(super) fn succeeded(self) {
        if self.logged.is_some() {
            let (sink, what) = (self.sink, self.what);
            tracing::info!(sink, what, "storage works again");
        }
    }
}

/// Whether a retry cannot help.
pub(super) fn is_final(error: &StoreError) -> bool {
    matches!(error, StoreError::Closed | StoreError::ReadOnly | StoreError::Removed { .. })
}

/// Settles a batch, with retries.
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

/// Marks records as possibly sent and removes the marks of others, with retries.
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
