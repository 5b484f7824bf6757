//! The memory that requests may hold: a budget that all connections of a source share.
//!
//! # Invariants
//!
//! Bytes are reserved before they are allocated. A request that already holds a reservation never
//! waits for more, so that requests cannot wait for each other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The unit in which the budget is counted, in bytes.
pub(super) const UNIT: usize = 16 << 10;

/// The budget has no room now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no memory for more requests at present")]
pub(super) struct OutOfMemoryBudget;

/// The bytes that all requests together may hold.
#[derive(Debug, Clone)]
pub(super) struct MemoryBudget {
    units: Arc<Semaphore>,
}

impl MemoryBudget {
    /// A budget of this many bytes, rounded up to whole units.
    pub(super) fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS >> 4);
        Self { units: Arc::new(Semaphore::new(units)) }
    }

    /// A first reservation, if there is room now.
    pub(super) fn try_reserve(&self) -> Result<MemoryReservation, OutOfMemoryBudget> {
        let permit = Arc::clone(&self.units).try_acquire_owned().map_err(|_| OutOfMemoryBudget)?;
        Ok(MemoryReservation { budget: self.clone(), permit, used: 0 })
    }

    /// A first reservation of one unit. The caller holds nothing yet, so it may wait.
    pub(super) async fn reserve(
        &self,
        max_wait: Duration,
    ) -> Result<MemoryReservation, OutOfMemoryBudget> {
        match timeout(max_wait, Arc::clone(&self.units).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(MemoryReservation { budget: self.clone(), permit, used: 0 }),
            _ => Err(OutOfMemoryBudget),
        }
    }
}

/// What one request holds of the budget; released when it is dropped.
#[derive(Debug)]
pub(super) struct MemoryReservation {
    budget: MemoryBudget,
    permit: OwnedSemaphorePermit,
    /// Bytes that are in use.
    used: usize,
}

impl MemoryReservation {
    /// Reserves more bytes.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), OutOfMemoryBudget> {
        self.used = self.used.saturating_add(bytes);
        let needed = self.used.div_ceil(UNIT).saturating_sub(self.permit.num_permits());
        if needed > 0 {
            let units = u32::try_from(needed).map_err(|_| OutOfMemoryBudget)?;
            let more = Arc::clone(&self.budget.units).try_acquire_many_owned(units);
            self.permit.merge(more.map_err(|_| OutOfMemoryBudget)?);
        }
        Ok(())
    }

    /// Releases bytes that are no longer in use.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
        let keep = self.used.div_ceil(UNIT).max(1);
        drop(self.permit.split(self.permit.num_permits().saturating_sub(keep)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn share(budget: &MemoryBudget) -> MemoryReservation {
        budget.reserve(Duration::ZERO).now_or_never().unwrap().unwrap()
    }

    #[tokio::test]
    async fn reservations_never_exceed_budget_and_are_released() {
        // What one request holds is not available to others until it is released.
        let budget = MemoryBudget::new(4 * UNIT);
        let mut first = budget.reserve(Duration::from_secs(1)).await.unwrap();
        let mut second = budget.reserve(Duration::from_secs(1)).await.unwrap();
        first.grow(3 * UNIT).unwrap();
        assert_eq!(second.grow(2 * UNIT), Err(OutOfMemoryBudget));
        first.shrink(2 * UNIT);
        second.grow(1).unwrap();
        drop((first, second));
        let mut all = share(&budget);
        all.grow(4 * UNIT).unwrap();
        assert_eq!(all.grow(1), Err(OutOfMemoryBudget));
    }
}
