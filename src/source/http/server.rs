//! Accepts connections up to a limit, with a timeout on every wait, and shuts down.
//!
//! # Invariants
//!
//! A request that was received before the stop is answered.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::handler::RequestHandler;
use crate::config::source::HttpSourceConfig as Settings;
use crate::listener::BoundedListener;

/// How long idle connections have to close once everything is settled.
const IDLE_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The most bytes of a request's head, and of the block by which a body is read.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How long a TLS handshake and the head of a request may take: a silent connection releases its
/// slot soon.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Limits of connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionLimits {
    connections: usize,
    read: Duration,
}

impl ConnectionLimits {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            connections: settings.max_connections,
            read: Duration::from_secs(settings.read_timeout_secs),
        }
    }
}

impl ConnectionLimits {
    /// How long a handshake and the head of a request may take.
    fn head(self) -> Duration {
        self.read.min(HEAD_TIMEOUT)
    }
}

/// Serves until `stop` and until all received records are settled. In between, new requests are
/// refused.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    handler: Arc<RequestHandler>,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    let listener = BoundedListener::new(listener, limits.connections, "http source");
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let end = async {
        stop.cancelled().await;
        handler.settled().await;
    };
    tokio::select! {
        () = accept(&listener, acceptor, &handler, limits, &graceful, &mut connections) => {}
        () = end => {}
    }
    drop(listener);
    // Idle connections close at once, others after their response.
    drop(timeout(IDLE_CLOSE_TIMEOUT, graceful.shutdown()).await);
    connections.shutdown().await;
}

async fn accept(
    listener: &BoundedListener,
    acceptor: Option<TlsAcceptor>,
    handler: &Arc<RequestHandler>,
    limits: ConnectionLimits,
    graceful: &GracefulShutdown,
    connections: &mut JoinSet<()>,
) {
    loop {
        let slot = listener.slot().await;
        let (stream, peer) = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let connection = HttpConnection {
            handler: Arc::clone(handler),
            acceptor: acceptor.clone(),
            watcher: graceful.watcher(),
            peer,
            limits,
        };
        connections.spawn(async move {
            connection.serve(stream).await;
            drop(slot);
        });
    }
}

struct HttpConnection {
    handler: Arc<RequestHandler>,
    acceptor: Option<TlsAcceptor>,
    watcher: Watcher,
    peer: SocketAddr,
    limits: ConnectionLimits,
}

impl HttpConnection {
    async fn serve(self, stream: TcpStream) {
        let Some(acceptor) = &self.acceptor else {
            return self.serve_http(stream).await;
        };
        match timeout(self.limits.head(), acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Box::pin(self.serve_http(stream)).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let (handler, ip) = (self.handler, canonical(self.peer.ip()));
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let handler = Arc::clone(&handler);
            async move { Ok::<_, Infallible>(handler.answer(ip, request.map(Body::new)).await) }
        });
        // A client that never reads its responses must not hold a connection for ever.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.limits.read));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head())
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

/// An IPv4 address as such, also where the socket is IPv6.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}
