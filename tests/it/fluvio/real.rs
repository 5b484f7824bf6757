//! Against a real cluster, that of `FLV_PROFILE_PATH`. Left out otherwise:
//!
//! `FLV_PROFILE_PATH=… cargo test --features full --test it fluvio::real -- --ignored`

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fluvio::metadata::topic::TopicSpec;
use fluvio::{Fluvio, RecordKey};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use usercom_sink::ack::Verdict;
use usercom_sink::config::source::FluvioSource as Settings;
use usercom_sink::source::fluvio::FluvioSource;
use usercom_sink::source::{ReadMode, Source};

use super::support::Notes;

const PARTITIONS: u32 = 2;

struct Topic {
    fluvio: Fluvio,
    name: String,
}

impl Topic {
    async fn create() -> Self {
        let now = UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let name = format!("usercom-sink-{now}");
        let fluvio = Fluvio::connect().await.expect("a cluster");
        let spec = TopicSpec::new_computed(PARTITIONS, 1, None);
        fluvio.admin().await.create(name.clone(), false, spec).await.expect("a topic");
        Self { fluvio, name }
    }

    async fn produce(&self, from: usize, count: usize) {
        let producer = self.fluvio.topic_producer(self.name.clone()).await.expect("a producer");
        for n in from..from + count {
            producer.send(RecordKey::NULL, format!("{{\"n\":{n}}}")).await.expect("it is taken");
        }
        producer.flush().await.expect("it is written");
    }

    async fn delete(self) {
        let deleted = self.fluvio.admin().await.delete::<TopicSpec>(self.name).await;
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
        let settings = Settings::new(&self.name);
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
    let topic = Topic::create().await;
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
