//! What the client calls back: partitions that come and go, how far the partitions reach, and its
//! log; and how a commit is made.
//!
//! One invariant: when a partition goes, what is settled of it is committed before it is gone, and
//! nothing of it is committed after.

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

/// How long one wait for a verdict lasts, while letters are served between.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How often the last commit of a partition is tried, and how long the tries are apart.
const MAX_FINAL_COMMITS: u32 = 5;
const FINAL_COMMIT_INTERVAL: Duration = Duration::from_millis(300);
/// How long the brokers may take to tell what is committed.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);

/// The consumer's context.
pub(super) struct ConsumerCallbacks {
    pub(super) state: Arc<ConsumerState>,
    pub(super) dead_letters: Option<Arc<DeadLetterProducer>>,
    pub(super) lag: SourceLag,
    pub(super) logger: ClientLogger,
    /// How long records in flight may take to settle when their partition goes.
    pub(super) drain: Duration,
    /// Records behind a commit whose text is not ours that are in doubt.
    pub(super) awaiting_lookup: u64,
    /// Held while a commit is made: one at a time, and none when a partition is gone.
    pub(super) turn: Mutex<()>,
}

impl ConsumerCallbacks {
    /// Commits what is due, and waits for it.
    ///
    /// # Errors
    /// The brokers refuse, or do not answer. All of it stays due, though some may have arrived.
    pub(super) fn commit(&self, consumer: &BaseConsumer<Self>) -> KafkaResult<()> {
        let _turn = self.turn.lock();
        let due = self.state.tracker().due();
        if due.is_empty() {
            return Ok(());
        }
        consumer.commit(&offsets(&due), CommitMode::Sync)?;
        self.state.confirm(&due);
        Ok(())
    }

    /// Asks what the last owners of our partitions left, where it is not known.
    ///
    /// # Errors
    /// The brokers do not answer, or not for all.
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
                    // The client panics at a text that is not UTF-8, which none of ours is.
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

    /// Commits everything that is settled of partitions of which nothing more is handed on, gives
    /// their claims up, and waits for it. While the group is in motion brokers refuse commits, so a
    /// few tries are made.
    pub(super) fn commit_final(&self, consumer: &BaseConsumer<Self>, partitions: &[Partition]) {
        self.state.tracker().release(partitions);
        for attempt in 1..=MAX_FINAL_COMMITS {
            match self.commit(consumer) {
                Ok(()) => return,
                Err(error) if attempt == MAX_FINAL_COMMITS || consumer.assignment_lost() => {
                    self.logger.error(&error, "offsets could not be committed; records come again");
                    return;
                }
                Err(_) => std::thread::sleep(FINAL_COMMIT_INTERVAL),
            }
        }
    }

    /// Waits for what is in flight of partitions that go, commits, and forgets them.
    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &[Partition]) {
        // A lost assignment belongs to another member already: nothing of it can be committed.
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
        // The client keeps a pause beyond the assignment: who comes back resting would rest for ever.
        if let Err(error) = consumer.resume(&partition_list(partitions)) {
            self.logger.error(&error, "partitions could not be resumed");
        }
        // A commit that is under way ends before another member has the partitions.
        let turn = self.turn.lock();
        let left = self.state.tracker().in_flight_of(partitions);
        if left > 0 {
            let source = &*self.logger.source;
            tracing::warn!(source, left, "partitions went before their records were settled");
        }
        self.state.forget(partitions);
        drop(turn);
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

/// Partitions by their names alone.
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
            // Negative numbers stand for unknown ones.
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
            Rebalance::Error(error) => self.logger.error(error, "rebalancing failed"),
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let source = &*self.logger.source;
        match rebalance {
            Rebalance::Assign(list) => {
                tracing::info!(source, partitions = list.count(), "partitions came");
                self.state.assign(partitions(list));
            }
            Rebalance::Revoke(list) => {
                tracing::info!(source, partitions = list.count(), "partitions went");
            }
            Rebalance::Error(_) => {}
        }
    }
}
