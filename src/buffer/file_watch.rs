//! Detects that the open file was removed or replaced by another program. Anything written after
//! that would be lost when the process ends.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

/// The file is checked at most this often.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Device and inode.
type DbFileId = (u64, u64);

/// The file and its log, as opened.
#[derive(Debug)]
pub(super) struct FileWatch {
    path: PathBuf,
    log: PathBuf,
    file_id: Option<DbFileId>,
    /// `None` until there is a log.
    log_id: Option<DbFileId>,
    checked: Instant,
}

/// What the file names refer to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileState {
    /// The files that were opened.
    Same,
    /// The file or its log was removed, or the log was replaced.
    Removed,
    /// The file was replaced.
    Replaced,
}

impl FileWatch {
    /// Records the files that are open now.
    pub(super) fn new(path: &Path) -> Self {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let log = PathBuf::from(log);
        Self {
            file_id: file_id(path),
            log_id: file_id(&log),
            path: path.to_owned(),
            log,
            checked: Instant::now(),
        }
    }

    /// Checks the files if [`CHECK_INTERVAL`] has passed since the last check; else `None`.
    pub(super) fn check(&mut self) -> Option<FileState> {
        if self.checked.elapsed() < CHECK_INTERVAL {
            return None;
        }
        self.checked = Instant::now();
        let log_now = file_id(&self.log);
        self.log_id = self.log_id.or(log_now);
        Some(match file_id(&self.path) {
            None => FileState::Removed,
            now if now != self.file_id => FileState::Replaced,
            _ if log_now != self.log_id => FileState::Removed,
            _ => FileState::Same,
        })
    }
}

fn file_id(path: &Path) -> Option<DbFileId> {
    fs::metadata(path).ok().map(|at: Metadata| (at.dev(), at.ino()))
}
