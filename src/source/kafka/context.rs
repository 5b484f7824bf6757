//! What the client calls back: partitions that come and go, commits that failed, how far the
//! partitions reach, and its log.
//!
//! One invariant: when a partition goes, what is settled of it is committed before it is gone, and
//! nothing of it is committed after.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::time::Instant;

use super::desk::Desk;
use super::ledger::Partition;
use super::letters::LetterBox;
use super::options::Secrets;
use crate::telemetry::SourceLag;

/// How long one wait for a verdict lasts, while letters are served between.
const STEP: Duration = Duration::from_millis(20);

/// How often a commit that must be made is tried, and how long the tries are apart.
const COMMITS: u32 = 5;
const COMMIT_AGAIN: Duration = Duration::from_millis(300);

/// Writes the client's log into ours.
#[derive(Debug, Clone)]
pub(super) struct Logs {
    source: Arc<str>,
    secrets: Secrets,
}

impl Logs {
    pub(super) fn new(source: &str, secrets: Secrets) -> Self {
        Self { source: source.into(), secrets }
    }

    pub(super) fn line(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let (source, text) = (&*self.source, self.secrets.cover(text));
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => tracing::error!(source, facility, "librdkafka: {text}"),
            RDKafkaLogLevel::Warning => tracing::warn!(source, facility, "librdkafka: {text}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(source, facility, "librdkafka: {text}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(source, facility, "librdkafka: {text}"),
        }
    }

    pub(super) fn error(&self, error: &KafkaError, what: &str) {
        let (source, what) = (&*self.source, self.secrets.cover(what));
        let error = self.secrets.cover(&error.to_string());
        tracing::warn!(source, error, "{what}");
    }
}

/// The consumer's context.
pub(super) struct Context {
    pub(super) desk: Arc<Desk>,
    pub(super) letters: Option<Arc<LetterBox>>,
    pub(super) lag: SourceLag,
    pub(super) logs: Logs,
    /// How long records in flight may take to settle when their partition goes.
    pub(super) drain: Duration,
}

impl Context {
    /// Asks for what is due to be committed, and does not wait. The client does not tell how that
    /// ends: the statistics do (see [`Ledger::confirm`](super::ledger::Ledger::confirm)).
    pub(super) fn commit_soon(&self, consumer: &BaseConsumer<Self>) {
        let due = self.desk.ledger().due();
        if !due.is_empty()
            && let Err(error) = consumer.commit(&offsets(&due), CommitMode::Async)
        {
            self.logs.error(&error, "offsets could not be committed, trying again");
        }
    }

    /// Commits everything that is settled, and waits for it. While the group is in motion brokers
    /// refuse commits, so a few tries are made.
    pub(super) fn commit_now(&self, consumer: &BaseConsumer<Self>) {
        for attempt in 1..=COMMITS {
            let due = self.desk.ledger().unconfirmed();
            if due.is_empty() {
                return;
            }
            match consumer.commit(&offsets(&due), CommitMode::Sync) {
                Ok(()) => {
                    let mut ledger = self.desk.ledger();
                    for (partition, position) in due {
                        ledger.confirm(&partition, Some(position));
                    }
                    return;
                }
                Err(error) if attempt == COMMITS || consumer.assignment_lost() => {
                    self.logs.error(&error, "offsets could not be committed; records come again");
                    return;
                }
                Err(_) => std::thread::sleep(COMMIT_AGAIN),
            }
        }
    }

    /// Waits for what is in flight of partitions that go, commits, and forgets them.
    fn let_go(&self, consumer: &BaseConsumer<Self>, partitions: &[Partition]) {
        // A lost assignment is somebody else's already: nothing of it can be committed.
        if !consumer.assignment_lost() {
            let deadline = Instant::now() + self.drain;
            while !self.desk.is_closing()
                && self.desk.ledger().in_flight_of(partitions) > 0
                && Instant::now() < deadline
            {
                self.serve_letters();
                self.desk.wait(STEP);
            }
            self.commit_now(consumer);
        }
        let left = self.desk.ledger().in_flight_of(partitions);
        if left > 0 {
            let source = &*self.logs.source;
            tracing::warn!(source, left, "partitions went before their records were settled");
        }
        self.desk.forget(partitions);
        for partition in partitions {
            self.lag.forget(&partition.topic, partition.number);
        }
    }

    pub(super) fn serve_letters(&self) {
        if let Some(letters) = &self.letters {
            letters.pump();
        }
    }
}

fn offsets(positions: &[(Partition, u64)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for (partition, position) in positions {
        let offset = Offset::Offset(i64::try_from(*position).unwrap_or(i64::MAX));
        let added = list.add_partition_offset(&partition.topic, partition.number, offset);
        debug_assert!(added.is_ok(), "positions are not negative");
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

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.logs.line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.logs.error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let owned: Vec<_> = {
            let ledger = self.desk.ledger();
            ledger.owned().map(|p| (p.clone(), ledger.mark(p))).collect()
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
            self.desk.ledger().confirm(&partition, first(&[known.committed_offset]));
            let from = mark.or_else(|| first(&[known.committed_offset, known.lo_offset]));
            if let (Some(end), Some(from)) = (end, from) {
                self.lag.set(&partition.topic, partition.number, end.saturating_sub(from));
            }
        }
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(list) => self.let_go(consumer, &partitions(list)),
            Rebalance::Assign(_) => {}
            Rebalance::Error(error) => self.logs.error(error, "rebalancing failed"),
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let source = &*self.logs.source;
        match rebalance {
            Rebalance::Assign(list) => {
                tracing::info!(source, partitions = list.count(), "partitions came");
                self.desk.assign(partitions(list));
            }
            Rebalance::Revoke(list) => {
                tracing::info!(source, partitions = list.count(), "partitions went");
            }
            Rebalance::Error(_) => {}
        }
    }
}
