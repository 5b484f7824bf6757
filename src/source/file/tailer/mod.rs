//! One open file: its stream, or why it has none.
//!
//! # Invariants
//!
//! Only one file at a time yields the records of a content.

mod contents;
mod read;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::read::{ReadLimit, ReadStatus};
use super::checkpoints::FileCheckpoint;
use super::compression::{FileCompression, TextSource, Unpacker};
use super::content::ContentMark;
use super::family::Family;
use super::identity::{FileHead, FileId};
use super::read::{FileStat, OpenFile};
use super::scanner::FoundFile;
use super::state::{Compared, PeerSearch, TailState, Unknown};
use super::stream::{SourceContext, Stream};
use crate::config::source::ReadFrom;

/// An open file.
pub(super) struct FileTailer {
    context: Arc<SourceContext>,
    path: PathBuf,
    /// `path` as text, for locations.
    shown: String,
    id: FileId,
    file: Arc<std::fs::File>,
    compression: Option<FileCompression>,
    /// The first bytes of the file at the last read.
    head: FileHead,
    /// The first bytes of its text.
    text_head: FileHead,
    stamp: Option<FileStat>,
    unpacker: Option<Unpacker>,
    /// Its size when it was found, in bytes.
    size: u64,
    /// Where it starts if it is new.
    from: ReadFrom,
    /// Its bytes that were counted as found.
    counted: u64,
    pub(super) family: Family,
    changed: (i64, i64),
    pub(super) state: TailState,
    /// Whether it had no name any more at the last read.
    pub(super) deleted: bool,
    /// Since when no pattern finds it.
    pub(super) missing: Option<Instant>,
    /// Whether the last turn failed, so that a lasting failure is logged once.
    failing: bool,
    /// Since when it can neither be read further nor is read to its end.
    stuck: Option<Instant>,
    /// Since when it is read to its present end.
    quiet: Option<Instant>,
    /// Whether its compressed stream was incomplete at the last read, so that it is logged once.
    cut: bool,
    /// Set for a content that no file holds any more: whether its copies are known.
    gone: Option<PeerSearch>,
    /// The file with the same content that has its place, once this one has no name any more.
    pub(super) twin: Option<FileId>,
}

impl FileTailer {
    /// An open file that was not read yet. Its size was already counted as found.
    pub(super) fn new(
        context: &Arc<SourceContext>,
        opened: OpenFile,
        found: &FoundFile,
        from: ReadFrom,
    ) -> Self {
        let OpenFile { path, id, file, compression, known: _ } = opened;
        let counted = found.size;
        Self {
            context: Arc::clone(context),
            shown: path.to_string_lossy().into_owned(),
            family: Family::of(&path),
            path,
            id,
            file,
            compression,
            head: FileHead::default(),
            text_head: FileHead::default(),
            stamp: None,
            unpacker: None,
            size: found.size,
            from,
            counted,
            changed: found.changed,
            state: TailState::Unknown(Unknown::new(None)),
            deleted: false,
            missing: None,
            failing: false,
            stuck: None,
            quiet: None,
            cut: false,
            gone: None,
            twin: None,
        }
    }

    /// Counts bytes of an uncompressed file as read. The size of a compressed one is counted at its
    /// end.
    fn count_read(&self, bytes: u64) {
        if self.compression == Some(FileCompression::Plain) {
            self.context.progress.read(bytes);
        }
    }

    /// Counts the whole file as read, because no more of it is read.
    pub(super) fn count_rest(&self) {
        match (&self.state, self.compression) {
            (TailState::Reading(_), Some(FileCompression::Plain)) => {}
            _ => self.context.progress.read(self.size),
        }
    }

    /// The file was found under this name with this modification time.
    pub(super) fn found(&mut self, found: &FoundFile) {
        self.missing = None;
        self.changed = found.changed;
        self.size = found.size;
        if self.path != found.path {
            self.shown = found.path.to_string_lossy().into_owned();
            self.path.clone_from(&found.path);
            let family = Family::of(&found.path);
            // A log that was moved away is still older than the new one.
            if family.key == self.family.key || self.stream().is_none() {
                self.family = family;
            } else {
                self.family.is_live = false;
            }
        }
    }

    /// Logs a failed turn, once until a turn succeeds.
    pub(super) fn report(&mut self, failure: Option<&io::Error>) {
        if let (Some(error), false) = (failure, self.failing) {
            tracing::warn!(source = %self.context.source, path = ?self.path, %error, "the file cannot be read; it is tried again");
        }
        self.failing = failure.is_some();
    }

    fn report_cut(&mut self) {
        if !std::mem::replace(&mut self.cut, true) {
            tracing::info!(source = %self.context.source, path = ?self.path, "the compressed file is incomplete; the rest is read when it is appended");
        }
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Its size when it was found, in bytes.
    pub(super) fn size(&self) -> u64 {
        match self.compression {
            Some(FileCompression::Plain) => self.size,
            _ => u64::MAX,
        }
    }

    pub(super) fn from(&self) -> ReadFrom {
        self.from
    }

    /// Whether every line that starts before `position` was read.
    pub(super) fn reaches(&self, position: u64) -> bool {
        self.stream().is_none_or(|stream| stream.read_to() >= position)
    }

    /// Whether it is unidentified and was not compared with known contents since it changed, or
    /// since another file lost its content.
    pub(super) fn is_to_be_compared(&self, losses: u64) -> bool {
        let TailState::Unknown(unknown) = &self.state else {
            return false;
        };
        let now = FileStat::of(&self.file).ok().map(|stamp| Compared { stamp, losses });
        now.is_none() || unknown.compared != now
    }

    /// Whether it is unidentified and its beginning was seen.
    pub(super) fn is_seen(&self) -> bool {
        self.unknown_head().is_some_and(|head| !head.is_empty())
    }

    /// The beginning of its text, if it is unidentified.
    pub(super) fn unknown_head(&self) -> Option<&FileHead> {
        match &self.state {
            TailState::Unknown(unknown) => Some(&unknown.head),
            _ => None,
        }
    }

    /// Whether it stands for a content that no file holds any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_some()
    }

    /// Whether all files were found that may be older than its content, or a copy of it.
    pub(super) fn peers_are_known(&self) -> bool {
        match (&self.state, self.gone) {
            (TailState::Unknown(unknown), _) => unknown.peers == PeerSearch::Done,
            (_, Some(peers)) => peers == PeerSearch::Done,
            _ => true,
        }
    }

    /// A search that started after its content was seen has ended.
    pub(super) fn searched(&mut self) {
        if let Some(gone) = &mut self.gone {
            gone.searched();
        }
        if let TailState::Unknown(unknown) = &mut self.state {
            unknown.peers.searched();
        }
    }

    /// Whether bytes follow its last newline, or its decoder holds lines.
    pub(super) fn has_rest(&self) -> bool {
        self.stream().is_some_and(Stream::has_rest)
    }

    /// The beginning of its text, its path, and its state.
    pub(super) fn into_parts(self) -> (FileHead, String, TailState) {
        (self.text_head, self.shown, self.state)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its modification time in seconds since 1970.
    pub(super) fn changed_at(&self) -> i64 {
        self.changed.0
    }

    /// Its file and compression. `None`: it is too short to decide.
    pub(super) fn text(&self) -> Option<TextSource> {
        Some(TextSource { file: Arc::clone(&self.file), compression: self.compression? })
    }

    pub(super) fn file(&self) -> &Arc<std::fs::File> {
        &self.file
    }

    pub(super) fn set_form(&mut self, compression: FileCompression) {
        self.compression = Some(compression);
    }

    pub(super) fn stream(&self) -> Option<&Stream> {
        match &self.state {
            TailState::Reading(stream) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn stream_mut(&mut self) -> Option<&mut Stream> {
        match &mut self.state {
            TailState::Reading(stream) => Some(stream),
            _ => None,
        }
    }

    /// The generation whose records it yields or holds.
    pub(super) fn generation(&self) -> Option<u64> {
        match &self.state {
            TailState::Unknown(_) => None,
            TailState::Reading(stream) => Some(stream.generation),
            TailState::Copy(copy) => Some(copy.generation),
        }
    }

    /// How long it has been read to its present end.
    pub(super) fn quiet_for(&self) -> Option<Duration> {
        let waiting = self.stream().is_some_and(Stream::has_waiting);
        self.quiet.filter(|_| !waiting).map(|since| since.elapsed())
    }

    /// It equals a known content up to here.
    pub(super) fn note_same(&mut self, content: ContentMark) {
        if let TailState::Unknown(unknown) = &mut self.state {
            unknown.same_to = Some(content);
        }
    }

    /// How long it can neither be read further nor is read to its end.
    pub(super) fn stuck_for(&self) -> Option<Duration> {
        self.stuck.map(|since| since.elapsed())
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether it is compressed and read to the end of its stream, so that nothing is appended any
    /// more.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.compression, Some(FileCompression::Gzip | FileCompression::Zstd)) && !self.cut
    }

    /// The size of a compressed file that is read to its end.
    pub(super) fn packed(&self) -> Option<u64> {
        match (self.compression, self.quiet) {
            (Some(FileCompression::Gzip | FileCompression::Zstd), Some(_)) => {
                self.stamp.map(|stamp| stamp.size())
            }
            _ => None,
        }
    }

    /// The present checkpoint; `None` where it has none of its own.
    pub(super) fn row(&mut self) -> Option<FileCheckpoint> {
        let packed = self.packed();
        match &mut self.state {
            TailState::Unknown(_) => None,
            TailState::Reading(stream) => {
                let row = stream.row(self.id, &self.text_head, &self.shown);
                Some(FileCheckpoint { packed, ..row })
            }
            TailState::Copy(copy) => {
                Some(FileCheckpoint { path: self.shown.clone(), ..copy.row.clone() })
            }
        }
    }
}

/// Runs blocking file system work on a separate thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
