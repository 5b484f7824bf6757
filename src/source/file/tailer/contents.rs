//! Moves a content from one file to another.
//!
//! # Invariants
//!
//! A content always belongs to one file: fallible steps come before the move.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::compression::{FileCompression, TextSource};
use super::super::identity::{FileHead, FileId};
use super::super::read::{self, FileStat, ReadRequest};
use super::super::state::{Copy, PeerSearch, TailState, Unknown};
use super::super::stream::Stream;
use super::{FileCheckpoint, FileTailer, blocking};
use crate::config::source::ReadFrom;

impl FileTailer {
    /// Reads the file with this stream from now on.
    pub(in super::super) async fn attach_new(&mut self, mut stream: Stream) -> io::Result<()> {
        self.prepare(&mut stream).await?;
        self.attach(Box::new(stream));
        Ok(())
    }

    /// Prepares a stream for this file: every step that can fail.
    pub(in super::super) async fn prepare(&mut self, stream: &mut Stream) -> io::Result<()> {
        if let Some(text) = self.text() {
            self.text_head = {
                let text = text.clone();
                blocking(move || FileHead::read(&mut text.reader())).await?
            };
            self.provide_beginning(&text, stream).await?;
        }
        Ok(())
    }

    /// Reads the file with a prepared stream from now on.
    pub(in super::super) fn attach(&mut self, stream: Box<Stream>) {
        self.count_read(stream.fed());
        self.state = TailState::Reading(stream);
        self.reset_read_state();
        if self.compression == Some(FileCompression::Plain) {
            // The file may be truncated before it is read.
            self.head = self.text_head.clone();
        }
    }

    /// This file as a copy of its content, if it has no name any more and was read up to its end,
    /// `at`.
    pub(in super::super) fn as_copy(&mut self, at: u64) -> Option<Box<Copy>> {
        let metadata = self.file.metadata().ok()?;
        let (stamp, row, _) = (self.stamp?, self.row()?, self.quiet_for()?);
        let stream = self.stream()?;
        let content = stream.content()?.mark();
        let is_read = stream.fed() == at && content.length == at;
        (is_read && metadata.nlink() == 0).then(|| {
            Box::new(Copy {
                generation: stream.generation,
                stamp,
                whole: true,
                row: FileCheckpoint {
                    origin: Some(row.origin.unwrap_or(self.id)),
                    copy: true,
                    versions: Vec::new(),
                    packed: None,
                    ..row
                },
                content,
            })
        })
    }

    /// Gives a stream that starts after the first bytes what they contain, such as column names.
    /// These may span several lines.
    async fn provide_beginning(&self, text: &TextSource, stream: &mut Stream) -> io::Result<()> {
        let limit = self.context.limit;
        let mut most = read::FIRST_BYTES;
        while stream.awaits_beginning() {
            let text = text.clone();
            let beginning = blocking(move || read::beginning(&text, most)).await?;
            if stream.learn_beginning(&beginning) {
                break;
            }
            if beginning.len() < most {
                stream.forgo_beginning("it has no end");
            } else if most > limit {
                stream.forgo_beginning(&format!("it is longer than `max_line_bytes`, {limit}"));
            }
            // One line longer than the limit is enough to decide.
            most = most.saturating_mul(4).min(limit.saturating_add(read::FIRST_BYTES));
        }
        Ok(())
    }

    /// Its content is no longer known.
    pub(in super::super) fn forget(&mut self) -> Option<Box<Stream>> {
        self.counted = 0;
        self.replace_state(TailState::Unknown(Unknown::new(None)))
    }

    /// If it is new, it is read from its first byte.
    pub(in super::super) fn read_from_start(&mut self) {
        self.from = ReadFrom::Beginning;
    }

    /// Replaces the state; its content is read elsewhere.
    pub(in super::super) fn replace_state(&mut self, state: TailState) -> Option<Box<Stream>> {
        // Whatever it holds later is new.
        self.read_from_start();
        self.reset_read_state();
        match std::mem::replace(&mut self.state, state) {
            TailState::Reading(stream) => Some(stream),
            _ => None,
        }
    }

    fn reset_read_state(&mut self) {
        self.head = FileHead::default();
        self.stamp = None;
        self.unpacker = None;
        self.quiet = None;
        self.cut = false;
    }

    /// The next read request; `None` while it is not read.
    pub(super) fn read_request(&self) -> Option<ReadRequest> {
        let (text, stream) = (self.text()?, self.stream()?);
        Some(ReadRequest {
            text,
            at: stream.fed(),
            head: self.head.clone(),
            stamp: self.stamp,
            recent: stream.recent(),
            unpacker: None,
        })
    }

    /// Whether the file no longer holds what was read: it was truncated or rewritten.
    pub(in super::super) async fn is_cut_off(&mut self) -> io::Result<bool> {
        if self.gone.is_some() || Some(FileStat::of(&self.file)?) == self.stamp {
            return Ok(false);
        }
        let Some(request) = self.read_request() else {
            return Ok(false);
        };
        self.quiet = None;
        blocking(move || request.was_cut_off()).await
    }

    /// The file no longer holds what was read of it: that becomes a separate entry, which yields
    /// what is in memory. The present content is unidentified.
    pub(in super::super) fn split_off(&mut self) -> Option<Self> {
        let changed = self.stamp.map_or(self.changed, FileStat::changed);
        let (compression, text_head) = (self.compression, self.text_head.clone());
        let stream = self.forget()?;
        Some(Self {
            context: Arc::clone(&self.context),
            path: self.path.clone(),
            shown: self.shown.clone(),
            id: FileId::of_lost(stream.generation),
            file: Arc::clone(&self.file),
            compression,
            head: FileHead::default(),
            text_head,
            stamp: None,
            unpacker: None,
            size: stream.fed(),
            from: self.from,
            counted: stream.fed(),
            family: self.family.put_aside(),
            changed,
            state: TailState::Reading(stream),
            deleted: true,
            missing: Some(Instant::now()),
            failing: false,
            stuck: None,
            quiet: None,
            cut: false,
            gone: Some(PeerSearch::Pending),
            twin: None,
        })
    }
}
