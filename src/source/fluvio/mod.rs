//! Reads records of a Fluvio topic and commits their offsets to the cluster.
//!
//! Records carry no [`SourcePosition`](crate::record::SourcePosition): offsets of a topic that was
//! created again go back, and a durable buffer would skip records as duplicates. They carry a
//! `transport_id` with the record's timestamp instead.
//!
//! # Invariants
//!
//! Every partition has a stream of its own.

mod client;
pub mod cluster;
mod commit;
mod commit_window;
mod committer;
mod connections;
mod errors;
mod fetch;
mod forward;
mod intake;
mod local_start;
mod monitor;
mod new_topic;
mod partition_reader;
mod reopen;
mod retry;
mod start;
mod topic_partition;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::client::Client;
use self::cluster::{Cluster, ClusterError, NewTopic};
use self::local_start::{LocalStartState, OffsetCommits};
use self::monitor::OffsetMonitor;
use self::partition_reader::{Filtering, ONCE_TIMEOUT, PartitionReader};
use self::retry::{ClusterRetry, WaitOutcome};
use self::topic_partition::TopicPartition;
use super::decode::Decoder;
use super::{ReadMode, SharedCheckpoints, Source, SourceError};
use crate::config::source::{FluvioSourceConfig as Settings, FluvioStart, FluvioStartWord};
use crate::record::Record;
use crate::telemetry::SourceLag;

/// How often the end offsets and the number of partitions are fetched.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// Reads one topic.
pub struct FluvioSource {
    name: String,
    settings: Settings,
    mode: ReadMode,
    checkpoints: SharedCheckpoints,
    cluster: Arc<dyn Cluster>,
    new_topic: Option<NewTopic>,
    lag: SourceLag,
}

impl FluvioSource {
    /// A source for a topic. It connects when it runs.
    ///
    /// # Errors
    ///
    /// Settings of the decoding that cannot work.
    pub fn new(
        name: &str,
        settings: Settings,
        mode: ReadMode,
        checkpoints: SharedCheckpoints,
    ) -> Result<Self, String> {
        let consumer = settings.offset.strategy.keeps().then(|| settings.consumer_id(name));
        let client = Client::new(settings.clone(), consumer, format!("usercom-sink-{name}"));
        Self::with_cluster(name, settings, mode, checkpoints, Arc::new(client))
    }

    /// A source over another implementation of [`Cluster`]. Connection settings are ignored.
    ///
    /// # Errors
    ///
    /// Settings of the decoding that cannot work.
    pub fn with_cluster(
        name: &str,
        settings: Settings,
        mode: ReadMode,
        checkpoints: SharedCheckpoints,
        cluster: Arc<dyn Cluster>,
    ) -> Result<Self, String> {
        // Every partition has its own decoder; this one only verifies the settings.
        Decoder::in_zone(&settings.decoding, settings.timezone.as_deref())?;
        let name = name.to_owned();
        let lag = SourceLag::default();
        Ok(Self { name, settings, mode, checkpoints, cluster, new_topic: None, lag })
    }

    /// The same source, which creates its topic where it is missing.
    #[must_use]
    pub fn creating_topic(mut self, new_topic: NewTopic) -> Self {
        self.new_topic = Some(new_topic);
        self
    }

    /// The partitions to read and where to start, once the cluster answers. `None` where it is
    /// stopped first.
    async fn partitions(
        &self,
        stop: &CancellationToken,
    ) -> Result<Option<(Vec<u32>, FluvioStart)>, SourceError> {
        let limit = (self.mode == ReadMode::Once).then_some(ONCE_TIMEOUT);
        let mut retry = ClusterRetry::new(limit);
        loop {
            let error = match stop.run_until_cancelled(self.try_partitions()).await {
                None => return Ok(None),
                Some(Ok(partitions)) => return Ok(Some(partitions)),
                Some(Err(error)) => error,
            };
            let is_permanent = matches!(error, ClusterError::Permanent(_));
            if !is_permanent {
                let topic = &*self.settings.topic;
                tracing::warn!(source = self.name, topic, %error, "the cluster did not answer; the request is repeated");
                self.cluster.disconnect().await;
                match retry.wait(stop).await {
                    WaitOutcome::Elapsed => continue,
                    WaitOutcome::Stopped => return Ok(None),
                    WaitOutcome::Exhausted => {}
                }
            }
            let context = format!("looking up topic `{}`", self.settings.topic);
            return Err(SourceError::Remote { context, why: error.to_string() });
        }
    }

    async fn try_partitions(&self) -> Result<(Vec<u32>, FluvioStart), ClusterError> {
        let topic = &self.settings.topic;
        let missing = || {
            let how = "create it with `fluvio topic create";
            ClusterError::Permanent(format!("there is no such topic: {how} {topic}`"))
        };
        let mut start = self.settings.offset.start.clone();
        let count = match (self.cluster.partitions().await?, &self.new_topic) {
            (Some(count), _) => count,
            (None, Some(new_topic)) => {
                self.cluster.create(new_topic).await?;
                tracing::info!(topic, partitions = new_topic.partitions, "created the topic");
                // Its records were produced after this source started, so none is skipped.
                start = FluvioStart::Word(FluvioStartWord::Beginning);
                self.cluster.partitions().await?.unwrap_or(new_topic.partitions)
            }
            (None, None) => return Err(missing()),
        };
        let partitions = match self.settings.partitions.numbers() {
            None if count == 0 => {
                return Err(ClusterError::Transient("the topic has no partition yet".into()));
            }
            None => (0..count).collect(),
            Some(numbers) => match numbers.iter().find(|number| **number >= count) {
                None => numbers,
                Some(number) => {
                    let why = format!("there is no partition {number}: the topic has {count}");
                    return Err(ClusterError::Permanent(why));
                }
            },
        };
        Ok((partitions, start))
    }

    fn partition_reader(
        &self,
        partition: u32,
        start: FluvioStart,
        monitor: &Arc<OffsetMonitor>,
        stop: &CancellationToken,
    ) -> Result<PartitionReader, SourceError> {
        let decoder = Decoder::in_zone(&self.settings.decoding, self.settings.timezone.as_deref())
            .map_err(|why| SourceError::Remote { context: "making a decoder".into(), why })?;
        let address = TopicPartition { topic: self.settings.topic.as_str().into(), partition };
        let key = format!("{}/{}", self.settings.consumer_id(&self.name), address.first_location());
        let keeps = self.settings.offset.strategy.keeps();
        Ok(PartitionReader {
            local_start: LocalStartState::new(Arc::clone(&self.checkpoints), &self.name, key),
            address,
            cluster: Arc::clone(&self.cluster),
            monitor: Arc::clone(monitor),
            mode: self.mode,
            filtering: if self.settings.transforms.is_empty() {
                Filtering::Unfiltered
            } else {
                Filtering::SmartModules
            },
            start,
            offset_commits: if keeps { OffsetCommits::Enabled } else { OffsetCommits::Disabled },
            limit: self.settings.max_in_flight,
            interval: Duration::from_millis(self.settings.commit_interval_ms),
            max_bytes: self.settings.max_bytes,
            decoder,
            stop: stop.clone(),
        })
    }
}

impl fmt::Debug for FluvioSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FluvioSource")
            .field("name", &self.name)
            .field("topic", &self.settings.topic)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for FluvioSource {
    async fn run(
        self: Box<Self>,
        out: mpsc::Sender<Record>,
        stop: CancellationToken,
    ) -> Result<(), SourceError> {
        let Some((partitions, start)) = self.partitions(&stop).await? else {
            return Ok(());
        };
        let topic = self.settings.topic.as_str().into();
        let monitor =
            Arc::new(OffsetMonitor::new(Arc::clone(&self.cluster), topic, self.lag.clone()));
        let mut readers = PartitionReaders {
            known: BTreeSet::new(),
            out: out.downgrade(),
            tasks: JoinSet::new(),
            stop: stop.child_token(),
            failed: None,
        };
        for partition in partitions {
            let reader =
                self.partition_reader(partition, start.clone(), &monitor, &readers.stop)?;
            readers.start(partition, reader);
        }
        drop(out);
        let mut round = tokio::time::interval(REFRESH_INTERVAL);
        loop {
            tokio::select! {
                ended = readers.tasks.join_next() => match ended {
                    Some(ended) => readers.ended(ended),
                    None => break,
                },
                _ = round.tick(), if self.mode == ReadMode::Follow => {
                    stop.run_until_cancelled(self.refresh(&monitor, &mut readers)).await;
                }
            }
        }
        readers.failed.map_or(Ok(()), Err)
    }

    fn set_lag_gauge(&mut self, lag: SourceLag) {
        self.lag = lag;
    }
}

impl FluvioSource {
    /// Reports the lag and starts readers for new partitions.
    async fn refresh(&self, monitor: &Arc<OffsetMonitor>, readers: &mut PartitionReaders) {
        let Ok(offset_ranges) = monitor.offset_ranges().await else {
            return;
        };
        monitor.report_lag(&offset_ranges);
        if self.settings.offset.strategy.keeps() {
            monitor.detect_foreign_commits().await;
        }
        if self.settings.partitions.numbers().is_some() || readers.stop.is_cancelled() {
            return;
        }
        let new: Vec<u32> =
            offset_ranges.into_keys().filter(|number| !readers.known.contains(number)).collect();
        for partition in new {
            // A partition that was added later is read from its beginning.
            let start = FluvioStart::Word(FluvioStartWord::Beginning);
            match self.partition_reader(partition, start, monitor, &readers.stop) {
                Ok(reader) => {
                    tracing::info!(
                        topic = self.settings.topic,
                        partition,
                        "the topic has a new partition; it is read from its beginning"
                    );
                    readers.start(partition, reader);
                }
                Err(error) => readers.fail(error),
            }
        }
    }
}

/// The readers that run.
struct PartitionReaders {
    known: BTreeSet<u32>,
    /// Weak, so that the channel closes when the readers end.
    out: mpsc::WeakSender<Record>,
    tasks: JoinSet<Result<(), SourceError>>,
    stop: CancellationToken,
    failed: Option<SourceError>,
}

impl PartitionReaders {
    fn start(&mut self, partition: u32, reader: PartitionReader) {
        if let Some(out) = self.out.upgrade() {
            self.known.insert(partition);
            self.tasks.spawn(reader.run(out));
        }
    }

    /// A reader that fails stops the others; what they sent is settled first.
    fn ended(&mut self, ended: Result<Result<(), SourceError>, tokio::task::JoinError>) {
        let ended = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        if let Err(error) = ended {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: SourceError) {
        self.failed.get_or_insert(error);
        self.stop.cancel();
    }
}
