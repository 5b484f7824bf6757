//! The events of delivery, for metrics and logs.
//!
//! Every method is called after the event and must return at once.

use std::time::Duration;

use super::outage::OutageChange;
use super::request::Method;

/// Receives the events of deliveries. Every method does nothing unless it is overridden.
pub trait DeliveryObserver: Send + Sync {
    /// An attempt started.
    fn request_sent(&self, _method: Method, _route: &'static str) {}
    /// A response arrived, after this time.
    fn response(&self, _status: u16, _route: &'static str, _rtt: Duration) {}
    /// An attempt ended without a response: `connect`, `timeout`, `connection_cut`.
    fn request_error(&self, _kind: &'static str) {}
    /// An attempt will be repeated, for this reason.
    fn retry(&self, _reason: &'static str) {}
    /// The number of attempts in flight.
    fn in_flight(&self, _n: usize) {}
    /// The limit of attempts in flight.
    fn limit(&self, _n: usize) {}
    /// Sending stopped because the credentials are refused, or continues.
    fn halted(&self, _halted: bool) {}
    /// Every attempt fails, or the API works again.
    fn outage(&self, _change: OutageChange) {}
    /// The whole sink pauses for this long.
    fn paused(&self, _length: Duration) {}
    /// The server's quota as estimated from its 429 responses, in requests per second.
    fn rate(&self, _per_sec: f64) {}
}

/// Ignores all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoopDeliveryObserver;

impl DeliveryObserver for NoopDeliveryObserver {}
