//! The values that templates and conditions read: record, metadata, and current element.

use std::cell::OnceCell;

use jiff::tz::TimeZone;

use super::json::{self, JsonKind};
use super::path_trie::{Extracted, ExtractedPaths};
use crate::call;
use crate::coerce::zone;

/// The value that a path is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathScope {
    Record,
    Meta,
    /// The element of `foreach` or `each`.
    Element,
}

/// A path with its slot.
#[derive(Debug, Clone)]
pub(super) struct PathRef {
    pub(super) scope: PathScope,
    pub(super) slot: usize,
    /// The path as written, for messages.
    pub(super) shown: Box<str>,
}

/// The values that can be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct EvalContext<'e, 'r> {
    pub(super) record: &'e ExtractedPaths<'e, 'r>,
    pub(super) meta: &'e ExtractedPaths<'e, 'r>,
    /// The current element of `foreach` or `each`.
    pub(super) element: Option<&'e ExtractedPaths<'e, 'r>>,
    /// The zone of timestamps without one.
    pub(super) zone: &'e SourceZone<'r>,
}

/// The metadata key of the time zone of a source.
const ZONE: &str = "timezone";

/// The time zone of a record's source, looked up when a timestamp is read.
#[derive(Debug)]
pub(super) struct SourceZone<'r> {
    meta: Option<&'r [u8]>,
    found: OnceCell<TimeZone>,
}

impl<'r> SourceZone<'r> {
    pub(super) fn new(meta: Option<&'r [u8]>) -> Self {
        Self { meta, found: OnceCell::new() }
    }

    /// The zone; UTC if the source sets none.
    pub(super) fn get(&self) -> &TimeZone {
        self.found.get_or_init(|| self.look_up().unwrap_or(TimeZone::UTC))
    }

    /// The zone, where the source names one.
    pub(super) fn configured(&self) -> Option<TimeZone> {
        self.look_up()
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
    /// The value at a path; `None` for null.
    pub(super) fn get(&self, path: &PathRef) -> Extracted<'r> {
        let slots = match path.scope {
            PathScope::Record => self.record,
            PathScope::Meta => self.meta,
            PathScope::Element => self.element?,
        };
        slots.get(path.slot)
    }
}
