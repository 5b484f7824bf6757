//! The seam over Fluvio's own client.
//!
//! Not here: when to commit and when to try again (`lane`). The client's own trying again is
//! switched off: it would begin from an offset of its own. One invariant: all partitions share one
//! connection to the controller, and after [`Cluster::disconnect`] nothing of it is used again.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fluvio::config::{ConfigFile, TlsPaths};
use fluvio::consumer::{
    ConsumerConfigExtBuilder, ConsumerStream, OffsetManagementStrategy, Record, RetryMode,
};
use fluvio::dataplane::link::ErrorCode;
use fluvio::metadata::partition::PartitionSpec;
use fluvio::metadata::topic::{
    Bounds, CleanupPolicy, CompressionAlgorithm, Filter, SegmentBasedPolicy, TopicSpec,
    TopicStorageConfig, Transform,
};
use fluvio::{
    Fluvio, FluvioClusterConfig, FluvioError, Isolation, Offset, SmartModuleContextData,
    SmartModuleExtraParams, SmartModuleInvocation, SmartModuleInvocationWasm, SmartModuleKind,
};
use futures::StreamExt;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::cluster::{
    At, Cluster, ClusterError, Compression, Deduplication, Extent, Message, Stream, TopicWish,
    Until,
};
use crate::config::source::{FluvioSource as Settings, FluvioTls};

/// How long the cluster may take to answer one question.
const ANSWER: Duration = Duration::from_secs(30);

/// A cluster that the client connects to when it is first asked something.
pub struct Client {
    settings: Settings,
    /// What offsets are kept under; `None` keeps none.
    consumer: Option<String>,
    /// How this program calls itself towards the cluster.
    client_id: String,
    connection: Mutex<Option<Arc<Fluvio>>>,
}

impl Client {
    /// A client for one source's topic.
    pub fn new(settings: Settings, consumer: Option<String>, client_id: String) -> Self {
        Self { settings, consumer, client_id, connection: Mutex::new(None) }
    }

    async fn connection(&self) -> Result<Arc<Fluvio>, ClusterError> {
        let mut connection = self.connection.lock().await;
        if let Some(connected) = &*connection {
            return Ok(Arc::clone(connected));
        }
        let config = self.config()?;
        let endpoint = config.endpoint.clone();
        let connected =
            answer(Fluvio::connect_with_config(&config)).await.map_err(|error| match error {
                ClusterError::Passing(why) => {
                    ClusterError::Passing(format!("cannot connect to {endpoint:?}: {why}"))
                }
                lasting => lasting,
            })?;
        let connected = Arc::new(connected);
        *connection = Some(Arc::clone(&connected));
        Ok(connected)
    }

    fn config(&self) -> Result<FluvioClusterConfig, ClusterError> {
        let mut config = match &self.settings.endpoint {
            Some(endpoint) => {
                let config = FluvioClusterConfig::new(endpoint);
                match paths(&self.settings.tls) {
                    Some(paths) => config.with_tls(paths),
                    None => config,
                }
            }
            None => profile(self.settings.profile.as_deref())?,
        };
        config.client_id = Some(self.client_id.clone());
        Ok(config)
    }
}

/// The cluster of a profile. The client itself would make one up where there is none.
fn profile(name: Option<&str>) -> Result<FluvioClusterConfig, ClusterError> {
    let lasting = |error: FluvioError| {
        ClusterError::Lasting(format!(
            "no Fluvio profile ({error}): write `endpoint`, or make one with `fluvio profile add`"
        ))
    };
    let file = ConfigFile::load(None).map_err(lasting)?;
    let config = file.config();
    match name {
        None => config.current_cluster().cloned().map_err(lasting),
        Some(name) => config
            .cluster_with_profile(name)
            .cloned()
            .ok_or_else(|| ClusterError::Lasting(format!("there is no Fluvio profile `{name}`"))),
    }
}

fn paths(tls: &FluvioTls) -> Option<TlsPaths> {
    if !tls.enabled {
        return None;
    }
    Some(TlsPaths {
        domain: tls.domain.clone()?,
        key: tls.key_file.clone()?,
        cert: tls.crt_file.clone()?,
        ca_cert: tls.ca_file.clone()?,
    })
}

/// The client's own errors, which keep what they were made from.
trait ClientError: Display + AsRef<dyn Error + Send + Sync> {}

impl<E: Display + AsRef<dyn Error + Send + Sync>> ClientError for E {}

/// The client's answer, within a limit.
async fn answer<T, E: ClientError>(
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, ClusterError> {
    match timeout(ANSWER, asked).await {
        Ok(answer) => answer.map_err(|error| sorted(&error)),
        Err(_) => Err(ClusterError::Passing("no answer in time".into())),
    }
}

fn sorted(told: &impl ClientError) -> ClusterError {
    let error = told.as_ref();
    let lasting = match error.downcast_ref::<FluvioError>() {
        Some(
            FluvioError::MinimumPlatformVersion { .. }
            | FluvioError::MaximumPlatformVersion { .. }
            | FluvioError::ClientConfig(_)
            | FluvioError::ConsumerConfig(_),
        ) => true,
        Some(_) => false,
        None => error.downcast_ref::<ErrorCode>().is_some_and(is_lasting),
    };
    // Causes are told too; each on its own may say little.
    let why = format!("{told:#}");
    if let Some(ErrorCode::OffsetEvicted { next_available, .. }) = error.downcast_ref::<ErrorCode>()
    {
        return ClusterError::Gone { next: *next_available };
    }
    if lasting { ClusterError::Lasting(why) } else { ClusterError::Passing(why) }
}

fn is_lasting(code: &ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::PermissionDenied
            | ErrorCode::SmartModuleNotFound { .. }
            | ErrorCode::SmartModuleInvalid { .. }
            | ErrorCode::SmartModuleRuntimeError(_)
            | ErrorCode::SmartModuleChainInitError(_)
            | ErrorCode::TopicInvalidName
    )
}

fn of_code(code: ErrorCode) -> ClusterError {
    match code {
        ErrorCode::OffsetEvicted { next_available, .. } => {
            ClusterError::Gone { next: next_available }
        }
        code if is_lasting(&code) => ClusterError::Lasting(code.to_string()),
        code => ClusterError::Passing(code.to_string()),
    }
}

#[async_trait]
impl Cluster for Client {
    async fn partitions(&self) -> Result<Option<u32>, ClusterError> {
        let connection = self.connection().await?;
        let topics = answer(async {
            let admin = connection.admin().await;
            admin.list::<TopicSpec, String>(vec![self.settings.topic.clone()]).await
        });
        // The filter may match more than the one name.
        let topics = topics.await?;
        let topic = topics.iter().find(|topic| topic.name == self.settings.topic);
        Ok(topic.map(|topic| topic.spec.partitions()))
    }

    async fn create(&self, wish: &TopicWish) -> Result<(), ClusterError> {
        let connection = self.connection().await?;
        let created = answer(async {
            let admin = connection.admin().await;
            admin.create(self.settings.topic.clone(), false, topic_spec(wish)).await
        });
        let Err(error) = created.await else {
            return Ok(());
        };
        // Another process of the same name may have been faster.
        if self.partitions().await?.is_some() { Ok(()) } else { Err(error) }
    }

    async fn kept(&self) -> Result<BTreeMap<u32, i64>, ClusterError> {
        let Some(consumer) = &self.consumer else {
            return Ok(BTreeMap::new());
        };
        let connection = self.connection().await?;
        let offsets = answer(connection.consumer_offsets()).await?;
        let ours = offsets
            .into_iter()
            .filter(|kept| kept.consumer_id == *consumer && kept.topic == self.settings.topic);
        // A consumer that read and kept nothing yet has an offset before the first.
        let kept = ours.filter(|kept| kept.offset >= 0);
        Ok(kept.map(|kept| (kept.partition, kept.offset)).collect())
    }

    async fn extents(&self) -> Result<BTreeMap<u32, Extent>, ClusterError> {
        let connection = self.connection().await?;
        let partitions = answer(async {
            let admin = connection.admin().await;
            admin.all::<PartitionSpec>().await
        });
        let partitions = partitions.await?;
        let ours = partitions.iter().filter_map(|partition| {
            let (topic, number) = partition.name.rsplit_once('-')?;
            let number = number.parse().ok()?;
            // A partition nobody has spoken of yet says -1.
            let status = &partition.status;
            let known = topic == self.settings.topic && status.leader.hw >= 0;
            let extent = Extent { start: status.base_offset.max(0), end: status.leader.hw };
            known.then_some((number, extent))
        });
        Ok(ours.collect())
    }

    async fn open(
        &self,
        partition: u32,
        at: At,
        until: Until,
    ) -> Result<Box<dyn Stream>, ClusterError> {
        let connection = self.connection().await?;
        let start = match at {
            // This beginning is that behind the kept offset, where there is one.
            At::Kept => Offset::beginning(),
            At::Offset(offset) => Offset::absolute(offset)
                .map_err(|error| ClusterError::Lasting(error.to_string()))?,
        };
        let mut config = ConsumerConfigExtBuilder::default();
        config
            .topic(self.settings.topic.clone())
            .partition(partition)
            .offset_start(start)
            .isolation(Isolation::ReadCommitted)
            .retry_mode(RetryMode::Disabled)
            .disable_continuous(until == Until::PresentEnd)
            .smartmodule(smartmodules(&self.settings));
        if let Some(consumer) = &self.consumer {
            config
                .offset_consumer(consumer.clone())
                .offset_strategy(OffsetManagementStrategy::Manual);
        }
        if let Some(bytes) = self.settings.max_bytes.and_then(|bytes| i32::try_from(bytes).ok()) {
            config.max_bytes(bytes);
        }
        let config = config.build().map_err(|error| sorted(&error))?;
        let stream = answer(connection.consumer_with_config(config)).await?;
        Ok(Box::new(ClientStream { stream, _connection: connection }))
    }

    async fn disconnect(&self) {
        self.connection.lock().await.take();
    }
}

fn smartmodules(settings: &Settings) -> Vec<SmartModuleInvocation> {
    let transforms = settings.transforms.iter().map(|transform| {
        let with: BTreeMap<_, _> =
            transform.with.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        SmartModuleInvocation {
            wasm: SmartModuleInvocationWasm::Predefined(transform.uses.clone()),
            kind: SmartModuleKind::Generic(SmartModuleContextData::None),
            params: SmartModuleExtraParams::from(with),
            name: Some(transform.uses.clone()),
        }
    });
    transforms.collect()
}

fn topic_spec(wish: &TopicWish) -> TopicSpec {
    let mut spec =
        TopicSpec::new_computed(wish.partitions, wish.replication, Some(wish.ignore_rack));
    if let Some(seconds) = wish.retention_secs {
        spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy {
            time_in_seconds: seconds,
        }));
    }
    if wish.segment_bytes.is_some() || wish.max_partition_bytes.is_some() {
        spec.set_storage(TopicStorageConfig {
            segment_size: wish.segment_bytes,
            max_partition_size: wish.max_partition_bytes,
        });
    }
    if let Some(compression) = wish.compression {
        spec.set_compression_type(match compression {
            Compression::None => CompressionAlgorithm::None,
            Compression::Gzip => CompressionAlgorithm::Gzip,
            Compression::Snappy => CompressionAlgorithm::Snappy,
            Compression::Lz4 => CompressionAlgorithm::Lz4,
            Compression::Zstd => CompressionAlgorithm::Zstd,
        });
    }
    spec.set_deduplication(wish.deduplication.as_ref().map(deduplication));
    spec
}

fn deduplication(wish: &Deduplication) -> fluvio::metadata::topic::Deduplication {
    fluvio::metadata::topic::Deduplication {
        bounds: Bounds { count: wish.count, age: wish.age_secs.map(Duration::from_secs) },
        filter: Filter {
            transform: Transform { uses: wish.uses.clone(), with: wish.with.clone() },
        },
    }
}

/// A stream of the client's.
struct ClientStream<S> {
    stream: S,
    /// The sockets a stream reads from belong to its connection.
    _connection: Arc<Fluvio>,
}

#[async_trait]
impl<S> Stream for ClientStream<S>
where
    S: ConsumerStream<Item = Result<Record, ErrorCode>> + Send,
{
    async fn next(&mut self) -> Option<Result<Message, ClusterError>> {
        Some(self.stream.next().await?.map(message).map_err(of_code))
    }

    async fn commit(&mut self) -> Result<(), ClusterError> {
        self.stream.offset_commit().await.map_err(of_code)
    }

    async fn flush(&mut self) -> Result<(), ClusterError> {
        self.stream.offset_flush().await.map_err(of_code)
    }
}

fn message(record: Record) -> Message {
    let timestamp = Some(record.timestamp()).filter(|timestamp| *timestamp >= 0);
    let offset = record.offset();
    let inner = record.into_inner();
    Message {
        offset,
        timestamp,
        key: inner.key.map(|key| Bytes::copy_from_slice(key.as_ref())),
        value: Bytes::copy_from_slice(inner.value.as_ref()),
    }
}
