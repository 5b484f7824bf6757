//! What a program reads: the filled slots of the record, of its metadata, and of the element at
//! hand.

use std::cell::OnceCell;

use jiff::tz::TimeZone;

use super::json::{self, JsonKind};
use super::path_trie::{Extracted, ExtractedPaths};
use crate::call;
use crate::coerce::zone;

/// Which slots a reference is into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathScope {
    Record,
    Meta,
    /// The element of `foreach` or `each`.
    Element,
}

/// A path, resolved to its slot.
#[derive(Debug, Clone)]
pub(super) struct PathRef {
    pub(super) scope: PathScope,
    pub(super) slot: usize,
    /// The path as it was written, for messages.
    pub(super) shown: Box<str>,
}

/// The slots a program may read.
#[derive(Debug, Clone, Copy)]
pub(super) struct EvalContext<'e, 'r> {
    pub(super) record: &'e ExtractedPaths<'e, 'r>,
    pub(super) meta: &'e ExtractedPaths<'e, 'r>,
    /// The element of `foreach` or `each`, inside of one.
    pub(super) element: Option<&'e ExtractedPaths<'e, 'r>>,
    /// The zone of times that name none.
    pub(super) zone: &'e SourceZone<'r>,
}

/// The metadata under which a source says in which zone its times are.
const ZONE: &str = "timezone";

/// The zone of a record's source, looked up when a time is read.
#[derive(Debug)]
pub(super) struct SourceZone<'r> {
    meta: Option<&'r [u8]>,
    found: OnceCell<TimeZone>,
}

impl<'r> SourceZone<'r> {
    pub(super) fn new(meta: Option<&'r [u8]>) -> Self {
        Self { meta, found: OnceCell::new() }
    }

    /// The zone; UTC where the source names none.
    pub(super) fn get(&self) -> &TimeZone {
        self.found.get_or_init(|| self.look_up().unwrap_or(TimeZone::UTC))
    }

    fn look_up(&self) -> Option<TimeZone> {
        let meta = std::str::from_utf8(self.meta?).ok()?;
        if JsonKind::of(meta) != JsonKind::Object || !meta.contains(ZONE) {
            return None;
        }
        let named = call::entries(meta).filter(|(name, _)| name == ZONE).last();
        zone::find(&json::text(named?.1)?)
    }
}

impl<'r> EvalContext<'_, 'r> {
    /// What a path leads to; null is nothing.
    pub(super) fn get(&self, path: &PathRef) -> Extracted<'r> {
        let slots = match path.scope {
            PathScope::Record => self.record,
            PathScope::Meta => self.meta,
            PathScope::Element => self.element?,
        };
        slots.get(path.slot)
    }
}
