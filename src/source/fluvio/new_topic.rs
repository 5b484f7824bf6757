//! Builds the specification of a topic for Fluvio's client.

use std::time::Duration;

use fluvio::metadata::topic::{
    Bounds, CleanupPolicy, CompressionAlgorithm, Filter, SegmentBasedPolicy, TopicSpec,
    TopicStorageConfig, Transform,
};

use super::cluster::{Compression, Deduplication, NewTopic};

/// The topic's specification.
pub(super) fn topic_spec(new_topic: &NewTopic) -> TopicSpec {
    let mut spec = TopicSpec::new_computed(
        new_topic.partitions,
        new_topic.replication,
        Some(new_topic.ignore_rack),
    );
    if let Some(seconds) = new_topic.retention_secs {
        spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy {
            time_in_seconds: seconds,
        }));
    }
    if new_topic.segment_bytes.is_some() || new_topic.max_partition_bytes.is_some() {
        spec.set_storage(TopicStorageConfig {
            segment_size: new_topic.segment_bytes,
            max_partition_size: new_topic.max_partition_bytes,
        });
    }
    if let Some(compression) = new_topic.compression {
        spec.set_compression_type(match compression {
            Compression::None => CompressionAlgorithm::None,
            Compression::Gzip => CompressionAlgorithm::Gzip,
            Compression::Snappy => CompressionAlgorithm::Snappy,
            Compression::Lz4 => CompressionAlgorithm::Lz4,
            Compression::Zstd => CompressionAlgorithm::Zstd,
        });
    }
    spec.set_deduplication(new_topic.deduplication.as_ref().map(deduplication));
    spec
}

fn deduplication(new_topic: &Deduplication) -> fluvio::metadata::topic::Deduplication {
    fluvio::metadata::topic::Deduplication {
        bounds: Bounds { count: new_topic.count, age: new_topic.age_secs.map(Duration::from_secs) },
        filter: Filter {
            transform: Transform { uses: new_topic.uses.clone(), with: new_topic.with.clone() },
        },
    }
}
