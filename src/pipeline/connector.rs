//! Builds a pipeline from a Fluvio connector's config: one Fluvio source and one sink. Unlike a
//! pipeline's source, it creates its topic if that is missing.

use std::sync::Arc;

use super::run::{BuiltPipeline, RunError, RunOptions};
use crate::config::connector::{Connector, SOURCE_NAME, TopicShape};
use crate::source::fluvio::cluster::{Cluster, Compression, Deduplication, NewTopic};
use crate::source::fluvio::{Client, FluvioSource};
use crate::source::{BuildError, SharedCheckpoints, Source};

/// The cluster that the profile names, as Fluvio's own connectors connect to it.
pub fn connector_cluster(connector: &Connector) -> Arc<dyn Cluster> {
    let settings = connector.source.clone();
    let keeps = settings.offset.strategy.keeps();
    let consumer = keeps.then(|| settings.consumer_id(&connector.name));
    let client_id = format!("fluvio_connector_{}", connector.name);
    Arc::new(Client::new(settings, consumer, client_id))
}

impl BuiltPipeline {
    /// Builds a connector over a cluster. Nothing runs yet.
    ///
    /// # Errors
    ///
    /// If a part cannot be built.
    pub async fn build_connector(
        connector: &Connector,
        options: RunOptions,
        cluster: Arc<dyn Cluster>,
    ) -> Result<Self, RunError> {
        let mut pipeline = connector.loaded.pipeline.clone();
        // The source is added below, over the given cluster.
        pipeline.sources.clear();
        let checkpoints: SharedCheckpoints = Arc::new(options.store.clone());
        let settings = connector.source.clone();
        let source =
            FluvioSource::with_cluster(SOURCE_NAME, settings, options.mode, checkpoints, cluster);
        let source = source.map_err(|why| {
            RunError::Settings(BuildError { source_name: SOURCE_NAME.to_owned(), why })
        })?;
        let mut source = source.creating_topic(wish(&connector.topic));
        source.set_lag_gauge(options.metrics.source(SOURCE_NAME, "fluvio").lag());
        let mut built = Self::build(&pipeline, options).await?;
        built.add_source(SOURCE_NAME, "fluvio", Box::new(source));
        Ok(built)
    }
}

fn wish(shape: &TopicShape) -> NewTopic {
    let least = NewTopic::default();
    NewTopic {
        partitions: shape.partitions.unwrap_or(least.partitions),
        replication: shape.replication.unwrap_or(least.replication),
        ignore_rack: shape.ignore_rack,
        retention_secs: shape.retention_secs,
        segment_bytes: shape.segment_bytes,
        max_partition_bytes: shape.max_partition_bytes,
        compression: shape.compression.and_then(|word| match word {
            "none" => Some(Compression::None),
            "gzip" => Some(Compression::Gzip),
            "snappy" => Some(Compression::Snappy),
            "lz4" => Some(Compression::Lz4),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        }),
        deduplication: shape.deduplication.as_ref().map(|shape| Deduplication {
            count: shape.count,
            age_secs: shape.age_secs,
            uses: shape.uses.clone(),
            with: shape.with.clone(),
        }),
    }
}
