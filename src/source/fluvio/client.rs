//! Implements [`Cluster`] with Fluvio's own client.
//!
//! # Invariants
//!
//! All partitions share one connection to the controller. After [`Cluster::disconnect`] a new
//! request uses a new connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use fluvio::config::{ConfigFile, TlsPaths};
use fluvio::metadata::partition::PartitionSpec;
use fluvio::metadata::topic::TopicSpec;
use fluvio::{FluvioClusterConfig, FluvioError};
use tokio::sync::Mutex;

use super::cluster::{Cluster, ClusterError, CommittedOffset, NewTopic, OffsetRange, RecordStream};
use super::connections::ClusterConnections;
use super::errors::client_call;
use super::fetch;
use super::new_topic::topic_spec;
use crate::config::source::{FluvioSourceConfig as Settings, FluvioTls};

/// Connects to its cluster at the first request.
pub struct Client {
    settings: Settings,
    /// The id under which offsets are committed; `None` commits none.
    consumer: Option<String>,
    /// The client id that the cluster sees.
    client_id: String,
    connections: Mutex<Option<Arc<ClusterConnections>>>,
}

impl Client {
    /// A client for one source's topic.
    pub fn new(settings: Settings, consumer: Option<String>, client_id: String) -> Self {
        Self { settings, consumer, client_id, connections: Mutex::new(None) }
    }

    async fn connections(&self) -> Result<Arc<ClusterConnections>, ClusterError> {
        let mut connections = self.connections.lock().await;
        if let Some(connected) = &*connections {
            return Ok(Arc::clone(connected));
        }
        let connected =
            Arc::new(ClusterConnections::connect(self.config()?, &self.settings.topic).await?);
        *connections = Some(Arc::clone(&connected));
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

/// The cluster of a profile. Without this check the client would use a default cluster where no
/// profile exists.
fn profile(name: Option<&str>) -> Result<FluvioClusterConfig, ClusterError> {
    let lasting = |error: FluvioError| {
        ClusterError::Permanent(format!(
            "no Fluvio profile ({error}): write `endpoint`, or create one with `fluvio profile add`"
        ))
    };
    let file = ConfigFile::load(None).map_err(lasting)?;
    let config = file.config();
    match name {
        None => config.current_cluster().cloned().map_err(lasting),
        Some(name) => config
            .cluster_with_profile(name)
            .cloned()
            .ok_or_else(|| ClusterError::Permanent(format!("there is no Fluvio profile `{name}`"))),
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

#[async_trait]
impl Cluster for Client {
    async fn partitions(&self) -> Result<Option<u32>, ClusterError> {
        let connections = self.connections().await?;
        let topics = client_call(async {
            let admin = connections.fluvio.admin().await;
            admin.list::<TopicSpec, String>(vec![self.settings.topic.clone()]).await
        });
        // The filter may match other names too.
        let topics = topics.await?;
        let topic = topics.iter().find(|topic| topic.name == self.settings.topic);
        Ok(topic.map(|topic| topic.spec.partitions()))
    }

    async fn create(&self, new_topic: &NewTopic) -> Result<(), ClusterError> {
        let connections = self.connections().await?;
        let created = client_call(async {
            let admin = connections.fluvio.admin().await;
            admin.create(self.settings.topic.clone(), false, topic_spec(new_topic)).await
        });
        let Err(error) = created.await else {
            return Ok(());
        };
        // Another process may have created it in the meantime.
        if self.partitions().await?.is_some() { Ok(()) } else { Err(error) }
    }

    async fn committed(&self) -> Result<BTreeMap<u32, CommittedOffset>, ClusterError> {
        let Some(consumer) = &self.consumer else {
            return Ok(BTreeMap::new());
        };
        let connections = self.connections().await?;
        let offsets = client_call(connections.fluvio.consumer_offsets()).await?;
        let ours = offsets
            .into_iter()
            .filter(|kept| kept.consumer_id == *consumer && kept.topic == self.settings.topic);
        // A consumer that has committed nothing yet has an offset below 0.
        let kept = ours.filter(|kept| kept.offset >= 0);
        let committed = |offset, changed| CommittedOffset { offset, changed };
        Ok(kept.map(|kept| (kept.partition, committed(kept.offset, kept.modified_time))).collect())
    }

    async fn offset_ranges(&self) -> Result<BTreeMap<u32, OffsetRange>, ClusterError> {
        let connections = self.connections().await?;
        let partitions = client_call(async {
            let admin = connections.fluvio.admin().await;
            admin.all::<PartitionSpec>().await
        });
        let partitions = partitions.await?;
        let ours = partitions.iter().filter_map(|partition| {
            let (topic, number) = partition.name.rsplit_once('-')?;
            let number = number.parse().ok()?;
            // A partition whose leader has not reported yet has the offset -1.
            let status = &partition.status;
            let known = topic == self.settings.topic && status.leader.hw >= 0;
            let offset_range =
                OffsetRange { start: status.base_offset.max(0), end: status.leader.hw };
            known.then_some((number, offset_range))
        });
        Ok(ours.collect())
    }

    async fn offset_range(&self, partition: u32) -> Result<OffsetRange, ClusterError> {
        self.connections().await?.offset_range(partition).await
    }

    async fn open(
        &self,
        partition: u32,
        from: i64,
        max_bytes: Option<u32>,
    ) -> Result<Box<dyn RecordStream>, ClusterError> {
        let connections = self.connections().await?;
        let transforms = &self.settings.transforms;
        Ok(Box::new(
            fetch::FetchStream::open(connections, partition, from, max_bytes, transforms).await?,
        ))
    }

    async fn commit(&self, partition: u32, offset: i64) -> Result<(), ClusterError> {
        let Some(consumer) = &self.consumer else {
            return Ok(());
        };
        self.connections().await?.commit(consumer, partition, offset).await
    }

    async fn delete_committed(&self, partition: u32) -> Result<(), ClusterError> {
        let Some(consumer) = self.consumer.clone() else {
            return Ok(());
        };
        if !self.committed().await?.contains_key(&partition) {
            return Ok(());
        }
        let connections = self.connections().await?;
        let place = (self.settings.topic.clone(), partition);
        client_call(connections.fluvio.delete_consumer_offset(consumer, place)).await
    }

    async fn disconnect(&self) {
        self.connections.lock().await.take();
    }
}
