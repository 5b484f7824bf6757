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

use super::cluster::{Cluster, ClusterError, FetchResponse, Message, RecordStream};
use super::commit::OffsetCommitter;
use super::commit_window::CommitWindow;
use super::message::TopicPartition;
use super::monitor::{OffsetMonitor, PartitionStatus};
use super::retry::{ClusterRetry, WaitOutcome};
use super::start::{
    self, EndTrust, LocalStartState, OffsetCommits, Redelivery, StartError, StartPosition,
};
use crate::config::source::FluvioStart;
use crate::record::Record;
use crate::source::decode::Decoder;
use crate::source::{ReadMode, SourceError};

/// How long a run that waits for nothing waits for the cluster.
pub(super) const ONCE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long nothing may come before it is asked whether there is something.
const QUIET_TIMEOUT: Duration = Duration::from_secs(30);
/// As much, in a run that ends: it knows that something is there.
const ONCE_QUIET_TIMEOUT: Duration = Duration::from_secs(5);
/// With fewer records than this waiting, the next answer is taken in.
const MIN_QUEUED: usize = 256;
/// How often an end before the place of reading is seen before it is believed: for a moment a
/// cluster whose servers change may tell one.
const MIN_EARLIER_ENDS: u32 = 4;

/// Which records of a partition come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filtering {
    /// All of them.
    Unfiltered,
    /// Those that SmartModules let pass. Their offsets are only counted, so that none of them is
    /// kept: only the ends of whole answers are, which the cluster tells.
    SmartModules,
}

/// What a partition is read with.
pub(super) struct PartitionReader {
    pub(super) address: TopicPartition,
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) monitor: Arc<OffsetMonitor>,
    pub(super) mode: ReadMode,
    pub(super) filtering: Filtering,
    pub(super) start: FluvioStart,
    pub(super) commits_: OffsetCommits,
    pub(super) limit: usize,
    pub(super) interval: Duration,
    /// How much is asked for at once; `None`: as Fluvio does.
    pub(super) max_bytes: Option<u32>,
    pub(super) decoder: Decoder,
    pub(super) local_start: LocalStartState,
    pub(super) stop: CancellationToken,
}

/// What was fetched and waits to be handed on.
pub(super) enum QueueItem {
    /// A record.
    Record {
        message: Message,
        /// Where reading begins again should it come back unsettled.
        from: i64,
        /// Its place in its answer.
        index: usize,
        /// The offset behind it, where that may be kept.
        commit_offset: Option<i64>,
    },
    /// Up to this offset nothing is to be handed on.
    Skip(i64),
}

/// What reading has come to.
pub(super) struct ReaderState {
    pub(super) stream: Option<Box<dyn RecordStream>>,
    pub(super) queue: VecDeque<QueueItem>,
    /// Records of the last message that are not handed on yet.
    pub(super) ready: VecDeque<Record>,
    /// The offset behind everything fetched: what is asked for next.
    pub(super) next_fetch: i64,
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
    pub(super) earlier_ends: u32,
    /// How many of the next records a former process may have sent.
    pub(super) redelivered_left: usize,
    /// Whether the last record handed on may have been sent before.
    pub(super) answer_maybe_redelivered: bool,
    /// Before this offset a record may have been sent by ourselves.
    pub(super) redelivered_to: i64,
    pub(super) window: CommitWindow,
    pub(super) committer: OffsetCommitter,
    pub(super) retry: ClusterRetry,
    pub(super) status: Arc<PartitionStatus>,
    /// Behind everything that was ever handed on.
    pub(super) high: i64,
    /// Whether the topic was deleted: what was fetched of it is handed on, and nothing is kept.
    pub(super) recreated: bool,
    /// When it is asked whether something should have come.
    pub(super) quiet_at: Instant,
}

impl ReaderState {
    /// Whether all that was fetched is handed on.
    pub(super) fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.ready.is_empty()
    }
}

/// Whether reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReaderStep {
    Continue,
    Stop,
}

/// What was waited for.
enum WaitEvent<'a> {
    End,
    Committed(Result<super::commit_window::SettledTo, ClusterError>),
    Room(mpsc::Permit<'a, Record>),
    Response(Option<Result<FetchResponse, ClusterError>>),
    Quiet,
    /// A verdict, or the time to keep an offset.
    Settled,
}

impl PartitionReader {
    /// Reads until `stop` is cancelled, the receiver is gone, or in a run that waits for nothing
    /// everything is read; then waits for the verdicts and keeps the offset.
    pub(super) async fn run(self, out: mpsc::Sender<Record>) -> Result<(), SourceError> {
        let Some(mut reading) = self.begin().await? else {
            return Ok(());
        };
        let end = loop {
            match self.step(&mut reading, &out).await {
                Ok(ReaderStep::Continue) => {}
                Ok(ReaderStep::Stop) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // The receiver must see the end, or it would wait for more while we wait for it.
        drop(out);
        reading.stream = None;
        reading.ready.clear();
        reading.window.wait_until_settled().await;
        self.commit_final(&mut reading).await;
        end
    }

    /// The place to begin at, once the cluster tells. `None` where it is stopped before.
    async fn begin(&self) -> Result<Option<ReaderState>, SourceError> {
        let mut retry = self.new_retry();
        let mut earlier_ends = 0;
        loop {
            let trust = if earlier_ends < MIN_EARLIER_ENDS {
                EndTrust::Unconfirmed
            } else {
                EndTrust::Confirmed
            };
            let error = match self.stop.run_until_cancelled(self.try_begin(trust)).await {
                None => return Ok(None),
                Some(Ok(reading)) => return Ok(Some(reading)),
                Some(Err(StartError::LocalState(error))) => return Err(error),
                Some(Err(StartError::EndsEarlier(error))) => {
                    earlier_ends += 1;
                    error
                }
                Some(Err(StartError::Cluster(error))) => error,
            };
            match self.back_off(&error, &mut retry).await {
                Ok(()) => {}
                Err(None) => return Ok(None),
                Err(Some(error)) => return Err(error),
            }
        }
    }

    pub(super) fn new_retry(&self) -> ClusterRetry {
        ClusterRetry::new((self.mode == ReadMode::Once).then_some(ONCE_TIMEOUT))
    }

    async fn try_begin(&self, trust: EndTrust) -> Result<ReaderState, StartError> {
        let partition = self.address.partition;
        let offset_range = self.cluster.offset_range(partition).await?;
        let StartPosition { position, redelivery, kept } =
            start::find(self, offset_range, trust).await?;
        let stream = match self.is_at_end(position, offset_range.end) {
            true => None,
            false => Some(self.cluster.open(partition, position, self.max_bytes).await?),
        };
        let status = self.monitor.enter(partition, position, kept);
        tracing::info!(
            topic = &*self.address.topic,
            partition,
            offset = position,
            end = offset_range.end,
            "reading"
        );
        let noted = self.commits_ == OffsetCommits::Enabled && kept.is_none();
        Ok(ReaderState {
            stream,
            queue: VecDeque::new(),
            ready: VecDeque::new(),
            next_fetch: position,
            position,
            end: offset_range.end,
            until: (self.mode == ReadMode::Once).then_some(offset_range.end),
            enlarged: None,
            misses: 0,
            earlier_ends: 0,
            redelivered_left: if redelivery == Redelivery::Possible { self.limit } else { 0 },
            answer_maybe_redelivered: false,
            redelivered_to: i64::MIN,
            window: CommitWindow::new(position),
            committer: OffsetCommitter::new(position, noted),
            retry: self.new_retry(),
            status,
            high: position,
            recreated: false,
            quiet_at: self.quiet_at(),
        })
    }

    /// Whether a run that ends has nothing to read.
    fn is_at_end(&self, position: i64, end: i64) -> bool {
        self.mode == ReadMode::Once && position >= end
    }

    pub(super) fn quiet_at(&self) -> Instant {
        Instant::now()
            + if self.mode == ReadMode::Once { ONCE_QUIET_TIMEOUT } else { QUIET_TIMEOUT }
    }

    /// Whether an end before the place of reading is believed.
    pub(super) fn is_confirmed(reading: &ReaderState) -> bool {
        reading.earlier_ends >= MIN_EARLIER_ENDS
    }

    /// Waits before the next attempt. The error is `None` where the source is to stop.
    pub(super) async fn back_off(
        &self,
        error: &ClusterError,
        retry: &mut ClusterRetry,
    ) -> Result<(), Option<SourceError>> {
        let TopicPartition { topic, partition } = &self.address;
        if let ClusterError::Permanent(_) = error {
            return Err(Some(self.failed(error)));
        }
        tracing::warn!(topic = &**topic, partition, %error, "the cluster is asked again");
        self.cluster.disconnect().await;
        match retry.wait(&self.stop).await {
            WaitOutcome::Elapsed => Ok(()),
            WaitOutcome::Stopped => Err(None),
            WaitOutcome::Exhausted => Err(Some(self.failed(error))),
        }
    }

    /// The error that ends the source.
    pub(super) fn failed(&self, error: &ClusterError) -> SourceError {
        let TopicPartition { topic, partition } = &self.address;
        let context = format!("reading topic `{topic}`, partition {partition}");
        SourceError::Remote { context, why: error.to_string() }
    }

    async fn step(
        &self,
        reading: &mut ReaderState,
        out: &mpsc::Sender<Record>,
    ) -> Result<ReaderStep, SourceError> {
        if self.stop.is_cancelled() || out.is_closed() {
            return Ok(ReaderStep::Stop);
        }
        if reading.window.is_errored() {
            return self.rewind(reading).await;
        }
        self.forward(reading, out);
        self.commit_if_due(reading);
        if reading.until.is_some_and(|until| reading.position >= until) && reading.is_drained() {
            return Ok(ReaderStep::Stop);
        }
        if reading.stream.is_none() && reading.is_drained() {
            return self.reopen(reading).await;
        }
        match self.wait(reading, out).await {
            WaitEvent::End => Ok(ReaderStep::Stop),
            WaitEvent::Settled => Ok(ReaderStep::Continue),
            WaitEvent::Committed(kept) => {
                self.finish_commit(reading, kept).await;
                Ok(ReaderStep::Continue)
            }
            WaitEvent::Room(room) => {
                self.forward_one(reading, room);
                Ok(ReaderStep::Continue)
            }
            WaitEvent::Response(answer) => self.accept(reading, answer).await,
            WaitEvent::Quiet => self.check_quiet(reading).await,
        }
    }

    async fn wait<'a>(
        &self,
        reading: &mut ReaderState,
        out: &'a mpsc::Sender<Record>,
    ) -> WaitEvent<'a> {
        let has_room = self.has_room(reading);
        let commit_at = self.commit_at(reading);
        let is_waiting = reading.is_drained();
        let ReaderState { stream, queue, committer, window, quiet_at, .. } = reading;
        let next = async {
            match stream.as_mut() {
                Some(stream) if queue.len() < MIN_QUEUED => stream.next().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => WaitEvent::End,
            () = out.closed() => WaitEvent::End,
            kept = committer.finished() => WaitEvent::Committed(kept),
            () = window.changed() => WaitEvent::Settled,
            () = until(commit_at) => WaitEvent::Settled,
            room = out.reserve(), if has_room => room.map_or(WaitEvent::End, WaitEvent::Room),
            answer = next => WaitEvent::Response(answer),
            () = sleep_until(*quiet_at), if is_waiting => WaitEvent::Quiet,
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
