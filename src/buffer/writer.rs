//! The two threads that own the SQLite connections: one writes, one reads.
//!
//! # Invariants
//! All commands in the queue go into one transaction (group commit), and a command is answered only
//! after the commit. If the transaction fails, each command is tried alone, so that one that does
//! not fit fails alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::error::StoreError;
use super::file_watch::{FileState, FileWatch};
use super::integrity;
use super::lock::DirLock;
use super::paths;
use super::schema;
use super::sizes::{BufferSizes, SizeDelta};

/// Commands that may wait for a thread; further senders wait.
const QUEUE_CAPACITY: usize = 1024;
/// Commands in one transaction at most.
const MAX_GROUP_COMMANDS: usize = 256;
/// Free pages (of 4 KiB) beyond which some are returned to the file system.
const MAX_FREE_PAGES: i64 = 4096;

/// What a command uses while it runs. It may run twice, so its only lasting effects are in the
/// transaction and in `deltas`.
pub(super) struct TxScope<'c> {
    pub(super) conn: &'c Connection,
    pub(super) deltas: Vec<SizeDelta>,
}

trait Job: Send {
    fn run(&mut self, scope: &mut TxScope<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, failure: Option<StoreError>);
}

struct CommandJob<T, F> {
    work: F,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for CommandJob<T, F>
where
    T: Send,
    F: FnMut(&mut TxScope<'_>) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, scope: &mut TxScope<'_>) -> rusqlite::Result<()> {
        self.result = Some((self.work)(scope)?);
        Ok(())
    }

    fn answer(self: Box<Self>, failure: Option<StoreError>) {
        let answer = match (failure, self.result) {
            (Some(e), _) => Err(e),
            (None, Some(value)) => Ok(value),
            (None, None) => Err(StoreError::Closed),
        };
        // The caller may have dropped its future; the command runs all the same.
        drop(self.reply.send(answer));
    }
}

enum ThreadMessage {
    Do(Box<dyn Job>),
    Close,
}

/// Sends commands to one of the threads.
#[derive(Clone)]
pub(super) struct DbHandle {
    commands: mpsc::Sender<ThreadMessage>,
}

impl DbHandle {
    /// Runs `work` on the thread and waits for its result.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut TxScope<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Box::new(CommandJob { work, result: None, reply });
        self.commands.send(ThreadMessage::Do(task)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Ends the thread after the commands that wait. Returns once it has closed the file.
    pub(super) async fn close(&self) {
        // A failed send means that the thread has already ended.
        if self.commands.send(ThreadMessage::Close).await.is_ok() {
            self.commands.closed().await;
        }
    }
}

/// A connection and what its thread needs to know of the file.
pub(super) struct ConnectionOwner {
    conn: Connection,
    path: PathBuf,
    sizes: BufferSizes,
    _lock: Option<DirLock>,
    /// `None` for a store in memory and for a reader.
    watch: Option<FileWatch>,
    /// How often the writer has reopened the file; the reader then reopens it too.
    opened: Arc<AtomicU64>,
    followed: u64,
    /// Why the file cannot be used any more.
    removed: Option<String>,
}

impl ConnectionOwner {
    /// The writer of the owner holds the lock, and shares `opened` with its reader.
    pub(super) fn new(
        conn: Connection,
        path: &Path,
        sizes: BufferSizes,
        lock: Option<DirLock>,
        opened: Arc<AtomicU64>,
    ) -> Self {
        let watch = lock.is_some().then(|| FileWatch::new(path));
        let path = path.to_owned();
        Self { conn, path, sizes, _lock: lock, watch, opened, followed: 0, removed: None }
    }
}

/// Starts the thread that writes.
pub(super) fn start_writer(
    owner: ConnectionOwner,
) -> Result<(DbHandle, JoinHandle<()>), StoreError> {
    start("store-writer", owner, |owner, jobs, turn| {
        owner.check_file();
        if let Some(why) = &owner.removed {
            let removed = || StoreError::Removed { path: owner.path.clone(), why: why.clone() };
            jobs.into_iter().for_each(|job| job.answer(Some(removed())));
            return;
        }
        owner.commit(jobs);
        if turn % 256 == 0 {
            owner.release_free_pages();
        }
    })
}

/// Starts the thread that reads.
pub(super) fn start_reader(
    owner: ConnectionOwner,
) -> Result<(DbHandle, JoinHandle<()>), StoreError> {
    start("store-reader", owner, |owner, jobs, _| {
        owner.follow();
        for mut job in jobs {
            let mut scope = TxScope { conn: &owner.conn, deltas: Vec::new() };
            let failure = job.run(&mut scope).err();
            job.answer(failure.map(|e| StoreError::sqlite(&owner.path, e)));
        }
    })
}

fn start(
    name: &str,
    mut owner: ConnectionOwner,
    mut each: impl FnMut(&mut ConnectionOwner, Vec<Box<dyn Job>>, u64) + Send + 'static,
) -> Result<(DbHandle, JoinHandle<()>), StoreError> {
    let (commands, mut queue) = mpsc::channel(QUEUE_CAPACITY);
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            for turn in 1.. {
                let (jobs, more) = take_group(&mut queue);
                if !jobs.is_empty() {
                    each(&mut owner, jobs, turn);
                }
                if !more {
                    break;
                }
            }
            // The file closes before the queue: a caller that waits for the queue to end finds the
            // file free.
            owner.close();
            drop(queue);
        })
        .map_err(StoreError::io(format!("start thread {name}")))?;
    Ok((DbHandle { commands }, thread))
}

/// Waits for a command and takes all others that wait. `false` if there will be no more.
fn take_group(queue: &mut mpsc::Receiver<ThreadMessage>) -> (Vec<Box<dyn Job>>, bool) {
    let mut jobs = Vec::new();
    let mut command = queue.blocking_recv();
    loop {
        match command {
            None | Some(ThreadMessage::Close) => return (jobs, false),
            Some(ThreadMessage::Do(job)) => jobs.push(job),
        }
        if jobs.len() == MAX_GROUP_COMMANDS {
            return (jobs, true);
        }
        match queue.try_recv() {
            Ok(next) => command = Some(next),
            // The next blocking receive notices a closed queue.
            Err(_) => return (jobs, true),
        }
    }
}

impl ConnectionOwner {
    /// Writes the file again if it was removed. If that fails, or another file is in its place,
    /// nothing is written any more.
    fn check_file(&mut self) {
        let found = self.watch.as_mut().and_then(FileWatch::check);
        let kept = match found {
            None | Some(FileState::Same) => return,
            Some(FileState::Removed) => self.recreate_file(),
            Some(FileState::Replaced) => {
                let copy = paths::with_suffix(&self.path, ".rescued");
                match schema::copy_into(&self.conn, &copy) {
                    Ok(()) => Err(format!(
                        "another file stands in its place, and what this process held is in `{}`; \
                         put the one that is right in its place, without files next to it whose \
                         names begin with the same, and start again",
                        copy.display()
                    )),
                    Err(error) => Err(format!(
                        "another file stands in its place, and what this process held cannot be \
                         kept: {error}; message ids and positions since then are lost, so some \
                         records may be sent a second time after the next start"
                    )),
                }
            }
        };
        let path = self.path.display();
        match kept {
            Ok(()) => tracing::error!(
                file = %path,
                "the store was removed while it was in use; it has been written again with all it \
                 held, nothing is lost"
            ),
            Err(why) => {
                tracing::error!(
                    file = %path, why,
                    "the store was removed or replaced while it was in use; the run cannot go on"
                );
                self.removed = Some(why);
            }
        }
    }

    fn recreate_file(&mut self) -> Result<(), String> {
        let failed = |error: StoreError| {
            format!(
                "it cannot be written again: {error}; message ids and positions are lost, so \
                 records may be sent a second time after the next start"
            )
        };
        let conn = schema::recreate_file(&self.conn, &self.path).map_err(failed)?;
        // The old connection must not checkpoint: its file names now belong to the new files.
        let old = std::mem::replace(&mut self.conn, conn);
        schema::close_without_checkpoint(old);
        self.watch = Some(FileWatch::new(&self.path));
        self.opened.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Closes the file, then releases the lock. The owner's writer also writes the checksum.
    fn close(self) {
        let Self { conn, path, watch, removed, _lock: lock, .. } = self;
        let closed = conn.close().is_ok();
        if closed && watch.is_some() && removed.is_none() {
            integrity::write_checksum(&path);
        }
        drop(lock);
    }

    /// Reopens the file if the writer has.
    fn follow(&mut self) {
        let opened = self.opened.load(Ordering::Acquire);
        if opened == self.followed {
            return;
        }
        match schema::open_reader(&self.path) {
            Ok(conn) => {
                schema::close_without_checkpoint(std::mem::replace(&mut self.conn, conn));
                self.followed = opened;
            }
            Err(error) => {
                tracing::error!(%error, "the store cannot be reopened for reading; trying again")
            }
        }
    }

    /// Commits commands together, or each alone if that fails.
    fn commit(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let together = self.transact(&mut jobs);
        match together {
            Ok(()) => jobs.into_iter().for_each(|job| job.answer(None)),
            Err(e) if jobs.len() == 1 => {
                if let Some(job) = jobs.pop() {
                    job.answer(Some(StoreError::sqlite(&self.path, e)));
                }
            }
            Err(_) => {
                for job in jobs {
                    self.commit(vec![job]);
                }
            }
        }
    }

    fn transact(&mut self, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut scope = TxScope { conn: &tx, deltas: Vec::new() };
        for job in jobs {
            job.run(&mut scope)?;
        }
        let deltas = scope.deltas;
        tx.commit()?;
        self.sizes.apply(deltas);
        Ok(())
    }

    /// Shrinks a file that is mostly empty, some pages at a time. A failure only costs disk space.
    fn release_free_pages(&self) {
        let shrunk = self.free_pages().and_then(|(free, all)| {
            if free < MAX_FREE_PAGES || free < all / 2 {
                return Ok(());
            }
            // Each step frees one page.
            let mut steps = self.conn.prepare("PRAGMA incremental_vacuum(1024)")?;
            let mut rows = steps.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        });
        if let Err(e) = shrunk {
            tracing::debug!(file = %self.path.display(), error = %e, "the store could not be shrunk; it keeps its size");
        }
    }

    fn free_pages(&self) -> rusqlite::Result<(i64, i64)> {
        let number = |name| self.conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        Ok((number("freelist_count")?, number("page_count")?))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use super::super::{Access, NewRecord, Settlement, Store};
    use crate::record::Record;

    #[tokio::test]
    async fn queued_commands_share_one_commit() {
        // Guarantees that commands that wait while the writer is busy share one transaction: the
        // log grows by the changed pages once, not once per command.
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Access::Owner).unwrap();
        let log = dir.path().join("usercom-sink.db-wal");
        let record = || vec![NewRecord::from(&Record::new("{}"))];
        let before_one = fs::metadata(&log).unwrap().len();
        store.append("crm", record()).await.unwrap();
        let one = fs::metadata(&log).unwrap().len() - before_one;

        let (go, held) = mpsc::channel::<()>();
        let (busy, is_busy) = tokio::sync::oneshot::channel();
        let mut busy = Some(busy);
        let hold = store.write(move |_| {
            if let Some(busy) = busy.take() {
                busy.send(()).unwrap();
                held.recv().unwrap();
            }
            Ok(())
        });
        let appends = async {
            is_busy.await.unwrap();
            let appends = (0..100).map(|_| store.append("crm", record()));
            let all = futures::future::join_all(appends);
            tokio::pin!(all);
            // One poll sends all of them to the writer; then it may continue.
            assert!(futures::poll!(&mut all).is_pending());
            go.send(()).unwrap();
            all.await
        };
        let before = fs::metadata(&log).unwrap().len();
        let (done, appended) = tokio::join!(hold, appends);
        done.unwrap();
        assert!(appended.iter().all(Result::is_ok));
        let grown = fs::metadata(&log).unwrap().len() - before;
        assert!(grown <= 4 * one, "{grown} bytes for 100, {one} for one");
    }

    #[tokio::test]
    async fn emptied_file_shrinks() {
        // Guarantees that the space of a settled backlog returns to the file system while the store
        // is in use.
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Access::Owner).unwrap();
        let large = NewRecord::from(&Record::new(vec![b'x'; 4 << 20]));
        let seqs = store.append("crm", vec![large; 6]).await.unwrap().seqs;
        let settled = seqs.map(|seq| Settlement { seq: Some(seq), ..Settlement::default() });
        store.settle("crm", settled.collect()).await.unwrap();
        let pages = async || {
            let count = store.write(|scope| {
                let conn = scope.conn;
                conn.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))
            });
            count.await.unwrap()
        };
        let before = pages().await;
        for _ in 0..256 {
            pages().await;
        }
        assert!(pages().await <= before - 1024);
    }

    #[tokio::test]
    async fn failed_command_leaves_group_intact() {
        // Guarantees that a command that SQLite rejects does not fail those that share its
        // transaction.
        let store = Store::in_memory().unwrap();
        let (good, bad, also_good) = tokio::join!(
            store.append("crm", vec![NewRecord::from(&Record::new("1"))]),
            store.write(|scope| scope.conn.execute("INSERT INTO nowhere VALUES (1)", [])),
            store.append("crm", vec![NewRecord::from(&Record::new("2"))]),
        );
        assert_eq!(good.unwrap().seqs, 1..2);
        assert!(bad.is_err());
        assert_eq!(also_good.unwrap().seqs, 2..3);
        assert_eq!(store.buffer_size("crm").events, 2);
    }
}
