//! Bounds on connections: their number, and how long one may be silent.
//!
//! # Invariants
//! A connection that makes no request within ten seconds of being accepted is ended, its TLS
//! handshake included. While all places are taken, those that have been idle for longest give theirs
//! up. So connections that say nothing never shut others out.

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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::order::{OrderTicket, RequestOrder};

/// How long accepting pauses after it failed: mostly for want of file descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// How long a connection may take to its first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is idle before it may have to make room for another.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often room is made while connections wait to be accepted.
const EVICT_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of a connection.
#[derive(Debug)]
pub(super) struct GrpcConnection {
    /// Whose it is.
    pub(super) peer: SocketAddr,
    order: RequestOrder,
    /// Calls under way.
    calls: AtomicUsize,
    /// Pushes under way.
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

    /// A push arrives: its place in the order, and whether others are under way.
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

/// A call under way.
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

/// A push that has no answer yet.
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

    /// Ends the connection that has been idle for longest, where one has been for long enough.
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

/// Connections as they come, each with its place.
pub(super) fn incoming(
    listener: TcpListener,
    most: usize,
) -> impl Stream<Item = AcceptedConnection> + Send + 'static {
    let slots = Arc::new(Semaphore::new(most));
    let connections = Arc::<ConnectionRegistry>::default();
    futures::stream::unfold(
        (listener, slots, connections),
        |(listener, slots, connections)| async move {
            let slot = slot(&slots, &connections).await?;
            let (stream, peer) = loop {
                match listener.accept().await {
                    Ok(accepted) => break accepted,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_RETRY_INTERVAL).await;
                    }
                }
            };
            // Answers are small; none should wait for the next.
            drop(stream.set_nodelay(true));
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
            Some((placed, (listener, slots, connections)))
        },
    )
}

async fn slot(
    slots: &Arc<Semaphore>,
    connections: &ConnectionRegistry,
) -> Option<OwnedSemaphorePermit> {
    let mut acquire = std::pin::pin!(Arc::clone(slots).acquire_owned());
    let mut evict = interval(EVICT_INTERVAL);
    loop {
        tokio::select! {
            biased;
            slot = &mut acquire => return slot.ok(),
            _ = evict.tick() => connections.evict(),
        }
    }
}

/// A connection that holds its place until it ends.
pub(super) struct AcceptedConnection {
    stream: TcpStream,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    connection: Arc<GrpcConnection>,
    number: u64,
    connections: Arc<ConnectionRegistry>,
    _place: OwnedSemaphorePermit,
}

impl AcceptedConnection {
    /// What is known of it.
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
            // A future that has ended is not asked again.
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
