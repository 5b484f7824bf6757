//! The gRPC server: TLS, limits, and shutdown.
//!
//! # Invariants
//!
//! A request that was received before the stop is answered.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::service::Routes;

use super::admission::{AdmissionService, AdmissionSettings};
use super::connection::{GrpcConnection, incoming};
use super::generated::vector::vector_server::VectorServer;
use super::service::VectorService;
use super::unwanted::UnwantedEvents;
use crate::config::source::{Acknowledge, VectorSourceConfig as Settings};
use crate::record::{AckOn, Record};
use crate::source::ingest::RequestIngest;
use crate::telemetry::SourceMetrics;

/// How often a silent connection is pinged, and how long it has to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long connections have to close once everything is settled.
const IDLE_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Concurrent calls of one connection. Vector makes 200 at most.
const MAX_STREAMS: u32 = 256;

/// How many unread bytes a connection and each of its calls may have.
const CONNECTION_WINDOW: u32 = 512 << 10;
const STREAM_WINDOW: u32 = 256 << 10;

/// The largest message after admission, which takes the events out.
const MAX_SMALL_MESSAGE: usize = 1024;

/// The service name that load balancers use in health checks.
const HEALTH_SERVICE: &str = "vector.Vector";

/// Serves until `stop` and until all received records are settled.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    (name, settings): (&str, &Settings),
    metrics: Option<SourceMetrics>,
    out: mpsc::Sender<Record>,
    stop: CancellationToken,
) {
    let push = Arc::new(RequestIngest::new(out, metrics.as_ref()));
    let tasks = TaskTracker::new();
    let unwanted = Arc::new(UnwantedEvents::new(name, metrics.clone()));
    let service =
        VectorService { push: Arc::clone(&push), stop: stop.clone(), tasks: tasks.clone() };
    let vector = VectorServer::new(service).max_decoding_message_size(MAX_SMALL_MESSAGE);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status(HEALTH_SERVICE, tonic_health::ServingStatus::Serving).await;
    let health = health.max_decoding_message_size(MAX_SMALL_MESSAGE);
    let admission = AdmissionService::new(
        AdmissionSettings {
            source: name.to_owned(),
            largest: settings.max_message_bytes,
            read_timeout: Duration::from_secs(settings.read_timeout_secs),
            ack_on: match settings.acknowledge {
                Acknowledge::Buffer => AckOn::Persisted,
                Acknowledge::Delivery => AckOn::Finalized,
            },
            metrics,
            unwanted: Arc::clone(&unwanted),
            tasks: tasks.clone(),
        },
        Routes::new(vector).add_service(health).prepare(),
    );
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let accepting = accept(
        listener,
        settings.max_connections,
        acceptor,
        &admission,
        &graceful,
        &mut connections,
    );
    tokio::select! {
        () = accepting => {}
        () = stop.cancelled() => {}
    }
    let settled = async {
        // Events of clients that disconnected may still be in progress.
        tasks.close();
        tasks.wait().await;
        push.wait_until_idle().await;
    };
    // Each connection is asked to close, and closes after its last response.
    let (mut settled, mut ended) = (pin!(settled), pin!(graceful.shutdown()));
    tokio::select! {
        () = &mut ended => settled.await,
        () = &mut settled => drop(timeout(IDLE_CLOSE_TIMEOUT, ended).await),
    }
    connections.shutdown().await;
    unwanted.finish();
}

async fn accept(
    listener: TcpListener,
    most: usize,
    acceptor: Option<TlsAcceptor>,
    admission: &AdmissionService,
    graceful: &GracefulShutdown,
    connections: &mut JoinSet<()>,
) {
    let mut incoming = pin!(incoming(listener, most));
    while let Some(placed) = incoming.next().await {
        while connections.try_join_next().is_some() {}
        let (admission, acceptor, watcher) =
            (admission.clone(), acceptor.clone(), graceful.watcher());
        connections.spawn(async move {
            let connection = placed.connection();
            let Some(acceptor) = acceptor else {
                return serve_grpc(placed, connection, admission, watcher).await;
            };
            match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(placed)).await {
                Ok(Ok(stream)) => serve_grpc(stream, connection, admission, watcher).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        });
    }
}

async fn serve_grpc<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    connection: Arc<GrpcConnection>,
    admission: AdmissionService,
    watcher: Watcher,
) {
    // hyper calls this in the order in which requests arrive and runs the futures concurrently.
    let service = service_fn(move |request: Request<Incoming>| {
        admission.call(&connection, request.map(Body::new))
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(KEEPALIVE_INTERVAL))
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}
