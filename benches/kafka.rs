//! The Kafka source next to a bare consumer, on the same topic of the same mock cluster, in turns
//! in one run: alone, through a sink that no record concerns, and through one that sends each
//! record to a server that says yes to everything.
//!
//!   cargo bench --features kafka --bench kafka

// A benchmark may say `expect`, and it says its result.
#![allow(clippy::print_stdout)]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use futures::StreamExt;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use usercom_sink::ack::Verdict;
use usercom_sink::buffer::Store;
use usercom_sink::config::sink::UsercomSink;
use usercom_sink::config::source::KafkaSourceConfig as Settings;
use usercom_sink::sink::{Destination, OnAuthFailure, SinkContext, SinkFactory};
use usercom_sink::source::kafka::KafkaSource;
use usercom_sink::source::{ReadMode, Source};
use usercom_sink::telemetry::Metrics;

const RECORDS: u32 = 200_000;
/// Of these are sent one by one, which takes longer.
const SENT: u32 = 40_000;
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

fn member(servers: &str, group: String) -> Box<KafkaSource> {
    let settings: Settings = serde_json::from_value(json!({
        "bootstrap_servers": servers,
        "group_id": group,
        "topics": [TOPIC],
        "max_in_flight": 10_000,
    }))
    .expect("settings are good");
    Box::new(KafkaSource::new("bench", settings, ReadMode::Follow).expect("settings are good"))
}

/// Records a second of the source, whose records are delivered as soon as they come.
async fn source(servers: &str, round: u32) -> f64 {
    let source = member(servers, format!("source-{round}"));
    let (out, mut records) = tokio::sync::mpsc::channel(1024);
    let stop = CancellationToken::new();
    let running = source.run(out, stop.clone());
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
    f64::from(RECORDS) / seconds
}

/// Records a second of the source with a sink after it.
async fn with_sink(servers: &str, group: String, count: u32, sink: Value) -> f64 {
    let settings: UsercomSink = serde_json::from_value(sink).expect("settings are good");
    let context = SinkContext {
        name: "crm".into(),
        store: Store::in_memory().expect("memory"),
        metrics: Metrics::default().sink("crm"),
        destination: Destination::Account,
        on_auth_failure: OnAuthFailure::Abort,
        leave: CancellationToken::new(),
        abort: CancellationToken::new(),
        input_drained: CancellationToken::new(),
    };
    let (sink, _) = settings.build(context).await.expect("a sink");
    let (out, records) = tokio::sync::mpsc::channel(1024);
    let stop = CancellationToken::new();
    let running = member(servers, group).run(out, stop.clone());
    let first = Arc::new(OnceLock::new());
    let began = Arc::clone(&first);
    let records = futures::stream::unfold(records, |mut records| async move {
        records.recv().await.map(|record| (record, records))
    });
    let records = records.take(count as usize).inspect(move |_| {
        began.get_or_init(Instant::now);
    });
    let sending = async {
        sink.run(records.boxed()).await.expect("everything is settled");
        let seconds = first.get().map_or(0.0, |first| first.elapsed().as_secs_f64());
        stop.cancel();
        seconds
    };
    let (end, seconds) = tokio::join!(running, sending);
    end.expect("the source ends well");
    f64::from(count) / seconds
}

/// A server that says yes to everything; its address.
async fn blackhole(tasks: &mut JoinSet<std::io::Result<()>>) -> String {
    let nothing = r#"{"count":0,"next":null,"previous":null,"results":[]}"#;
    let yes =
        get(move || async move { nothing }).post(|| async { (StatusCode::CREATED, r#"{"id":1}"#) });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn(async move { axum::serve(listener, Router::new().fallback_service(yes)).await });
    format!("http://{address}/api/public/")
}

fn main() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic(TOPIC, PARTITIONS, 1).expect("a topic");
    let servers = cluster.bootstrap_servers();
    fill(&servers);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let endpoint = blackhole(&mut tasks).await;
        let sink = |more: Value| {
            let mut sink = json!({ "inputs": ["bench"], "endpoint": endpoint, "api_key": "key" });
            let more = more.as_object().expect("an object").clone();
            sink.as_object_mut().expect("an object").extend(more);
            sink
        };
        let rule = json!({ "name": "none", "call": "track", "when": { ".type": "never" },
            "fields": { "user_id": ".userId", "event": ".event" } });
        let idle = sink(json!({ "mapping": [rule] }));
        let busy = sink(json!({ "preset": "segment" }));
        let mut best = [0.0_f64; 4];
        for round in 0..ROUNDS {
            let rates = [
                f64::from(RECORDS) / bare(&servers, round),
                source(&servers, round).await,
                with_sink(&servers, format!("idle-{round}"), RECORDS, idle.clone()).await,
                with_sink(&servers, format!("busy-{round}"), SENT, busy.clone()).await,
            ];
            best = std::array::from_fn(|n| best[n].max(rates[n]));
        }
        let names = ["bare consumer", "source alone", "sink, no request", "sink, one request each"];
        for (name, rate) in names.iter().zip(best) {
            println!("{name:<24}{rate:>10.0} records/s, ratio {:.3}", rate / best[0]);
        }
    });
}
