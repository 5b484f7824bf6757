//! One open file: what is read of it, or why nothing is.
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
    /// `path` as text, for places.
    shown: String,
    id: FileId,
    file: Arc<std::fs::File>,
    compression: Option<FileCompression>,
    /// The first bytes of the file, as of the last look.
    head: FileHead,
    /// The first bytes of its text.
    text_head: FileHead,
    stamp: Option<FileStat>,
    unpacker: Option<Unpacker>,
    /// Its size when it was found, in bytes.
    size: u64,
    /// Where it is begun if it is new.
    from: ReadFrom,
    /// Bytes of it that were counted as found.
    counted: u64,
    pub(super) family: Family,
    changed: (i64, i64),
    pub(super) state: TailState,
    /// Whether no name leads to it any more, as of the last look.
    pub(super) deleted: bool,
    /// Since when no pattern finds it.
    pub(super) missing: Option<Instant>,
    /// Whether the last turn failed, so that a lasting failure is logged once.
    failing: bool,
    /// Since when it is neither read to its end nor can be read on.
    stuck: Option<Instant>,
    /// Since when it is read to its present end.
    quiet: Option<Instant>,
    /// Whether its packed stream was cut at the last look, so that it is logged once.
    cut: bool,
    /// Set for a content that no file holds any more: whether its copies are known.
    gone: Option<PeerSearch>,
    /// The file that holds the same and has its place, once it has no name any more.
    pub(super) twin: Option<FileId>,
}

impl FileTailer {
    /// An open file, not yet read. Bytes of its size were counted as found already.
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

    /// Counts bytes of a plain file as read. Of a packed one the size is counted at its end.
    fn count_read(&self, bytes: u64) {
        if self.compression == Some(FileCompression::Plain) {
            self.context.progress.read(bytes);
        }
    }

    /// Nothing more is read of it: all of it counts as read.
    pub(super) fn count_rest(&self) {
        match (&self.state, self.compression) {
            (TailState::Reading(_), Some(FileCompression::Plain)) => {}
            _ => self.context.progress.read(self.size),
        }
    }

    /// The file is known by this name now, and was changed at this time.
    pub(super) fn found(&mut self, found: &FoundFile) {
        self.missing = None;
        self.changed = found.changed;
        self.size = found.size;
        if self.path != found.path {
            self.shown = found.path.to_string_lossy().into_owned();
            self.path.clone_from(&found.path);
            let family = Family::of(&found.path);
            // A log that was moved away is still what came before the new one.
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
            tracing::warn!(path = ?self.path, %error, "the file cannot be read; it is tried again");
        }
        self.failing = failure.is_some();
    }

    fn report_cut(&mut self) {
        if !std::mem::replace(&mut self.cut, true) {
            tracing::info!(path = ?self.path, "the packed file ends amid its stream; the rest is read when it is there");
        }
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Its size when it was found, in bytes of its text.
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

    /// Whether it is not known what it holds, and was not compared with what is known since it
    /// changed, or since something was lost by another file.
    pub(super) fn is_to_be_compared(&self, losses: u64) -> bool {
        let TailState::Unknown(unknown) = &self.state else {
            return false;
        };
        let now = FileStat::of(&self.file).ok().map(|stamp| Compared { stamp, losses });
        now.is_none() || unknown.compared != now
    }

    /// Whether it is unknown and its beginning was seen.
    pub(super) fn is_seen(&self) -> bool {
        self.unknown_head().is_some_and(|head| !head.is_empty())
    }

    /// The beginning of its text as it was seen, if it is not known what it holds.
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

    /// Whether all that may be older than what it holds, or may be a copy of it, was found.
    pub(super) fn peers_are_known(&self) -> bool {
        match (&self.state, self.gone) {
            (TailState::Unknown(unknown), _) => unknown.peers == PeerSearch::Done,
            (_, Some(peers)) => peers == PeerSearch::Done,
            _ => true,
        }
    }

    /// A search is done that began after what it holds was seen.
    pub(super) fn searched(&mut self) {
        if let Some(gone) = &mut self.gone {
            gone.searched();
        }
        if let TailState::Unknown(unknown) = &mut self.state {
            unknown.peers.searched();
        }
    }

    /// Whether something is behind its last newline, or in its decoder.
    pub(super) fn has_rest(&self) -> bool {
        self.stream().is_some_and(Stream::has_rest)
    }

    /// The beginning of its text, its path, and what is known of it.
    pub(super) fn into_parts(self) -> (FileHead, String, TailState) {
        (self.text_head, self.shown, self.state)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Seconds of the epoch when it was changed last.
    pub(super) fn changed_at(&self) -> i64 {
        self.changed.0
    }

    /// Its file and form. `None`: it is too short to tell.
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

    /// For how long it has been read to its present end.
    pub(super) fn quiet_for(&self) -> Option<Duration> {
        let waiting = self.stream().is_some_and(Stream::has_waiting);
        self.quiet.filter(|_| !waiting).map(|since| since.elapsed())
    }

    /// It is the same as a known content as far as this.
    pub(super) fn note_same(&mut self, content: ContentMark) {
        if let TailState::Unknown(unknown) = &mut self.state {
            unknown.same_to = Some(content);
        }
    }

    /// For how long it is not read to its end and cannot be read on.
    pub(super) fn stuck_for(&self) -> Option<Duration> {
        self.stuck.map(|since| since.elapsed())
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether it is packed, and read to the end of its stream: nothing is written to it any more.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.compression, Some(FileCompression::Gzip | FileCompression::Zstd)) && !self.cut
    }

    /// The size of a packed file that is read to its end.
    pub(super) fn packed(&self) -> Option<u64> {
        match (self.compression, self.quiet) {
            (Some(FileCompression::Gzip | FileCompression::Zstd), Some(_)) => {
                self.stamp.map(|stamp| stamp.size())
            }
            _ => None,
        }
    }

    /// The checkpoint as it stands; `None` where it has none of its own.
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

/// Runs what blocks on the file system on a thread of its own, so that no other task waits.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
