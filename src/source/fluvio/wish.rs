//! A topic as it is to be made, in the words of Fluvio's client.

use std::time::Duration;

use fluvio::metadata::topic::{
    Bounds, CleanupPolicy, CompressionAlgorithm, Filter, SegmentBasedPolicy, TopicSpec,
    TopicStorageConfig, Transform,
};

use super::cluster::{Compression, Deduplication, TopicWish};

/// The topic's specification.
pub(super) fn topic_spec(wish: &TopicWish) -> TopicSpec {
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
