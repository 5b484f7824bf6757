//! The gRPC source into a disk buffer next to a bare server that answers OK to the same batches, in
//! turns in one run: what decoding, storing and acknowledging cost.
//!
//!   cargo bench --features vector --bench grpc

// A benchmark may say `expect`, and it says its result.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use usercom_sink::buffer::{self, Access, Store};
use usercom_sink::config::sink::{BufferConfig, BufferKind};
use usercom_sink::source::vector::VectorSource;
use usercom_sink::source::vector::generated::event::event_wrapper::Event;
use usercom_sink::source::vector::generated::event::value::Kind;
use usercom_sink::source::vector::generated::event::{EventWrapper, Log, Metadata, Value};
use usercom_sink::source::vector::generated::vector::vector_client::VectorClient;
use usercom_sink::source::vector::generated::vector::vector_server::{Vector, VectorServer};
use usercom_sink::source::vector::generated::vector::{
    HealthCheckRequest, HealthCheckResponse, PushEventsRequest, PushEventsResponse,
};
use usercom_sink::source::{ReadMode, Source};

const BATCHES: u32 = 200;
const BATCH: u32 = 1_000;
const ROUNDS: u32 = 3;

/// Says OK to everything.
struct Bare;

#[tonic::async_trait]
impl Vector for Bare {
    async fn push_events(
        &self,
        _: Request<PushEventsRequest>,
    ) -> Result<Response<PushEventsResponse>, Status> {
        Ok(Response::new(PushEventsResponse {}))
    }

    async fn health_check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: 0 }))
    }
}

fn batch(first: u32) -> PushEventsRequest {
    let text = |text: String| Value { kind: Some(Kind::RawBytes(text.into())) };
    let event = |n: u32| {
        let fields = [
            ("type", text("track".into())),
            ("userId", text(format!("user-{}", n % 500))),
            ("event", text("Step".into())),
            ("n", Value { kind: Some(Kind::Integer(n.into())) }),
            ("path", text("/products/list?page=3".into())),
        ];
        let id = u128::from(n).to_be_bytes().to_vec();
        let metadata = Metadata { source_event_id: id, ..Metadata::default() };
        let fields = fields.map(|(name, value)| (name.to_owned(), value)).into();
        let log = Log { fields, metadata_full: Some(metadata), ..Log::default() };
        EventWrapper { event: Some(Event::Log(log)) }
    };
    PushEventsRequest { events: (first..first + BATCH).map(event).collect() }
}

/// Pushes all batches, one after the other; records a second.
async fn push(port: u16) -> f64 {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("a URL");
    let channel = loop {
        match endpoint.connect().await {
            Ok(channel) => break channel,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let mut client = VectorClient::new(channel).send_compressed(CompressionEncoding::Gzip);
    let batches: Vec<_> = (0..BATCHES).map(|n| batch(n * BATCH)).collect();
    let started = Instant::now();
    for batch in batches {
        client.push_events(batch).await.expect("it is taken");
    }
    f64::from(BATCHES * BATCH) / started.elapsed().as_secs_f64()
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("an address").port()
}

async fn bare() -> f64 {
    let port = free_port().await;
    let mut tasks = JoinSet::new();
    let service = VectorServer::new(Bare)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(100 << 20);
    let address = ([127, 0, 0, 1], port).into();
    tasks.spawn(Server::builder().add_service(service).serve(address));
    push(port).await
}

async fn source() -> f64 {
    let port = free_port().await;
    let settings = serde_json::json!({ "address": format!("127.0.0.1:{port}") });
    let settings = serde_json::from_value(settings).expect("settings are good");
    let source = VectorSource::new("bench", settings, ReadMode::Follow).expect("a source");
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path(), Access::Owner).expect("a store");
    let stop = CancellationToken::new();
    let config = BufferConfig { kind: BufferKind::Disk, ..BufferConfig::default() };
    let buffer = buffer::open(&config, "crm", store, stop.clone()).await.expect("a buffer");
    let (out, records) = mpsc::channel(1024);
    let mut tasks = JoinSet::new();
    let running = Box::new(source).run(out, stop.clone());
    tasks.spawn(async move { running.await.expect("it runs") });
    tasks.spawn(async move {
        let records = futures::stream::unfold(records, |mut records| async move {
            records.recv().await.map(|record| (record, records))
        });
        let mut chunks = Box::pin(records.ready_chunks(512));
        while let Some(chunk) = chunks.next().await {
            buffer.push(chunk).await.expect("there is room");
        }
    });
    let rate = push(port).await;
    stop.cancel();
    rate
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (mut best_bare, mut best_source) = (0.0_f64, 0.0_f64);
        for _ in 0..ROUNDS {
            best_bare = best_bare.max(bare().await);
            best_source = best_source.max(source().await);
        }
        println!("bare server:        {best_bare:>10.0} records/s");
        println!("source, disk buffer:{best_source:>10.0} records/s");
        println!("ratio:              {:>10.2}", best_source / best_bare);
    });
}
