//! Who is told what happens on the wire: the seam to metrics, which delivery does not know.
//!
//! Every method is a notice after the fact and must return at once.

use std::time::Duration;

use super::outage::OutageChange;
use super::request::Method;

/// Listens to deliveries. Every method does nothing unless overridden.
pub trait DeliveryObserver: Send + Sync {
    /// An attempt was started.
    fn request_sent(&self, _method: Method, _route: &'static str) {}
    /// An answer came, after this long.
    fn response(&self, _status: u16, _route: &'static str, _rtt: Duration) {}
    /// An attempt ended without an answer: `connect`, `timeout`, `connection_cut`.
    fn request_error(&self, _kind: &'static str) {}
    /// An attempt will be repeated, for this reason.
    fn retry(&self, _reason: &'static str) {}
    /// So many attempts are on the wire.
    fn in_flight(&self, _n: usize) {}
    /// So many may be.
    fn limit(&self, _n: usize) {}
    /// Sending stopped because the credentials are refused, or goes on again.
    fn halted(&self, _halted: bool) {}
    /// Every attempt fails, or the API works again.
    fn outage(&self, _change: OutageChange) {}
    /// The whole sink pauses for this long.
    fn paused(&self, _length: Duration) {}
    /// The server's quota as learned from its refusals, in requests a second.
    fn rate(&self, _per_sec: f64) {}
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoopDeliveryObserver;

impl DeliveryObserver for NoopDeliveryObserver {}
