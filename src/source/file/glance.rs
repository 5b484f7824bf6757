//! Looking at a file: opening it where it was left, and taking the next block. Everything here
//! blocks on the file system.
//!
//! Not here: lines, records, checkpoints. One invariant: no byte is taken from a file whose
//! beginning is not the one that was known before.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::book::Row;
use super::identity::{FileId, Head};
use crate::config::source::ReadFrom;
use crate::source::watermark::Mark;

/// The most bytes taken at a time.
pub(super) const BLOCK: usize = 256 << 10;

/// What is needed to open a file.
#[derive(Debug, Clone)]
pub(super) struct Opening {
    pub(super) path: PathBuf,
    /// The identity it was found by.
    pub(super) id: FileId,
    /// Its checkpoint.
    pub(super) row: Option<Row>,
    /// Where to begin without one.
    pub(super) from: ReadFrom,
    /// The longest line, in bytes.
    pub(super) limit: usize,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    pub(super) file: Arc<File>,
    pub(super) head: Head,
    pub(super) start: Mark,
    /// The generation that goes on; `None` begins one.
    pub(super) generation: Option<u64>,
}

impl Opening {
    pub(super) fn open(self) -> io::Result<Opened> {
        let file = File::open(&self.path)?;
        let metadata = file.metadata()?;
        if FileId::of(&metadata) != self.id {
            return Err(io::Error::other("another file took its name meanwhile"));
        }
        let head = Head::read(&file)?;
        let known = self.row.filter(|row| {
            let same = metadata.len() >= row.position && head.has(&row.head);
            if !same {
                tracing::info!(path = ?self.path, "another file is in the place of a known one; it is read from its beginning");
            }
            same
        });
        let beginning = Mark { position: 0, lines: Some(0) };
        let start = match (&known, self.from) {
            (Some(row), _) => row.mark(),
            (None, ReadFrom::Beginning) => beginning,
            (None, ReadFrom::End) => {
                match behind_last_newline(&file, metadata.len(), self.limit)? {
                    0 => beginning,
                    position => Mark { position, lines: None },
                }
            }
        };
        Ok(Opened {
            path: self.path,
            id: self.id,
            file: Arc::new(file),
            head,
            start,
            generation: known.map(|row| row.generation),
        })
    }
}

/// Where the last line that has no newline yet begins, so that it is read whole once it has one.
fn behind_last_newline(file: &File, size: u64, limit: usize) -> io::Result<u64> {
    let mut end = size;
    while end > 0 && size - end <= limit as u64 {
        let begin = end.saturating_sub(BLOCK as u64);
        let block = read(file, begin, block_of(end - begin))?;
        if let Some(at) = memchr::memrchr(b'\n', &block) {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    // No newline within the longest line: the rest of that line is no record anyway.
    Ok(if end == 0 { 0 } else { size })
}

/// The first line of a file, without its newline; an error text where it has none within `limit`.
pub(super) fn first_line(file: &File, limit: usize) -> io::Result<Result<Bytes, String>> {
    let mut bytes = Vec::new();
    loop {
        let block = read(file, bytes.len() as u64, BLOCK)?;
        let newline = memchr::memchr(b'\n', &block);
        bytes.extend_from_slice(&block[..newline.unwrap_or(block.len())]);
        if bytes.len() > limit {
            return Ok(Err(format!("it is longer than `max_line_bytes`, {limit}")));
        }
        if newline.is_some() {
            return Ok(Ok(Bytes::from(bytes)));
        }
        if block.is_empty() {
            return Ok(Err("it has no end".into()));
        }
    }
}

/// A file's size and time of change: as long as they stay, so does what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    changed: (i64, i64),
}

/// One look at an open file.
#[derive(Debug)]
pub(super) struct Glance {
    pub(super) file: Arc<File>,
    /// Where the next byte is wanted from.
    pub(super) at: u64,
    pub(super) head: Head,
    /// As it was at the last look.
    pub(super) stamp: Option<Stamp>,
}

/// What a look saw.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) head: Head,
    pub(super) stamp: Stamp,
    pub(super) size: u64,
    /// Whether no name leads to the file any more.
    pub(super) deleted: bool,
    pub(super) next: Next,
}

/// What comes next in a file.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing yet.
    Quiet,
    /// What was read is not there any more: it was cut off, or written anew.
    Replaced,
    Block(Bytes),
}

impl Glance {
    pub(super) fn look(self) -> io::Result<Seen> {
        let metadata = self.file.metadata()?;
        let size = metadata.len();
        let stamp = Stamp { size, changed: (metadata.mtime(), metadata.mtime_nsec()) };
        let mut head = self.head;
        let mut replaced = size < self.at;
        if self.stamp != Some(stamp) {
            let now = Head::read(&self.file)?;
            replaced |= !now.continues(&head);
            head = now;
        }
        let wanted = block_of(size.saturating_sub(self.at));
        let next = match (replaced, wanted) {
            (true, _) => Next::Replaced,
            (false, 0) => Next::Quiet,
            (false, wanted) => match read(&self.file, self.at, wanted)? {
                // It was cut off since we asked for its size; the next look will see.
                block if block.is_empty() => Next::Quiet,
                block => Next::Block(block.into()),
            },
        };
        Ok(Seen { head, stamp, size, deleted: metadata.nlink() == 0, next })
    }
}

/// So many bytes, but no more than a block.
fn block_of(bytes: u64) -> usize {
    usize::try_from(bytes).map_or(BLOCK, |bytes| bytes.min(BLOCK))
}

/// Up to `wanted` bytes at `at`; fewer only where the file ends.
fn read(file: &File, at: u64, wanted: usize) -> io::Result<Vec<u8>> {
    let mut block = vec![0; wanted];
    let mut length = 0;
    while length < wanted {
        match file.read_at(&mut block[length..], at + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    block.truncate(length);
    Ok(block)
}
