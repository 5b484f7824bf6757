//! Buffered records in the store: append, read in order, mark as possibly sent, settle.
//!
//! # Invariants
//! The single writer assigns sequence numbers. They grow with every commit and are never reused, so
//! a reader that continues after the last number it read misses nothing.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::dead_letters::{self, DeadLetter};
use super::error::StoreError;
use super::free_space;
use super::seen::stored_key;
use super::sizes::SizeDelta;
use super::sql::{from_micros, json_array, micros, row_count};
use super::store::Store;
use super::totals::RowsAdded;
use super::writer::TxScope;
use super::{PAGE_BYTES, PAGE_RECORDS, RECORD_OVERHEAD};
use crate::ack::Ack;
use crate::clock;
use crate::record::{AckOn, Record, SourcePosition};

const COLUMNS: &str = "seq, body, meta, origin_key, origin_position, place, transport_id, fault, \
                       received_at, happened_at, maybe_sent OR EXISTS (SELECT 1 FROM dispatched AS d \
                       WHERE d.sink = buffer.sink AND d.seq = buffer.seq)";

/// A record as it is stored, without its acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// See [`Record::body`].
    pub body: Bytes,
    /// See [`Record::meta`].
    pub meta: Option<Bytes>,
    /// See [`Record::origin`].
    pub origin: Option<SourcePosition>,
    /// See [`Record::transport_id`].
    pub transport_id: Option<Arc<str>>,
    /// See [`Record::event_time`].
    pub time: Option<Timestamp>,
    /// See [`Record::maybe_sent`].
    pub maybe_sent: bool,
    /// See [`Record::decode_error`].
    pub fault: Option<Arc<str>>,
}

impl NewRecord {
    /// Its size in a buffer, in bytes.
    pub fn size(&self) -> u64 {
        let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
        let origin = self.origin.as_ref();
        let bytes = self.body.len()
            + self.meta.as_ref().map_or(0, Bytes::len)
            + origin.map_or(0, |origin| origin.stream_id.len() + origin.location.len())
            + text(&self.transport_id)
            + text(&self.fault);
        RECORD_OVERHEAD.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// The record with a no-op acknowledgement.
    pub fn into_record(self) -> Record {
        Record {
            body: self.body,
            meta: self.meta,
            origin: self.origin,
            transport_id: self.transport_id,
            event_time: self.time,
            maybe_sent: self.maybe_sent,
            decode_error: self.fault,
            ack: Ack::noop(),
            ack_on: AckOn::Persisted,
        }
    }
}

impl From<&Record> for NewRecord {
    fn from(record: &Record) -> Self {
        Self {
            body: record.body.clone(),
            meta: record.meta.clone(),
            origin: record.origin.clone(),
            transport_id: record.transport_id.clone(),
            time: record.event_time,
            maybe_sent: record.maybe_sent,
            fault: record.decode_error.clone(),
        }
    }
}

/// The result of [`Store::append`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendOutcome {
    /// Sequence numbers of the stored records, in their order.
    pub seqs: Range<i64>,
    /// How many were skipped because their source position was stored before.
    pub skipped: usize,
}

/// A buffered record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferedRow {
    /// Its sequence number. Sinks share one sequence.
    pub seq: i64,
    /// The record.
    pub record: NewRecord,
    /// When it was stored.
    pub received_at: Timestamp,
    /// Whether it may have been sent: an earlier run marked it and did not settle it, or its source
    /// says so.
    pub maybe_sent: bool,
}

/// The final status of a record, as it is stored.
#[derive(Debug, Clone, Default)]
pub struct Settlement {
    /// The buffered record to delete; `None` if it was never stored.
    pub seq: Option<i64>,
    /// Dead letters to keep.
    pub dead: Vec<DeadLetter>,
    /// Message keys to store as delivered.
    pub seen: Vec<String>,
}

impl Store {
    /// Stores records, in order. Skips those whose [`SourcePosition::end_offset`] is not after the
    /// highest one stored for the same stream and sink.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] or another error; then no record was stored.
    pub async fn append(
        &self,
        sink: &str,
        records: Vec<NewRecord>,
    ) -> Result<AppendOutcome, StoreError> {
        let sink: Arc<str> = sink.into();
        let at = micros(clock::now());
        let dir = self.dir();
        let bytes: u64 = records.iter().map(NewRecord::size).sum();
        let appended = self
            .write(move |scope| {
                let before: i64 = scope.deltas.iter().map(|delta| delta.bytes.max(0)).sum();
                let needed = bytes.saturating_add(before.cast_unsigned());
                match free_space::shortage(scope.conn, dir.as_deref(), needed)? {
                    Some(shortage) => Ok(Err(shortage)),
                    None => insert(scope, &sink, &records, at).map(Ok),
                }
            })
            .await?;
        appended.map_err(|shortage| StoreError::Full {
            path: self.path().to_owned(),
            why: shortage.to_string(),
        })
    }

    /// Buffered records after `after`, in order: at most `limit`, [`PAGE_RECORDS`] and
    /// [`PAGE_BYTES`]. Empty only if there are none.
    ///
    /// # Errors
    /// Those of any read.
    pub async fn read(
        &self,
        sink: &str,
        after: i64,
        limit: usize,
    ) -> Result<Vec<BufferedRow>, StoreError> {
        let sink = sink.to_owned();
        self.read_with(move |scope| {
            let mut find = scope.conn.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM buffer WHERE sink = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3"
            ))?;
            let rows =
                find.query_map(params![sink, after, row_count(limit.min(PAGE_RECORDS))], stored)?;
            take_page(rows)
        })
        .await
    }

    /// The records with these sequence numbers that are still buffered, in order, within the limits
    /// of [`read`](Self::read).
    ///
    /// # Errors
    /// Those of any read.
    pub async fn read_these(
        &self,
        sink: &str,
        seqs: &[i64],
    ) -> Result<Vec<BufferedRow>, StoreError> {
        let sink = sink.to_owned();
        let wanted = json_array(seqs);
        self.read_with(move |scope| {
            let mut find = scope.conn.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM buffer
                 WHERE sink = ?1 AND seq IN (SELECT value FROM json_each(?2))
                 ORDER BY seq LIMIT ?3"
            ))?;
            let rows = find.query_map(params![sink, wanted, row_count(PAGE_RECORDS)], stored)?;
            take_page(rows)
        })
        .await
    }

    /// Settles records in one transaction: deletes them from the buffer, stores dead letters and
    /// the keys of delivered messages.
    ///
    /// # Errors
    /// Those of any write; then nothing of it was done.
    pub async fn settle(&self, sink: &str, batch: Vec<Settlement>) -> Result<(), StoreError> {
        let sink: Arc<str> = sink.into();
        let at = micros(clock::now());
        let added = RowsAdded {
            dead_bytes: batch.iter().flat_map(|s| &s.dead).map(DeadLetter::size).sum(),
            seen: batch.iter().map(|s| s.seen.len() as u64).sum(),
        };
        self.write({
            let sink = Arc::clone(&sink);
            move |scope| settle_all(scope, &sink, &batch, at)
        })
        .await?;
        self.totals().add(&sink, added);
        Ok(())
    }

    /// Marks records as possibly sent, before requests for them are sent. The mark is returned
    /// whenever a record is read again. Records that are not stored any more are skipped.
    ///
    /// # Errors
    /// Those of any write; then the requests must not leave.
    pub async fn mark_dispatched(&self, sink: &str, seqs: Vec<i64>) -> Result<(), StoreError> {
        self.change_marks(sink, seqs, Vec::new()).await
    }

    /// Marks records as possibly sent and removes the marks of others, in one transaction.
    ///
    /// # Errors
    /// Those of any write.
    pub async fn change_marks(
        &self,
        sink: &str,
        sent: Vec<i64>,
        not_sent: Vec<i64>,
    ) -> Result<(), StoreError> {
        let sink = sink.to_owned();
        self.write(move |scope| {
            let mut mark = scope.conn.prepare_cached(
                "INSERT INTO dispatched (sink, seq) SELECT sink, seq FROM buffer
                 WHERE sink = ?1 AND seq = ?2 ON CONFLICT DO NOTHING",
            )?;
            for seq in &sent {
                mark.execute(params![sink, seq])?;
            }
            for seq in &not_sent {
                unmark(scope.conn, &sink, *seq)?;
            }
            Ok(())
        })
        .await
    }
}

fn unmark(conn: &Connection, sink: &str, seq: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM dispatched WHERE sink = ?1 AND seq = ?2")?
        .execute(params![sink, seq])
        .map(drop)
}

fn insert(
    scope: &mut TxScope<'_>,
    sink: &Arc<str>,
    records: &[NewRecord],
    at: i64,
) -> rusqlite::Result<AppendOutcome> {
    let mut deduper = OriginDeduper::new(scope.conn, sink);
    let mut add = scope.conn.prepare_cached(
        "INSERT INTO buffer (sink, size, received_at, origin_key, origin_position, place,
            transport_id, fault, meta, body, happened_at, maybe_sent)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    let mut appended = AppendOutcome { seqs: 0..0, skipped: 0 };
    let mut bytes = 0;
    for record in records {
        if let Some(origin) = &record.origin
            && !deduper.accepts(origin)?
        {
            appended.skipped += 1;
            continue;
        }
        let origin = record.origin.as_ref();
        let size = i64::try_from(record.size()).unwrap_or(i64::MAX);
        let seq = add.insert(params![
            sink,
            size,
            at,
            origin.map(|origin| &*origin.stream_id),
            origin.map(|origin| origin.end_offset.cast_signed()),
            origin.map(|origin| &*origin.location),
            record.transport_id,
            record.fault,
            record.meta.as_deref(),
            &*record.body,
            record.time.map(micros),
            record.maybe_sent,
        ])?;
        if appended.seqs.is_empty() {
            appended.seqs.start = seq;
        }
        appended.seqs.end = seq + 1;
        bytes += size;
    }
    deduper.save()?;
    scope.deltas.push(SizeDelta {
        sink: Arc::clone(sink),
        events: appended.seqs.end - appended.seqs.start,
        bytes,
    });
    Ok(appended)
}

/// The highest stored position per stream, read and written once per stream and transaction.
struct OriginDeduper<'a> {
    conn: &'a Connection,
    sink: &'a str,
    taken: HashMap<Arc<str>, u64>,
}

impl<'a> OriginDeduper<'a> {
    fn new(conn: &'a Connection, sink: &'a str) -> Self {
        Self { conn, sink, taken: HashMap::new() }
    }

    /// Whether the position is new; then it is stored as the highest.
    fn accepts(&mut self, origin: &SourcePosition) -> rusqlite::Result<bool> {
        let taken = match self.taken.get(&origin.stream_id) {
            Some(taken) => Some(*taken),
            None => self.stored(&origin.stream_id)?,
        };
        let new = taken.is_none_or(|taken| origin.end_offset > taken);
        if new {
            self.taken.insert(Arc::clone(&origin.stream_id), origin.end_offset);
        }
        Ok(new)
    }

    fn stored(&self, key: &str) -> rusqlite::Result<Option<u64>> {
        self.conn
            .prepare_cached("SELECT position FROM intake WHERE sink = ?1 AND origin_key = ?2")?
            .query_row(params![self.sink, key], |row| row.get(0).map(i64::cast_unsigned))
            .optional()
    }

    fn save(self) -> rusqlite::Result<()> {
        let mut save = self.conn.prepare_cached(
            "INSERT INTO intake (sink, origin_key, position) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET position = excluded.position",
        )?;
        for (key, position) in &self.taken {
            save.execute(params![self.sink, key, position.cast_signed()])?;
        }
        Ok(())
    }
}

fn settle_all(
    scope: &mut TxScope<'_>,
    sink: &Arc<str>,
    batch: &[Settlement],
    at: i64,
) -> rusqlite::Result<()> {
    let mut remove = scope
        .conn
        .prepare_cached("DELETE FROM buffer WHERE sink = ?1 AND seq = ?2 RETURNING size")?;
    let mut remember = scope.conn.prepare_cached(
        "INSERT INTO seen (sink, message_key, at) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET at = excluded.at",
    )?;
    let mut delta = SizeDelta { sink: Arc::clone(sink), events: 0, bytes: 0 };
    for settlement in batch {
        if let Some(seq) = settlement.seq {
            let size =
                remove.query_row(params![sink, seq], |row| row.get::<_, i64>(0)).optional()?;
            if let Some(size) = size {
                delta.events -= 1;
                delta.bytes -= size;
                unmark(scope.conn, sink, seq)?;
            }
        }
        for letter in &settlement.dead {
            dead_letters::insert(scope.conn, sink, letter)?;
        }
        for key in &settlement.seen {
            remember.execute(params![sink, stored_key(key), at])?;
        }
    }
    scope.deltas.push(delta);
    Ok(())
}

fn stored(row: &Row<'_>) -> rusqlite::Result<BufferedRow> {
    let seq = row.get(0)?;
    let maybe_sent = row.get(10)?;
    let origin = match row.get::<_, Option<Arc<str>>>(3)? {
        None => None,
        Some(key) => Some(SourcePosition {
            stream_id: key,
            end_offset: row.get::<_, i64>(4)?.cast_unsigned(),
            location: row.get(5)?,
        }),
    };
    Ok(BufferedRow {
        seq,
        record: NewRecord {
            body: row.get::<_, Vec<u8>>(1)?.into(),
            meta: row.get::<_, Option<Vec<u8>>>(2)?.map(Bytes::from),
            origin,
            transport_id: row.get(6)?,
            time: row.get::<_, Option<i64>>(9)?.map(from_micros),
            maybe_sent,
            fault: row.get(7)?,
        },
        received_at: from_micros(row.get(8)?),
        maybe_sent,
    })
}

/// Takes rows until the page is full, at least one.
fn take_page(
    rows: impl Iterator<Item = rusqlite::Result<BufferedRow>>,
) -> rusqlite::Result<Vec<BufferedRow>> {
    let mut page = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let row = row?;
        bytes += row.record.size();
        if bytes > PAGE_BYTES && !page.is_empty() {
            break;
        }
        page.push(row);
    }
    Ok(page)
}
