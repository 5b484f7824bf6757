//! Reads one content from its first unsettled line, whichever file holds it.
//!
//! # Invariants
//!
//! A record is tracked before it is sent and is sent only under a saved claim, and positions only
//! grow.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::checkpoints::FileCheckpoint;
use super::claim::Claims;
use super::content::{ContentMark, ContentVersion, RunningDigest};
use super::identity::{FileHead, FileId};
use super::offsets::FileOffsetTracker;
use super::read::{RECENT_BYTES, ReadStart};
use crate::config::source::FileFingerprint;
use crate::record::{Record, SourcePosition};
use crate::source::decode::{Decoded, Decoder, Flush};
use crate::source::in_flight::InFlightTracker;
use crate::source::line::{Line, LineSplitter};
use crate::source::metadata::{Metadata, merge};
use crate::source::offset_tracker::StreamPosition;
use crate::source::{Downstream, LocationMetadata, ReadProgress};

/// What all files of a source share.
pub(super) struct SourceContext {
    pub(super) source: Arc<str>,
    /// A decoder that has read nothing.
    pub(super) decoder: Decoder,
    /// The longest line, in bytes.
    pub(super) limit: usize,
    pub(super) fingerprint: FileFingerprint,
    pub(super) downstream: Downstream,
    pub(super) in_flight: Arc<InFlightTracker>,
    pub(super) progress: ReadProgress,
}

/// Where records are sent, until the run is stopped.
pub(super) struct RecordOutput {
    pub(super) out: mpsc::Sender<Record>,
    pub(super) stop: CancellationToken,
    /// When checkpoints are saved next: a turn ends then, even while it waits for room.
    pub(super) due: Instant,
}

/// The result of an attempt to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendOutcome {
    Sent,
    /// Not sent: checkpoints are due.
    SaveDue,
    /// Not sent: a claim must be saved first.
    AwaitingClaim,
    Stopped,
}

impl RecordOutput {
    /// Room for a record, unless there is none before checkpoints are due.
    async fn permit(&self) -> Result<mpsc::Permit<'_, Record>, SendOutcome> {
        if let Ok(permit) = self.out.try_reserve()
            && !self.stop.is_cancelled()
        {
            return Ok(permit);
        }
        let permit = crate::source::permit(&self.out, &self.stop);
        match tokio::time::timeout_at(self.due, permit).await {
            Ok(permit) => permit.ok_or(SendOutcome::Stopped),
            Err(_) => Err(SendOutcome::SaveDue),
        }
    }

    /// Whether checkpoints are due.
    pub(super) fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }

    /// Whether nothing more may be sent.
    pub(super) fn is_closed(&self) -> bool {
        self.stop.is_cancelled() || self.out.is_closed()
    }
}

/// One content that is being read.
pub(super) struct Stream {
    pub(super) generation: u64,
    /// The file that it was first read from; part of the `stream_id` of its records.
    origin: FileId,
    key: Arc<str>,
    splitter: LineSplitter,
    decoder: Decoder,
    /// Where reading began in this run.
    start: StreamPosition,
    /// Records that wait for room.
    waiting: VecDeque<Decoded>,
    /// Starts and numbers of the lines that the decoder holds.
    held_lines: VecDeque<StreamPosition>,
    tracker: Arc<FileOffsetTracker>,
    /// The digest of what was read; `None` where the first bytes were not read.
    content: Option<RunningDigest>,
    /// The digest of a part of what was read.
    known: Option<ContentMark>,
    versions: Vec<ContentVersion>,
    claims: Claims,
    row_state: RowState,
    /// The last bytes that were read.
    recent: Bytes,
    /// When the last line was read.
    fed_at: Option<Instant>,
    /// Trackers of older generations, and how far each must be settled before this one's checkpoint
    /// moves.
    older: Vec<(Arc<FileOffsetTracker>, u64)>,
    begun: bool,
    location_metadata: LocationMetadata,
    scratch: Vec<Decoded>,
}

impl Stream {
    /// A content that was not read before, in a file.
    pub(super) fn new(
        context: &Arc<SourceContext>,
        id: FileId,
        generation: u64,
        beginning: ReadStart,
    ) -> Self {
        let ReadStart { start, content } = beginning;
        // A row without any byte of a content could not identify it.
        let row_state = if start.position > 0 { RowState::Saved } else { RowState::Unsaved };
        let claims = Claims::new(context.downstream.buffer, Vec::new(), start.position);
        Self {
            generation,
            origin: id,
            key: format!("{}:{id}:{generation}", context.source).into(),
            splitter: LineSplitter::new(start.position, context.limit)
                .separated_by(context.decoder.separator()),
            decoder: context.decoder.clone(),
            start,
            waiting: VecDeque::new(),
            held_lines: VecDeque::new(),
            tracker: FileOffsetTracker::new(start, Arc::clone(&context.in_flight)),
            content,
            known: None,
            versions: Vec::new(),
            claims,
            row_state,
            recent: Bytes::new(),
            fed_at: None,
            older: Vec::new(),
            begun: false,
            location_metadata: context.downstream.location_metadata,
            scratch: Vec::new(),
        }
    }

    /// Continues at a checkpoint; `id` is the file of that checkpoint.
    pub(super) fn resume(
        context: &Arc<SourceContext>,
        id: FileId,
        row: FileCheckpoint,
        content: Option<RunningDigest>,
    ) -> Self {
        let beginning = ReadStart { start: row.mark(), content };
        let origin = row.origin.unwrap_or(id);
        let mut stream = Self::new(context, origin, row.generation, beginning);
        stream.claims = Claims::new(context.downstream.buffer, row.claims, row.position);
        if row.content.as_ref().is_some_and(|content| content.length > 0) {
            stream.row_state = RowState::Saved;
        }
        stream.known = row.content;
        stream.versions = row.versions;
        stream
    }

    /// The position after all that was read.
    pub(super) fn fed(&self) -> u64 {
        self.splitter.fed()
    }

    pub(super) fn recent(&self) -> Bytes {
        self.recent.clone()
    }

    /// Whether everything is settled and nothing waits to be sent.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.tracker.is_idle()
    }

    /// Whether older generations are settled as far as its checkpoint waits for them.
    pub(super) fn is_released(&self) -> bool {
        self.older.iter().all(|(tracker, position)| tracker.mark().position >= *position)
    }

    /// Its tracker and how far it was sent, if not all of that is settled.
    pub(super) fn unsettled(&self) -> Option<(Arc<FileOffsetTracker>, u64)> {
        let sent = self.tracker.sent_to();
        (self.tracker.mark().position < sent).then(|| (Arc::clone(&self.tracker), sent))
    }

    /// Whether bytes follow the last newline, or the decoder holds lines.
    pub(super) fn has_rest(&self) -> bool {
        self.splitter.fed() > self.splitter.next_start() || self.decoder.waiting_from().is_some()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn content(&self) -> Option<&RunningDigest> {
        self.content.as_ref()
    }

    /// Whether the first bytes of the content are needed before the first line is read.
    pub(super) fn awaits_beginning(&self) -> bool {
        self.start.position > 0 && self.decoder.awaits_beginning()
    }

    /// Passes the first bytes of the content to the decoder. `false`: it needs more of them.
    pub(super) fn learn_beginning(&mut self, beginning: &Bytes) -> bool {
        let learnt = self.decoder.learn_beginning(beginning, self.splitter.limit());
        self.splitter.separate_by(self.decoder.separator());
        learnt
    }

    /// The beginning does not contain what the decoder needs.
    pub(super) fn forgo_beginning(&mut self, why: &str) {
        self.decoder.forgo_beginning(why);
        self.splitter.separate_by(self.decoder.separator());
    }

    /// Called before its first line is read, with the older generations that it waits for.
    pub(super) fn begin(&mut self, older: impl FnOnce() -> Vec<(Arc<FileOffsetTracker>, u64)>) {
        if !self.begun {
            self.begun = true;
            self.older = older();
        }
    }

    /// Takes the block that follows.
    pub(super) fn feed(&mut self, block: Bytes) {
        if let Some(content) = &mut self.content {
            // Bytes after the checkpoint that are read again are already in the digest.
            let behind = content.length().saturating_sub(self.splitter.fed());
            let behind = usize::try_from(behind).unwrap_or(usize::MAX).min(block.len());
            content.update(&block[behind..]);
        }
        let kept = block.len().saturating_sub(RECENT_BYTES);
        self.recent = match kept {
            0 => {
                let both = [&self.recent[..], &block[..]].concat();
                Bytes::copy_from_slice(&both[both.len().saturating_sub(RECENT_BYTES)..])
            }
            // Copied, so that the whole block is not kept in memory.
            kept => Bytes::copy_from_slice(&block[kept..]),
        };
        self.splitter.feed(block);
        self.fed_at = Some(Instant::now());
    }

    /// Sends the available lines, up to `end`; waiting records are sent first. `file.size` is where
    /// the file ends.
    pub(super) async fn send_lines(
        &mut self,
        output: &RecordOutput,
        end: Option<u64>,
        file: &FileName<'_>,
    ) -> SendOutcome {
        loop {
            match self.send_waiting(output, file).await {
                SendOutcome::Sent => {}
                sent => return sent,
            }
            if end.is_some_and(|end| self.read_to() >= end) {
                return SendOutcome::Sent;
            }
            let Some(line) = self.splitter.next_line() else {
                return SendOutcome::Sent;
            };
            self.decode(line);
        }
    }

    /// The start of the first line that was not decoded.
    pub(super) fn read_to(&self) -> u64 {
        self.splitter.next_start()
    }

    /// Decodes the bytes after the last newline as a line, where `whole` says that they are one.
    pub(super) fn take_rest(&mut self, whole: RestOfLine) {
        let is_line = match whole {
            RestOfLine::IsLine => true,
            RestOfLine::IsLater => false,
            RestOfLine::IfComplete => self
                .splitter
                .rest()
                .is_some_and(|rest| self.decoder.is_complete_without_newline(rest)),
        };
        if is_line && let Some(line) = self.splitter.finish() {
            self.decode(line);
        }
    }

    /// Completes what the decoder holds.
    pub(super) fn flush(&mut self, why: Flush) {
        let mut decoded = std::mem::take(&mut self.scratch);
        self.decoder.flush(why, &mut decoded);
        self.queue(decoded, None);
    }

    /// Whether nothing was read beyond what an earlier run had read.
    pub(super) fn has_nothing_new(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.length >= self.fed())
    }

    /// Completes what the decoder has held for too long.
    pub(super) fn flush_if_due(&mut self) {
        let Some(limit) = self.decoder.flush_after() else {
            return;
        };
        if self.fed_at.is_none_or(|at| at.elapsed() >= limit) {
            self.flush(Flush::Timeout);
            self.fed_at = Some(Instant::now());
        }
    }

    fn decode(&mut self, line: Line) {
        let (start, end) = (self.mark_at(line.start, self.decoder.fed()), line.end);
        let mut decoded = std::mem::take(&mut self.scratch);
        self.decoder.feed(line, &mut decoded);
        self.held_lines.push_back(start);
        let behind = self.mark_at(end, self.decoder.fed());
        self.queue(decoded, Some(behind));
    }

    fn queue(&mut self, mut decoded: Vec<Decoded>, behind: Option<StreamPosition>) {
        let is_record = !decoded.is_empty();
        self.waiting.extend(decoded.drain(..));
        self.scratch = decoded;
        match self.decoder.waiting_from() {
            None => {
                self.held_lines.clear();
                if let (false, Some(behind)) = (is_record || self.has_waiting(), behind) {
                    self.tracker.skipped(behind);
                }
            }
            Some(from) => {
                while self.held_lines.front().is_some_and(|held| held.position < from) {
                    self.held_lines.pop_front();
                }
            }
        }
    }

    /// The position after `fed` lines of this run.
    fn mark_at(&self, position: u64, fed: u64) -> StreamPosition {
        StreamPosition { position, lines: self.start.lines.map(|lines| lines + fed) }
    }

    async fn send_waiting(&mut self, output: &RecordOutput, file: &FileName<'_>) -> SendOutcome {
        while let Some(next) = self.waiting.front() {
            if !self.claims.covers(next.end) {
                self.claims.request(next.end, file.size);
                return SendOutcome::AwaitingClaim;
            }
            if self.row_state != RowState::Saved {
                self.row_state = RowState::Requested;
                return SendOutcome::AwaitingClaim;
            }
            let permit = match output.permit().await {
                Ok(permit) => permit,
                Err(sent) => return sent,
            };
            if let Some(decoded) = self.waiting.pop_front() {
                permit.send(self.record(decoded, file));
            }
        }
        SendOutcome::Sent
    }

    fn record(&mut self, decoded: Decoded, file: &FileName<'_>) -> Record {
        let Decoded { body, meta, fault, start, end, line, lines, part } = decoded;
        let first = self.mark_at(start, line);
        let behind = self.mark_at(end, line + lines);
        let number = first.lines.map(|lines| lines + 1);
        let (maybe_sent, time) = self.claims.record_sent(start, end);
        let mut record = Record::new(body);
        record.meta = match self.location_metadata {
            LocationMetadata::Omit => meta,
            LocationMetadata::Include => {
                let known = Metadata::default().with("file", file.shown);
                let known = match number {
                    Some(number) => known.with("line", number),
                    None => known,
                };
                Some(merge(known.with("offset", start).finish(), meta))
            }
        };
        record.decode_error = fault.map(Into::into);
        record.event_time = time;
        record.maybe_sent = maybe_sent;
        record.origin = Some(SourcePosition {
            stream_id: match part {
                0 => Arc::clone(&self.key),
                part => format!("{}#{part}", self.key).into(),
            },
            end_offset: end,
            location: match number {
                Some(number) => format!("{}:{number}", file.shown).into(),
                None => format!("{}@{start}", file.shown).into(),
            },
        });
        record.with_ack(self.tracker.ack(first, behind, part))
    }

    /// Whether its row must be saved before more can be sent.
    pub(super) fn wants_claim(&self) -> bool {
        self.claims.is_requested() || self.row_state == RowState::Requested
    }

    /// The row was saved.
    pub(super) fn grant_claim(&mut self) {
        self.claims.grant();
        self.row_state = RowState::Saved;
    }

    /// The settled position.
    pub(super) fn mark(&self) -> StreamPosition {
        let mark = self.tracker.mark();
        match (self.decoder.waiting_from(), self.held_lines.front()) {
            (Some(from), Some(first)) if first.position == from && from < mark.position => *first,
            (Some(from), _) if from < mark.position => {
                StreamPosition { position: from, lines: None }
            }
            _ => mark,
        }
    }

    /// Records that the end of the content was reached.
    pub(super) fn note_end(&mut self) {
        if let Some(content) = &self.content
            && self.versions.last().is_none_or(|last| last.length < content.length())
        {
            FileCheckpoint::add_version(&mut self.versions, &content.mark());
        }
    }

    /// The present checkpoint, for a file with this beginning.
    pub(super) fn row(&mut self, id: FileId, head: &FileHead, path: &str) -> FileCheckpoint {
        self.older.retain(|(tracker, position)| tracker.mark().position < *position);
        let settled = match self.older.is_empty() {
            true => self.mark(),
            false => self.start,
        };
        FileCheckpoint {
            generation: self.generation,
            position: settled.position,
            lines: settled.lines,
            head: head.fingerprint(),
            path: path.to_owned(),
            left: None,
            origin: (self.origin != id).then_some(self.origin),
            copy: false,
            content: self.content.as_ref().map(RunningDigest::mark).or_else(|| self.known.clone()),
            versions: self.versions.clone(),
            claims: self.claims.rows(settled.position),
            packed: None,
        }
    }
}

/// Whether the saved row identifies the content, so that the next process gives its records the
/// same positions. No record is sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowState {
    Unsaved,
    /// Saved with the next row.
    Requested,
    Saved,
}

/// A file as its records name it.
pub(super) struct FileName<'a> {
    pub(super) shown: &'a str,
    /// Where it ended at the last read; 0 where that is unknown.
    pub(super) size: u64,
}

/// What to do with the bytes after the last newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RestOfLine {
    /// They are a line: no newline will be appended any more.
    IsLine,
    /// They are a line if nothing could be missing.
    IfComplete,
    /// They are the beginning of a line that was completed later.
    IsLater,
}
