//! Dead letters by their cause: many records that fail alike are one line.

use jiff::Timestamp;
use rusqlite::params;
use serde::Serialize;

use super::dead_letters::{DeadLetterFilter, FILTER_SQL};
use super::error::StoreError;
use super::sql::{from_micros, row_count};
use super::store::Store;

/// Causes of one sink that are listed at most: those with the most dead letters.
const MAX_CAUSES: usize = 1_000;

/// The dead letters of one sink that have the same reason, rule and field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetterCause {
    /// The sink.
    pub sink: String,
    /// The reason.
    pub reason: String,
    /// The mapping rule.
    pub rule: Option<String>,
    /// The field at fault.
    pub field: Option<String>,
    /// How many there are.
    pub count: u64,
    /// When the first of them was given up.
    pub oldest: Timestamp,
    /// When the last of them was given up.
    pub newest: Timestamp,
    /// The id of the last one, for `show`.
    pub last_id: i64,
    /// The last one's reason in a sentence.
    pub detail: String,
}

impl Store {
    /// The dead letters of a sink by cause, the most frequent first.
    ///
    /// # Errors
    /// Those of any read.
    pub async fn dead_letter_causes(
        &self,
        sink: &str,
        filter: DeadLetterFilter,
    ) -> Result<Vec<DeadLetterCause>, StoreError> {
        let sink = sink.to_owned();
        self.read_with(move |scope| {
            let mut find = scope.conn.prepare_cached(&format!(
                "SELECT c.sink, c.reason, c.rule, c.field, c.n, c.oldest, c.newest, c.last, d.detail
                 FROM (SELECT sink, reason, rule, field, count(*) AS n, min(at) AS oldest,
                              max(at) AS newest, max(id) AS last
                       FROM dead_letters WHERE {FILTER_SQL}
                       GROUP BY sink, reason, rule, field) AS c
                 JOIN dead_letters AS d ON d.id = c.last
                 ORDER BY c.n DESC, c.last DESC LIMIT ?5"
            ))?;
            let rows = find.query_map(
                params![sink, filter.reason, filter.since(), filter.ids(), row_count(MAX_CAUSES)],
                |row| {
                    Ok(DeadLetterCause {
                        sink: row.get(0)?,
                        reason: row.get(1)?,
                        rule: row.get(2)?,
                        field: row.get(3)?,
                        count: row.get::<_, i64>(4)?.cast_unsigned(),
                        oldest: from_micros(row.get(5)?),
                        newest: from_micros(row.get(6)?),
                        last_id: row.get(7)?,
                        detail: row.get(8)?,
                    })
                },
            )?;
            rows.collect()
        })
        .await
    }
}
