//! Listens and serves connections, within limits on their number and on every wait.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::{ApiState, router};
use crate::listener::BoundedListener;

/// Connections served at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// How long the head of a request may take, an idle connection is kept, and an answer may stay
/// unread.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of a request's head.
const MAX_HEADERS_SIZE: usize = 16 << 10;

/// How long connections have to end.
const CONNECTION_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The address that a request comes from: a browser's, a program's, or that of a proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerAddress(pub(super) IpAddr);

/// An address that is listened on. Nothing is answered yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Listens on an address.
///
/// # Errors
/// Where the address cannot be listened on.
pub async fn bind(listen: SocketAddr) -> std::io::Result<Bound> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}

impl Bound {
    /// The address, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`.
    pub async fn serve(self, state: ApiState, stop: CancellationToken) {
        accept(self.listener, router(state), stop).await;
    }
}

/// Serves connections up to a limit, with a timeout on every wait: a client that never ends the
/// head of its request, or never reads its response, does not hold a connection for long.
async fn accept(listener: TcpListener, router: Router, stop: CancellationToken) {
    let listener = BoundedListener::new(listener, MAX_CONNECTIONS, "status page");
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let serving = async {
        loop {
            let slot = listener.slot().await;
            let (stream, peer) = listener.accept().await;
            while connections.try_join_next().is_some() {}
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(HEADERS_TIMEOUT));
            let router = router.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(PeerAddress(peer.ip()));
                router.clone().call(request)
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_TIMEOUT)
                .max_buf_size(MAX_HEADERS_SIZE)
                .serve_connection(TokioIo::new(Box::pin(stream)), service);
            let connection = graceful.watch(connection);
            connections.spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the status page ended early");
                }
                drop(slot);
            });
        }
    };
    tokio::select! {
        () = serving => {}
        () = stop.cancelled() => {}
    }
    // Clients that wait in the queue of the operating system are refused at once.
    drop(listener);
    drop(timeout(CONNECTION_CLOSE_TIMEOUT, graceful.shutdown()).await);
    connections.shutdown().await;
}
