//! Reading a file for a turn.

use std::io;

use tokio::time::Instant;

use super::super::form::Form;
use super::super::identity::FileHead;
use super::super::read::ReadOutcome;
use super::super::state::State;
use super::super::stream::{FileName, Outlet, RestOfLine, Sent};
use super::{FileTailer, blocking};
use crate::source::decode::Flush;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ReadStatus {
    /// At the present end.
    Quiet,
    /// There is more, but it is another's turn, or time to save.
    More,
    /// There is more, once a claim is saved.
    Unclaimed,
    /// What was read is gone: the file must be looked at anew.
    Replaced,
    /// `stop`, or the receiver is gone: nothing more may be sent.
    Stopped,
}

/// How far a turn may go.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Until {
    /// About so many bytes.
    MemoryBudget(u64),
    /// The first end of a line at or behind this position, or the end of the file.
    Position(u64),
}

impl FileTailer {
    /// Reads and sends lines for a turn. After an error it may be tried again.
    pub(in super::super) async fn turn(
        &mut self,
        outlet: &Outlet,
        until: Until,
    ) -> io::Result<ReadStatus> {
        let turn = self.read(outlet, until).await;
        let stuck = turn.is_err() || self.cut;
        self.stuck = stuck.then(|| self.stuck.unwrap_or_else(Instant::now));
        self.quiet = match turn {
            Ok(ReadStatus::Quiet) if !self.cut => Some(self.quiet.unwrap_or_else(Instant::now)),
            _ => None,
        };
        turn
    }

    async fn read(&mut self, outlet: &Outlet, until: Until) -> io::Result<ReadStatus> {
        let (end, position) = match (until, self.stream()) {
            (_, None) => return Ok(ReadStatus::Quiet),
            (Until::MemoryBudget(bytes), Some(stream)) => (stream.fed() + bytes, None),
            (Until::Position(position), _) => (position, Some(position)),
        };
        loop {
            match self.send_lines(outlet, position).await {
                Sent::Yes => {}
                Sent::OutOfMemoryBudget => return Ok(ReadStatus::More),
                Sent::Unclaimed => return Ok(ReadStatus::Unclaimed),
                Sent::Stopped => return Ok(ReadStatus::Stopped),
            }
            let Some(stream) = self.stream() else {
                return Ok(ReadStatus::Quiet);
            };
            match until {
                Until::Position(_) if stream.read_to() >= end => return Ok(ReadStatus::Quiet),
                Until::MemoryBudget(_) if stream.fed() >= end => return Ok(ReadStatus::More),
                _ if outlet.is_due() => return Ok(ReadStatus::More),
                _ => {}
            }
            let next = self.look().await?;
            if !matches!(next, ReadOutcome::Cut) {
                self.cut = false;
            }
            match next {
                ReadOutcome::Quiet => return self.end(outlet).await,
                ReadOutcome::Cut => {
                    self.report_cut();
                    return Ok(ReadStatus::Quiet);
                }
                ReadOutcome::Replaced => return Ok(ReadStatus::Replaced),
                ReadOutcome::Block(block) => {
                    self.count_read(block.len() as u64);
                    if let State::Reading(stream) = &mut self.state {
                        stream.feed(block);
                    }
                }
            }
        }
    }

    /// At the present end: completes what the decoder holds for too long.
    async fn end(&mut self, outlet: &Outlet) -> io::Result<ReadStatus> {
        if let State::Reading(stream) = &mut self.state {
            stream.note_end();
            stream.flush_if_due();
        }
        Ok(turn_of(self.send_lines(outlet, None).await))
    }

    async fn send_lines(&mut self, outlet: &Outlet, end: Option<u64>) -> Sent {
        let file = FileName { shown: &self.shown, size: self.plain_size() };
        match &mut self.state {
            State::Reading(stream) => stream.send_lines(outlet, end, &file).await,
            _ => Sent::Yes,
        }
    }

    fn plain_size(&self) -> u64 {
        match self.form {
            Some(Form::Plain) => self.stamp.map_or(0, |stamp| stamp.size()),
            _ => 0,
        }
    }

    /// Sends what stands behind the last newline, if it is a line, and what the decoder holds; of
    /// later lines none that starts at or behind `end`.
    pub(in super::super) async fn send_rest(
        &mut self,
        outlet: &Outlet,
        rest: RestOfLine,
        flush: Flush,
        end: Option<u64>,
    ) -> ReadStatus {
        if let State::Reading(stream) = &mut self.state {
            stream.take_rest(rest);
            // What an earlier run said to be incomplete, and still is, is not said again.
            if flush != Flush::EndOfStream || !stream.has_nothing_new() {
                stream.flush(flush);
            }
        }
        turn_of(self.send_lines(outlet, end).await)
    }

    async fn look(&mut self) -> io::Result<ReadOutcome> {
        let (Some(mut request), None) = (self.read_request(), self.gone) else {
            return Ok(ReadOutcome::Quiet);
        };
        request.unpacker = self.unpacker.take();
        let grown = self.text_head.is_short();
        let text = self.text().filter(|_| grown);
        let (seen, text_head) = blocking(move || {
            let seen = request.look()?;
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
        if seen.size > self.counted && self.form == Some(Form::Plain) {
            self.common.progress.found(seen.size - self.counted);
            self.counted = seen.size;
        }
        self.text_head = text_head.unwrap_or(std::mem::take(&mut self.text_head));
        self.head = seen.head;
        self.stamp = Some(seen.stamp);
        self.unpacker = seen.unpacker;
        Ok(seen.next)
    }
}

fn turn_of(sent: Sent) -> ReadStatus {
    match sent {
        Sent::Yes => ReadStatus::Quiet,
        Sent::OutOfMemoryBudget => ReadStatus::More,
        Sent::Unclaimed => ReadStatus::Unclaimed,
        Sent::Stopped => ReadStatus::Stopped,
    }
}
