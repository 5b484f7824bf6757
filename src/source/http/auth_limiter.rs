//! Limits password guessing: an address that often sent wrong credentials may try once a second.
//!
//! # Invariants
//!
//! The table of addresses is bounded; an address that never sent wrong credentials is not in it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

/// Wrong attempts that an address has before it is limited.
const BURST: u32 = 20;

/// How long until it has another attempt.
const REFILL: Duration = Duration::from_secs(1);

/// The most addresses that are stored.
const MAX_ADDRESSES: usize = 4096;

/// Wrong attempts by address, as the time at which all of them expire.
#[derive(Debug, Default)]
pub(super) struct AuthLimiter(Mutex<HashMap<IpAddr, Instant>>);

impl AuthLimiter {
    /// Whether credentials of this address are checked now.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        let forgiven = self.tries().get(&network(address)).copied();
        forgiven.is_none_or(|at| at.saturating_duration_since(now) <= REFILL * (BURST - 1))
    }

    /// An address sent wrong credentials.
    pub(super) fn failed(&self, address: IpAddr) {
        let now = Instant::now();
        let mut tries = self.tries();
        if tries.len() >= MAX_ADDRESSES {
            tries.retain(|_, forgiven| *forgiven > now);
        }
        let network = network(address);
        if tries.len() < MAX_ADDRESSES || tries.contains_key(&network) {
            let forgiven = tries.entry(network).or_insert(now);
            *forgiven = (*forgiven).max(now) + REFILL;
        }
    }

    fn tries(&self) -> MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.0.lock()
    }
}

/// One client usually has a whole IPv6 network, so the network counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failed_logins_are_limited_to_one_per_second_and_expire() {
        // Guarantees the burst, the rate after it, that other addresses are not affected, and
        // expiry.
        let auth_limiter = AuthLimiter::default();
        let (guesser, other) = ("198.51.100.1".parse().unwrap(), "198.51.100.2".parse().unwrap());
        let mut looked_at = 0;
        let mut guess = || {
            for _ in 0..1000 {
                if auth_limiter.allows(guesser) {
                    auth_limiter.failed(guesser);
                    looked_at += 1;
                }
            }
        };
        guess();
        for _ in 0..30 {
            tokio::time::advance(REFILL).await;
            guess();
        }
        assert!(auth_limiter.allows(other));
        assert!((BURST + 30..=BURST + 31).contains(&looked_at), "{looked_at}");
        tokio::time::advance(REFILL * BURST).await;
        assert!(auth_limiter.allows(guesser));
        // One IPv6 network is one address.
        let of_network = |n: u128| IpAddr::from(Ipv6Addr::from_bits(0x20 << 120 | n));
        for n in 0..u128::from(BURST) {
            assert!(auth_limiter.allows(of_network(n)));
            auth_limiter.failed(of_network(n));
        }
        assert!(!auth_limiter.allows(of_network(7777)));
        assert!(auth_limiter.allows(of_network(1 << 64)));
    }
}
