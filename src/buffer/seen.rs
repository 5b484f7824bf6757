//! Keys of messages that were delivered, kept in the store for deduplication.

use std::borrow::Cow;

use jiff::Timestamp;
use rusqlite::params;
use sha2::{Digest, Sha256};

use super::error::StoreError;
use super::sql::{MAX_DELETE_ROWS, from_micros, micros, row_count};
use super::store::Store;

/// Message keys up to this length (bytes) are stored as they are, longer ones as their hash.
const MAX_PLAIN_KEY_LEN: usize = 34;

/// A message key as it is stored: never longer than [`MAX_PLAIN_KEY_LEN`].
pub(super) fn stored_key(key: &str) -> Cow<'_, str> {
    if key.len() <= MAX_PLAIN_KEY_LEN {
        return Cow::Borrowed(key);
    }
    Cow::Owned(format!("#:{}", hex::encode(&Sha256::digest(key.as_bytes())[..16])))
}

impl Store {
    /// Which of these message keys were delivered before, in the same order. Keys count until they
    /// [expire](Self::expire_seen).
    ///
    /// # Errors
    /// Those of any read.
    pub async fn is_seen(&self, sink: &str, keys: Vec<String>) -> Result<Vec<bool>, StoreError> {
        let sink = sink.to_owned();
        self.read_with(move |scope| {
            let mut find = scope
                .conn
                .prepare_cached("SELECT 1 FROM seen WHERE sink = ?1 AND message_key = ?2")?;
            let mut is_seen = |key: &str| {
                let stored = stored_key(key);
                // Earlier versions stored long keys unhashed.
                Ok(find.exists(params![sink, stored])?
                    || (stored != key && find.exists(params![sink, key])?))
            };
            keys.iter().map(|key| is_seen(key)).collect()
        })
        .await
    }

    /// The newest message keys delivered since `since`, newest first, at most `limit`.
    ///
    /// # Errors
    /// Those of any read.
    pub async fn load_seen(
        &self,
        sink: &str,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let sink = sink.to_owned();
        self.read_with(move |scope| {
            let mut find = scope.conn.prepare_cached(
                "SELECT message_key, at FROM seen WHERE sink = ?1 AND at >= ?2
                 ORDER BY at DESC LIMIT ?3",
            )?;
            let rows = find.query_map(params![sink, micros(since), row_count(limit)], |row| {
                Ok((row.get(0)?, from_micros(row.get(1)?)))
            })?;
            rows.collect()
        })
        .await
    }

    /// Deletes message keys delivered before `before`, in batches so that other writes run in
    /// between. Returns how many.
    ///
    /// # Errors
    /// Those of any write.
    pub async fn expire_seen(&self, sink: &str, before: Timestamp) -> Result<usize, StoreError> {
        let mut expired = 0;
        loop {
            let sink = sink.to_owned();
            let gone = self
                .write(move |scope| {
                    let mut delete = scope.conn.prepare_cached(
                        "DELETE FROM seen WHERE (sink, message_key) IN (
                            SELECT sink, message_key FROM seen WHERE sink = ?1 AND at < ?2 LIMIT ?3
                         )",
                    )?;
                    delete.execute(params![sink, micros(before), MAX_DELETE_ROWS])
                })
                .await?;
            if gone == 0 {
                return Ok(expired);
            }
            expired += gone;
        }
    }

    /// Deletes the oldest message keys of a sink if there are more than `max_entries`, until a
    /// twentieth of that number is free. Returns how many.
    ///
    /// # Errors
    /// Those of any write.
    pub async fn trim_seen(&self, sink: &str, max_entries: u64) -> Result<u64, StoreError> {
        let known = self.totals().seen(sink);
        if known.is_some_and(|known| known <= max_entries) {
            return Ok(0);
        }
        // The running total counts repeated keys twice, so the table is counted before anything is
        // deleted.
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
            let some = MAX_DELETE_ROWS
                .min(row_count(usize::try_from(excess - forgotten).unwrap_or(usize::MAX)));
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
