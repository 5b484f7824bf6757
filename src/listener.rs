//! Accepting TCP connections for the sources `http` and `vector` and for the HTTP API.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// The wait after the operating system refused a connection, mostly because no file descriptor is
/// left.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A listener with at most so many connections at once. Further clients wait in the queue of the
/// operating system.
pub(crate) struct BoundedListener {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    /// Names the listener in logs.
    what: &'static str,
}

impl BoundedListener {
    /// Bounds the connections of a listener to `max_connections`.
    pub(crate) fn new(listener: TcpListener, max_connections: usize, what: &'static str) -> Self {
        Self { listener, slots: Arc::new(Semaphore::new(max_connections)), what }
    }

    /// Waits until another connection may be accepted. The slot is held as long as its connection.
    pub(crate) async fn slot(&self) -> OwnedSemaphorePermit {
        let slots = Arc::clone(&self.slots);
        slots.acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Waits for a client. Call it with a slot in hand.
    pub(crate) async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Answers are small: none should wait for the next.
                    drop(stream.set_nodelay(true));
                    return (stream, peer);
                }
                Err(error) => {
                    let listener = self.what;
                    tracing::warn!(
                        listener, %error,
                        "a connection cannot be accepted; it is tried again. If this repeats, raise \
                         the limit of open files of the process"
                    );
                    sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_for_a_slot() {
        // The second client is accepted when the first one's slot is returned.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let listener = BoundedListener::new(listener, 1, "test");
        let _first = TcpStream::connect(addr).await.unwrap();
        let slot = listener.slot().await;
        let (_stream, _peer) = listener.accept().await;
        let _second = TcpStream::connect(addr).await.unwrap();
        assert!(listener.slot().now_or_never().is_none());
        drop(slot);
        let _slot = listener.slot().await;
        let (_stream, _peer) = listener.accept().await;
    }
}
