//! Against a real cluster, that of `FLV_PROFILE_PATH`. Left out otherwise:
//!
//! `FLV_PROFILE_PATH=… cargo test --features full --test it fluvio::real -- --ignored`

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fluvio::metadata::topic::TopicSpec;
use fluvio::{Compression, Fluvio, RecordKey, TopicProducerConfigBuilder};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use usercom_sink::ack::Verdict;
use usercom_sink::config::source::FluvioSourceConfig as Settings;
use usercom_sink::source::fluvio::FluvioSource;
use usercom_sink::source::{ReadMode, Source};

use super::support::Notes;

const PARTITIONS: u32 = 2;

struct Topic {
    fluvio: Fluvio,
    name: String,
}

impl Topic {
    async fn create(partitions: u32) -> Self {
        let now = UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let name = format!("usercom-sink-{now}");
        let fluvio = Fluvio::connect().await.expect("a cluster");
        let topic = Self { fluvio, name };
        topic.make(partitions).await;
        topic
    }

    async fn make(&self, partitions: u32) {
        let spec = TopicSpec::new_computed(partitions, 1, None);
        let made = self.fluvio.admin().await.create(self.name.clone(), false, spec).await;
        made.expect("a topic");
        // Its servers hear of it a little later.
        sleep(Duration::from_secs(1)).await;
    }

    /// Uncompressed records of so many bytes each.
    async fn produce_large(&self, from: usize, count: usize, bytes: usize) {
        let config = TopicProducerConfigBuilder::default()
            .compression(Compression::None)
            .batch_size(16 * 1024 * 1024)
            .max_request_size(16 * 1024 * 1024)
            .linger(Duration::from_millis(20))
            .build()
            .expect("a producer's settings");
        let name = self.name.clone();
        let producer = self.fluvio.topic_producer_with_config(name, config).await;
        let producer = producer.expect("a producer");
        let pad = "x".repeat(bytes);
        for n in from..from + count {
            let value = format!("{{\"n\":{n},\"pad\":\"{pad}\"}}");
            producer.send(RecordKey::NULL, value).await.expect("it is taken");
        }
        producer.flush().await.expect("it is written");
    }

    async fn produce(&self, from: usize, count: usize) {
        let producer = self.fluvio.topic_producer(self.name.clone()).await.expect("a producer");
        for n in from..from + count {
            producer.send(RecordKey::NULL, format!("{{\"n\":{n}}}")).await.expect("it is taken");
        }
        producer.flush().await.expect("it is written");
    }

    async fn delete(&self) {
        let deleted = self.fluvio.admin().await.delete::<TopicSpec>(self.name.clone()).await;
        deleted.expect("the topic can be deleted");
    }

    /// Reads; delivers so many records, or all there are, and ends as it is told.
    async fn read(
        &self,
        notes: &Arc<Notes>,
        mode: ReadMode,
        deliver: usize,
        crash: bool,
    ) -> Vec<u64> {
        self.read_as(notes, mode, deliver, crash, None).await
    }

    /// As much, with so many bytes fetched at once, and a consumer of its own for each.
    async fn read_as(
        &self,
        notes: &Arc<Notes>,
        mode: ReadMode,
        deliver: usize,
        crash: bool,
        max_bytes: Option<u32>,
    ) -> Vec<u64> {
        let mut settings = Settings::new(&self.name);
        settings.max_bytes = max_bytes;
        settings.consumer = Some(format!("{}-{max_bytes:?}", self.name));
        let checkpoints = Arc::clone(notes) as usercom_sink::source::SharedCheckpoints;
        let source = FluvioSource::new("real", settings, mode, checkpoints).unwrap();
        let (out, mut from) = mpsc::channel(64);
        let (stop, mut task) = (CancellationToken::new(), JoinSet::new());
        task.spawn(Box::new(source).run(out, stop.clone()));
        let mut seen = Vec::new();
        while seen.len() < deliver {
            let Ok(Some(record)) = timeout(Duration::from_secs(60), from.recv()).await else {
                break;
            };
            let body: Value = serde_json::from_slice(&record.body).unwrap();
            seen.push(body["n"].as_u64().unwrap());
            record.ack.settle(Verdict::Delivered);
        }
        if crash {
            task.shutdown().await;
            return seen;
        }
        stop.cancel();
        while let Some(record) = from.recv().await {
            let body: Value = serde_json::from_slice(&record.body).unwrap();
            seen.push(body["n"].as_u64().unwrap());
            record.ack.settle(Verdict::Delivered);
        }
        task.join_next().await.unwrap().unwrap().unwrap();
        seen
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster, named by FLV_PROFILE_PATH"]
async fn offsets_of_a_real_cluster_lose_nothing() {
    // `once` ends at the end and keeps its place; a crash repeats at most a window and loses
    // nothing; a stop in peace repeats nothing.
    let topic = Topic::create(PARTITIONS).await;
    let notes = Arc::<Notes>::default();
    topic.produce(0, 300).await;
    let mut seen = topic.read(&notes, ReadMode::Once, usize::MAX, false).await;
    seen.sort_unstable();
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
    assert!(topic.read(&notes, ReadMode::Once, usize::MAX, false).await.is_empty());

    topic.produce(300, 200).await;
    let mut seen = topic.read(&notes, ReadMode::Follow, 100, true).await;
    seen.extend(topic.read(&notes, ReadMode::Once, usize::MAX, false).await);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (300..500).collect::<Vec<_>>());

    topic.produce(500, 50).await;
    let mut seen = topic.read(&notes, ReadMode::Follow, 50, false).await;
    seen.extend(topic.read(&notes, ReadMode::Once, usize::MAX, false).await);
    seen.sort_unstable();
    assert_eq!(seen, (500..550).collect::<Vec<_>>(), "each once");
    topic.delete().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster, named by FLV_PROFILE_PATH"]
async fn several_megabytes_of_one_real_partition_lose_nothing() {
    // 10,000 uncompressed records of 1 KB in one partition, in batches of megabytes, and one of 3
    // MB: whatever is fetched at once, every record comes once and in order, over a crash too.
    let topic = Topic::create(1).await;
    topic.produce_large(0, 5_000, 1_000).await;
    topic.produce_large(5_000, 1, 3_000_000).await;
    topic.produce_large(5_001, 4_999, 1_000).await;
    for max_bytes in [None, Some(100_000), Some(1_500)] {
        let notes = Arc::<Notes>::default();
        let begun = Instant::now();
        let mut seen = topic.read_as(&notes, ReadMode::Follow, 4_000, true, max_bytes).await;
        let rest = topic.read_as(&notes, ReadMode::Once, usize::MAX, false, max_bytes).await;
        let (last, first) = (seen[seen.len() - 1], rest[0]);
        println!("{max_bytes:?}: read again {}, {:?}", (last + 1) - first, begun.elapsed());
        assert!(last + 1 - first <= 1_000, "a window at most is read again");
        seen.truncate(usize::try_from(first).unwrap());
        seen.extend(rest);
        assert_eq!(seen, (0..10_000).collect::<Vec<_>>(), "{max_bytes:?}");
        let again = topic.read_as(&notes, ReadMode::Once, usize::MAX, false, max_bytes).await;
        assert!(again.is_empty());
    }
    topic.delete().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster, named by FLV_PROFILE_PATH"]
async fn a_real_topic_made_anew_is_read_from_its_beginning() {
    // Deleted and created again at once while a reader runs: it reads all of the new one.
    let topic = Topic::create(1).await;
    let notes = Arc::<Notes>::default();
    topic.produce(0, 500).await;
    let change = async {
        sleep(Duration::from_secs(3)).await;
        topic.delete().await;
        sleep(Duration::from_millis(300)).await;
        topic.make(1).await;
        topic.produce(1_000, 600).await;
    };
    let read = topic.read(&notes, ReadMode::Follow, 1_100, false);
    let (mut seen, ()) = tokio::join!(read, change);
    assert_eq!(seen.len(), 1_100);
    let new = seen.split_off(500);
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
    assert_eq!(new, (1_000..1_600).collect::<Vec<_>>());
    assert!(topic.read(&notes, ReadMode::Once, usize::MAX, false).await.is_empty());
    topic.delete().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, and needs a cluster, named by FLV_PROFILE_PATH"]
async fn how_fast_one_real_partition_is_read() {
    // 100,000 small records of one partition, delivered at once, with and without committed
    // offsets.
    let topic = Topic::create(1).await;
    topic.produce(0, 100_000).await;
    for _ in 0..3 {
        let notes = Arc::<Notes>::default();
        let begun = Instant::now();
        let seen = topic.read_as(&notes, ReadMode::Once, usize::MAX, false, Some(1_000_000)).await;
        println!("{} records in {:?}", seen.len(), begun.elapsed());
        let place = (topic.name.clone(), 0);
        let consumer = format!("{}-{:?}", topic.name, Some(1_000_000));
        topic.fluvio.delete_consumer_offset(consumer, place).await.expect("it is forgotten");
    }
    topic.delete().await;
}
