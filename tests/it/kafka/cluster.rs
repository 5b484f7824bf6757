//! Brokers for one test, and members of a group whose sink is the test.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use usercom_sink::ack::{Ack, Verdict};
use usercom_sink::config::source::KafkaSourceConfig as Settings;
use usercom_sink::record::Record;
use usercom_sink::source::kafka::KafkaSource;
use usercom_sink::source::{ReadMode, Source, SourceError};
use usercom_sink::telemetry::Metrics;

/// Longer than anything here may take.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// Brokers, and a topic that no other test uses. Real ones are named by
/// `USERCOM_TEST_KAFKA=host:port`, and
/// `USERCOM_TEST_KAFKA_BATCH` says how many records the tests' producer may put into one batch.
pub(super) struct Cluster {
    servers: String,
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
    keeps_texts: bool,
    /// The topic.
    pub(super) topic: String,
    /// The group.
    pub(super) group: String,
    partitions: i32,
    producer: FutureProducer,
}

impl Cluster {
    /// With a topic of so many partitions.
    pub(super) async fn start(partitions: i32) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let topic = format!("usercom-sink-test-{name}");
        let (servers, mock) = match std::env::var("USERCOM_TEST_KAFKA") {
            Ok(servers) => (servers, None),
            Err(_) => {
                let mock = MockCluster::new(3).unwrap();
                (mock.bootstrap_servers(), Some(mock))
            }
        };
        let mut producer = ClientConfig::new();
        producer.set("bootstrap.servers", &servers);
        if let Ok(most) = std::env::var("USERCOM_TEST_KAFKA_BATCH") {
            producer.set("batch.num.messages", most);
        }
        let producer = producer.create().unwrap();
        let group = format!("group-{name}");
        let mut cluster = Self {
            servers,
            mock,
            keeps_texts: false,
            topic: topic.clone(),
            group: format!("tries-{name}"),
            partitions,
            producer,
        };
        cluster.create(&topic, partitions).await;
        cluster.commit(0, 0, "kept");
        cluster.keeps_texts = cluster.commit_of(0).is_some_and(|(_, text)| text == "kept");
        cluster.group = group;
        cluster
    }

    /// Whether the brokers keep the texts next to commits, as Kafka does.
    pub(super) fn keeps_texts(&self) -> bool {
        self.keeps_texts
    }

    /// Makes another topic.
    pub(super) async fn create(&self, topic: &str, partitions: i32) {
        if let Some(mock) = &self.mock {
            return mock.create_topic(topic, partitions, 1).unwrap();
        }
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.servers).create().unwrap();
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for result in admin.create_topics(&[new], &AdminOptions::new()).await.unwrap() {
            result.unwrap();
        }
    }

    /// The brokers that can be broken; `None` where they are real.
    pub(super) fn mock(&self) -> Option<&MockCluster<'static, DefaultProducerContext>> {
        self.mock.as_ref()
    }

    pub(super) fn servers(&self) -> &str {
        &self.servers
    }

    /// Produces `{"n":n}` for each number, keyed by `key`.
    pub(super) async fn produce(&self, numbers: std::ops::Range<u32>, key: impl Fn(u32) -> String) {
        self.produce_bodies(numbers.map(|n| (key(n), format!("{{\"n\":{n}}}")))).await;
    }

    pub(super) async fn produce_bodies(&self, records: impl Iterator<Item = (String, String)>) {
        let records: Vec<_> = records.collect();
        let sent = records.iter().map(|(key, body)| {
            let headers = OwnedHeaders::new()
                .insert(Header { key: "kind", value: Some("test") })
                .insert(Header { key: "raw", value: Some(&b"\xff\x01"[..]) });
            let record = FutureRecord::to(&self.topic).key(key).payload(body).headers(headers);
            self.producer.send(record, LONG)
        });
        for result in futures::future::join_all(sent).await {
            result.unwrap();
        }
    }

    /// Produces a message without a payload.
    pub(super) async fn produce_tombstone(&self, key: &str) {
        let record: FutureRecord<'_, str, str> = FutureRecord::to(&self.topic).key(key);
        self.producer.send(record, LONG).await.unwrap();
    }

    /// What the group has committed, by partition. Partitions without are left out.
    pub(super) fn committed(&self) -> BTreeMap<i32, i64> {
        let consumer = self.outsider();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.topic, 0, self.partitions - 1);
        let committed = consumer.committed_offsets(list, LONG).unwrap();
        let offsets = committed.elements().into_iter().filter_map(|e| match e.offset() {
            Offset::Offset(offset) => Some((e.partition(), offset)),
            _ => None,
        });
        offsets.collect()
    }

    fn outsider(&self) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .set("group.id", &self.group)
            .create()
            .unwrap()
    }

    /// What the group has committed of one partition, and the text next to it.
    pub(super) fn commit_of(&self, partition: i32) -> Option<(i64, String)> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        let committed = self.outsider().committed_offsets(list, LONG).unwrap();
        let element = &committed.elements()[0];
        match element.offset() {
            Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
            _ => None,
        }
    }

    /// Commits for the group while it has no members.
    pub(super) fn commit(&self, partition: i32, offset: i64, text: &str) {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&self.topic, partition);
        element.set_offset(Offset::Offset(offset)).unwrap();
        element.set_metadata(text);
        self.outsider().commit(&list, CommitMode::Sync).unwrap();
    }

    /// How many offsets the group has committed in all.
    pub(super) fn committed_sum(&self) -> i64 {
        self.committed().values().sum()
    }

    /// Waits until so many offsets are committed, and no more.
    pub(super) async fn until_committed(&self, sum: i64) {
        let deadline = Instant::now() + LONG;
        loop {
            let committed = self.committed_sum();
            assert!(committed <= sum, "{committed} committed, {sum} settled");
            if committed == sum {
                return;
            }
            assert!(Instant::now() < deadline, "{committed} of {sum} committed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Settings of a member, with more in JSON.
    pub(super) fn settings(&self, more: serde_json::Value) -> Settings {
        let mut settings = serde_json::json!({
            "bootstrap_servers": self.servers,
            "group_id": self.group,
            "topics": [self.topic],
            "commit_interval_ms": 100,
            "session_timeout_ms": 6000,
        });
        let more = more.as_object().unwrap().clone();
        settings.as_object_mut().unwrap().extend(more);
        serde_json::from_value(settings).unwrap()
    }

    /// A member that reads until it is stopped.
    pub(super) fn join(&self, more: serde_json::Value) -> Member {
        self.member(more, ReadMode::Follow)
    }

    pub(super) fn member(&self, more: serde_json::Value, mode: ReadMode) -> Member {
        let mut source = KafkaSource::new("app", self.settings(more), mode).unwrap();
        let metrics = Metrics::default();
        source.set_lag_gauge(metrics.source("app", "kafka").lag());
        let (out, records) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let running = Box::new(source).run(out, stop.clone());
        let mut end = JoinSet::new();
        end.spawn(running);
        Member { records, stop, end, metrics }
    }
}

/// A record, and its place by what it says of itself.
pub(super) struct Got {
    pub(super) n: u64,
    pub(super) partition: i64,
    pub(super) offset: i64,
    pub(super) key: String,
    pub(super) record: Record,
}

impl Got {
    fn of(record: Record) -> Self {
        let body: serde_json::Value = serde_json::from_slice(&record.body).unwrap_or_default();
        let meta: serde_json::Value =
            serde_json::from_slice(record.meta.as_ref().expect("Kafka's records have meta"))
                .unwrap();
        Self {
            n: body["n"].as_u64().unwrap_or_default(),
            partition: meta["partition"].as_i64().unwrap(),
            offset: meta["offset"].as_i64().unwrap(),
            key: meta["key"].as_str().unwrap_or_default().to_owned(),
            record,
        }
    }

    pub(super) fn settle(self, verdict: Verdict) -> u64 {
        self.record.ack.settle(verdict);
        self.n
    }

    pub(super) fn deliver(self) {
        self.settle(Verdict::Delivered);
    }

    pub(super) fn ack(self) -> Ack {
        self.record.ack
    }
}

/// One member of the group; the test is its sink.
pub(super) struct Member {
    records: mpsc::Receiver<Record>,
    stop: CancellationToken,
    end: JoinSet<Result<(), SourceError>>,
    pub(super) metrics: Metrics,
}

impl Member {
    /// The next record; `None` once the source has ended.
    pub(super) async fn next(&mut self) -> Option<Got> {
        let next = tokio::time::timeout(LONG, self.records.recv()).await;
        next.expect("a record within the limit").map(Got::of)
    }

    /// The next record, if one comes soon.
    pub(super) async fn soon(&mut self, limit: Duration) -> Option<Got> {
        tokio::time::timeout(limit, self.records.recv()).await.ok().flatten().map(Got::of)
    }

    pub(super) async fn take(&mut self, count: usize) -> Vec<Got> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.push(self.next().await.expect("more records"));
        }
        taken
    }

    /// Asks it to stop.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Drops what it still sends, and waits for its end.
    pub(super) async fn leave(mut self) -> Result<(), SourceError> {
        self.stop.cancel();
        self.records.close();
        while self.records.recv().await.is_some() {}
        self.ended().await
    }

    /// Waits for its end.
    pub(super) async fn ended(mut self) -> Result<(), SourceError> {
        let end = tokio::time::timeout(LONG, self.end.join_next()).await;
        end.expect("an end within the limit").expect("it was started").unwrap()
    }
}
