//! Sizes of what would grow without end: dead letters and message ids.
//!
//! They are counted along, so that nothing large is read only to see that it is not too large.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::params;
use sha2::{Digest, Sha256};

use super::error::StoreError;
use super::store::{DELETE_BATCH, Store, count};

/// Message keys up to this length are stored as they are, longer ones as their hash.
const MAX_PLAIN_KEY_LEN: usize = 34;

/// What was written for a sink.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowsAdded {
    pub(super) dead_bytes: u64,
    pub(super) seen: u64,
}

/// By sink; nothing of what is not known, or not any more.
#[derive(Debug, Default)]
pub(super) struct TableTotals {
    by_sink: Mutex<HashMap<String, SinkTotals>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct SinkTotals {
    dead_bytes: Option<u64>,
    seen: Option<u64>,
}

impl TableTotals {
    fn by_sink(&self) -> MutexGuard<'_, HashMap<String, SinkTotals>> {
        self.by_sink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, sink: &str, added: RowsAdded) {
        if let Some(known) = self.by_sink().get_mut(sink) {
            let more = |known: u64, added| known.saturating_add(added);
            known.dead_bytes = known.dead_bytes.map(|known| more(known, added.dead_bytes));
            known.seen = known.seen.map(|known| more(known, added.seen));
        }
    }

    pub(super) fn dead_bytes(&self, sink: &str) -> Option<u64> {
        self.by_sink().get(sink)?.dead_bytes
    }

    pub(super) fn set_dead_bytes(&self, sink: &str, bytes: u64) {
        let mut by_sink = self.by_sink();
        by_sink.entry(sink.to_owned()).or_default().dead_bytes.get_or_insert(bytes);
    }

    pub(super) fn forget_dead_sizes(&self) {
        self.by_sink().values_mut().for_each(|known| known.dead_bytes = None);
    }

    fn seen(&self, sink: &str) -> Option<u64> {
        self.by_sink().get(sink)?.seen
    }

    fn set_seen(&self, sink: &str, seen: Option<u64>) {
        self.by_sink().entry(sink.to_owned()).or_default().seen = seen;
    }
}

/// A message key as it is stored: never longer than [`MAX_PLAIN_KEY_LEN`].
pub(super) fn stored_key(key: &str) -> Cow<'_, str> {
    if key.len() <= MAX_PLAIN_KEY_LEN {
        return Cow::Borrowed(key);
    }
    let mut hashed = String::from("#:");
    for byte in &Sha256::digest(key.as_bytes())[..16] {
        write!(hashed, "{byte:02x}").expect("a String takes everything");
    }
    Cow::Owned(hashed)
}

impl Store {
    /// Forgets the oldest message keys of a sink, where there are more than `max_entries`, until a
    /// twentieth of them is free. Returns how many.
    ///
    /// # Errors
    /// Those of any write.
    pub async fn trim_seen(&self, sink: &str, max_entries: u64) -> Result<u64, StoreError> {
        let known = self.totals().seen(sink);
        if known.is_some_and(|known| known <= max_entries) {
            return Ok(0);
        }
        // Keys that came again were counted twice.
        let name = sink.to_owned();
        let seen = self
            .read_with(move |scope| {
                let mut all =
                    scope.conn.prepare_cached("SELECT count(*) FROM seen WHERE sink = ?1")?;
                all.query_row([&name], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
            })
            .await?;
        if seen <= max_entries {
            self.totals().set_seen(sink, Some(seen));
            return Ok(0);
        }
        self.totals().set_seen(sink, None);
        let excess = seen - (max_entries - max_entries / 20);
        let mut forgotten = 0;
        while forgotten < excess {
            let name = sink.to_owned();
            let some =
                DELETE_BATCH.min(count(usize::try_from(excess - forgotten).unwrap_or(usize::MAX)));
            let gone = self
                .write(move |scope| {
                    let mut delete = scope.conn.prepare_cached(
                        "DELETE FROM seen WHERE (sink, message_key) IN (
                            SELECT sink, message_key FROM seen WHERE sink = ?1
                            ORDER BY at LIMIT ?2
                         )",
                    )?;
                    delete.execute(params![name, some])
                })
                .await?;
            if gone == 0 {
                break;
            }
            forgotten += gone as u64;
        }
        Ok(forgotten)
    }
}
