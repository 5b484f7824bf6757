//! Queries for people who watch a running pipeline: what waits longest, and which dead letters
//! there are. They read only what is shown.

use jiff::Timestamp;
use rusqlite::{Row, params};
use serde::Serialize;

use super::dead_letters::{DeadLetterFilter, FILTER_SQL};
use super::error::StoreError;
use super::sql::{from_micros, row_count};
use super::store::Store;

/// Groups that one query yields at most.
const MAX_GROUPS: usize = 200;

/// Dead letters of one reason and rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterGroup {
    /// Why, as a stable word.
    pub reason: String,
    /// The rule of the mapping, where one was applied.
    pub rule: Option<String>,
    /// How many.
    pub count: u64,
}

/// A dead letter in a list: without its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetterRow {
    /// Its number.
    pub id: i64,
    /// The sink that could not deliver it.
    pub sink: String,
    /// When delivery was given up.
    pub at: Timestamp,
    /// Why, as a stable word.
    pub reason: String,
    /// The reason in a sentence.
    pub detail: String,
    /// The mapping rule that was applied.
    pub rule: Option<String>,
    /// The field at fault.
    pub field: Option<String>,
    /// Where the record came from.
    pub place: Option<String>,
    /// The HTTP status of the last response.
    pub status: Option<u16>,
    /// How often it was replayed.
    pub replays: u32,
}

impl Store {
    /// When the oldest record in a sink's disk buffer arrived.
    ///
    /// # Errors
    /// Those of any read.
    pub async fn oldest_buffered(&self, sink: &str) -> Result<Option<Timestamp>, StoreError> {
        let sink = sink.to_owned();
        self.read_with(move |scope| {
            let mut find = scope.conn.prepare_cached(
                "SELECT received_at FROM buffer WHERE sink = ?1 ORDER BY seq LIMIT 1",
            )?;
            let mut rows = find.query_map([&sink], |row| row.get(0).map(from_micros))?;
            rows.next().transpose()
        })
        .await
    }

    /// A number that grows with every change of the dead letters by this process.
    pub fn dead_letters_version(&self) -> u64 {
        self.totals().dead_version()
    }

    /// How many dead letters a sink has, by reason and rule, most first.
    ///
    /// # Errors
    /// Those of any read.
    pub async fn group_dead_letters(&self, sink: &str) -> Result<Vec<DeadLetterGroup>, StoreError> {
        let sink = sink.to_owned();
        self.read_with(move |scope| {
            let mut find = scope.conn.prepare_cached(
                "SELECT reason, rule, count(*) FROM dead_letters WHERE sink = ?1
                 GROUP BY reason, rule ORDER BY count(*) DESC, reason, rule LIMIT ?2",
            )?;
            let rows = find.query_map(params![sink, row_count(MAX_GROUPS)], |row| {
                Ok(DeadLetterGroup {
                    reason: row.get(0)?,
                    rule: row.get(1)?,
                    count: row.get::<_, i64>(2)?.cast_unsigned(),
                })
            })?;
            rows.collect()
        })
        .await
    }

    /// How many dead letters of a sink match the filter.
    ///
    /// # Errors
    /// Those of any read.
    pub async fn count_matching_dead_letters(
        &self,
        sink: &str,
        filter: DeadLetterFilter,
    ) -> Result<u64, StoreError> {
        let sink = sink.to_owned();
        self.read_with(move |scope| {
            let sql = format!("SELECT count(*) FROM dead_letters WHERE {FILTER_SQL}");
            let mut find = scope.conn.prepare_cached(&sql)?;
            let filter = params![sink, filter.reason, filter.since(), filter.ids(), filter.rule];
            find.query_row(filter, |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
        })
        .await
    }

    /// The newest dead letters of a sink that match the filter, without their records. `before`
    /// continues a list: only those with a smaller id.
    ///
    /// # Errors
    /// Those of any read.
    pub async fn list_dead_letters(
        &self,
        sink: &str,
        filter: DeadLetterFilter,
        limit: usize,
        before: Option<i64>,
    ) -> Result<Vec<DeadLetterRow>, StoreError> {
        let sink = sink.to_owned();
        self.read_with(move |scope| {
            let mut find = scope.conn.prepare_cached(&format!(
                "SELECT id, sink, at, reason, substr(detail, 1, 500), rule, field, place, status,
                 replays FROM dead_letters
                 WHERE {FILTER_SQL} AND (?6 IS NULL OR id < ?6) ORDER BY id DESC LIMIT ?7"
            ))?;
            let filter = params![
                sink,
                filter.reason,
                filter.since(),
                filter.ids(),
                filter.rule,
                before,
                row_count(limit)
            ];
            let rows = find.query_map(filter, from_row)?;
            rows.collect()
        })
        .await
    }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<DeadLetterRow> {
    Ok(DeadLetterRow {
        id: row.get(0)?,
        sink: row.get(1)?,
        at: from_micros(row.get(2)?),
        reason: row.get(3)?,
        detail: row.get(4)?,
        rule: row.get(5)?,
        field: row.get(6)?,
        place: row.get(7)?,
        status: row.get(8)?,
        replays: row.get(9)?,
    })
}
