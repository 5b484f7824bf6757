//! The store: one SQLite file in a `data_dir` for everything that must survive a restart.
//!
//! This file opens and closes it, and reads and writes checkpoints and cached look-ups. Buffered
//! records are in `queue`, dead letters in `dead_letters`, message keys in `seen`.
//!
//! # Invariants
//! What a method wrote is on disk when it returns. Dropping its future does not undo the write.

use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use async_trait::async_trait;
use rusqlite::params;

use super::error::StoreError;
use super::lock::DirLock;
use super::schema;
use super::sizes::{BufferSize, BufferSizes};
use super::sql::{micros, row_count};
use super::totals::TableTotals;
use super::writer::{ConnectionOwner, DbHandle, TxScope, start_reader, start_writer};
use crate::clock;
use crate::source::{Checkpoints, SourceError};

/// SQLite's name of a database in memory.
const MEMORY: &str = ":memory:";

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading and writing, as the only owner of the directory. Creates the directory and the
    /// file if they are missing.
    Owner,
    /// For reading, also while another process is the owner. Every write fails.
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
    /// A store in memory has one connection: then this is the writer.
    reader: Option<DbHandle>,
    /// Joined in this order: the writer closes the file last and checkpoints its log.
    threads: Vec<JoinHandle<()>>,
    sizes: BufferSizes,
    totals: TableTotals,
}

impl Store {
    /// Opens the store of a `data_dir`. Blocks while the file is checked, which takes seconds for a
    /// large file.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] if the directory has an owner (for [`Access::Owner`]),
    /// [`StoreError::Missing`] if there is no store (for [`Access::ReadOnly`]),
    /// [`StoreError::Foreign`], [`Version`](StoreError::Version) or
    /// [`Corrupt`](StoreError::Corrupt) if the file cannot be used; then it is not changed.
    pub fn open(dir: &Path, access: Access) -> Result<Self, StoreError> {
        match access {
            Access::Owner => Self::open_owned(dir),
            Access::ReadOnly => Self::open_reader(dir),
        }
    }

    fn open_owned(dir: &Path) -> Result<Self, StoreError> {
        // The store holds personal data: only the owner of the process may read it.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(StoreError::io(format!("make data_dir `{}`", dir.display())))?;
        let lock = DirLock::take(dir)?;
        let path = schema::file_in(dir);
        let conn = schema::open_owned(&path)?;
        let reading = schema::open_reader(&path)?;
        let sizes = BufferSizes::read(&conn, &path)?;
        let opened = Arc::<AtomicU64>::default();
        let owner = |conn, lock| {
            ConnectionOwner::new(conn, &path, sizes.clone(), lock, Arc::clone(&opened))
        };
        let (writer, writes) = start_writer(owner(conn, Some(lock)))?;
        let (reader, reads) = start_reader(owner(reading, None))?;
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
        let sizes = BufferSizes::read(&conn, &path)?;
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

    /// A store in memory, dropped with its last handle.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sqlite`] if SQLite cannot allocate it.
    pub fn in_memory() -> Result<Self, StoreError> {
        let conn = schema::open_memory().map_err(|e| StoreError::sqlite(Path::new(MEMORY), e))?;
        Self::of_memory(conn, BufferSizes::default())
    }

    /// A store of a connection to a database in memory.
    pub(super) fn of_memory(
        conn: rusqlite::Connection,
        sizes: BufferSizes,
    ) -> Result<Self, StoreError> {
        let path = PathBuf::from(MEMORY);
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

    /// Closes the store for all its handles: runs the commands that wait, moves the log into the
    /// file and releases the directory. Later commands fail with [`StoreError::Closed`].
    pub async fn close(self) {
        for handle in [&self.inner.reader, &self.inner.writer].into_iter().flatten() {
            handle.close().await;
        }
    }

    /// Limits the file to about this many bytes (whole pages; never below its present size) while
    /// the store is open. Writes beyond the limit fail with [`StoreError::Full`].
    ///
    /// # Errors
    /// Those of any write.
    pub async fn limit_file_size(&self, bytes: u64) -> Result<(), StoreError> {
        self.write(move |scope| {
            let page =
                scope.conn.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0))?;
            let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
            // Zero would only query the present limit; SQLite supports at most 2^32 - 2 pages.
            let sql = format!("PRAGMA max_page_count = {}", pages.clamp(1, 0xFFFF_FFFE));
            scope.conn.query_row(&sql, [], |_| Ok(()))
        })
        .await
    }

    /// How many records of a sink the store holds, updated with every write. A store that is open
    /// for reading returns the size at the time it was opened.
    pub fn buffer_size(&self, sink: &str) -> BufferSize {
        self.inner.sizes.of(sink)
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
            let rows = find
                .query_map(params![sink, row_count(limit)], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
        .await
    }

    /// Saves cached look-ups; `None` deletes a key. With `keep` it then deletes the oldest rows
    /// beyond that number. This reads `keep` rows, so do not do it with every save.
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
            trim.execute(params![sink, row_count(keep)]).map(drop)
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

    /// Checks that the open file is still the one in the `data_dir`. A removed file is written
    /// again. If another file is in its place, the store stops and that file is not changed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Removed`] if the store's content cannot be kept under its name any
    /// more.
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

    /// Runs `work` on the read connection.
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
    /// Waits until the threads have closed the file, so that the next process can open the
    /// directory. Commands that still run at this point belong to dropped futures.
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
