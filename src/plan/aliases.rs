//! Which anonymous id belongs to which user: learnt from calls that carry both, so that what was
//! done before a login and what is done after it keep their order.
//!
//! Bounded: the least recently used pair is forgotten first. Forgetting costs order over a login
//! that lies long back, never a record.

use std::hash::{BuildHasher, RandomState};

use quick_cache::unsync::Cache;

use super::op::OwnId;

/// Anonymous id to user id.
pub(super) struct Aliases {
    /// By a hash of the anonymous id, which is shorter. Where two meet, the one learnt first is
    /// forgotten; nobody outside can make them meet.
    known: Cache<u64, OwnId>,
    hasher: RandomState,
}

impl Aliases {
    /// Remembers at most `capacity` pairs.
    pub(super) fn new(capacity: usize) -> Self {
        Self { known: Cache::new(capacity), hasher: RandomState::new() }
    }

    /// The id by which `id` is ordered: the user it belongs to, else itself.
    pub(super) fn resolve<'a>(&'a self, id: &'a OwnId) -> &'a OwnId {
        self.known.get(&self.hasher.hash_one(id)).unwrap_or(id)
    }

    /// Learns a pair; tells whom the anonymous id was ordered by before, if that changes.
    pub(super) fn learn(&mut self, anonymous: &OwnId, user: &OwnId) -> Option<OwnId> {
        let before = self.resolve(anonymous);
        if before == user {
            return None;
        }
        let before = before.clone();
        self.known.insert(self.hasher.hash_one(anonymous), user.clone());
        Some(before)
    }
}
