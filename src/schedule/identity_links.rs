//! Links from anonymous ids to users, taken from calls that carry both, so that ops before and after
//! a login keep their order.
//!
//! # Invariants
//! Memory is bounded: the least recently used link is evicted. After an eviction the order across
//! that login is no longer kept; no record is lost.

use std::hash::{BuildHasher, RandomState};

use quick_cache::unsync::Cache;

use super::op::ExternalUserId;

/// Anonymous id to user id.
pub(super) struct IdentityLinks {
    /// Keyed by a hash of the anonymous id, to save memory. On a collision the older link is lost; the
    /// hash is keyed, so no sender can cause collisions.
    user_by_anonymous: Cache<u64, ExternalUserId>,
    hasher: RandomState,
}

impl IdentityLinks {
    /// Remembers at most `capacity` links.
    pub(super) fn new(capacity: usize) -> Self {
        Self { user_by_anonymous: Cache::new(capacity), hasher: RandomState::new() }
    }

    /// The id whose queue `id` uses: the linked user, else itself.
    pub(super) fn resolve<'a>(&'a self, id: &'a ExternalUserId) -> &'a ExternalUserId {
        self.user_by_anonymous.get(&self.hasher.hash_one(id)).unwrap_or(id)
    }

    /// Adds a link. Returns the id whose queue was used before, if that changes.
    pub(super) fn link(
        &mut self,
        anonymous: &ExternalUserId,
        user: &ExternalUserId,
    ) -> Option<ExternalUserId> {
        let before = self.resolve(anonymous);
        if before == user {
            return None;
        }
        let before = before.clone();
        self.user_by_anonymous.insert(self.hasher.hash_one(anonymous), user.clone());
        Some(before)
    }
}
