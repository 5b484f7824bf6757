//! Reads one partition: what is fetched of it, its records in flight, and its committed offset.
//!
//! Three activities run concurrently: responses are fetched ahead (`intake`), records are forwarded
//! as far as the window allows (`forward`), and offsets are committed (`commit`). None waits for
//! another.
//!
//! # Invariants
//!
//! When an offset is committed, every record up to it was seen, and was delivered or is in the dead
//! letters. An errored record is read again before anything after it is committed. A record that
//! exists and was not received is requested again, and nothing passes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, ClusterError, FetchResponse, Message, RecordStream};
use super::commit_window::CommitWindow;
use super::committer::OffsetCommitter;
use super::local_start::{
    EndTrust, LocalStartState, OffsetCommits, Redelivery, StartError, StartPosition,
};
use super::monitor::{OffsetMonitor, PartitionStatus};
use super::retry::{ClusterRetry, WaitOutcome};
use super::topic_partition::TopicPartition;
use crate::config::source::FluvioStart;
use crate::record::Record;
use crate::source::decode::Decoder;
use crate::source::{ReadMode, SourceError};

/// How long a run with `--once` waits for the cluster.
pub(super) const ONCE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long nothing may be received before the end offset is checked.
const QUIET_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a run with `--once`, which knows that more records exist.
const ONCE_QUIET_TIMEOUT: Duration = Duration::from_secs(5);
/// With fewer queued records than this, the next response is taken.
const MIN_QUEUED: usize = 256;
/// How often an end offset below the read position must be seen before it is accepted: while
/// servers change, a cluster may report one for a moment.
const MIN_EARLIER_ENDS: u32 = 4;

/// Which records of a partition are received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filtering {
    /// All of them.
    Unfiltered,
    /// Those that SmartModules pass. Their offsets are estimates, so only the ends of whole
    /// responses are committed, which the cluster reports.
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
    pub(super) offset_commits: OffsetCommits,
    pub(super) limit: usize,
    pub(super) interval: Duration,
    /// The response size to request; `None`: Fluvio's default.
    pub(super) max_bytes: Option<u32>,
    pub(super) decoder: Decoder,
    pub(super) local_start: LocalStartState,
    pub(super) stop: CancellationToken,
}

/// What was fetched and waits to be forwarded.
pub(super) enum QueueItem {
    /// A record.
    Record {
        message: Message,
        /// Where reading starts again if it is errored.
        from: i64,
        /// Its index in its response.
        index: usize,
        /// The offset after it, where that may be committed.
        commit_offset: Option<i64>,
    },
    /// There is nothing to forward up to this offset.
    Skip(i64),
}

/// The state of reading.
pub(super) struct ReaderState {
    pub(super) stream: Option<Box<dyn RecordStream>>,
    pub(super) queue: VecDeque<QueueItem>,
    /// Records of the last message that are not forwarded yet.
    pub(super) ready: VecDeque<Record>,
    /// The offset after everything fetched, which is requested next.
    pub(super) next_fetch: i64,
    /// The offset after everything forwarded.
    pub(super) position: i64,
    /// The end of the partition, as far as it is known.
    pub(super) end: i64,
    /// Where a run with `--once` ends.
    pub(super) until: Option<i64>,
    /// The response size to request where one batch needs more than usual.
    pub(super) enlarged: Option<u32>,
    /// How often in a row the requested record was not received.
    pub(super) misses: u32,
    /// How often in a row the partition ended before the requested offset.
    pub(super) earlier_ends: u32,
    /// How many of the next records a former process may have sent.
    pub(super) redelivered_left: usize,
    /// Whether the last forwarded record may have been sent before.
    pub(super) answer_maybe_redelivered: bool,
    /// Records before this offset may have been sent by this process.
    pub(super) redelivered_to: i64,
    pub(super) window: CommitWindow,
    pub(super) committer: OffsetCommitter,
    pub(super) retry: ClusterRetry,
    pub(super) status: Arc<PartitionStatus>,
    /// The offset after everything that was ever forwarded.
    pub(super) high: i64,
    /// Whether the topic was deleted: what was fetched is forwarded, and nothing is committed.
    pub(super) recreated: bool,
    /// When to check whether something should have been received.
    pub(super) quiet_at: Instant,
}

impl ReaderState {
    /// Whether everything fetched was forwarded.
    pub(super) fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.ready.is_empty()
    }
}

/// Whether reading continues.
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
    /// A verdict, or the time to commit an offset.
    Settled,
}

impl PartitionReader {
    /// Reads until `stop` is cancelled, the receiver is dropped, or with `--once` everything is
    /// read; then waits for the verdicts and commits the offset.
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
        // The receiver must see the end of the channel; otherwise both sides would wait for each
        // other.
        drop(out);
        reading.stream = None;
        reading.ready.clear();
        reading.window.wait_until_settled().await;
        self.commit_final(&mut reading).await;
        end
    }

    /// The start position, once the cluster answers. `None` where it is stopped first.
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
            self.find_start(offset_range, trust).await?;
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
        let noted = self.offset_commits == OffsetCommits::Enabled && kept.is_none();
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

    /// Whether a run with `--once` has nothing to read.
    fn is_at_end(&self, position: i64, end: i64) -> bool {
        self.mode == ReadMode::Once && position >= end
    }

    pub(super) fn quiet_at(&self) -> Instant {
        Instant::now()
            + if self.mode == ReadMode::Once { ONCE_QUIET_TIMEOUT } else { QUIET_TIMEOUT }
    }

    /// Whether an end offset below the read position is accepted.
    pub(super) fn is_confirmed(reading: &ReaderState) -> bool {
        reading.earlier_ends >= MIN_EARLIER_ENDS
    }

    /// Pauses before the next attempt. The error is `None` where the source is stopped.
    pub(super) async fn back_off(
        &self,
        error: &ClusterError,
        retry: &mut ClusterRetry,
    ) -> Result<(), Option<SourceError>> {
        let TopicPartition { topic, partition } = &self.address;
        if let ClusterError::Permanent(_) = error {
            return Err(Some(self.failed(error)));
        }
        tracing::warn!(topic = &**topic, partition, %error, "the cluster did not answer; the request is repeated, and nothing is lost");
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
