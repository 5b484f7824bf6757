//! What a program reads: the filled slots of the record, of its metadata, and of the element at
//! hand.

use super::trie::{Slot, Slots};

/// Which slots a reference is into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Record,
    Meta,
    /// The element of `foreach` or `each`.
    Element,
}

/// A path, resolved to its slot.
#[derive(Debug, Clone)]
pub(super) struct Ref {
    pub(super) scope: Scope,
    pub(super) slot: usize,
    /// The path as it was written, for messages.
    pub(super) shown: Box<str>,
}

/// The slots a program may read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Env<'e, 'r> {
    pub(super) record: &'e Slots<'e, 'r>,
    pub(super) meta: &'e Slots<'e, 'r>,
    /// The element of `foreach` or `each`, inside of one.
    pub(super) element: Option<&'e Slots<'e, 'r>>,
}

impl<'r> Env<'_, 'r> {
    /// What a path leads to; null is nothing.
    pub(super) fn get(&self, path: &Ref) -> Slot<'r> {
        let slots = match path.scope {
            Scope::Record => self.record,
            Scope::Meta => self.meta,
            Scope::Element => self.element?,
        };
        slots.get(path.slot)
    }
}
