//! The gRPC server: TLS, limits, and the end.
//!
//! # Invariants
//! After the stop no request is left without an answer that was taken before it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::connection::incoming;
use super::door::{DoorLayer, DoorSettings};
use super::generated::vector::vector_server::VectorServer;
use super::service::Service;
use super::unwanted::Unwanted;
use crate::config::source::{Acknowledge, VectorSource as Settings};
use crate::record::{AckOn, Record};
use crate::source::push::Push;
use crate::telemetry::SourceMetrics;

/// How often a silent connection is asked whether it is still there, and how long it may think.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls of one connection at once. Vector makes 200 at most.
const MAX_STREAMS: u32 = 256;

/// What a connection and each of its calls may send before it was read, in bytes.
const CONNECTION_WINDOW: u32 = 512 << 10;
const STREAM_WINDOW: u32 = 256 << 10;

/// The largest message that gets past the door: the door takes the events out.
const MAX_SMALL_MESSAGE: usize = 1024;

/// The name under which load balancers ask for health.
const NAME: &str = "vector.Vector";

/// The TLS side, or `None` where connections are not encrypted.
pub(super) fn tls(settings: &Settings) -> io::Result<Option<ServerTlsConfig>> {
    let tls = &settings.tls;
    if !tls.enabled {
        return Ok(None);
    }
    let read = |file: &Option<std::path::PathBuf>, key: &str| {
        let file =
            file.as_deref().ok_or_else(|| io::Error::other(format!("`tls.{key}` is missing")))?;
        std::fs::read(file)
            .map_err(|error| io::Error::other(format!("{}: {error}", file.display())))
    };
    let identity =
        Identity::from_pem(read(&tls.crt_file, "crt_file")?, read(&tls.key_file, "key_file")?);
    let mut config = ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE_TIMEOUT);
    if tls.ca_file.is_some() {
        let authorities = Certificate::from_pem(read(&tls.ca_file, "ca_file")?);
        config = config.client_ca_root(authorities).client_auth_optional(!tls.verify_certificate);
    }
    Ok(Some(config))
}

/// Serves until `stop` and until what was taken is settled.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<ServerTlsConfig>,
    (name, settings): (&str, &Settings),
    metrics: Option<SourceMetrics>,
    out: mpsc::Sender<Record>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let push = Arc::new(Push::new(out));
    let tasks = TaskTracker::new();
    let unwanted = Arc::new(Unwanted::new(name, metrics.clone()));
    let service = Service { push: Arc::clone(&push), stop: stop.clone(), tasks: tasks.clone() };
    let vector = VectorServer::new(service).max_decoding_message_size(MAX_SMALL_MESSAGE);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status(NAME, tonic_health::ServingStatus::Serving).await;
    let door = DoorLayer::new(DoorSettings {
        source: name.to_owned(),
        largest: settings.max_message_bytes,
        read_timeout: Duration::from_secs(settings.read_timeout_secs),
        ack_on: match settings.acknowledge {
            Acknowledge::Buffer => AckOn::Kept,
            Acknowledge::Delivery => AckOn::Settled,
        },
        metrics,
        unwanted: Arc::clone(&unwanted),
        tasks: tasks.clone(),
    });
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls)?;
    }
    let served = server
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .layer(door)
        .add_service(health.max_decoding_message_size(MAX_SMALL_MESSAGE))
        .add_service(vector)
        .serve_with_incoming_shutdown(
            incoming(listener, settings.max_connections),
            stop.cancelled_owned(),
        )
        .await;
    // Calls whose senders went have left their events on the way.
    tasks.close();
    tasks.wait().await;
    push.landed().await;
    unwanted.finish();
    served
}
