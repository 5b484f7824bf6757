//! Which anonymous id belongs to which user: learnt from calls that carry both, so that what was
//! done before a login and what is done after it keep their order.
//!
//! Bounded: the least recently used pair is forgotten first. Forgetting costs order over a login
//! that lies long back, never a record.

use quick_cache::unsync::Cache;

use super::op::OwnId;

/// Anonymous id to user id.
pub(super) struct Aliases {
    known: Cache<OwnId, OwnId>,
}

impl Aliases {
    /// Remembers at most `capacity` pairs.
    pub(super) fn new(capacity: usize) -> Self {
        Self { known: Cache::new(capacity) }
    }

    /// The id by which `id` is ordered: the user it belongs to, else itself.
    pub(super) fn resolve<'a>(&'a self, id: &'a OwnId) -> &'a OwnId {
        self.known.get(id).unwrap_or(id)
    }

    /// Learns a pair; tells whom the anonymous id was ordered by before, if that changes.
    pub(super) fn learn(&mut self, anonymous: &OwnId, user: &OwnId) -> Option<OwnId> {
        let before = self.resolve(anonymous);
        if before == user {
            return None;
        }
        let before = before.clone();
        self.known.insert(anonymous.clone(), user.clone());
        Some(before)
    }
}
