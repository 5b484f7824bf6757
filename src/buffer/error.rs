//! Errors of the store and of the buffers.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory could not be read or written.
    #[error("{context}: {source}")]
    Io {
        /// What was being done, with the path.
        context: String,
        /// The cause.
        source: std::io::Error,
    },
    /// Another process uses this `data_dir`.
    #[error("data_dir `{}` is in use by another usercom-sink ({})", .dir.display(), owner(*.pid))]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The other process, where its lock file says so.
        pid: Option<u32>,
    },
    /// The directory has no store.
    #[error("no store in `{}`: nothing has run with this data_dir yet", .dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// The file is not a store of this program.
    #[error("`{}` is not a store of usercom-sink: {why}", .path.display())]
    Foreign {
        /// The file. It was not touched.
        path: PathBuf,
        /// What shows it.
        why: String,
    },
    /// The file was written by another version of the program.
    #[error(
        "`{}` has format {found}, this program knows format {known}{}", .path.display(),
        if found < known { ": start the pipeline once, which brings it up to date" } else { "" }
    )]
    Version {
        /// The file. It was not touched.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this program knows.
        known: u32,
    },
    /// The file is damaged.
    #[error("`{}` is damaged: {why}; restore it from a backup, or move it away: then everything that can \
         be read again is sent again", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        why: String,
    },
    /// The disk is full, or the file has reached its size limit.
    #[error("no room left for `{}`: {why}", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// How much space there is, and what to do.
        why: String,
    },
    /// The file, its log or its folder may not be written.
    #[error(
        "`{}`, the files beside it whose names begin with the same, or their folder cannot be \
         written: give this user the right to write them, or mount the file system for writing; \
         what was interrupted must be finished before the file can be read",
        .path.display()
    )]
    NotWritable {
        /// The file.
        path: PathBuf,
    },
    /// Another program replaced or removed the file while it was in use, and it cannot be written
    /// again.
    #[error("`{}` was removed or replaced while it was in use: {why}", .path.display())]
    Removed {
        /// The file.
        path: PathBuf,
        /// What happened to its content, and what to do.
        why: String,
    },
    /// Any other error of SQLite.
    #[error("`{}`: {source}", .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// A write to a store that was opened for reading.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "process unknown".to_owned(), |pid| format!("pid {pid}"))
}

impl StoreError {
    pub(super) fn io(context: String) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { context, source }
    }

    /// Classifies an error of SQLite.
    pub(super) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => {
                let why = "free some of the disk; nothing is lost meanwhile".to_owned();
                Self::Full { path, why }
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt { path, why: source.to_string() }
            }
            // The files next to it cannot be created.
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) => Self::NotWritable { path },
            _ => Self::Sqlite { path, source },
        }
    }
}

/// Why a buffer operation failed.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// It accepts no more records.
    #[error("the buffer is closed")]
    Closed,
    /// The process stopped while storage was failing.
    #[error("stopped while storage was failing: {0}")]
    Stopped(#[source] StoreError),
    /// The store failed permanently.
    #[error(transparent)]
    Store(#[from] StoreError),
}
