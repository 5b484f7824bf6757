//! The database file: its header, its tables and migrations, how it is created and opened.
//!
//! # Invariants
//! Under its final name the file is always complete: it is built under another name and then
//! renamed. Its header is read as plain bytes before SQLite opens it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::StoreError;
use super::integrity;
use super::paths::{sync_dir, with_suffix};

/// "UCSk": bytes 68 to 71 of every file of this program.
const APPLICATION_ID: u32 = 0x5543_536B;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// How long to wait for a lock of another process, for example an operator's `sqlite3`.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements in the cache: more than the program has.
const STATEMENT_CACHE_CAPACITY: usize = 64;

/// Migrations: number n brings a file of format n to format n + 1.
const MIGRATIONS: [&str; 4] = [FORMAT_1, FORMAT_2, FORMAT_3, FORMAT_4];

const FORMAT_1: &str = "
CREATE TABLE checkpoints (
    source TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (source, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE buffer (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    size INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    origin_key TEXT, origin_position INTEGER, place TEXT,
    transport_id TEXT, fault TEXT,
    meta BLOB, body BLOB NOT NULL
) STRICT;
CREATE INDEX buffer_by_sink ON buffer (sink, seq, size);

CREATE TABLE intake (
    sink TEXT NOT NULL, origin_key TEXT NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (sink, origin_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE handed (sink TEXT NOT NULL PRIMARY KEY, up_to INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL,
    rule TEXT, field TEXT, place TEXT, transport_id TEXT,
    status INTEGER, response TEXT, attempts INTEGER NOT NULL,
    replays INTEGER NOT NULL DEFAULT 0,
    call TEXT, meta BLOB, record BLOB NOT NULL
) STRICT;
CREATE INDEX dead_letters_by_reason ON dead_letters (sink, reason);

CREATE TABLE seen (
    sink TEXT NOT NULL, message_key TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (sink, message_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX seen_by_age ON seen (sink, at);

CREATE TABLE cache (
    sink TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (sink, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_by_age ON cache (sink, at);
";

/// A record's time and whether it may have been sent, as its source says.
const FORMAT_2: &str = "
ALTER TABLE buffer ADD COLUMN happened_at INTEGER;
ALTER TABLE buffer ADD COLUMN maybe_sent INTEGER NOT NULL DEFAULT 0;
";

const FORMAT: u32 = 4;
const _: () = assert!(MIGRATIONS.len() == FORMAT as usize);

/// Marks of single records that may have been sent. They replace the table `handed`, which stays
/// empty from now on; the records it covered are marked.
const FORMAT_3: &str = "
CREATE TABLE dispatched (
    sink TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (sink, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO dispatched (sink, seq)
    SELECT buffer.sink, buffer.seq FROM buffer JOIN handed USING (sink)
    WHERE buffer.seq <= handed.up_to;
DELETE FROM handed;
";

/// What a sink has learned of its account's quota.
const FORMAT_4: &str = "
CREATE TABLE quotas (
    sink TEXT NOT NULL, account TEXT NOT NULL, value TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (sink, account)
) STRICT, WITHOUT ROWID;
";

/// The store's file in a `data_dir`.
pub(super) fn file_in(dir: &Path) -> PathBuf {
    dir.join("usercom-sink.db")
}

/// Opens the file for writing and creates it if it is missing. The caller owns the directory.
pub(super) fn open_owned(path: &Path) -> Result<Connection, StoreError> {
    if path.try_exists().map_err(StoreError::io(format!("`{}`", path.display())))? {
        check_header(path)?;
        roll_back_interrupted(path)?;
        integrity::check(path)?;
        integrity::remove_checksum(path)?;
    } else {
        create(path)?;
    }
    let sorted = |e| StoreError::sqlite(path, e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(sorted)?;
    check_version(path, version(&conn).map_err(sorted)?)?;
    configure(&conn).map_err(sorted)?;
    migrate(&mut conn).map_err(sorted)?;
    Ok(conn)
}

/// Undoes a transaction that a kill interrupted in a file that is not in WAL mode yet: a connection
/// that may only read, as that of the check, cannot. Nothing happens without its journal.
fn roll_back_interrupted(path: &Path) -> Result<(), StoreError> {
    if !with_suffix(path, "-journal").exists() {
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let read = Connection::open_with_flags(path, flags).and_then(|conn| version(&conn));
    read.map(drop).map_err(|e| StoreError::sqlite(path, e))
}

/// Opens an existing file for reading.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    check_header(path)?;
    let sorted = |e| StoreError::sqlite(path, e);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(sorted)?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(sorted)?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
    match version(&conn).map_err(sorted)? {
        FORMAT => Ok(conn),
        found => Err(version_error(path, found)),
    }
}

/// Attaches an existing file to another connection, as `original`, for reading. Where no process
/// has it open, not even the files are made that SQLite needs to share it.
pub(super) fn attach_for_reading(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    check_header(path)?;
    let sorted = |e| StoreError::sqlite(path, e);
    let alone = if with_suffix(path, "-wal").exists() { "" } else { "&immutable=1" };
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = full.to_string_lossy();
    let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC);
    let encoded = encoded.to_string().replace("%2F", "/");
    let uri = format!("file:{encoded}?mode=ro{alone}");
    conn.busy_timeout(BUSY_TIMEOUT).map_err(sorted)?;
    conn.execute("ATTACH DATABASE ?1 AS original", [uri]).map_err(sorted)?;
    let found = conn.pragma_query_value(Some("original"), "user_version", |row| row.get(0));
    match found.map_err(sorted)? {
        FORMAT => Ok(()),
        found => Err(version_error(path, found)),
    }
}

/// A store that lives as long as its connection.
pub(super) fn open_memory() -> rusqlite::Result<Connection> {
    let mut conn = Connection::open_in_memory()?;
    migrate(&mut conn)?;
    Ok(conn)
}

fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "synchronous", "full")?;
    // After a checkpoint the log is truncated to this size.
    conn.pragma_update(None, "journal_size_limit", 64 << 20)
}

fn version(conn: &Connection) -> rusqlite::Result<u32> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn migrate(conn: &mut Connection) -> rusqlite::Result<()> {
    for (n, sql) in (0u32..).zip(MIGRATIONS) {
        let tx = conn.transaction()?;
        if version(&tx)? <= n {
            tx.execute_batch(sql)?;
            tx.pragma_update(None, "user_version", n + 1)?;
        }
        tx.commit()?;
    }
    Ok(())
}

/// Builds a new file under another name and renames it once it is complete.
fn create(path: &Path) -> Result<(), StoreError> {
    let log = with_suffix(path, "-wal");
    if log.exists() {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            why: format!(
                "it is missing, but its log `{}` is there: remove both or neither",
                log.display()
            ),
        });
    }
    let unfinished = with_suffix(path, ".new");
    let parts = ["", "-journal", "-wal", "-shm"];
    for old in parts.map(|part| with_suffix(&unfinished, part)) {
        match fs::remove_file(&old) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io(format!("remove `{}`", old.display()))(e));
            }
            _ => {}
        }
    }
    build(&unfinished).map_err(|e| StoreError::sqlite(&unfinished, e))?;
    fs::rename(&unfinished, path)
        .and_then(|()| sync_dir(path))
        .map_err(StoreError::io(format!("create `{}`", path.display())))
}

fn build(path: &Path) -> rusqlite::Result<()> {
    let mut conn = Connection::open(path)?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "auto_vacuum", "incremental")?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    migrate(&mut conn)?;
    // Before the file has its name: a kill during a later change of the mode leaves a journal.
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.close().map_err(|(_, e)| e)
}

/// Writes the content of a connection into a new file and syncs it.
pub(super) fn copy_into(conn: &Connection, to: &Path) -> Result<(), StoreError> {
    let text = to.to_str().ok_or_else(|| StoreError::Foreign {
        path: to.to_owned(),
        why: "its name is not Unicode".to_owned(),
    })?;
    conn.execute("VACUUM INTO ?1", [text]).map_err(|e| StoreError::sqlite(to, e))?;
    File::open(to)
        .and_then(|file| file.sync_all())
        .map_err(StoreError::io(format!("sync `{}`", to.display())))
}

/// Writes the content of a connection whose file was removed under the old name again, and opens
/// that file.
pub(super) fn recreate_file(conn: &Connection, path: &Path) -> Result<Connection, StoreError> {
    let copy = with_suffix(path, ".new");
    let io = |what: &str| StoreError::io(format!("{what} `{}`", copy.display()));
    match fs::remove_file(&copy) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("remove")(e)),
        _ => {}
    }
    if !path.parent().is_some_and(Path::exists) {
        return Err(StoreError::io("its folder".to_owned())(std::io::ErrorKind::NotFound.into()));
    }
    copy_into(conn, &copy)?;
    // SQLite would apply a log with this name to the new file.
    for old in [with_suffix(path, "-wal"), with_suffix(path, "-shm")] {
        match fs::remove_file(&old) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("replace")(e)),
            _ => {}
        }
    }
    fs::rename(&copy, path).and_then(|()| sync_dir(path)).map_err(io("rename"))?;
    open_owned(path)
}

/// Closes a connection whose file was removed, without a checkpoint: the names may belong to other
/// files now.
pub(super) fn close_without_checkpoint(conn: Connection) {
    let kept = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    if let Err(error) = kept.map(drop).and_then(|()| conn.close().map_err(|(_, error)| error)) {
        tracing::warn!(%error, "the removed store was not closed cleanly");
    }
}

/// Reads the header without SQLite, which would create files of its own next to it.
fn check_header(path: &Path) -> Result<(), StoreError> {
    let io = || StoreError::io(format!("read `{}`", path.display()));
    let foreign = |why: &str| StoreError::Foreign { path: path.to_owned(), why: why.to_owned() };
    let mut header = Vec::with_capacity(100);
    let mut file = File::open(path).map_err(io())?.take(100);
    file.read_to_end(&mut header).map_err(io())?;
    if header.len() < 100 || !header.starts_with(MAGIC) {
        return Err(foreign("it is not an SQLite database"));
    }
    if number_at(&header, 68) != APPLICATION_ID {
        return Err(foreign("it is the database of another program"));
    }
    check_version(path, number_at(&header, 60))
}

fn number_at(header: &[u8], at: usize) -> u32 {
    header[at..at + 4].iter().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

fn check_version(path: &Path, found: u32) -> Result<(), StoreError> {
    if (1..=FORMAT).contains(&found) { Ok(()) } else { Err(version_error(path, found)) }
}

fn version_error(path: &Path, found: u32) -> StoreError {
    StoreError::Version { path: path.to_owned(), found, known: FORMAT }
}
