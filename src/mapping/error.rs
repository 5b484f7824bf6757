//! Errors that send a record to the dead letters, and counts of values that mapping dropped.

use std::fmt;

use super::RuleId;

/// Why a record goes to the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MappingErrorCode {
    /// The body, or the metadata, is not one JSON value.
    InvalidJson,
    /// The body, or the metadata, is not UTF-8.
    InvalidUtf8,
    /// A value is not an object where one is required.
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
    /// The record makes too many calls.
    TooManyCalls,
    /// An id holds U+FFFD, which replaces undecodable bytes: several ids may have become this one.
    IdNotText,
}

impl MappingErrorCode {
    /// The stable name in metrics and dead letters: `missing_required`.
    pub const fn as_str(self) -> &'static str {
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
    /// The code.
    pub code: MappingErrorCode,
    /// The rule; `None` if the record is not JSON.
    pub rule: Option<String>,
    /// The target that could not be set.
    pub field: Option<String>,
    /// The path or paths of its value.
    pub path: Option<String>,
    /// What is wrong, with the value if there is one. Control characters are escaped.
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
        // The innermost field is the most precise.
        self.field.get_or_insert_with(|| field.to_owned());
        self.path = self.path.or(path);
        self
    }

    /// Adds the element; the path is relative to it.
    pub(super) fn of_element(mut self, element: impl Fn() -> String) -> Self {
        let element = element();
        self.path = Some(match self.path {
            Some(path) => format!("{path} of {element}"),
            None => element,
        });
        self
    }

    pub(super) fn in_rule(mut self, rule: &str) -> Self {
        self.rule.get_or_insert_with(|| rule.to_owned());
        self
    }
}

/// Counts of values that were dropped while a record was mapped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MapStats {
    /// Values dropped because a step does not apply to them or cannot convert them.
    pub conversions_failed: u32,
    /// Values dropped because `map` has no entry for them and there is no `map_default`.
    pub map_misses: u32,
    /// `foreach` paths whose value is not an array.
    pub not_arrays: u32,
    /// Elements of a preset's batch that make no call.
    pub elements_unmatched: u32,
    /// Values of a spread dropped because the field of that name found no value.
    pub spread_left_out: u32,
    /// Descriptions of dropped values for the log: the first [`MapStats::MAX_LOSSES`].
    pub losses: Vec<FieldLoss>,
}

impl MapStats {
    /// Dropped values that are described at most; the counters count all.
    pub const MAX_LOSSES: usize = 16;

    /// The number of dropped values, including those without description.
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

/// A dropped value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldLoss {
    /// The rule.
    pub rule: RuleId,
    /// The target, as the mapping table writes it.
    pub field: String,
    /// Why, with an excerpt of the value, escaped and truncated.
    pub reason: String,
}
