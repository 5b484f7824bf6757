//! Stock Vector's `vector` sink points at us: what it sends arrives, whatever happens on the way.

#![expect(clippy::print_stdout, reason = "the figures are half of what these tests are for")]

mod examples;
mod hostile;
mod order;
mod process;
mod tls;
mod values;

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use usercom_sink::ack::Verdict;
use usercom_sink::record::Record;
use usercom_sink::source::vector::VectorSource;
use usercom_sink::source::vector::generated::event::event_wrapper::Event;
use usercom_sink::source::vector::generated::event::value::Kind;
use usercom_sink::source::vector::generated::event::{EventWrapper, Log, Metadata, Value};
use usercom_sink::source::vector::generated::vector::PushEventsRequest;
use usercom_sink::source::vector::generated::vector::vector_client::VectorClient;
use usercom_sink::source::{ReadMode, Source};

/// A value.
fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

/// JSON as an event's value.
fn of_json(json: &Json) -> Value {
    value(match json {
        Json::Null => Kind::Null(0),
        Json::Bool(truth) => Kind::Boolean(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Kind::Integer(integer),
            None => Kind::Float(number.as_f64().unwrap()),
        },
        Json::String(text) => Kind::RawBytes(text.clone().into()),
        Json::Array(items) => {
            Kind::Array(usercom_sink::source::vector::generated::event::ValueArray {
                items: items.iter().map(of_json).collect(),
            })
        }
        Json::Object(fields) => {
            Kind::Map(usercom_sink::source::vector::generated::event::ValueMap {
                fields: fields.iter().map(|(name, value)| (name.clone(), of_json(value))).collect(),
            })
        }
    })
}

/// A log event as Vector sends it, with its own id.
fn log(json: &Json, id: u128) -> EventWrapper {
    let fields = json.as_object().unwrap();
    let metadata = Metadata {
        source_id: Some("in".into()),
        source_event_id: id.to_be_bytes().to_vec(),
        ..Metadata::default()
    };
    let log = Log {
        fields: fields.iter().map(|(name, value)| (name.clone(), of_json(value))).collect(),
        metadata_full: Some(metadata),
        ..Log::default()
    };
    EventWrapper { event: Some(Event::Log(log)) }
}

fn request(events: Vec<EventWrapper>) -> PushEventsRequest {
    PushEventsRequest { events }
}

async fn connect(port: u16) -> VectorClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    for _ in 0..600 {
        if let Ok(channel) = endpoint.connect().await {
            return VectorClient::new(channel).max_encoding_message_size(usize::MAX);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing listens on {port}");
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// A source by itself.
struct Bench {
    port: u16,
    records: mpsc::Receiver<Record>,
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl Bench {
    async fn start(more: Json) -> Self {
        let port = free_port().await;
        let mut settings = json!({ "address": format!("127.0.0.1:{port}") });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let settings = serde_json::from_value(settings).unwrap();
        let source = VectorSource::new("in", settings, ReadMode::Follow).unwrap();
        let (out, records) = mpsc::channel(1024);
        let stop = CancellationToken::new();
        let running = Box::new(source).run(out, stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { running.await.unwrap() });
        Self { port, records, stop, running: tasks }
    }

    /// Takes so many records and settles them.
    async fn settle(&mut self, many: usize, verdict: Verdict) -> Vec<Record> {
        let mut taken = Vec::new();
        while taken.len() < many {
            let mut record = self.records.recv().await.unwrap();
            let ack = std::mem::replace(&mut record.ack, usercom_sink::ack::Ack::noop());
            ack.settle(verdict);
            taken.push(record);
        }
        taken
    }

    async fn end(mut self) {
        self.stop.cancel();
        let end = tokio::time::timeout(Duration::from_secs(20), self.running.join_next());
        end.await.expect("it ends").unwrap().unwrap();
    }
}
