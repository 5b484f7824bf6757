//! The Kafka source beside a bare consumer, on the same topic of the same mock cluster, as a ratio:
//! what decoding, acknowledging and committing cost.

// A benchmark may say `expect`, and it says its result.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use usercom_sink::ack::Verdict;
use usercom_sink::config::source::KafkaSource as Settings;
use usercom_sink::source::kafka::KafkaSource;
use usercom_sink::source::{ReadMode, Source};

const RECORDS: u32 = 200_000;
const PARTITIONS: i32 = 6;
const TOPIC: &str = "events";
const ROUNDS: u32 = 3;

fn fill(servers: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("queue.buffering.max.messages", "1000000")
        .set("linger.ms", "20")
        .create()
        .expect("settings are good");
    for n in 0..RECORDS {
        let key = format!("u{}", n % 500);
        let payload = format!(
            r#"{{"type":"track","userId":"{key}","event":"Step","properties":{{"n":{n},"sum":12.5}}}}"#
        );
        let record = BaseRecord::to(TOPIC).key(&key).payload(&payload);
        producer.send(record).unwrap_or_else(|(error, _)| panic!("{error}"));
        if n % 1000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(120)).expect("everything is produced");
}

/// Seconds between the first and the last message of a consumer that does nothing else.
fn bare(servers: &str, round: u32) -> f64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", format!("bare-{round}"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .expect("settings are good");
    consumer.subscribe(&[TOPIC]).expect("a topic");
    let mut first = None;
    let mut read = 0;
    while read < RECORDS {
        if let Some(Ok(_)) = consumer.poll(Duration::from_millis(100)) {
            first.get_or_insert_with(Instant::now);
            read += 1;
        }
    }
    first.map_or(0.0, |first| first.elapsed().as_secs_f64())
}

/// The same for the source, whose records are delivered as soon as they come.
async fn source(servers: &str, round: u32) -> f64 {
    let settings: Settings = serde_json::from_value(serde_json::json!({
        "bootstrap_servers": servers,
        "group_id": format!("source-{round}"),
        "topics": [TOPIC],
        "max_in_flight": 10_000,
    }))
    .expect("settings are good");
    let source = KafkaSource::new("bench", settings, ReadMode::Follow).expect("settings are good");
    let (out, mut records) = tokio::sync::mpsc::channel(1024);
    let stop = CancellationToken::new();
    let running = Box::new(source).run(out, stop.clone());
    let reading = async {
        let mut first = None;
        let mut batch = Vec::new();
        let mut read = 0;
        while read < RECORDS as usize {
            read += records.recv_many(&mut batch, 256).await;
            first.get_or_insert_with(Instant::now);
            for record in batch.drain(..) {
                record.ack.settle(Verdict::Delivered);
            }
        }
        stop.cancel();
        first.map_or(0.0, |first| first.elapsed().as_secs_f64())
    };
    let (end, seconds) = tokio::join!(running, reading);
    end.expect("the source ends well");
    seconds
}

fn main() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic(TOPIC, PARTITIONS, 1).expect("a topic");
    let servers = cluster.bootstrap_servers();
    fill(&servers);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for round in 0..ROUNDS {
        let bare = bare(&servers, round);
        let ours = runtime.block_on(source(&servers, round));
        let per_second = |seconds: f64| f64::from(RECORDS) / seconds;
        println!(
            "{RECORDS} records: bare {:.0}/s, source {:.0}/s, ratio {:.2}",
            per_second(bare),
            per_second(ours),
            bare / ours
        );
    }
}
