//! Reads a file for one turn.

use std::io;

use tokio::time::Instant;

use super::super::compression::FileCompression;
use super::super::identity::FileHead;
use super::super::read::ReadOutcome;
use super::super::state::TailState;
use super::super::stream::{FileName, RecordOutput, RestOfLine, SendOutcome};
use super::{FileTailer, blocking};
use crate::source::decode::Flush;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ReadStatus {
    /// At the present end.
    AtEnd,
    /// There is more, but another file has its turn, or checkpoints are due.
    More,
    /// There is more, once a claim is saved.
    AwaitingClaim,
    /// What was read is no longer there: the file must be identified again.
    Replaced,
    /// The run was stopped or the receiver dropped: nothing more may be sent.
    Stopped,
}

/// How far a turn may read.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum ReadLimit {
    /// About this many bytes.
    Bytes(u64),
    /// The first line end at or after this position, or the end of the file.
    Position(u64),
}

impl FileTailer {
    /// Reads and sends lines for a turn. After an error it may be called again.
    pub(in super::super) async fn read_turn(
        &mut self,
        output: &RecordOutput,
        until: ReadLimit,
    ) -> io::Result<ReadStatus> {
        let turn = self.read(output, until).await;
        let stuck = turn.is_err() || self.cut;
        self.stuck = stuck.then(|| self.stuck.unwrap_or_else(Instant::now));
        self.quiet = match turn {
            Ok(ReadStatus::AtEnd) if !self.cut => Some(self.quiet.unwrap_or_else(Instant::now)),
            _ => None,
        };
        turn
    }

    async fn read(&mut self, output: &RecordOutput, until: ReadLimit) -> io::Result<ReadStatus> {
        let (end, position) = match (until, self.stream()) {
            (_, None) => return Ok(ReadStatus::AtEnd),
            (ReadLimit::Bytes(bytes), Some(stream)) => (stream.fed() + bytes, None),
            (ReadLimit::Position(position), _) => (position, Some(position)),
        };
        loop {
            match self.send_lines(output, position).await {
                SendOutcome::Sent => {}
                SendOutcome::SaveDue => return Ok(ReadStatus::More),
                SendOutcome::AwaitingClaim => return Ok(ReadStatus::AwaitingClaim),
                SendOutcome::Stopped => return Ok(ReadStatus::Stopped),
            }
            let Some(stream) = self.stream() else {
                return Ok(ReadStatus::AtEnd);
            };
            match until {
                ReadLimit::Position(_) if stream.read_to() >= end => return Ok(ReadStatus::AtEnd),
                ReadLimit::Bytes(_) if stream.fed() >= end => return Ok(ReadStatus::More),
                _ if output.is_due() => return Ok(ReadStatus::More),
                _ => {}
            }
            let next = self.read_next().await?;
            if !matches!(next, ReadOutcome::Incomplete) {
                self.cut = false;
            }
            match next {
                ReadOutcome::NoData => return self.end(output).await,
                ReadOutcome::Incomplete => {
                    self.report_cut();
                    return Ok(ReadStatus::AtEnd);
                }
                ReadOutcome::Replaced => return Ok(ReadStatus::Replaced),
                ReadOutcome::Block(block) => {
                    self.count_read(block.len() as u64);
                    if let TailState::Reading(stream) = &mut self.state {
                        stream.feed(block);
                    }
                }
            }
        }
    }

    /// At the present end: completes what the decoder has held for too long.
    async fn end(&mut self, output: &RecordOutput) -> io::Result<ReadStatus> {
        if let TailState::Reading(stream) = &mut self.state {
            stream.note_end();
            stream.flush_if_due();
        }
        Ok(read_status(self.send_lines(output, None).await))
    }

    async fn send_lines(&mut self, output: &RecordOutput, end: Option<u64>) -> SendOutcome {
        let file = FileName { shown: &self.shown, size: self.plain_size() };
        match &mut self.state {
            TailState::Reading(stream) => stream.send_lines(output, end, &file).await,
            _ => SendOutcome::Sent,
        }
    }

    fn plain_size(&self) -> u64 {
        match self.compression {
            Some(FileCompression::Plain) => self.stamp.map_or(0, |stamp| stamp.size()),
            _ => 0,
        }
    }

    /// Sends the bytes after the last newline, if they are a line, and what the decoder holds; no
    /// later line that starts at or after `end`.
    pub(in super::super) async fn send_rest(
        &mut self,
        output: &RecordOutput,
        rest: RestOfLine,
        flush: Flush,
        end: Option<u64>,
    ) -> ReadStatus {
        if let TailState::Reading(stream) = &mut self.state {
            stream.take_rest(rest);
            // What an earlier run reported as incomplete, and still is, is not reported again.
            if flush != Flush::EndOfStream || !stream.has_nothing_new() {
                stream.flush(flush);
            }
        }
        read_status(self.send_lines(output, end).await)
    }

    async fn read_next(&mut self) -> io::Result<ReadOutcome> {
        let (Some(mut request), None) = (self.read_request(), self.gone) else {
            return Ok(ReadOutcome::NoData);
        };
        request.unpacker = self.unpacker.take();
        let grown = self.text_head.is_short();
        let text = self.text().filter(|_| grown);
        let (seen, text_head) = blocking(move || {
            let seen = request.read_next()?;
            let head = match (text, &seen.next) {
                (Some(text), ReadOutcome::Block(_)) => Some(FileHead::read(&mut text.reader())?),
                _ => None,
            };
            Ok((seen, head))
        })
        .await?;
        self.deleted = seen.deleted;
        if matches!(seen.next, ReadOutcome::Replaced) {
            return Ok(ReadOutcome::Replaced);
        }
        if seen.size > self.counted && self.compression == Some(FileCompression::Plain) {
            self.context.progress.found(seen.size - self.counted);
            self.counted = seen.size;
        }
        self.text_head = text_head.unwrap_or(std::mem::take(&mut self.text_head));
        self.head = seen.head;
        self.stamp = Some(seen.stamp);
        self.unpacker = seen.unpacker;
        Ok(seen.next)
    }
}

fn read_status(sent: SendOutcome) -> ReadStatus {
    match sent {
        SendOutcome::Sent => ReadStatus::AtEnd,
        SendOutcome::SaveDue => ReadStatus::More,
        SendOutcome::AwaitingClaim => ReadStatus::AwaitingClaim,
        SendOutcome::Stopped => ReadStatus::Stopped,
    }
}
