//! Limits the number of connections and how long one may be silent.
//!
//! # Invariants
//!
//! A connection that makes no request within ten seconds of being accepted is closed, including its
//! TLS handshake. While all slots are taken, the connections that were idle for longest are closed.
//! So silent connections never block others.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::order::{OrderTicket, RequestOrder};
use crate::listener::BoundedListener;

/// How long a connection may take until its first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection must be idle before it may be closed to make room.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often room is made while connections wait to be accepted.
const EVICT_INTERVAL: Duration = Duration::from_secs(1);

/// The state of a connection.
#[derive(Debug)]
pub(super) struct GrpcConnection {
    /// The address of the client.
    pub(super) peer: SocketAddr,
    order: RequestOrder,
    /// Calls in progress.
    calls: AtomicUsize,
    /// Pushes in progress.
    pushes: AtomicUsize,
    /// Whether it ever made a request.
    began: AtomicBool,
    idle_since: Mutex<Instant>,
    end: CancellationToken,
}

impl GrpcConnection {
    fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            order: RequestOrder::new(),
            calls: AtomicUsize::new(0),
            pushes: AtomicUsize::new(0),
            began: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
            end: CancellationToken::new(),
        }
    }

    /// A call begins.
    pub(super) fn call(self: &Arc<Self>) -> ActiveCall {
        self.began.store(true, Ordering::Release);
        self.calls.fetch_add(1, Ordering::AcqRel);
        ActiveCall { connection: Arc::clone(self) }
    }

    /// A push arrives: its position in the order, and whether others are in progress.
    pub(super) fn push(self: &Arc<Self>) -> (OrderTicket, ActivePush, bool) {
        let ticket = self.order.arrive();
        let others = self.pushes.fetch_add(1, Ordering::AcqRel) > 0;
        (ticket, ActivePush { connection: Arc::clone(self) }, others)
    }

    fn idle_for(&self, now: Instant) -> Option<Duration> {
        if self.calls.load(Ordering::Acquire) > 0 || self.end.is_cancelled() {
            return None;
        }
        let since = *self.idle_since.lock();
        Some(now.duration_since(since))
    }

    async fn ended(self: Arc<Self>) {
        tokio::select! {
            () = self.end.cancelled() => {}
            () = async {
                sleep(FIRST_REQUEST_TIMEOUT).await;
                if self.began.load(Ordering::Acquire) {
                    std::future::pending::<()>().await;
                }
            } => {}
        }
    }
}

/// A call in progress.
#[derive(Debug)]
pub(super) struct ActiveCall {
    connection: Arc<GrpcConnection>,
}

impl Drop for ActiveCall {
    fn drop(&mut self) {
        let mut idle = self.connection.idle_since.lock();
        *idle = Instant::now();
        self.connection.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A push without a response yet.
#[derive(Debug)]
pub(super) struct ActivePush {
    connection: Arc<GrpcConnection>,
}

impl Drop for ActivePush {
    fn drop(&mut self) {
        self.connection.pushes.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All connections of a source.
#[derive(Default)]
struct ConnectionRegistry {
    next: AtomicU64,
    all: Mutex<HashMap<u64, Arc<GrpcConnection>>>,
}

impl ConnectionRegistry {
    fn all(&self) -> MutexGuard<'_, HashMap<u64, Arc<GrpcConnection>>> {
        self.all.lock()
    }

    fn add(&self, connection: &Arc<GrpcConnection>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.all().insert(number, Arc::clone(connection));
        number
    }

    /// Closes the connection that was idle for longest, if one was idle for long enough.
    fn evict(&self) {
        let now = Instant::now();
        let all = self.all();
        let idle = all.values().filter_map(|one| Some((one.idle_for(now)?, one)));
        let longest = idle.filter(|(idle, _)| *idle >= IDLE_TIMEOUT).max_by_key(|(idle, _)| *idle);
        if let Some((_, connection)) = longest {
            tracing::debug!(client = %connection.peer, "an idle connection makes room for another");
            connection.end.cancel();
        }
    }
}

/// Accepted connections, each with its slot.
pub(super) fn incoming(
    listener: TcpListener,
    most: usize,
) -> impl Stream<Item = AcceptedConnection> + Send + 'static {
    let listener = BoundedListener::new(listener, most, "vector source");
    let connections = Arc::<ConnectionRegistry>::default();
    futures::stream::unfold((listener, connections), |(listener, connections)| async move {
        let slot = slot(&listener, &connections).await;
        let (stream, peer) = listener.accept().await;
        let connection = Arc::new(GrpcConnection::new(peer));
        let number = connections.add(&connection);
        let placed = AcceptedConnection {
            stream,
            ended: Box::pin(Arc::clone(&connection).ended()),
            connection,
            number,
            connections: Arc::clone(&connections),
            _place: slot,
        };
        Some((placed, (listener, connections)))
    })
}

async fn slot(
    listener: &BoundedListener,
    connections: &ConnectionRegistry,
) -> OwnedSemaphorePermit {
    let mut acquire = std::pin::pin!(listener.slot());
    let mut evict = interval(EVICT_INTERVAL);
    loop {
        tokio::select! {
            biased;
            slot = &mut acquire => return slot,
            _ = evict.tick() => connections.evict(),
        }
    }
}

/// A connection that holds its slot until it ends.
pub(super) struct AcceptedConnection {
    stream: TcpStream,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    connection: Arc<GrpcConnection>,
    number: u64,
    connections: Arc<ConnectionRegistry>,
    _place: OwnedSemaphorePermit,
}

impl AcceptedConnection {
    /// Its state.
    pub(super) fn connection(&self) -> Arc<GrpcConnection> {
        Arc::clone(&self.connection)
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl Drop for AcceptedConnection {
    fn drop(&mut self) {
        self.connections.all().remove(&self.number);
    }
}

impl AsyncRead for AcceptedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            // A future that has completed must not be polled again.
            self.ended = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for AcceptedConnection {
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
