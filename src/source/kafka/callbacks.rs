//! Callbacks of the client: assigned and revoked partitions, statistics, log lines; and how commits
//! are made.
//!
//! # Invariants
//!
//! When a partition is revoked, what is settled of it is committed before the callback returns, and
//! nothing of it is committed later.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::time::Instant;

use super::claim::PreviousOwnerState;
use super::consumer_state::ConsumerState;
use super::dead_letter_producer::DeadLetterProducer;
use super::logger::ClientLogger;
use super::partitions::{Partition, PendingCommit};
use crate::telemetry::SourceLag;

/// How long one wait for a verdict lasts; dead letters are produced between two waits.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How often the last commit of a partition is tried, and the pause between tries.
const MAX_FINAL_COMMITS: u32 = 5;
const FINAL_COMMIT_INTERVAL: Duration = Duration::from_millis(300);
/// How long the brokers may take to return committed offsets.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);

/// The consumer's context.
pub(super) struct ConsumerCallbacks {
    pub(super) state: Arc<ConsumerState>,
    pub(super) dead_letters: Option<Arc<DeadLetterProducer>>,
    pub(super) lag: SourceLag,
    pub(super) logger: ClientLogger,
    /// How long records in flight may take to settle when their partition is revoked.
    pub(super) drain: Duration,
    /// How many records after a commit with foreign metadata may already have been sent.
    pub(super) awaiting_lookup: u64,
    /// Held during a commit: one at a time, and none after a partition is revoked.
    pub(super) commit_lock: Mutex<()>,
}

impl ConsumerCallbacks {
    /// Commits what is due and waits for the answer.
    ///
    /// # Errors
    ///
    /// The brokers refuse, or do not answer. Everything stays due, though some of it may have
    /// arrived.
    pub(super) fn commit(&self, consumer: &BaseConsumer<Self>) -> KafkaResult<()> {
        let _guard = self.commit_lock.lock();
        let due = self.state.tracker().due();
        if due.is_empty() {
            return Ok(());
        }
        consumer.commit(&offsets(&due), CommitMode::Sync)?;
        self.state.confirm(&due);
        Ok(())
    }

    /// Fetches what the previous owners of our partitions committed, where it is not known yet.
    ///
    /// # Errors
    ///
    /// The brokers do not answer, or not for all partitions.
    pub(super) fn fetch_committed(&self, consumer: &BaseConsumer<Self>) -> KafkaResult<()> {
        let awaiting_lookup = self.state.tracker().awaiting_lookup();
        if awaiting_lookup.is_empty() {
            return Ok(());
        }
        let list = consumer.committed_offsets(partition_list(&awaiting_lookup), BROKER_TIMEOUT)?;
        let mut end = Ok(());
        for element in list.elements() {
            if let Err(error) = element.error() {
                end = Err(error);
                continue;
            }
            let previous = match element.offset() {
                Offset::Offset(offset) => {
                    // The client panics at metadata that is not UTF-8; ours is always UTF-8.
                    let read = || element.metadata().to_owned();
                    let text = catch_unwind(AssertUnwindSafe(read)).unwrap_or_default();
                    PreviousOwnerState::of(
                        u64::try_from(offset).unwrap_or(0),
                        &text,
                        self.awaiting_lookup,
                    )
                }
                _ => PreviousOwnerState::default(),
            };
            let partition =
                Partition { topic: element.topic().into(), number: element.partition() };
            self.state.set_previous_owner(&partition, previous);
        }
        end
    }

    /// Commits everything that is settled of partitions that no longer forward records, releases
    /// their claims, and waits for the answer. During a rebalance brokers refuse commits, so it is
    /// tried a few times.
    pub(super) fn commit_final(&self, consumer: &BaseConsumer<Self>, partitions: &[Partition]) {
        self.state.tracker().release(partitions);
        for attempt in 1..=MAX_FINAL_COMMITS {
            match self.commit(consumer) {
                Ok(()) => return,
                Err(error) if attempt == MAX_FINAL_COMMITS || consumer.assignment_lost() => {
                    self.logger.error(&error, "the last offsets of revoked partitions could not be committed; the next owner reads their last records again and looks them up before sending");
                    return;
                }
                Err(_) => std::thread::sleep(FINAL_COMMIT_INTERVAL),
            }
        }
    }

    /// Waits for the records in flight of revoked partitions, commits, and forgets the partitions.
    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &[Partition]) {
        // A lost assignment already belongs to another member: nothing of it can be committed.
        if !consumer.assignment_lost() {
            let deadline = Instant::now() + self.drain;
            while !self.state.is_closing()
                && self.state.tracker().in_flight_of(partitions) > 0
                && Instant::now() < deadline
            {
                self.poll_dead_letters();
                self.state.wait(DRAIN_POLL_INTERVAL);
            }
            self.commit_final(consumer, partitions);
        }
        // The client keeps a partition paused beyond its assignment: without this, a partition that
        // comes back would stay paused for ever.
        if let Err(error) = consumer.resume(&partition_list(partitions)) {
            self.logger.error(&error, "revoked partitions could not be resumed in the client; they may stay paused if they are assigned again");
        }
        // A commit in progress must end before another member gets the partitions.
        let commit_lock = self.commit_lock.lock();
        let left = self.state.tracker().in_flight_of(partitions);
        if left > 0 {
            let source = &*self.logger.source;
            tracing::warn!(
                source,
                partitions = names(partitions),
                in_flight = left,
                "partitions were revoked before their records were settled; their next owner reads \
                 these records again. Raise `drain_timeout_ms` if this happens often"
            );
        }
        self.state.forget(partitions);
        drop(commit_lock);
        for partition in partitions {
            self.lag.forget(&partition.topic, partition.number);
        }
    }

    pub(super) fn poll_dead_letters(&self) {
        if let Some(dead_letters) = &self.dead_letters {
            dead_letters.poll();
        }
    }
}

/// The list of these partitions, without offsets.
pub(super) fn partition_list<'a>(
    partitions: impl IntoIterator<Item = &'a Partition>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.number);
    }
    list
}

fn offsets(due: &[PendingCommit]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(due.len());
    for PendingCommit { partition, state, .. } in due {
        let mut element = list.add_partition(&partition.topic, partition.number);
        let offset = Offset::Offset(i64::try_from(state.position).unwrap_or(i64::MAX));
        let set = element.set_offset(offset);
        debug_assert!(set.is_ok(), "positions are not negative");
        element.set_metadata(state.text());
    }
    list
}

/// At most this many partitions are named in one log line.
const MAX_LOGGED_PARTITIONS: usize = 20;

/// The partitions as `topic/number`, for the log.
fn names(partitions: &[Partition]) -> String {
    let shown = partitions.iter().take(MAX_LOGGED_PARTITIONS);
    let mut names = shown.map(|p| format!("{}/{}", p.topic, p.number)).collect::<Vec<_>>();
    if let more @ 1.. = partitions.len().saturating_sub(MAX_LOGGED_PARTITIONS) {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    let elements = list.elements();
    let partition = |e: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| Partition {
        topic: e.topic().into(),
        number: e.partition(),
    };
    elements.iter().map(partition).collect()
}

impl ClientContext for ConsumerCallbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.logger.line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.logger.error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let owned: Vec<_> = {
            let tracker = self.state.tracker();
            tracker.owned().map(|p| (p.clone(), tracker.mark(p))).collect()
        };
        for (partition, mark) in owned {
            let topic = statistics.topics.get(&*partition.topic);
            let Some(known) = topic.and_then(|topic| topic.partitions.get(&partition.number))
            else {
                continue;
            };
            // Negative numbers mean unknown.
            let first = |numbers: &[i64]| numbers.iter().find_map(|n| u64::try_from(*n).ok());
            let end = first(&[known.ls_offset, known.hi_offset]);
            let from = mark.or_else(|| first(&[known.committed_offset, known.lo_offset]));
            if let (Some(end), Some(from)) = (end, from) {
                self.lag.set(&partition.topic, partition.number, end.saturating_sub(from));
            }
        }
    }
}

impl ConsumerContext for ConsumerCallbacks {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(list) => self.revoke(consumer, &partitions(list)),
            Rebalance::Assign(_) => {}
            Rebalance::Error(error) => self
                .logger
                .error(error, "the rebalance of the consumer group failed; the client tries again"),
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let source = &*self.logger.source;
        match rebalance {
            Rebalance::Assign(list) => {
                let assigned = partitions(list);
                tracing::info!(source, partitions = names(&assigned), "partitions assigned");
                self.state.assign(assigned);
            }
            Rebalance::Revoke(list) => {
                let revoked = names(&partitions(list));
                tracing::info!(source, partitions = revoked, "partitions revoked");
            }
            Rebalance::Error(_) => {}
        }
    }
}
