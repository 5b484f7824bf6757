//! Why a record cannot become calls, and what was lost on the way to those it became.

use std::fmt;

use super::RuleId;

/// Why a record goes to the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MappingErrorCode {
    /// The body, or the metadata, is not one JSON value.
    InvalidJson,
    /// The body, or the metadata, is not UTF-8.
    InvalidUtf8,
    /// Something else stands where an object must.
    NotAnObject,
    /// A required field is missing.
    MissingRequired,
    /// A field could not be converted, and is required or has `on_failure = "dead_letter"`.
    ConversionFailed,
    /// A call has neither `user_id` nor `anonymous_id`.
    NoIdentity,
    /// A group call has no `group_id`.
    NoGroupId,
    /// A track call has no `event`.
    NoEvent,
    /// An alias call has no `previous_id`.
    NoPreviousId,
    /// The record stands for too many calls.
    TooManyCalls,
    /// An id holds U+FFFD, which stands for bytes that were no text: several ids may have become
    /// this one.
    IdNotText,
}

impl MappingErrorCode {
    /// A stable word, as metrics and dead letters carry it: `missing_required`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::NotAnObject => "not_an_object",
            Self::MissingRequired => "missing_required",
            Self::ConversionFailed => "conversion_failed",
            Self::NoIdentity => "no_identity",
            Self::NoGroupId => "no_group_id",
            Self::NoEvent => "no_event",
            Self::NoPreviousId => "no_previous_id",
            Self::TooManyCalls => "too_many_calls",
            Self::IdNotText => "id_not_text",
        }
    }
}

impl fmt::Display for MappingErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why one record goes to the dead letters. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}{}{}{}: {reason}", ErrorContext("rule", .rule), ErrorContext("field", .field), ErrorContext("path", .path))]
pub struct MappingError {
    /// What kind of reason it is.
    pub code: MappingErrorCode,
    /// The rule that met it; none where the record is no JSON.
    pub rule: Option<String>,
    /// The target that could not be filled.
    pub field: Option<String>,
    /// The path, or paths, it would have come from.
    pub path: Option<String>,
    /// What is wrong, in words, with the value where there is one. Control characters are escaped.
    pub reason: String,
}

struct ErrorContext<'a>(&'static str, &'a Option<String>);

impl fmt::Display for ErrorContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(value) => write!(f, ", {} `{}`", self.0, value.escape_debug()),
            None => Ok(()),
        }
    }
}

impl MappingError {
    pub(super) fn new(code: MappingErrorCode, reason: impl Into<String>) -> Self {
        Self { code, rule: None, field: None, path: None, reason: reason.into() }
    }

    pub(super) fn at(mut self, field: &str, path: Option<String>) -> Self {
        // The innermost place says most.
        self.field.get_or_insert_with(|| field.to_owned());
        self.path = self.path.or(path);
        self
    }

    /// Names the element it happened in; paths are relative to it.
    pub(super) fn of_element(mut self, place: impl Fn() -> String) -> Self {
        let place = place();
        self.path = Some(match self.path {
            Some(path) => format!("{path} of {place}"),
            None => place,
        });
        self
    }

    pub(super) fn in_rule(mut self, rule: &str) -> Self {
        self.rule.get_or_insert_with(|| rule.to_owned());
        self
    }
}

/// What was left out while a record was mapped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MapStats {
    /// Values left out because a step did not apply to them or could not convert them.
    pub conversions_failed: u32,
    /// Values left out because `map` has no entry for them and no `map_default` is given.
    pub map_misses: u32,
    /// `foreach` paths that led to something that is no array.
    pub not_arrays: u32,
    /// Elements of a preset's batch whose type makes no call.
    pub elements_unmatched: u32,
    /// Values of a spread left out because a rule of their name found nothing.
    pub spread_left_out: u32,
    /// Which values were left out, for a log line: at most the first [`MapStats::MAX_LOSSES`].
    pub losses: Vec<FieldLoss>,
}

impl MapStats {
    /// How many losses are described; the counters count them all.
    pub const MAX_LOSSES: usize = 16;

    /// How many values were left out, of those too that are not described.
    pub fn count(&self) -> u64 {
        let counts =
            [self.conversions_failed, self.map_misses, self.not_arrays, self.spread_left_out];
        counts.iter().map(|count| u64::from(*count)).sum()
    }

    pub(super) fn lose(&mut self, rule: RuleId, field: &str, why: LossKind, reason: String) {
        match why {
            LossKind::Conversion => self.conversions_failed += 1,
            LossKind::MapMiss => self.map_misses += 1,
            LossKind::NotAnArray => self.not_arrays += 1,
            LossKind::OwnedName => self.spread_left_out += 1,
        }
        if self.losses.len() < Self::MAX_LOSSES {
            self.losses.push(FieldLoss { rule, field: field.to_owned(), reason });
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LossKind {
    Conversion,
    MapMiss,
    NotAnArray,
    OwnedName,
}

/// One value that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldLoss {
    /// The rule.
    pub rule: RuleId,
    /// The target, as the mapping table writes it.
    pub field: String,
    /// Why, in words. Holds an excerpt of the value, escaped and cut.
    pub reason: String,
}
