//! Opens files at their checkpoint and reads blocks. Everything here blocks on the file system.
//!
//! # Invariants
//!
//! No byte is read from a file whose beginning differs from the known one.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::blocks::read;
use super::checkpoints::FileCheckpoint;
use super::compression::{FileCompression, TextSource, Unpacked, Unpacker};
use super::content::{self, RunningDigest};
use super::identity::{FileHead, FileId};
use crate::config::source::{FileFingerprint, ReadFrom};
use crate::source::line::Separator;
use crate::source::offset_tracker::StreamPosition;

/// The most bytes that are read at a time.
pub(super) const MAX_BLOCK_BYTES: usize = 256 << 10;
/// How much of the beginning of a text is read first; four times as much each time that it is too
/// little.
pub(super) const FIRST_BYTES: usize = 16 << 10;
/// Bytes before the present position that are compared when a file has changed.
pub(super) const RECENT_BYTES: usize = 256;
/// A file that is begun at its end is read once for its digest, unless it is larger than this.
const MAX_DIGEST_BYTES: u64 = 4 << 30;

/// What is needed to open a file.
#[derive(Debug, Clone)]
pub(super) struct OpenRequest {
    pub(super) path: PathBuf,
    /// The identity under which it was found.
    pub(super) id: FileId,
    /// Its checkpoint.
    pub(super) row: Option<FileCheckpoint>,
    /// Checkpoints of the same generation in other files that were read further.
    pub(super) further: Vec<FileCheckpoint>,
    /// How much is compared before an identity is trusted.
    pub(super) fingerprint: FileFingerprint,
}

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    pub(super) file: Arc<File>,
    /// `None`: the file is too short to decide.
    pub(super) compression: Option<FileCompression>,
    /// Its checkpoint, if it still holds that content, and the digest of it.
    pub(super) known: Option<(FileCheckpoint, Option<RunningDigest>)>,
}

impl OpenRequest {
    pub(super) fn open(self) -> io::Result<OpenFile> {
        let file = File::open(&self.path)?;
        let metadata = file.metadata()?;
        if FileId::of(&metadata) != self.id {
            return Err(io::Error::other(
                "another file has its name now; the next search opens that one",
            ));
        }
        let file = Arc::new(file);
        let compression = FileCompression::of(&file, &self.path)?;
        let mut known = None;
        if let (Some(row), Some(compression)) = (self.row, compression) {
            let text = TextSource { file: Arc::clone(&file), compression };
            let rows = self.further.into_iter().map(|row| (row, FileFingerprint::Content));
            for (row, fingerprint) in rows.chain([(row, self.fingerprint)]) {
                if let ContentCheck::Same(running) =
                    holds(&text, metadata.len(), &row, fingerprint)?
                {
                    known = Some((row, running.map(|running| *running)));
                    break;
                }
            }
            if known.is_none() {
                tracing::info!(path = ?self.path, "the content of the file differs from its checkpoint; it is read as a new file");
            }
        }
        Ok(OpenFile { path: self.path, id: self.id, file, compression, known })
    }
}

/// Whether a file holds the content of its checkpoint.
enum ContentCheck {
    /// It does; with the digest at the position where it continues.
    Same(Option<Box<RunningDigest>>),
    Other,
}

impl ContentCheck {
    fn same(running: Option<RunningDigest>) -> Self {
        running.map_or(Self::Other, |running| Self::Same(Some(Box::new(running))))
    }
}

/// Compares a file with its checkpoint: its beginning and the last bytes that were read; all of
/// these bytes where its identity proves nothing.
fn holds(
    text: &TextSource,
    size: u64,
    row: &FileCheckpoint,
    fingerprint: FileFingerprint,
) -> io::Result<ContentCheck> {
    if !FileHead::read(&mut text.reader())?.has(&row.head) {
        return Ok(ContentCheck::Other);
    }
    if text.compression != FileCompression::Plain {
        if row.packed == Some(size) && fingerprint == FileFingerprint::Inode {
            return Ok(ContentCheck::Same(None));
        }
        let Some(mark) = &row.content else {
            return Ok(ContentCheck::Other);
        };
        let running = RunningDigest::of(&mut text.reader(), mark.length)?;
        return Ok(ContentCheck::same((running.mark() == *mark).then_some(running)));
    }
    if size < row.position {
        return Ok(ContentCheck::Other);
    }
    Ok(match &row.content {
        // Versions before 0.2 stored no more.
        None => ContentCheck::same(Some(RunningDigest::of(&mut text.reader(), row.position)?)),
        Some(mark) if mark.length > size => {
            let known = row.lengths().filter(|(length, _)| (row.position..=size).contains(length));
            let known: Vec<_> = known.collect();
            let lengths: BTreeSet<u64> = known.iter().map(|(length, _)| *length).collect();
            let found = content::digest_prefixes(&mut text.reader(), &lengths)?;
            let same = known.iter().any(|(length, sha256)| {
                found.digests.get(length).is_some_and(|found| found == sha256)
            });
            match same {
                true => {
                    ContentCheck::same(Some(RunningDigest::of(&mut text.reader(), row.position)?))
                }
                false => ContentCheck::Other,
            }
        }
        Some(mark) if fingerprint == FileFingerprint::Content => {
            let running = RunningDigest::of(&mut text.reader(), mark.length)?;
            ContentCheck::same((running.mark() == *mark).then_some(running))
        }
        Some(mark) => {
            let start = mark.link_start();
            let length = usize::try_from(mark.length - start).unwrap_or(usize::MAX);
            ContentCheck::same(mark.resume(&read(&text.file, start, length)?))
        }
    })
}

/// The file of a checkpoint, if it is at its path and still holds that content.
pub(super) fn at_path(id: FileId, row: &FileCheckpoint) -> Option<(TextSource, u64)> {
    let file = File::open(Path::new(&row.path)).ok()?;
    let metadata = file.metadata().ok()?;
    if FileId::of(&metadata) != id || !metadata.is_file() {
        return None;
    }
    let file = Arc::new(file);
    let text =
        TextSource { compression: FileCompression::of(&file, Path::new(&row.path)).ok()??, file };
    let held = holds(&text, metadata.len(), row, FileFingerprint::Inode).ok()?;
    matches!(held, ContentCheck::Same(_)).then_some((text, metadata.len()))
}

/// Where reading of a new content starts.
#[derive(Debug)]
pub(super) struct ReadStart {
    pub(super) start: StreamPosition,
    /// The digest of what is before it, where it is known.
    pub(super) content: Option<RunningDigest>,
}

impl ReadStart {
    pub(super) fn first_byte() -> Self {
        let start = StreamPosition { position: 0, lines: Some(0) };
        Self { start, content: Some(RunningDigest::default()) }
    }

    /// The start in a file without a checkpoint; `limit` is the longest line.
    pub(super) fn new(
        text: &TextSource,
        from: ReadFrom,
        limit: usize,
        separator: Separator,
    ) -> io::Result<Self> {
        if from == ReadFrom::Beginning {
            return Ok(Self::first_byte());
        }
        if text.compression != FileCompression::Plain {
            let whole = RunningDigest::of(&mut text.reader(), u64::MAX)?;
            return Ok(Self::at(whole.length(), Some(whole)));
        }
        let size = text.file.metadata()?.len();
        let position = after_last_newline(&text.file, size, limit, separator)?;
        let content = match position <= MAX_DIGEST_BYTES {
            true => Some(RunningDigest::of(&mut text.reader(), position)?),
            false => None,
        };
        Ok(Self::at(position, content))
    }

    /// The start of the last line that begins before `length`: the bytes before it are read in
    /// another file.
    pub(super) fn after(text: &TextSource, length: u64, separator: Separator) -> io::Result<Self> {
        let position = content::last_line_end(&mut text.reader(), length, separator)?;
        Ok(Self::at(position, Some(RunningDigest::of(&mut text.reader(), position)?)))
    }

    fn at(position: u64, content: Option<RunningDigest>) -> Self {
        match position {
            0 => Self::first_byte(),
            position => Self { start: StreamPosition { position, lines: None }, content },
        }
    }
}

/// The start of the last line without a newline, so that it is read whole once it has one.
fn after_last_newline(
    file: &File,
    size: u64,
    limit: usize,
    separator: Separator,
) -> io::Result<u64> {
    let separator = separator.resolved(&read(file, 0, 2)?);
    // Blocks begin and end with whole characters.
    let size = size - size % separator.width() as u64;
    let mut end = size;
    while end > 0 && size - end <= limit as u64 {
        let begin = end.saturating_sub(MAX_BLOCK_BYTES as u64);
        let block = read(file, begin, block_of(end - begin))?;
        if let Some(behind) = separator.last_end(&block) {
            return Ok(begin + behind as u64);
        }
        end = begin;
    }
    // No newline within the longest line: the rest of that line cannot be a record anyway.
    Ok(if end == 0 { 0 } else { size })
}

/// The first bytes of a text; fewer than `most` where it is shorter.
pub(super) fn beginning(text: &TextSource, most: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    io::Read::read_to_end(&mut io::Read::take(text.reader(), most), &mut bytes)?;
    Ok(Bytes::from(bytes))
}

/// A file's size and modification time: while they do not change, its content does not either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileStat {
    size: u64,
    changed: (i64, i64),
}

impl FileStat {
    pub(super) fn new(size: u64, changed: (i64, i64)) -> Self {
        Self { size, changed }
    }

    pub(super) fn changed(self) -> (i64, i64) {
        self.changed
    }

    /// The size of the file, in bytes.
    pub(super) fn size(self) -> u64 {
        self.size
    }

    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { size: metadata.len(), changed: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

/// A request to read an open file.
#[derive(Debug)]
pub(super) struct ReadRequest {
    pub(super) text: TextSource,
    /// The next byte to read.
    pub(super) at: u64,
    /// The first bytes of the file, compressed or not.
    pub(super) head: FileHead,
    /// The state at the last read.
    pub(super) stamp: Option<FileStat>,
    /// The last bytes before `at`.
    pub(super) recent: Bytes,
    /// The decompressor, if it was started.
    pub(super) unpacker: Option<Unpacker>,
}

/// The result of a read.
#[derive(Debug)]
pub(super) struct ReadResult {
    pub(super) head: FileHead,
    pub(super) stamp: FileStat,
    pub(super) size: u64,
    /// Whether the file has no name any more.
    pub(super) deleted: bool,
    pub(super) next: ReadOutcome,
    pub(super) unpacker: Option<Unpacker>,
}

/// What was read.
#[derive(Debug)]
pub(super) enum ReadOutcome {
    /// Nothing new.
    NoData,
    /// Nothing new, and the compressed stream is incomplete.
    Incomplete,
    /// What was read before is no longer there: the file was truncated or rewritten.
    Replaced,
    Block(Bytes),
}

impl ReadRequest {
    pub(super) fn read_next(mut self) -> io::Result<ReadResult> {
        let metadata = self.text.file.metadata()?;
        let stamp = FileStat::new(metadata.len(), (metadata.mtime(), metadata.mtime_nsec()));
        let changed = self.stamp != Some(stamp);
        let replaced = changed && self.is_replaced(stamp.size)?;
        let next = match (replaced, self.text.compression) {
            (true, _) => ReadOutcome::Replaced,
            (false, FileCompression::Plain) => self.block(stamp.size)?,
            // A completely decompressed file is not decompressed again before it changes.
            (false, _) if !changed && self.unpacker.is_none() => ReadOutcome::NoData,
            (false, _) => self.unpack()?,
        };
        let deleted = metadata.nlink() == 0;
        let size = stamp.size;
        Ok(ReadResult { head: self.head, stamp, size, deleted, next, unpacker: self.unpacker })
    }

    /// Whether the file no longer holds what was read.
    pub(super) fn was_cut_off(mut self) -> io::Result<bool> {
        let size = self.text.file.metadata()?.len();
        self.is_replaced(size)
    }

    /// As above, for a file of this size; also updates the known beginning.
    fn is_replaced(&mut self, size: u64) -> io::Result<bool> {
        let is_shorter = match self.text.compression {
            FileCompression::Plain => size < self.at,
            _ => self.stamp.is_some_and(|before| size < before.size),
        };
        if is_shorter {
            return Ok(true);
        }
        let now = FileHead::read(&mut plain(&self.text.file))?;
        let replaced = !now.continues(&self.head) || !self.has_recent()?;
        self.head = now;
        Ok(replaced)
    }

    /// Whether the bytes before the present position are those that were read.
    fn has_recent(&self) -> io::Result<bool> {
        if self.text.compression != FileCompression::Plain {
            return Ok(true);
        }
        let start = self.at.saturating_sub(self.recent.len() as u64);
        Ok(read(&self.text.file, start, self.recent.len())? == self.recent)
    }

    fn block(&self, size: u64) -> io::Result<ReadOutcome> {
        Ok(match block_of(size.saturating_sub(self.at)) {
            0 => ReadOutcome::NoData,
            wanted => match read(&self.text.file, self.at, wanted)? {
                // It was truncated after its size was read; the next read detects it.
                block if block.is_empty() => ReadOutcome::NoData,
                block => ReadOutcome::Block(block.into()),
            },
        })
    }

    fn unpack(&mut self) -> io::Result<ReadOutcome> {
        let file = &self.text.file;
        let unpacker = self.unpacker.get_or_insert_with(|| Unpacker::new(Arc::clone(file)));
        let mut block = vec![0; MAX_BLOCK_BYTES];
        while unpacker.position() < self.at {
            let wanted = block_of(self.at - unpacker.position());
            match unpacker.read(&mut block[..wanted])? {
                Unpacked::Bytes(_) => {}
                // Shorter than before: the compressed file was rewritten.
                Unpacked::End => return Ok(ReadOutcome::Replaced),
                Unpacked::Incomplete => return Ok(ReadOutcome::Incomplete),
            }
        }
        match unpacker.read(&mut block)? {
            Unpacked::Bytes(length) => {
                block.truncate(length);
                Ok(ReadOutcome::Block(block.into()))
            }
            Unpacked::End => {
                self.unpacker = None;
                Ok(ReadOutcome::NoData)
            }
            Unpacked::Incomplete => Ok(ReadOutcome::Incomplete),
        }
    }
}

/// A file's own bytes, compressed or not.
fn plain(file: &Arc<File>) -> super::compression::TextReader {
    TextSource { file: Arc::clone(file), compression: FileCompression::Plain }.reader()
}

/// This many bytes, but at most one block.
fn block_of(bytes: u64) -> usize {
    usize::try_from(bytes).map_or(MAX_BLOCK_BYTES, |bytes| bytes.min(MAX_BLOCK_BYTES))
}
