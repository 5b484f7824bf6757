//! Connections: accepting them, no more than may be, TLS, and the end.
//!
//! Invariant: after the stop no request is left without an answer that was taken before it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::door::DoorLayer;
use super::generated::vector::vector_server::VectorServer;
use super::service::Service;
use crate::config::source::{Acknowledge, VectorSource as Settings};
use crate::record::{AckOn, Record};
use crate::source::push::Push;

/// How long accepting pauses after it failed: mostly for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a silent connection is asked whether it is still there, and how long it may think.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);

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
    let mut config = ServerTlsConfig::new()
        .identity(identity)
        .timeout(Duration::from_secs(settings.read_timeout_secs));
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
    settings: &Settings,
    out: mpsc::Sender<Record>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let push = Arc::new(Push::new(out));
    let tasks = TaskTracker::new();
    let service = Service {
        push: Arc::clone(&push),
        ack_on: match settings.acknowledge {
            Acknowledge::Buffer => AckOn::Kept,
            Acknowledge::Delivery => AckOn::Settled,
        },
        stop: stop.clone(),
        tasks: tasks.clone(),
    };
    let vector = VectorServer::new(service)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(settings.max_message_bytes);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status(NAME, tonic_health::ServingStatus::Serving).await;
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls)?;
    }
    let read_timeout = Duration::from_secs(settings.read_timeout_secs);
    let served = server
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .tcp_nodelay(true)
        .layer(DoorLayer::new(settings.max_message_bytes, read_timeout))
        .add_service(health)
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
    served
}

/// Connections as they come, each with its place.
fn incoming(
    listener: TcpListener,
    most: usize,
) -> impl Stream<Item = io::Result<Placed>> + Send + 'static {
    let places = Arc::new(Semaphore::new(most));
    futures::stream::unfold((listener, places), |(listener, places)| async move {
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(PAUSE).await;
                }
            }
        };
        Some((Ok(Placed { stream, _place: place }), (listener, places)))
    })
}

/// A connection that holds its place until it ends.
struct Placed {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl Connected for Placed {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl Placed {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl AsyncRead for Placed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
