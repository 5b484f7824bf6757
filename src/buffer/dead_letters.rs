//! Dead letters: records that could not be delivered, with the reason and everything needed to send
//! them again.
//!
//! # Invariants
//! A dead letter contains no secret: it holds the record as received, names from the mapping and
//! the server's response, never request headers, which carry the API key.

use std::borrow::Cow;
use std::io::{self, Write};

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::error::StoreError;
use super::sql::{MAX_DELETE_ROWS, from_micros, json_array, micros, row_count};
use super::store::Store;
use crate::record::Record;

/// Bytes counted per dead letter in addition to its long texts.
const DEAD_LETTER_OVERHEAD: u64 = 256;

/// [`DeadLetter::size`] of a row.
const SIZE_SQL: &str = "(256 + length(record) + ifnull(length(meta), 0) + ifnull(length(call), 0) \
                    + ifnull(length(response), 0) + length(detail))";

const COLUMNS: &str = "id, sink, at, reason, detail, rule, field, place, transport_id, status, \
                       response, attempts, replays, call, meta, record";

/// Selects the rows that match a [`DeadLetterFilter`]: parameters 1 to 4.
pub(super) const FILTER_SQL: &str =
    "sink = ?1 AND (?2 IS NULL OR reason = ?2) AND (?3 IS NULL OR at >= ?3)
    AND (?4 IS NULL OR id IN (SELECT value FROM json_each(?4)))";

/// A record that could not be delivered, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The record's body as received: JSON, or the raw bytes if they could not be decoded.
    pub record: Bytes,
    /// See [`Record::meta`].
    pub meta: Option<Bytes>,
    /// Where the record came from, for people: `logs/app.ndjson:17`.
    pub place: Option<String>,
    /// See [`Record::transport_id`].
    pub transport_id: Option<String>,
    /// The mapping rule that was applied.
    pub rule: Option<String>,
    /// The field at fault: `traits.email`.
    pub field: Option<String>,
    /// A stable code to count and filter by: `required_missing`, `status_400`.
    pub reason: String,
    /// The reason in a sentence.
    pub detail: String,
    /// The HTTP status of the last response.
    pub status: Option<u16>,
    /// The start of the last response's body.
    pub response: Option<String>,
    /// How many HTTP requests were made for it.
    pub attempts: u32,
    /// The call that the mapping made of it, as JSON.
    pub call: Option<String>,
    /// When delivery was given up. Stored to the microsecond.
    pub at: Timestamp,
}

impl DeadLetter {
    /// Its size, in bytes, as counted against `dead_letters.max_size`.
    pub(super) fn size(&self) -> u64 {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let bytes = self.record.len()
            + self.meta.as_ref().map_or(0, Bytes::len)
            + text(&self.call)
            + text(&self.response)
            + self.detail.len();
        DEAD_LETTER_OVERHEAD.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// A dead letter of a record that was never sent.
    pub fn new(
        record: &Record,
        reason: impl Into<String>,
        detail: impl Into<String>,
        at: Timestamp,
    ) -> Self {
        Self {
            record: record.body.clone(),
            meta: record.meta.clone(),
            place: record.origin.as_ref().map(|o| o.location.as_ref().to_owned()),
            transport_id: record.transport_id.as_deref().map(str::to_owned),
            rule: None,
            field: None,
            reason: reason.into(),
            detail: detail.into(),
            status: None,
            response: None,
            attempts: 0,
            call: None,
            at,
        }
    }
}

/// A dead letter in the store.
///
/// Serializes to one flat object. The record is in `record` if it is JSON that every JSON parser
/// accepts (no lone surrogate, no number beyond f64, no nesting beyond 128), else in `record_text`
/// if it is UTF-8, else in `record_escaped` with `\xNN` for bytes that are not ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDeadLetter {
    /// Its number, for `show`, `replay` and `purge`.
    pub id: i64,
    /// The sink that could not deliver it.
    pub sink: String,
    /// How often it was replayed.
    pub replays: u32,
    /// The dead letter.
    pub letter: DeadLetter,
}

#[derive(Serialize)]
struct DeadLetterJson<'a> {
    id: i64,
    sink: &'a str,
    at: Timestamp,
    reason: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    attempts: u32,
    replays: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_escaped: Option<String>,
}

impl Serialize for StoredDeadLetter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let letter = &self.letter;
        let record = parseable_json(&letter.record);
        let text = std::str::from_utf8(&letter.record);
        DeadLetterJson {
            id: self.id,
            sink: &self.sink,
            at: letter.at,
            reason: &letter.reason,
            detail: &letter.detail,
            rule: letter.rule.as_deref(),
            field: letter.field.as_deref(),
            place: letter.place.as_deref(),
            transport_id: letter.transport_id.as_deref(),
            status: letter.status,
            response: letter.response.as_deref(),
            attempts: letter.attempts,
            replays: self.replays,
            call: letter.call.as_ref().and_then(|call| json_or_text(call.as_bytes())),
            meta: letter.meta.as_deref().and_then(json_or_text),
            record_text: text.ok().filter(|_| record.is_none()),
            record_escaped: match text {
                Ok(_) => None,
                Err(_) => Some(letter.record.escape_ascii().to_string()),
            },
            record,
        }
        .serialize(serializer)
    }
}

/// JSON that can be embedded in the output: every JSON parser must be able to read it.
fn parseable_json(bytes: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice::<serde_json::Value>(bytes).ok()?;
    json_line(bytes)
}

/// As [`parseable_json`], or the text as a JSON string.
fn json_or_text(bytes: &[u8]) -> Option<Box<RawValue>> {
    parseable_json(bytes).or_else(|| {
        let text = String::from_utf8_lossy(bytes);
        serde_json::value::to_raw_value(&text).ok()
    })
}

/// JSON text on one line; `None` if it is not JSON.
fn json_line(bytes: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    match without_line_breaks(raw.get()) {
        Cow::Borrowed(_) => Some(raw.to_owned()),
        Cow::Owned(line) => RawValue::from_string(line).ok(),
    }
}

/// Line breaks inside JSON strings are always escaped, so an unescaped one is white space.
fn without_line_breaks(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    }
}

/// The result of [`export`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Records written.
    pub written: u64,
    /// Records skipped: neither JSON nor a single line.
    pub left_out: u64,
}

/// Writes the records themselves, one per line, so that a source can read them again. JSON stays
/// the same JSON value; a line that could not be decoded stays the same line.
///
/// # Errors
/// Those of `out`.
pub fn export(letters: &[StoredDeadLetter], out: &mut impl Write) -> io::Result<Exported> {
    let mut done = Exported::default();
    for letter in letters {
        let body = &letter.letter.record;
        match json_line(body) {
            Some(json) => out.write_all(json.get().as_bytes())?,
            None if body.contains(&b'\n') => {
                done.left_out += 1;
                continue;
            }
            None => out.write_all(body)?,
        }
        out.write_all(b"\n")?;
        done.written += 1;
    }
    Ok(done)
}

/// Selects dead letters of a sink: those that meet every condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Those with these ids. Default: all.
    pub ids: Option<Vec<i64>>,
    /// Those with this reason. Default: all.
    pub reason: Option<String>,
    /// Those of this time or later. Default: all.
    pub since: Option<Timestamp>,
}

impl DeadLetterFilter {
    pub(super) fn ids(&self) -> Option<String> {
        self.ids.as_deref().map(json_array)
    }

    pub(super) fn since(&self) -> Option<i64> {
        self.since.map(micros)
    }
}

impl Store {
    /// A sink's dead letters, oldest first.
    ///
    /// # Errors
    /// Those of any read.
    pub async fn dead_letters(
        &self,
        sink: &str,
        filter: DeadLetterFilter,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<StoredDeadLetter>, StoreError> {
        let sink = sink.to_owned();
        self.read_with(move |scope| {
            let mut find = scope.conn.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM dead_letters WHERE {FILTER_SQL} ORDER BY id LIMIT ?5 OFFSET ?6"
            ))?;
            let rows = find.query_map(
                params![
                    sink,
                    filter.reason,
                    filter.since(),
                    filter.ids(),
                    row_count(limit),
                    row_count(offset)
                ],
                from_row,
            )?;
            rows.collect()
        })
        .await
    }

    /// One dead letter.
    ///
    /// # Errors
    /// Those of any read.
    pub async fn dead_letter(&self, id: i64) -> Result<Option<StoredDeadLetter>, StoreError> {
        self.read_with(move |scope| {
            let mut find = scope
                .conn
                .prepare_cached(&format!("SELECT {COLUMNS} FROM dead_letters WHERE id = ?1"))?;
            let mut rows = find.query_map([id], from_row)?;
            rows.next().transpose()
        })
        .await
    }

    /// How many dead letters a sink has, by reason.
    ///
    /// # Errors
    /// Those of any read.
    pub async fn count_dead_letters(&self, sink: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let sink = sink.to_owned();
        self.read_with(move |scope| {
            let mut find = scope.conn.prepare_cached(
                "SELECT reason, count(*) FROM dead_letters WHERE sink = ?1
                 GROUP BY reason ORDER BY reason",
            )?;
            let rows = find.query_map([&sink], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
            })?;
            rows.collect()
        })
        .await
    }

    /// Deletes dead letters by id. Returns how many there were.
    ///
    /// # Errors
    /// Those of any write.
    pub async fn delete_dead_letters(&self, ids: &[i64]) -> Result<usize, StoreError> {
        let ids = json_array(ids);
        self.totals().clear_dead_bytes();
        self.write(move |scope| {
            let mut delete = scope.conn.prepare_cached(
                "DELETE FROM dead_letters WHERE id IN (SELECT value FROM json_each(?1))",
            )?;
            delete.execute([&ids])
        })
        .await
    }

    /// Deletes the dead letters of a sink that match the filter. Returns how many.
    ///
    /// # Errors
    /// Those of any write.
    pub async fn purge_dead_letters(
        &self,
        sink: &str,
        filter: DeadLetterFilter,
    ) -> Result<usize, StoreError> {
        let sink = sink.to_owned();
        self.totals().clear_dead_bytes();
        self.write(move |scope| {
            let mut delete = scope
                .conn
                .prepare_cached(&format!("DELETE FROM dead_letters WHERE {FILTER_SQL}"))?;
            delete.execute(params![sink, filter.reason, filter.since(), filter.ids()])
        })
        .await
    }

    /// Deletes the oldest dead letters of a sink if all together are larger than `max_size` bytes,
    /// until a tenth of that is free. Returns how many.
    ///
    /// # Errors
    /// Those of any write.
    pub async fn trim_dead_letters(&self, sink: &str, max_size: u64) -> Result<u64, StoreError> {
        let mut size = match self.totals().dead_bytes(sink) {
            Some(size) => size,
            None => self.sum_dead_letters(sink).await?,
        };
        if size <= max_size {
            self.totals().set_dead_bytes(sink, size);
            return Ok(0);
        }
        // Dead letters that are written meanwhile are counted next time.
        self.totals().clear_dead_bytes();
        let mut deleted = 0;
        let goal = max_size - max_size / 10;
        while size > goal {
            let (name, excess) = (sink.to_owned(), size - goal);
            let (rows, bytes) =
                self.write(move |scope| delete_oldest(scope.conn, &name, excess)).await?;
            if rows == 0 {
                break;
            }
            deleted += rows;
            size = size.saturating_sub(bytes);
        }
        Ok(deleted)
    }

    async fn sum_dead_letters(&self, sink: &str) -> Result<u64, StoreError> {
        let sink = sink.to_owned();
        self.read_with(move |scope| {
            let sql =
                format!("SELECT ifnull(sum({SIZE_SQL}), 0) FROM dead_letters WHERE sink = ?1");
            let mut sum = scope.conn.prepare_cached(&sql)?;
            sum.query_row([&sink], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
        })
        .await
    }

    /// Counts one more replay for each of these dead letters.
    ///
    /// # Errors
    /// Those of any write.
    pub async fn note_replay(&self, ids: &[i64]) -> Result<(), StoreError> {
        let ids = json_array(ids);
        self.write(move |scope| {
            let mut note = scope.conn.prepare_cached(
                "UPDATE dead_letters SET replays = replays + 1
                 WHERE id IN (SELECT value FROM json_each(?1))",
            )?;
            note.execute([&ids]).map(drop)
        })
        .await
    }
}

/// Deletes a sink's oldest dead letters until `excess` bytes are freed, at most as many as one
/// transaction may. Returns their number and their bytes.
fn delete_oldest(conn: &Connection, sink: &str, excess: u64) -> rusqlite::Result<(u64, u64)> {
    let sql =
        format!("SELECT id, {SIZE_SQL} FROM dead_letters WHERE +sink = ?1 ORDER BY id LIMIT ?2");
    let mut find = conn.prepare_cached(&sql)?;
    let oldest = find.query_map(params![sink, MAX_DELETE_ROWS], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    let (mut ids, mut bytes) = (Vec::new(), 0);
    for row in oldest {
        if bytes >= excess {
            break;
        }
        let (id, size) = row?;
        ids.push(id);
        bytes += size;
    }
    conn.prepare_cached("DELETE FROM dead_letters WHERE id IN (SELECT value FROM json_each(?1))")?
        .execute([json_array(&ids)])?;
    Ok((ids.len() as u64, bytes))
}

/// Inserts a dead letter in the current transaction.
pub(super) fn insert(conn: &Connection, sink: &str, letter: &DeadLetter) -> rusqlite::Result<()> {
    let mut add = conn.prepare_cached(
        "INSERT INTO dead_letters (sink, at, reason, detail, rule, field, place, transport_id,
            status, response, attempts, call, meta, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    add.execute(params![
        sink,
        micros(letter.at),
        letter.reason,
        letter.detail,
        letter.rule,
        letter.field,
        letter.place,
        letter.transport_id,
        letter.status,
        letter.response,
        letter.attempts,
        letter.call,
        letter.meta.as_deref(),
        &*letter.record,
    ])
    .map(drop)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<StoredDeadLetter> {
    Ok(StoredDeadLetter {
        id: row.get(0)?,
        sink: row.get(1)?,
        replays: row.get(12)?,
        letter: DeadLetter {
            at: from_micros(row.get(2)?),
            reason: row.get(3)?,
            detail: row.get(4)?,
            rule: row.get(5)?,
            field: row.get(6)?,
            place: row.get(7)?,
            transport_id: row.get(8)?,
            status: row.get(9)?,
            response: row.get(10)?,
            attempts: row.get(11)?,
            call: row.get(13)?,
            meta: row.get::<_, Option<Vec<u8>>>(14)?.map(Bytes::from),
            record: row.get::<_, Vec<u8>>(15)?.into(),
        },
    })
}
