//! One open file, from where it was left to wherever it ends.
//!
//! Not here: which files there are and when to look. One invariant: a line is marked as sent before
//! it leaves, and positions within a generation only grow.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::book::Row;
use super::glance::{self, Glance, Next, Opened, Stamp};
use super::identity::{FileId, Head};
use super::ledger::Ledger;
use crate::record::{Origin, Record};
use crate::source::ReadProgress;
use crate::source::decode::Decoder;
use crate::source::flight::Flight;
use crate::source::line::{Line, LineSplitter};
use crate::source::watermark::Mark;

/// Where records go, for as long as nobody says stop.
pub(super) struct Outlet {
    pub(super) out: mpsc::Sender<Record>,
    pub(super) stop: CancellationToken,
    /// When checkpoints are to be saved next: a turn ends then, even while it waits for room.
    pub(super) due: Instant,
}

/// What became of an attempt to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Yes,
    /// Not yet, and it is time to save.
    NoRoom,
    Stopped,
}

impl Outlet {
    /// Room for a record, unless there is none before it is time to save.
    async fn permit(&self) -> Result<mpsc::Permit<'_, Record>, Sent> {
        if let Ok(permit) = self.out.try_reserve()
            && !self.stop.is_cancelled()
        {
            return Ok(permit);
        }
        let permit = crate::source::permit(&self.out, &self.stop);
        match tokio::time::timeout_at(self.due, permit).await {
            Ok(permit) => permit.ok_or(Sent::Stopped),
            Err(_) => Err(Sent::NoRoom),
        }
    }

    /// Whether it is time to save.
    pub(super) fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }

    /// Whether nothing more may be sent.
    pub(super) fn is_closed(&self) -> bool {
        self.stop.is_cancelled() || self.out.is_closed()
    }
}

/// What all files of a source have in common.
pub(super) struct Common {
    pub(super) source: Arc<str>,
    /// A decoder that has read nothing.
    pub(super) decoder: Decoder,
    /// The longest line, in bytes.
    pub(super) limit: usize,
    pub(super) flight: Arc<Flight>,
    pub(super) progress: ReadProgress,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// At the present end.
    Quiet,
    /// There is more, but it is another's turn, or time to save.
    More,
    /// What was read is gone; a new generation must begin.
    Replaced,
    /// `stop`, or the receiver is gone: nothing more may be sent.
    Stopped,
}

/// How far a turn may go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// About so many bytes.
    Budget(u64),
    /// The first end of a line at or behind this position, or the end of the file.
    Position(u64),
}

/// A file that is being read.
pub(super) struct Tail {
    common: Arc<Common>,
    path: PathBuf,
    /// `path` as text, for places.
    shown: String,
    id: FileId,
    file: Arc<std::fs::File>,
    head: Head,
    stamp: Option<Stamp>,
    /// Its size when it was found, in bytes.
    size: u64,
    /// Bytes of it that were counted as found.
    counted: u64,
    generation: u64,
    key: Arc<str>,
    splitter: LineSplitter,
    decoder: Decoder,
    /// Behind the last line that was sent or skipped.
    mark: Mark,
    /// A record there was no room for yet, and the mark behind it.
    waiting: Option<(Record, Mark)>,
    ledger: Arc<Ledger>,
    /// Whether no name leads to it any more, as of the last look.
    pub(super) deleted: bool,
    /// Since when no pattern finds it.
    pub(super) missing: Option<Instant>,
    /// Whether the last turn failed, so that a lasting failure is logged once.
    failing: bool,
}

impl Tail {
    /// Starts where the file was opened. `size` is the one it was found with; that many bytes were
    /// counted as found already.
    pub(super) async fn start(
        common: Arc<Common>,
        opened: Opened,
        generation: u64,
        size: u64,
    ) -> io::Result<Self> {
        let start = opened.start;
        common.progress.read(start.position);
        let mut tail = Self {
            shown: opened.path.to_string_lossy().into_owned(),
            path: opened.path,
            id: opened.id,
            file: opened.file,
            head: opened.head,
            stamp: None,
            size,
            counted: size,
            generation,
            key: key(&common, opened.id, generation),
            splitter: LineSplitter::new(start.position, common.limit),
            decoder: common.decoder.clone(),
            mark: start,
            waiting: None,
            ledger: Ledger::new(start, Arc::clone(&common.flight)),
            deleted: false,
            missing: None,
            failing: false,
            common,
        };
        if start.position > 0 && tail.decoder.awaits_beginning() {
            tail.read_header().await?;
        }
        Ok(tail)
    }

    /// Begins anew, after the file was cut off or written over.
    pub(super) fn restart(&mut self, generation: u64) {
        tracing::info!(path = ?self.path, "the file was cut off or written anew; it is read from its beginning");
        let start = Mark { position: 0, lines: Some(0) };
        self.generation = generation;
        self.key = key(&self.common, self.id, generation);
        self.head = Head::default();
        self.stamp = None;
        self.counted = 0;
        self.splitter = LineSplitter::new(0, self.common.limit);
        self.decoder = self.common.decoder.clone();
        self.mark = start;
        // Verdicts of the generation before still reach its own ledger, and matter no more: what
        // they are about cannot be read again.
        self.ledger = Ledger::new(start, Arc::clone(&self.common.flight));
    }

    /// Reads on.
    pub(super) async fn turn(&mut self, outlet: &Outlet, until: Until) -> io::Result<Turn> {
        let end = match until {
            Until::Budget(bytes) => self.splitter.fed() + bytes,
            Until::Position(position) => position,
        };
        loop {
            match self.send_lines(outlet, until).await {
                Sent::Yes => {}
                Sent::NoRoom => return Ok(Turn::More),
                Sent::Stopped => return Ok(Turn::Stopped),
            }
            match until {
                Until::Position(_) if self.mark.position >= end => return Ok(Turn::Quiet),
                Until::Budget(_) if self.splitter.fed() >= end => return Ok(Turn::More),
                _ if outlet.is_due() => return Ok(Turn::More),
                _ => {}
            }
            match self.look().await? {
                Next::Quiet => return Ok(Turn::Quiet),
                Next::Replaced => return Ok(Turn::Replaced),
                Next::Block(block) => {
                    self.common.progress.read(block.len() as u64);
                    self.splitter.feed(block);
                }
            }
        }
    }

    /// Sends what stands behind the last newline as a line.
    pub(super) async fn send_rest(&mut self, outlet: &Outlet) -> Turn {
        let Some(line) = self.splitter.finish() else {
            return Turn::Quiet;
        };
        match self.send(line, outlet).await {
            Sent::Yes => Turn::Quiet,
            Sent::NoRoom => Turn::More,
            Sent::Stopped => Turn::Stopped,
        }
    }

    /// The same, unless everything before `position` was sent: then it is the beginning of a line
    /// that came later.
    pub(super) async fn send_rest_before(&mut self, outlet: &Outlet, position: u64) -> Turn {
        match self.mark.position < position {
            true => self.send_rest(outlet).await,
            false => Turn::Quiet,
        }
    }

    /// The file is known by this name now.
    pub(super) fn rename(&mut self, path: &Path) {
        if self.path != path {
            self.shown = path.to_string_lossy().into_owned();
            self.path = path.to_owned();
        }
    }

    /// Logs a failed turn, once until a turn succeeds.
    pub(super) fn report(&mut self, failure: Option<&io::Error>) {
        if let (Some(error), false) = (failure, self.failing) {
            tracing::warn!(path = ?self.path, %error, "the file cannot be read; it is tried again");
        }
        self.failing = failure.is_some();
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Its size when it was found, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The checkpoint as it stands.
    pub(super) fn row(&self) -> Row {
        let settled = self.ledger.mark();
        Row {
            generation: self.generation,
            position: settled.position,
            lines: settled.lines,
            head: self.head.fingerprint(),
            path: self.shown.clone(),
            left: None,
        }
    }

    /// Sends the lines at hand, the waiting one first.
    async fn send_lines(&mut self, outlet: &Outlet, until: Until) -> Sent {
        let mut sent = self.send_waiting(outlet).await;
        while sent == Sent::Yes {
            if matches!(until, Until::Position(position) if self.mark.position >= position) {
                break;
            }
            let Some(line) = self.splitter.next_line() else {
                break;
            };
            sent = self.send(line, outlet).await;
        }
        sent
    }

    async fn send(&mut self, line: Line, outlet: &Outlet) -> Sent {
        let start = line.start;
        let end = Mark { position: line.end, lines: self.mark.lines.map(|lines| lines + 1) };
        let Some(mut record) = self.decoder.record(line) else {
            self.mark = end;
            self.ledger.skipped(end);
            return Sent::Yes;
        };
        record.origin = Some(Origin {
            key: Arc::clone(&self.key),
            position: end.position,
            place: match end.lines {
                Some(number) => format!("{}:{number}", self.shown).into(),
                None => format!("{}@{start}", self.shown).into(),
            },
        });
        self.waiting = Some((record, end));
        self.send_waiting(outlet).await
    }

    async fn send_waiting(&mut self, outlet: &Outlet) -> Sent {
        if self.waiting.is_none() {
            return Sent::Yes;
        }
        let permit = match outlet.permit().await {
            Ok(permit) => permit,
            Err(sent) => return sent,
        };
        if let Some((record, end)) = self.waiting.take() {
            self.mark = end;
            permit.send(record.with_ack(self.ledger.ack(end)));
        }
        Sent::Yes
    }

    async fn look(&mut self) -> io::Result<Next> {
        let glance = Glance {
            file: Arc::clone(&self.file),
            at: self.splitter.fed(),
            head: self.head.clone(),
            stamp: self.stamp,
        };
        let seen = blocking(move || glance.look()).await?;
        if seen.size > self.counted {
            self.common.progress.found(seen.size - self.counted);
            self.counted = seen.size;
        }
        self.deleted = seen.deleted;
        if !matches!(seen.next, Next::Replaced) {
            self.head = seen.head;
            self.stamp = Some(seen.stamp);
        }
        Ok(seen.next)
    }

    /// Learns the first line, where reading starts behind it.
    async fn read_header(&mut self) -> io::Result<()> {
        let (file, limit) = (Arc::clone(&self.file), self.common.limit);
        let line = blocking(move || glance::first_line(&file, limit)).await?;
        // It was a record's turn to be a fault when the line itself was read.
        let learnt = line.map(|line| {
            let line = [&line[..], b"\n"].concat();
            self.decoder.learn_beginning(&line.into())
        });
        match learnt {
            Ok(true) => {}
            Ok(false) => self.decoder.forgo_beginning("it has no end"),
            Err(why) => self.decoder.forgo_beginning(&why),
        }
        Ok(())
    }
}

fn key(common: &Common, id: FileId, generation: u64) -> Arc<str> {
    format!("{}:{id}:{generation}", common.source).into()
}

/// Runs what blocks on the file system where it holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
