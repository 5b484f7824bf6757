//! What the client calls back: partitions that come and go, commits that failed, how far the
//! partitions reach, and its log.
//!
//! One invariant: when a partition goes, what is settled of it is committed before it is gone, and
//! nothing of it is committed after.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
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
    /// Commits what is due. What cannot be committed is due again.
    pub(super) fn commit(&self, consumer: &BaseConsumer<Self>, mode: CommitMode) {
        let due = self.desk.ledger().due();
        if due.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::with_capacity(due.len());
        for (partition, position) in &due {
            let offset = Offset::Offset(i64::try_from(*position).unwrap_or(i64::MAX));
            let added = list.add_partition_offset(&partition.topic, partition.number, offset);
            debug_assert!(added.is_ok(), "positions are not negative");
        }
        if let Err(error) = consumer.commit(&list, mode) {
            self.not_committed(&error, due.into_iter().map(|(partition, _)| partition));
        }
    }

    fn not_committed(&self, error: &KafkaError, partitions: impl Iterator<Item = Partition>) {
        self.logs.error(error, "offsets could not be committed, trying again");
        let mut ledger = self.desk.ledger();
        for partition in partitions {
            ledger.not_committed(&partition);
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
            self.commit(consumer, CommitMode::Sync);
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

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let elements = offsets.elements();
        let (error, failed) = match result {
            Err(error) => (Some(error), partitions(offsets)),
            Ok(()) => {
                let mut failed = elements.iter().filter(|e| e.error().is_err()).peekable();
                let error = failed.peek().and_then(|e| e.error().err());
                let partition = |e: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
                    Partition { topic: e.topic().into(), number: e.partition() }
                };
                (error, failed.map(partition).collect())
            }
        };
        if let Some(error) = error {
            self.not_committed(&error, failed.into_iter());
        }
    }
}
