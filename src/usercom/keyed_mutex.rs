//! One mutex per key in use, and none for other keys.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

type Lock = Arc<tokio::sync::Mutex<()>>;

/// Mutexes by key. A key's mutex exists as long as a task holds it or waits for it.
pub(super) struct KeyedLocks<K: Hash + Eq>(Mutex<HashMap<K, Lock>>);

impl<K: Hash + Eq> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A held mutex, or a position in its queue.
pub(super) struct KeyedMutexGuard<'a, K: Hash + Eq> {
    locks: &'a KeyedLocks<K>,
    key: K,
    lock: Lock,
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K: Hash + Eq + Clone> KeyedLocks<K> {
    /// Waits for the mutex of a key.
    pub(super) async fn turn(&self, key: K) -> KeyedMutexGuard<'_, K> {
        let lock = Arc::clone(self.map().entry(key.clone()).or_default());
        let mut turn = KeyedMutexGuard { locks: self, key, lock: Arc::clone(&lock), guard: None };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }
}

impl<K: Hash + Eq> KeyedLocks<K> {
    fn map(&self) -> parking_lot::MutexGuard<'_, HashMap<K, Lock>> {
        self.0.lock()
    }

    /// Keys in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.map().len()
    }
}

impl<K: Hash + Eq> Drop for KeyedMutexGuard<'_, K> {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut map = self.locks.map();
        // The map's clone and this one: no other task holds the mutex or waits.
        if Arc::strong_count(&self.lock) <= 2 {
            map.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lock_entry_is_removed_with_its_last_holder() {
        // One task at a time per key; neither a finished nor an abandoned wait leaves an entry.
        let locks = KeyedLocks::<&str>::default();
        let first = locks.turn("a").await;
        let other = locks.turn("b").await;
        {
            let mut waiting = Box::pin(locks.turn("a"));
            assert!(futures::poll!(waiting.as_mut()).is_pending());
        }
        assert_eq!(locks.len(), 2);
        let mut waiting = Box::pin(locks.turn("a"));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(first);
        drop(waiting.await);
        drop(other);
        assert_eq!(locks.len(), 0);
    }
}
