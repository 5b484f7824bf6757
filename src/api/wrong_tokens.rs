//! Limits how often an address may try a wrong token.
//!
//! # Invariants
//! An address is only locked by its own attempts. The number of addresses that are remembered is
//! bounded.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Wrong tokens of one address within [`FAILURE_WINDOW`]; after that it is refused until the window
/// ends.
pub(super) const MAX_FAILURES: u32 = 30;
/// How long wrong tokens are counted, from the first.
pub(super) const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Addresses that are remembered; the one whose window began first is forgotten for a new one.
const MAX_ADDRESSES: usize = 1024;

/// Counts wrong tokens by address.
#[derive(Debug, Default)]
pub(super) struct WrongTokens {
    windows: Mutex<HashMap<IpAddr, FailureWindow>>,
}

#[derive(Debug, Clone, Copy)]
struct FailureWindow {
    began: Instant,
    failures: u32,
}

impl FailureWindow {
    fn is_open(&self, now: Instant) -> bool {
        now.duration_since(self.began) < FAILURE_WINDOW
    }
}

/// What counts as one address. A subscriber has a /64 of IPv6, and may use every address of it.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

impl WrongTokens {
    /// Whether an address has used up its attempts.
    pub(super) fn is_locked(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        let windows = self.windows.lock();
        let window = windows.get(&counted_as(address)).filter(|window| window.is_open(now));
        window.is_some_and(|window| window.failures >= MAX_FAILURES)
    }

    /// Counts a wrong token.
    pub(super) fn count(&self, address: IpAddr) {
        let (now, address) = (Instant::now(), counted_as(address));
        let mut windows = self.windows.lock();
        if windows.len() >= MAX_ADDRESSES && !windows.contains_key(&address) {
            windows.retain(|_, window| window.is_open(now));
            let oldest = windows.iter().min_by_key(|(_, window)| window.began).map(|(ip, _)| *ip);
            if let (Some(oldest), true) = (oldest, windows.len() >= MAX_ADDRESSES) {
                windows.remove(&oldest);
            }
        }
        let window = windows.entry(address).or_insert(FailureWindow { began: now, failures: 0 });
        if !window.is_open(now) {
            *window = FailureWindow { began: now, failures: 0 };
        }
        window.failures = window.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn address_is_locked_by_its_own_attempts_until_its_window_ends() {
        // Guarantees the limit and its end, and that another address, also one of IPv6 mapped from
        // IPv4, is counted apart, but addresses of one /64 together.
        let wrong = WrongTokens::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for _ in 0..MAX_FAILURES {
            assert!(!wrong.is_locked(address("192.0.2.1")));
            wrong.count(address("192.0.2.1"));
        }
        assert!(wrong.is_locked(address("192.0.2.1")));
        assert!(wrong.is_locked(address("::ffff:192.0.2.1")));
        assert!(!wrong.is_locked(address("192.0.2.2")));
        tokio::time::advance(FAILURE_WINDOW).await;
        assert!(!wrong.is_locked(address("192.0.2.1")));
        wrong.count(address("192.0.2.1"));
        assert!(!wrong.is_locked(address("192.0.2.1")));

        for n in 0..MAX_FAILURES {
            wrong.count(address(&format!("2001:db8:0:7::{n:x}")));
        }
        assert!(wrong.is_locked(address("2001:db8:0:7:ffff::1")));
        assert!(!wrong.is_locked(address("2001:db8:0:8::1")));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_are_remembered_are_bounded() {
        // Guarantees the bound, and that the address whose window began first is forgotten.
        let wrong = WrongTokens::default();
        let nth = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        (0..MAX_FAILURES).for_each(|_| wrong.count(nth(0)));
        for n in 1..u32::try_from(MAX_ADDRESSES).unwrap() {
            tokio::time::advance(Duration::from_millis(1)).await;
            wrong.count(nth(n));
        }
        assert!(wrong.is_locked(nth(0)));
        wrong.count(nth(u32::MAX));
        assert_eq!(wrong.windows.lock().len(), MAX_ADDRESSES);
        assert!(!wrong.is_locked(nth(0)));
    }
}
