//! Which anonymous id belongs to which user: learnt from calls that carry both, so that what was
//! done before a login and what is done after it keep their order.
//!
//! Bounded: the least recently used pair is forgotten first. Forgetting costs order over a login
//! that lies long back, never a record.

use std::hash::{BuildHasher, RandomState};

use quick_cache::unsync::Cache;

use super::op::ExternalUserId;

/// Anonymous id to user id.
pub(super) struct IdentityLinks {
    /// By a hash of the anonymous id, which is shorter. Where two meet, the one learnt first is
    /// forgotten; nobody outside can make them meet.
    user_by_anonymous: Cache<u64, ExternalUserId>,
    hasher: RandomState,
}

impl IdentityLinks {
    /// Remembers at most `capacity` pairs.
    pub(super) fn new(capacity: usize) -> Self {
        Self { user_by_anonymous: Cache::new(capacity), hasher: RandomState::new() }
    }

    /// The id by which `id` is ordered: the user it belongs to, else itself.
    pub(super) fn resolve<'a>(&'a self, id: &'a ExternalUserId) -> &'a ExternalUserId {
        self.user_by_anonymous.get(&self.hasher.hash_one(id)).unwrap_or(id)
    }

    /// Learns a pair; tells whom the anonymous id was ordered by before, if that changes.
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
