//! One partition: what is fetched of it, the records on their way, and the offset that is kept.
//!
//! Three things go on beside one another: answers are fetched ahead (`intake`), records are handed
//! on as far as the window allows (`pull`), and offsets are kept (`keep`). None waits for another:
//! while an offset is being kept, the next records are handed on.
//!
//! One invariant: when an offset is kept, every record up to it was seen, and was delivered or is in
//! the dead letters. A record that came back unsettled is read again before anything behind it is
//! kept; one that should be there and did not come is asked for again, and nothing passes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::cluster::{Answer, Cluster, ClusterError, Message, Stream};
use super::envelope::Address;
use super::keep::Keeper;
use super::ledger::Ledger;
use super::patience::{Patience, Waited};
use super::start::{self, Beginning, Doubt, Keeping, NoBeginning, Notes, Trust};
use super::watch::{Standing, Watch};
use crate::config::source::FluvioStart;
use crate::record::Record;
use crate::source::decode::Decoder;
use crate::source::{ReadMode, SourceError};

/// How long a run that waits for nothing waits for the cluster.
pub(super) const ONCE: Duration = Duration::from_secs(30);
/// How long nothing may come before it is asked whether there is something.
const QUIET: Duration = Duration::from_secs(30);
/// As much, in a run that ends: it knows that something is there.
const PROMPT: Duration = Duration::from_secs(5);
/// With fewer records than this waiting, the next answer is taken in.
const AHEAD: usize = 256;
/// How often an end before the place of reading is seen before it is believed: for a moment a
/// cluster whose servers change may tell one.
const BELIEVED: u32 = 4;

/// Which records of a partition come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// All of them.
    All,
    /// Those that SmartModules let pass. Their offsets are only counted, so that none of them is
    /// kept: only the ends of whole answers are, which the cluster tells.
    Some,
}

/// What a partition is read with.
pub(super) struct Lane {
    pub(super) address: Address,
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) watch: Arc<Watch>,
    pub(super) mode: ReadMode,
    pub(super) passage: Passage,
    pub(super) start: FluvioStart,
    pub(super) keeping: Keeping,
    pub(super) limit: usize,
    pub(super) interval: Duration,
    /// How much is asked for at once; `None`: as Fluvio does.
    pub(super) max_bytes: Option<u32>,
    pub(super) decoder: Decoder,
    pub(super) notes: Notes,
    pub(super) stop: CancellationToken,
}

/// What was fetched and waits to be handed on.
pub(super) enum Fetched {
    /// A record.
    Record {
        message: Message,
        /// Where reading begins again should it come back unsettled.
        from: i64,
        /// Its place in its answer.
        index: usize,
        /// The offset behind it, where that may be kept.
        behind: Option<i64>,
    },
    /// Up to this offset nothing is to be handed on.
    Passed(i64),
}

/// What reading has come to.
pub(super) struct Reading {
    pub(super) stream: Option<Box<dyn Stream>>,
    pub(super) queue: VecDeque<Fetched>,
    /// Records of the last message that are not handed on yet.
    pub(super) ready: VecDeque<Record>,
    /// The offset behind everything fetched: what is asked for next.
    pub(super) asked: i64,
    /// The offset behind everything handed on.
    pub(super) position: i64,
    /// As far as it is known.
    pub(super) end: i64,
    /// Where a run that ends ends.
    pub(super) until: Option<i64>,
    /// How much is asked for at once, where one batch needs more than usual.
    pub(super) enlarged: Option<u32>,
    /// How often what was asked for did not come, in a row.
    pub(super) misses: u32,
    /// How often the partition ended before what was asked for, in a row.
    pub(super) behind: u32,
    /// So many of the next records may have been sent by somebody before.
    pub(super) doubts: usize,
    /// Whether the last record handed on may have been sent before.
    pub(super) answer_is_doubtful: bool,
    /// Before this offset a record may have been sent by ourselves.
    pub(super) doubtful: i64,
    pub(super) ledger: Ledger,
    pub(super) keeper: Keeper,
    pub(super) patience: Patience,
    pub(super) standing: Arc<Standing>,
    /// Behind everything that was ever handed on.
    pub(super) high: i64,
    /// Whether the topic was deleted: what was fetched of it is handed on, and nothing is kept.
    pub(super) anew: bool,
    /// When it is asked whether something should have come.
    pub(super) quiet_at: Instant,
}

impl Reading {
    /// Whether all that was fetched is handed on.
    pub(super) fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.ready.is_empty()
    }
}

/// Whether reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    On,
    End,
}

/// What was waited for.
enum Event<'a> {
    End,
    Kept(Result<super::ledger::Reached, ClusterError>),
    Room(mpsc::Permit<'a, Record>),
    Answer(Option<Result<Answer, ClusterError>>),
    Quiet,
    /// A verdict, or the time to keep an offset.
    Settled,
}

impl Lane {
    /// Reads until `stop` is cancelled, the receiver is gone, or in a run that waits for nothing
    /// everything is read; then waits for the verdicts and keeps the offset.
    pub(super) async fn run(self, out: mpsc::Sender<Record>) -> Result<(), SourceError> {
        let Some(mut reading) = self.begin().await? else {
            return Ok(());
        };
        let end = loop {
            match self.turn(&mut reading, &out).await {
                Ok(Turn::On) => {}
                Ok(Turn::End) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // The receiver must see the end, or it would wait for more while we wait for it.
        drop(out);
        reading.stream = None;
        reading.ready.clear();
        reading.ledger.landed().await;
        self.keep_at_last(&mut reading).await;
        end
    }

    /// The place to begin at, once the cluster tells. `None` where it is stopped before.
    async fn begin(&self) -> Result<Option<Reading>, SourceError> {
        let mut patience = self.patience();
        let mut behind = 0;
        loop {
            let trust = if behind < BELIEVED { Trust::Doubted } else { Trust::Sure };
            let error = match self.stop.run_until_cancelled(self.try_begin(trust)).await {
                None => return Ok(None),
                Some(Ok(reading)) => return Ok(Some(reading)),
                Some(Err(NoBeginning::Notes(error))) => return Err(error),
                Some(Err(NoBeginning::Behind(error))) => {
                    behind += 1;
                    error
                }
                Some(Err(NoBeginning::Cluster(error))) => error,
            };
            match self.again(&error, &mut patience).await {
                Ok(()) => {}
                Err(None) => return Ok(None),
                Err(Some(error)) => return Err(error),
            }
        }
    }

    pub(super) fn patience(&self) -> Patience {
        Patience::new((self.mode == ReadMode::Once).then_some(ONCE))
    }

    async fn try_begin(&self, trust: Trust) -> Result<Reading, NoBeginning> {
        let partition = self.address.partition;
        let extent = self.cluster.extent(partition).await?;
        let Beginning { position, doubt, kept } = start::find(self, extent, trust).await?;
        let stream = match self.is_at_end(position, extent.end) {
            true => None,
            false => Some(self.cluster.open(partition, position, self.max_bytes).await?),
        };
        let standing = self.watch.enter(partition, position, kept);
        tracing::info!(
            topic = &*self.address.topic,
            partition,
            offset = position,
            end = extent.end,
            "reading"
        );
        let noted = self.keeping == Keeping::Kept && kept.is_none();
        Ok(Reading {
            stream,
            queue: VecDeque::new(),
            ready: VecDeque::new(),
            asked: position,
            position,
            end: extent.end,
            until: (self.mode == ReadMode::Once).then_some(extent.end),
            enlarged: None,
            misses: 0,
            behind: 0,
            doubts: if doubt == Doubt::MaybeSent { self.limit } else { 0 },
            answer_is_doubtful: false,
            doubtful: i64::MIN,
            ledger: Ledger::new(position),
            keeper: Keeper::new(position, noted),
            patience: self.patience(),
            standing,
            high: position,
            anew: false,
            quiet_at: self.quiet_at(),
        })
    }

    /// Whether a run that ends has nothing to read.
    fn is_at_end(&self, position: i64, end: i64) -> bool {
        self.mode == ReadMode::Once && position >= end
    }

    pub(super) fn quiet_at(&self) -> Instant {
        Instant::now() + if self.mode == ReadMode::Once { PROMPT } else { QUIET }
    }

    /// Whether an end before the place of reading is believed.
    pub(super) fn is_believed(reading: &Reading) -> bool {
        reading.behind >= BELIEVED
    }

    /// Waits before the next attempt. The error is `None` where the source is to stop.
    pub(super) async fn again(
        &self,
        error: &ClusterError,
        patience: &mut Patience,
    ) -> Result<(), Option<SourceError>> {
        let Address { topic, partition } = &self.address;
        if let ClusterError::Lasting(_) = error {
            return Err(Some(self.failed(error)));
        }
        tracing::warn!(topic = &**topic, partition, %error, "the cluster is asked again");
        self.cluster.disconnect().await;
        match patience.wait(&self.stop).await {
            Waited::Enough => Ok(()),
            Waited::Stopped => Err(None),
            Waited::Over => Err(Some(self.failed(error))),
        }
    }

    /// The error that ends the source.
    pub(super) fn failed(&self, error: &ClusterError) -> SourceError {
        let Address { topic, partition } = &self.address;
        let context = format!("reading topic `{topic}`, partition {partition}");
        SourceError::Remote { context, why: error.to_string() }
    }

    async fn turn(
        &self,
        reading: &mut Reading,
        out: &mpsc::Sender<Record>,
    ) -> Result<Turn, SourceError> {
        if self.stop.is_cancelled() || out.is_closed() {
            return Ok(Turn::End);
        }
        if reading.ledger.is_errored() {
            return self.rewind(reading).await;
        }
        self.hand_on(reading, out);
        self.start_keeping(reading);
        if reading.until.is_some_and(|until| reading.position >= until) && reading.is_drained() {
            return Ok(Turn::End);
        }
        if reading.stream.is_none() && reading.is_drained() {
            return self.reopen(reading).await;
        }
        match self.wait(reading, out).await {
            Event::End => Ok(Turn::End),
            Event::Settled => Ok(Turn::On),
            Event::Kept(kept) => {
                self.kept(reading, kept).await;
                Ok(Turn::On)
            }
            Event::Room(room) => {
                self.hand_on_one(reading, room);
                Ok(Turn::On)
            }
            Event::Answer(answer) => self.take_in(reading, answer).await,
            Event::Quiet => self.nothing_came(reading).await,
        }
    }

    async fn wait<'a>(&self, reading: &mut Reading, out: &'a mpsc::Sender<Record>) -> Event<'a> {
        let has_room = self.has_room(reading);
        let keep_at = self.keep_at(reading);
        let is_waiting = reading.is_drained();
        let Reading { stream, queue, keeper, ledger, quiet_at, .. } = reading;
        let next = async {
            match stream.as_mut() {
                Some(stream) if queue.len() < AHEAD => stream.next().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Event::End,
            () = out.closed() => Event::End,
            kept = keeper.ended() => Event::Kept(kept),
            () = ledger.changed() => Event::Settled,
            () = until(keep_at) => Event::Settled,
            room = out.reserve(), if has_room => room.map_or(Event::End, Event::Room),
            answer = next => Event::Answer(answer),
            () = sleep_until(*quiet_at), if is_waiting => Event::Quiet,
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
