//! The store: one SQLite file in a `data_dir` for all that must outlive the process.
//!
//! Here are its opening and closing, and the small tables: checkpoints, seen message keys, cached
//! look-ups. Buffered records are in `queue`, dead letters in `dead_letters`.
//!
//! One invariant: what a method wrote is on disk when it returns. A dropped future undoes nothing.

use std::collections::HashMap;
use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::BufferSize;
use super::error::StoreError;
use super::lock::DirLock;
use super::schema;
use super::trim::{TableTotals, stored_key};
use super::writer::{ConnectionOwner, DbHandle, SizeDelta, TxScope, start_reader, start_writer};
use crate::clock;
use crate::source::{Checkpoints, SourceError};

/// Rows one transaction deletes at most, where many may be due.
pub(super) const DELETE_BATCH: i64 = 1000;

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To read and write, as the directory's only owner. Makes what is missing.
    Owner,
    /// To look, also while another process is the owner. Every write is refused.
    ReadOnly,
}

/// A handle of the store. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<StoreInner>,
}

struct StoreInner {
    path: PathBuf,
    /// `None` where the store is open for reading only.
    writer: Option<DbHandle>,
    /// In a store that lives in memory, the writer once more.
    reader: Option<DbHandle>,
    /// Joined in this order: the writer is the last to let go of the file, and tidies it.
    threads: Vec<JoinHandle<()>>,
    sizes: Sizes,
    totals: TableTotals,
}

impl Store {
    /// Opens the store of a `data_dir`. Blocks for as long as checking the file takes.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if the directory has an owner (for [`Access::Owner`]),
    /// [`StoreError::Missing`] if there is nothing to read (for [`Access::ReadOnly`]),
    /// [`StoreError::Foreign`], [`Version`](StoreError::Version) or
    /// [`Corrupt`](StoreError::Corrupt) if the file cannot be used; then it is left as it was.
    pub fn open(dir: &Path, access: Access) -> Result<Self, StoreError> {
        match access {
            Access::Owner => Self::open_owned(dir),
            Access::ReadOnly => Self::open_reader(dir),
        }
    }

    fn open_owned(dir: &Path) -> Result<Self, StoreError> {
        // What is kept here is about people: nobody else's to read.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(StoreError::io(format!("make data_dir `{}`", dir.display())))?;
        let lock = DirLock::take(dir)?;
        let path = schema::file_in(dir);
        let conn = schema::open_owned(&path)?;
        let reading = schema::open_reader(&path)?;
        let sizes = read_sizes(&conn, &path)?;
        let opened = Arc::<AtomicU64>::default();
        let holder = |conn, lock| {
            ConnectionOwner::new(conn, &path, sizes.clone(), lock, Arc::clone(&opened))
        };
        let (writer, writes) = start_writer(holder(conn, Some(lock)))?;
        let (reader, reads) = start_reader(holder(reading, None))?;
        Ok(Self::assemble(StoreInner {
            writer: Some(writer),
            reader: Some(reader),
            threads: vec![reads, writes],
            sizes,
            totals: TableTotals::default(),
            path,
        }))
    }

    fn open_reader(dir: &Path) -> Result<Self, StoreError> {
        let path = schema::file_in(dir);
        if !path.exists() {
            return Err(StoreError::Missing { dir: dir.to_owned() });
        }
        let conn = schema::open_reader(&path)?;
        let sizes = read_sizes(&conn, &path)?;
        let (reader, reads) =
            start_reader(ConnectionOwner::new(conn, &path, sizes.clone(), None, Arc::default()))?;
        Ok(Self::assemble(StoreInner {
            writer: None,
            reader: Some(reader),
            threads: vec![reads],
            sizes,
            totals: TableTotals::default(),
            path,
        }))
    }

    /// A store that is gone with its last handle, for tests and demonstrations.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`] if there is no memory for it.
    pub fn in_memory() -> Result<Self, StoreError> {
        let path = PathBuf::from(":memory:");
        let conn = schema::open_memory().map_err(|e| StoreError::sqlite(&path, e))?;
        let sizes = Sizes::default();
        let (writer, thread) =
            start_writer(ConnectionOwner::new(conn, &path, sizes.clone(), None, Arc::default()))?;
        Ok(Self::assemble(StoreInner {
            path,
            reader: Some(writer.clone()),
            writer: Some(writer),
            threads: vec![thread],
            sizes,
            totals: TableTotals::default(),
        }))
    }

    fn assemble(inner: StoreInner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Closes the store for all its handles: finishes what waits, moves the log into the file and
    /// releases the directory. Commands given later answer [`StoreError::Closed`].
    pub async fn close(self) {
        for handle in [&self.inner.reader, &self.inner.writer].into_iter().flatten() {
            handle.close().await;
        }
    }

    /// Caps the file at about this many bytes (whole pages; never below its present size), for as
    /// long as the store is open. Writes that would need more answer [`StoreError::Full`].
    ///
    /// # Errors
    /// Those of any write.
    pub async fn limit_file_size(&self, bytes: u64) -> Result<(), StoreError> {
        self.write(move |scope| {
            let page =
                scope.conn.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0))?;
            let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
            // Zero would only ask for the present limit; SQLite knows at most 2^32 - 2 pages.
            let sql = format!("PRAGMA max_page_count = {}", pages.clamp(1, 0xFFFF_FFFE));
            scope.conn.query_row(&sql, [], |_| Ok(()))
        })
        .await
    }

    /// How much of a sink's records the store holds. Counted along with every write; a store that
    /// is open for reading tells what it saw when it was opened.
    pub fn buffer_size(&self, sink: &str) -> BufferSize {
        self.inner.sizes.of(sink)
    }

    /// Which of these message keys were delivered before, in the order asked. Keys count until they
    /// are [expired](Self::expire_seen).
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
                // Earlier versions stored long keys as they are.
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
            let rows = find.query_map(params![sink, micros(since), count(limit)], |row| {
                Ok((row.get(0)?, from_micros(row.get(1)?)))
            })?;
            rows.collect()
        })
        .await
    }

    /// Forgets message keys delivered before `before`, some at a time so that other writes get
    /// their turn. Returns how many.
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
                    delete.execute(params![sink, micros(before), DELETE_BATCH])
                })
                .await?;
            if gone == 0 {
                return Ok(expired);
            }
            expired += gone;
        }
    }

    /// A sink's cached look-ups, the most recently saved first.
    ///
    /// # Errors
    /// Those of any read.
    pub async fn load_cache(
        &self,
        sink: &str,
        limit: usize,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let sink = sink.to_owned();
        self.read_with(move |scope| {
            let mut find = scope.conn.prepare_cached(
                "SELECT key, value FROM cache WHERE sink = ?1 ORDER BY at DESC LIMIT ?2",
            )?;
            let rows =
                find.query_map(params![sink, count(limit)], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
        .await
    }

    /// Saves cached look-ups; `None` forgets a key. Then forgets the oldest beyond `keep`, where
    /// that is given: it reads as many as are kept, so it is not for every time.
    ///
    /// # Errors
    /// Those of any write.
    pub async fn save_cache(
        &self,
        sink: &str,
        rows: Vec<(String, Option<String>)>,
        keep: Option<usize>,
    ) -> Result<(), StoreError> {
        let sink = sink.to_owned();
        let at = micros(clock::now());
        self.write(move |scope| {
            let mut save = scope.conn.prepare_cached(
                "INSERT INTO cache (sink, key, value, at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET value = excluded.value, at = excluded.at",
            )?;
            let mut forget =
                scope.conn.prepare_cached("DELETE FROM cache WHERE sink = ?1 AND key = ?2")?;
            for (key, value) in &rows {
                match value {
                    Some(value) => save.execute(params![sink, key, value, at])?,
                    None => forget.execute(params![sink, key])?,
                };
            }
            let Some(keep) = keep else { return Ok(()) };
            let mut trim = scope.conn.prepare_cached(
                "DELETE FROM cache WHERE (sink, key) IN (
                    SELECT sink, key FROM cache WHERE sink = ?1
                    ORDER BY at DESC, key LIMIT -1 OFFSET ?2
                 )",
            )?;
            trim.execute(params![sink, count(keep)]).map(drop)
        })
        .await
    }

    pub(super) fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The folder of the file; `None` where the store lives in memory.
    pub(super) fn dir(&self) -> Option<PathBuf> {
        let dir = self.inner.path.parent().map(Path::to_owned);
        dir.filter(|dir| !dir.as_os_str().is_empty())
    }

    /// Sees to it that the file that is open is still the one in the `data_dir`. One that was
    /// removed is written again; one that was replaced is left alone, and the store with it.
    ///
    /// # Errors
    /// [`StoreError::Removed`] if what the store holds cannot be kept under its name any more.
    pub async fn check_file(&self) -> Result<(), StoreError> {
        self.write(|_| Ok(())).await
    }

    pub(super) fn totals(&self) -> &TableTotals {
        &self.inner.totals
    }

    /// Runs `work` in the writer's next transaction.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut TxScope<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let writer = self.inner.writer.as_ref().ok_or(StoreError::ReadOnly)?;
        writer.run(work).await
    }

    /// Runs `work` on the connection that reads.
    pub(super) async fn read_with<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut TxScope<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let reader = self.inner.reader.as_ref().ok_or(StoreError::Closed)?;
        reader.run(work).await
    }
}

impl Drop for StoreInner {
    /// Waits until the file is free, so that whoever opens the directory next finds it so. What the
    /// threads still have to do was asked for by futures that were dropped.
    fn drop(&mut self) {
        self.reader = None;
        self.writer = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(file = %self.path.display(), "a storage thread panicked");
            }
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl Checkpoints for Store {
    async fn load(&self, source: &str) -> Result<Vec<(String, String)>, SourceError> {
        let name = source.to_owned();
        self.read_with(move |scope| {
            let mut find = scope
                .conn
                .prepare_cached("SELECT key, value FROM checkpoints WHERE source = ?1")?;
            let rows = find.query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
        .await
        .map_err(|e| checkpoint_error(source, &e))
    }

    async fn save(
        &self,
        source: &str,
        rows: Vec<(String, Option<String>)>,
    ) -> Result<(), SourceError> {
        let name = source.to_owned();
        self.write(move |scope| {
            let mut save = scope.conn.prepare_cached(
                "INSERT INTO checkpoints (source, key, value) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET value = excluded.value",
            )?;
            let mut forget = scope
                .conn
                .prepare_cached("DELETE FROM checkpoints WHERE source = ?1 AND key = ?2")?;
            for (key, value) in &rows {
                match value {
                    Some(value) => save.execute(params![name, key, value])?,
                    None => forget.execute(params![name, key])?,
                };
            }
            Ok(())
        })
        .await
        .map_err(|e| checkpoint_error(source, &e))
    }
}

fn checkpoint_error(source: &str, why: &StoreError) -> SourceError {
    SourceError::Checkpoints { source_name: source.to_owned(), why: why.to_string() }
}

/// Sizes of the sinks' buffers, counted along with the writes.
#[derive(Debug, Clone, Default)]
pub(super) struct Sizes {
    by_sink: Arc<Mutex<HashMap<Arc<str>, BufferSize>>>,
}

impl Sizes {
    fn of(&self, sink: &str) -> BufferSize {
        self.lock().get(sink).copied().unwrap_or_default()
    }

    pub(super) fn apply(&self, deltas: Vec<SizeDelta>) {
        if deltas.is_empty() {
            return;
        }
        let mut sizes = self.lock();
        for delta in deltas {
            let size = sizes.entry(delta.sink).or_default();
            size.events = size.events.saturating_add_signed(delta.events);
            size.bytes = size.bytes.saturating_add_signed(delta.bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, BufferSize>> {
        self.by_sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much the file already holds.
fn read_sizes(conn: &Connection, path: &Path) -> Result<Sizes, StoreError> {
    query_sizes(conn).map_err(|e| StoreError::sqlite(path, e))
}

fn query_sizes(conn: &Connection) -> rusqlite::Result<Sizes> {
    let sizes = Sizes::default();
    let mut held = conn.prepare("SELECT sink, count(*), sum(size) FROM buffer GROUP BY sink")?;
    let deltas = held.query_map([], |row| {
        Ok(SizeDelta { sink: row.get(0)?, events: row.get(1)?, bytes: row.get(2)? })
    })?;
    sizes.apply(deltas.collect::<Result<_, _>>()?);
    Ok(sizes)
}

pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// Stored times were timestamps once, so they are in range unless somebody edited the file.
pub(super) fn from_micros(at: i64) -> Timestamp {
    Timestamp::from_microsecond(at).unwrap_or_default()
}

/// A number of rows as SQL takes it.
pub(super) fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
