//! Resolves which value a path is read from: the record, its metadata, or the current element.

use crate::mapping::eval_context::{PathRef, PathScope};
use crate::mapping::path::{Path, Root};
use crate::mapping::path_trie::Trie;

/// The tries under construction.
#[derive(Default)]
pub(super) struct Scopes {
    record: Trie,
    meta: Trie,
    /// The enclosing elements, the innermost last.
    elements: Vec<Trie>,
    foreach: bool,
}

impl Scopes {
    pub(super) fn enter_foreach(&mut self) {
        self.foreach = true;
        self.enter();
    }

    pub(super) fn leave_foreach(&mut self) -> Trie {
        self.foreach = false;
        self.leave()
    }

    pub(super) fn enter(&mut self) {
        self.elements.push(Trie::default());
    }

    pub(super) fn leave(&mut self) -> Trie {
        self.elements.pop().unwrap_or_default()
    }

    /// The slot of a path; `None` where it starts with `^` outside of `foreach`.
    pub(super) fn resolve(&mut self, shown: &str, path: &Path) -> Option<PathRef> {
        let (scope, trie) = match (path.root, self.elements.last_mut()) {
            (Root::Meta, _) => (PathScope::Meta, &mut self.meta),
            (Root::Record, _) if self.foreach => (PathScope::Record, &mut self.record),
            (Root::Record, _) => return None,
            (Root::Here, Some(element)) => (PathScope::Element, element),
            (Root::Here, None) => (PathScope::Record, &mut self.record),
        };
        Some(PathRef { scope, slot: trie.insert(&path.steps), shown: shown.into() })
    }

    pub(super) fn into_tries(self) -> (Trie, Trie) {
        (self.record, self.meta)
    }
}
