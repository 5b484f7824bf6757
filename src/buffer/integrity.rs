//! Checks that the database file is undamaged before it is used.
//!
//! After a clean shutdown a checksum file stands next to the database (its length and SHA-256), so
//! every changed bit is found. After a kill there is none. Then SQLite's own check is used, which
//! compares tables with their indexes: it finds a changed message id, but not a changed byte inside
//! a record.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use sha2::{Digest, Sha256};

use super::error::StoreError;
use super::paths::{sync_dir, with_suffix};

/// Characters that must be encoded in the path of a `file:` URI.
const URI_PATH: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ');

/// Larger files get no checksum, because a process that stops has little time: 2 GiB.
const MAX_CHECKSUMMED_SIZE: u64 = 2 << 30;

/// How long SQLite may check a file without a checksum.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

const CHECKSUM_SUFFIX: &str = ".sum";

/// Looks for damage without writing, so that a damaged file is not changed.
pub(super) fn check(path: &Path) -> Result<(), StoreError> {
    match fs::read_to_string(with_suffix(path, CHECKSUM_SUFFIX)) {
        Ok(checksum) if !is_logged(path) => match compute_checksum(path) {
            Ok(now) if now == checksum => Ok(()),
            Ok(now) if written(&now) != written(&checksum) => {
                tracing::warn!(
                    file = %path.display(),
                    "the store was written by another program, or put back from a backup, since it \
                     was closed: what was delivered since then may be sent again"
                );
                check_tables(path)
            }
            Ok(_) => Err(StoreError::Corrupt {
                path: path.to_owned(),
                why: format!(
                    "its content has changed since it was closed; if you changed it on purpose, \
                     remove `{}`; if not",
                    with_suffix(path, CHECKSUM_SUFFIX).display()
                ),
            }),
            Err(error) => Err(StoreError::io(format!("read `{}`", path.display()))(error)),
        },
        _ => check_tables(path),
    }
}

/// Removes the checksum before the file is opened for writing.
pub(super) fn remove_checksum(path: &Path) -> Result<(), StoreError> {
    let checksum = with_suffix(path, CHECKSUM_SUFFIX);
    match fs::remove_file(&checksum) {
        Ok(()) => {
            sync_dir(path).map_err(StoreError::io(format!("remove `{}`", checksum.display())))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(StoreError::io(format!("remove `{}`", checksum.display()))(e)),
    }
}

/// Writes the checksum of a closed file. If that fails, the next start uses SQLite's check.
pub(super) fn write_checksum(path: &Path) {
    let small = fs::metadata(path).is_ok_and(|file| file.len() <= MAX_CHECKSUMMED_SIZE);
    if !small || is_logged(path) {
        return;
    }
    let unfinished = with_suffix(path, ".sum.new");
    let done = compute_checksum(path).and_then(|checksum| {
        let mut file = File::create(&unfinished)?;
        file.write_all(checksum.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, with_suffix(path, CHECKSUM_SUFFIX))?;
        sync_dir(path)
    });
    if let Err(error) = done {
        tracing::debug!(file = %path.display(), %error, "no checksum was written; the next start checks the store with SQLite instead");
    }
}

/// Computes the checksum text: length, the change counters of SQLite, hash of the whole file.
fn compute_checksum(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hash, mut length, mut block) = (Sha256::new(), 0, vec![0; 1 << 16]);
    let mut numbers = String::new();
    loop {
        let read = match file.read(&mut block) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if length == 0 {
            numbers = hex::encode(block[..read].get(24..32).unwrap_or_default());
        }
        length += read as u64;
        hash.update(&block[..read]);
    }
    Ok(format!("{length} {numbers} sha256:{}\n", hex::encode(hash.finalize())))
}

/// The part of a checksum text that changes when SQLite writes.
fn written(checksum: &str) -> Option<&str> {
    checksum.split(' ').nth(1)
}

/// Runs SQLite's own check, for at most [`CHECK_TIMEOUT`].
fn check_tables(path: &Path) -> Result<(), StoreError> {
    let corrupt = |why: String| StoreError::Corrupt { path: path.to_owned(), why };
    let checked = open_read_only(path).and_then(|conn| {
        let interrupt = conn.get_interrupt_handle();
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let answer = std::thread::scope(|scope| {
            scope.spawn(move || {
                if is_done
                    .recv_timeout(CHECK_TIMEOUT)
                    .is_err_and(|e| matches!(e, std::sync::mpsc::RecvTimeoutError::Timeout))
                {
                    interrupt.interrupt();
                }
            });
            let answer =
                conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
            drop(done);
            answer
        });
        match answer {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                tracing::warn!(
                    file = %path.display(),
                    "the store is too large to be checked whole in {} s; it is used unchecked",
                    CHECK_TIMEOUT.as_secs(),
                );
                Ok("ok".to_owned())
            }
            answer => answer,
        }
    });
    match checked {
        Ok(answer) if answer == "ok" => Ok(()),
        Ok(answer) => Err(corrupt(answer)),
        Err(e) => Err(StoreError::sqlite(path, e)),
    }
}

/// Whether the file has a log that is not applied yet.
fn is_logged(path: &Path) -> bool {
    fs::metadata(with_suffix(path, "-wal")).is_ok_and(|log| log.len() > 0)
        || with_suffix(path, "-journal").exists()
}

/// Opens the file for reading. Without a log no process is writing (the caller owns the directory),
/// so SQLite is configured to create no files of its own.
fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match path.to_str() {
        Some(text) if !is_logged(path) => {
            let encoded = utf8_percent_encode(text, URI_PATH);
            let uri = format!("file:{encoded}?immutable=1");
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
        }
        _ => Connection::open_with_flags(path, flags),
    }
}
