//! Records of a Fluvio topic, whose cluster keeps the offsets.
//!
//! Not here: how one partition is read and its offset kept (`lane`), and Fluvio's client (`client`,
//! behind the seam of `cluster`). One invariant: every partition has a stream of its own.
//!
//! Records carry no [`SourcePosition`](crate::record::SourcePosition): offsets of a topic that was made again do not
//! grow, and a durable buffer would skip what it holds for known. They carry a `transport_id`
//! instead, which has the time of the record in it.

mod client;
pub mod cluster;
mod connect;
mod envelope;
mod fetch;
mod intake;
mod keep;
mod lane;
mod ledger;
mod link;
mod patience;
mod pull;
mod refusal;
mod start;
mod watch;
mod wish;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::client::Client;
use self::cluster::{Cluster, ClusterError, TopicWish};
use self::envelope::Address;
use self::lane::{Lane, ONCE, Passage};
use self::patience::{Patience, Waited};
use self::start::{Keeping, Notes};
use self::watch::Watch;
use super::decode::Decoder;
use super::{ReadMode, SharedCheckpoints, Source, SourceError};
use crate::config::source::{FluvioSource as Settings, FluvioStart, FluvioStartWord};
use crate::record::Record;
use crate::telemetry::SourceLag;

/// How often it is asked how much is there, and whether the topic has grown.
const ROUND: Duration = Duration::from_secs(5);

/// A reader of one topic.
pub struct FluvioSource {
    name: String,
    settings: Settings,
    mode: ReadMode,
    checkpoints: SharedCheckpoints,
    cluster: Arc<dyn Cluster>,
    wish: Option<TopicWish>,
    lag: SourceLag,
}

impl FluvioSource {
    /// A source that reads its topic once it runs. Nothing is connected before.
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

    /// A source over a cluster of one's own. What the settings say of connections means nothing.
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
        // Every partition has its own; that they can be made is known from here on.
        Decoder::in_zone(&settings.decoding, settings.timezone.as_deref())?;
        let name = name.to_owned();
        let lag = SourceLag::default();
        Ok(Self { name, settings, mode, checkpoints, cluster, wish: None, lag })
    }

    /// The same source, which makes its topic where it is missing.
    #[must_use]
    pub fn making(mut self, wish: TopicWish) -> Self {
        self.wish = Some(wish);
        self
    }

    /// The partitions to read and where, once the cluster tells. `None` where it is stopped before.
    async fn partitions(
        &self,
        stop: &CancellationToken,
    ) -> Result<Option<(Vec<u32>, FluvioStart)>, SourceError> {
        let limit = (self.mode == ReadMode::Once).then_some(ONCE);
        let mut patience = Patience::new(limit);
        loop {
            let error = match stop.run_until_cancelled(self.try_partitions()).await {
                None => return Ok(None),
                Some(Ok(partitions)) => return Ok(Some(partitions)),
                Some(Err(error)) => error,
            };
            let lasts = matches!(error, ClusterError::Lasting(_));
            if !lasts {
                let topic = &*self.settings.topic;
                tracing::warn!(source = self.name, topic, %error, "the cluster is asked again");
                self.cluster.disconnect().await;
                match patience.wait(stop).await {
                    Waited::Enough => continue,
                    Waited::Stopped => return Ok(None),
                    Waited::Over => {}
                }
            }
            let context = format!("asking for topic `{}`", self.settings.topic);
            return Err(SourceError::Remote { context, why: error.to_string() });
        }
    }

    async fn try_partitions(&self) -> Result<(Vec<u32>, FluvioStart), ClusterError> {
        let topic = &self.settings.topic;
        let missing = || {
            let how = "make it with `fluvio topic create";
            ClusterError::Lasting(format!("there is no such topic: {how} {topic}`"))
        };
        let mut start = self.settings.offset.start.clone();
        let count = match (self.cluster.partitions().await?, &self.wish) {
            (Some(count), _) => count,
            (None, Some(wish)) => {
                self.cluster.create(wish).await?;
                tracing::info!(topic, partitions = wish.partitions, "made the topic");
                // What is in it came after us, whatever its end is by now.
                start = FluvioStart::Word(FluvioStartWord::Beginning);
                self.cluster.partitions().await?.unwrap_or(wish.partitions)
            }
            (None, None) => return Err(missing()),
        };
        let partitions = match self.settings.partitions.numbers() {
            None if count == 0 => {
                return Err(ClusterError::Passing("the topic has no partition yet".into()));
            }
            None => (0..count).collect(),
            Some(numbers) => match numbers.iter().find(|number| **number >= count) {
                None => numbers,
                Some(number) => {
                    let why = format!("there is no partition {number}: the topic has {count}");
                    return Err(ClusterError::Lasting(why));
                }
            },
        };
        Ok((partitions, start))
    }

    fn lane(
        &self,
        partition: u32,
        start: FluvioStart,
        watch: &Arc<Watch>,
        stop: &CancellationToken,
    ) -> Result<Lane, SourceError> {
        let decoder = Decoder::in_zone(&self.settings.decoding, self.settings.timezone.as_deref())
            .map_err(|why| SourceError::Remote { context: "making a decoder".into(), why })?;
        let address = Address { topic: self.settings.topic.as_str().into(), partition };
        let key = format!("{}/{}", self.settings.consumer_id(&self.name), address.place(0));
        let keeps = self.settings.offset.strategy.keeps();
        Ok(Lane {
            notes: Notes::new(Arc::clone(&self.checkpoints), &self.name, key),
            address,
            cluster: Arc::clone(&self.cluster),
            watch: Arc::clone(watch),
            mode: self.mode,
            passage: if self.settings.transforms.is_empty() { Passage::All } else { Passage::Some },
            start,
            keeping: if keeps { Keeping::Kept } else { Keeping::Forgotten },
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
        let watch = Arc::new(Watch::new(Arc::clone(&self.cluster), topic, self.lag.clone()));
        let mut lanes = Lanes {
            known: BTreeSet::new(),
            out: out.downgrade(),
            tasks: JoinSet::new(),
            stop: stop.child_token(),
            failed: None,
        };
        for partition in partitions {
            let lane = self.lane(partition, start.clone(), &watch, &lanes.stop)?;
            lanes.start(partition, lane);
        }
        drop(out);
        let mut round = tokio::time::interval(ROUND);
        loop {
            tokio::select! {
                ended = lanes.tasks.join_next() => match ended {
                    Some(ended) => lanes.ended(ended),
                    None => break,
                },
                _ = round.tick(), if self.mode == ReadMode::Follow => {
                    stop.run_until_cancelled(self.go_round(&watch, &mut lanes)).await;
                }
            }
        }
        lanes.failed.map_or(Ok(()), Err)
    }

    fn tell_lag(&mut self, lag: SourceLag) {
        self.lag = lag;
    }
}

impl FluvioSource {
    /// Tells the lag, and begins to read partitions that are new.
    async fn go_round(&self, watch: &Arc<Watch>, lanes: &mut Lanes) {
        let Ok(extents) = watch.extents().await else {
            return;
        };
        watch.tell(&extents);
        if self.settings.offset.strategy.keeps() {
            watch.look_for_rivals().await;
        }
        if self.settings.partitions.numbers().is_some() || lanes.stop.is_cancelled() {
            return;
        }
        let new: Vec<u32> =
            extents.into_keys().filter(|number| !lanes.known.contains(number)).collect();
        for partition in new {
            // Nothing in it is older than our reading of the topic.
            let start = FluvioStart::Word(FluvioStartWord::Beginning);
            match self.lane(partition, start, watch, &lanes.stop) {
                Ok(lane) => {
                    tracing::info!(topic = self.settings.topic, partition, "the topic has grown");
                    lanes.start(partition, lane);
                }
                Err(error) => lanes.fail(error),
            }
        }
    }
}

/// The readers that run.
struct Lanes {
    known: BTreeSet<u32>,
    /// Weak: the channel ends with the readers.
    out: mpsc::WeakSender<Record>,
    tasks: JoinSet<Result<(), SourceError>>,
    stop: CancellationToken,
    failed: Option<SourceError>,
}

impl Lanes {
    fn start(&mut self, partition: u32, lane: Lane) {
        if let Some(out) = self.out.upgrade() {
            self.known.insert(partition);
            self.tasks.spawn(lane.run(out));
        }
    }

    /// A reader that fails ends the others; what they sent is settled first.
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
