//! State that the API handlers and the admin handlers of one emulator share.

use std::net::SocketAddr;

use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::assume::Assumptions;
use super::faults::{FaultState, Faults};
use super::store::AccountStore;

/// The state of one emulator.
#[derive(Debug)]
pub(super) struct EmulatorState {
    pub(super) addr: SocketAddr,
    api_key: HiddenKey,
    store: Mutex<AccountStore>,
    faults: Mutex<FaultState>,
    assumptions: Mutex<Assumptions>,
    /// Cancelled when the emulator stops.
    pub(super) token: CancellationToken,
}

/// The API key. Its `Debug` output is redacted.
struct HiddenKey(String);

impl std::fmt::Debug for HiddenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl EmulatorState {
    pub(super) fn new(
        addr: SocketAddr,
        api_key: String,
        store: AccountStore,
        faults: Faults,
        assumptions: Assumptions,
        token: CancellationToken,
    ) -> Self {
        Self {
            addr,
            api_key: HiddenKey(api_key),
            store: Mutex::new(store),
            faults: Mutex::new(FaultState::new(faults)),
            assumptions: Mutex::new(assumptions),
            token,
        }
    }

    /// Whether a request presented the API key.
    pub(super) fn is_api_key(&self, presented: &str) -> bool {
        presented == self.api_key.0
    }

    /// A panic under the lock rolls its transaction back, so the store stays consistent.
    pub(super) fn store(&self) -> MutexGuard<'_, AccountStore> {
        self.store.lock()
    }

    pub(super) fn assumptions(&self) -> MutexGuard<'_, Assumptions> {
        self.assumptions.lock()
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, FaultState> {
        self.faults.lock()
    }
}
