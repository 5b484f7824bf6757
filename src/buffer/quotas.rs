//! What sinks learned of their accounts' quotas, in the store.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::error::StoreError;
use super::sql::{from_micros, micros};
use super::store::Store;
use crate::clock;

impl Store {
    /// What a sink learned of the quota of an account, and when that was stored; `None` if it was
    /// stored before `since`.
    ///
    /// # Errors
    /// Those of any read.
    pub async fn load_quota(
        &self,
        sink: &str,
        account: &str,
        since: Timestamp,
    ) -> Result<Option<(String, Timestamp)>, StoreError> {
        let (sink, account, since) = (sink.to_owned(), account.to_owned(), micros(since));
        self.read_with(move |scope| {
            let mut find = scope.conn.prepare_cached(
                "SELECT value, at FROM quotas WHERE sink = ?1 AND account = ?2 AND at >= ?3",
            )?;
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, from_micros(row.get(1)?)));
            find.query_row(params![sink, account, since], row).optional()
        })
        .await
    }

    /// Stores what a sink learned of the quota of an account. A sink has one account: what it
    /// learned of another is deleted.
    ///
    /// # Errors
    /// Those of any write.
    pub async fn save_quota(
        &self,
        sink: &str,
        account: &str,
        value: String,
    ) -> Result<(), StoreError> {
        let (sink, account) = (sink.to_owned(), account.to_owned());
        let at = micros(clock::now());
        self.write(move |scope| {
            let mut forget = scope.conn.prepare_cached("DELETE FROM quotas WHERE sink = ?1")?;
            forget.execute(params![sink])?;
            let mut save = scope.conn.prepare_cached(
                "INSERT INTO quotas (sink, account, value, at) VALUES (?1, ?2, ?3, ?4)",
            )?;
            save.execute(params![sink, account, value, at]).map(drop)
        })
        .await
    }
}
