//! A fair semaphore whose size can shrink below the number of permits in use.
//!
//! Permits that are removed while they are in use become a debt, which returned permits pay.
//!
//! # Invariants
//!
//! free + in use - debt = limit.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Debug)]
struct PermitCount {
    limit: usize,
    debt: usize,
}

/// The permits, given out in order of arrival.
#[derive(Debug)]
pub struct ResizableSemaphore {
    semaphore: Arc<Semaphore>,
    size: Mutex<PermitCount>,
}

impl ResizableSemaphore {
    /// A semaphore with this many permits, all free.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            semaphore: Arc::new(Semaphore::new(limit)),
            size: Mutex::new(PermitCount { limit, debt: 0 }),
        })
    }

    fn size(&self) -> MutexGuard<'_, PermitCount> {
        self.size.lock()
    }

    /// The limit.
    pub fn limit(&self) -> usize {
        self.size().limit
    }

    /// Changes the limit. Permits in use stay in use.
    pub fn set_limit(&self, limit: usize) {
        let mut size = self.size();
        if limit > size.limit {
            let more = limit - size.limit;
            let forgiven = more.min(size.debt);
            size.debt -= forgiven;
            self.semaphore.add_permits(more - forgiven);
        } else {
            let fewer = size.limit - limit;
            size.debt += fewer - self.semaphore.forget_permits(fewer);
        }
        size.limit = limit;
    }

    /// Waits for a permit. Dropping the future gives up its position in the queue.
    pub async fn acquire(self: &Arc<Self>) -> Permit {
        let semaphore = Arc::clone(&self.semaphore);
        let inner = semaphore.acquire_owned().await.expect("the semaphore is never closed");
        Permit { inner: Some(inner), permits: Arc::clone(self) }
    }

    #[cfg(test)]
    fn free(&self) -> usize {
        self.semaphore.available_permits()
    }
}

/// One permit; returned when it is dropped.
#[derive(Debug)]
pub struct Permit {
    inner: Option<OwnedSemaphorePermit>,
    permits: Arc<ResizableSemaphore>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else {
            return;
        };
        let mut size = self.permits.size();
        if size.debt > 0 {
            size.debt -= 1;
            inner.forget();
        } else {
            // Under the lock, or a shrinking limit would count it as in use for ever.
            drop(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::task::{JoinSet, yield_now};

    proptest! {
        #[test]
        fn free_lent_and_owed_permits_add_up(
            steps in proptest::collection::vec((0_u8..3, 1_usize..40), 1..200),
        ) {
            // Guarantees the invariant after every step, and that a permit is available exactly
            // when fewer than the limit are in use.
            let permits = ResizableSemaphore::new(1);
            let mut lent = Vec::new();
            for (what, n) in steps {
                match what {
                    0 => permits.set_limit(n),
                    1 => {
                        let got = permits.acquire().now_or_never();
                        prop_assert_eq!(got.is_some(), lent.len() < permits.limit());
                        lent.extend(got);
                    }
                    _ => {
                        lent.pop();
                    }
                }
                let debt = permits.size().debt;
                prop_assert_eq!(permits.free() + lent.len() - debt, permits.limit());
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn permits_under_stress_never_exceed_limit() {
        // Guarantees that while the limit moves between 1 and 8, never more than 8 hold a permit,
        // and that afterwards all are free again.
        let permits = ResizableSemaphore::new(8);
        let holding = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for task in 0..32 {
            let (permits, holding) = (Arc::clone(&permits), Arc::clone(&holding));
            tasks.spawn(async move {
                for round in 0..50 {
                    if task < 2 {
                        permits.set_limit(1 + (round * 7 + task) % 8);
                        yield_now().await;
                        continue;
                    }
                    if round % 9 == 0 {
                        // A waiter that gives up must not take a permit.
                        drop(permits.acquire().now_or_never());
                    }
                    let permit = permits.acquire().await;
                    let now = holding.fetch_add(1, Ordering::SeqCst) + 1;
                    assert!(now <= 8, "{now}");
                    yield_now().await;
                    holding.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        permits.set_limit(5);
        assert_eq!(permits.free(), 5);
    }

    #[tokio::test]
    async fn permits_are_served_in_order() {
        // Guarantees the order of arrival.
        let permits = ResizableSemaphore::new(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = permits.acquire().await;
        let mut tasks = JoinSet::new();
        for n in 0..5 {
            let (permits, order) = (Arc::clone(&permits), Arc::clone(&order));
            tasks.spawn(async move {
                let _permit = permits.acquire().await;
                order.lock().push(n);
            });
            yield_now().await;
        }
        drop(first);
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
    }
}
