//! The reasons of dead letters. They are stable: people filter by them.

use crate::mapping::MappingErrorCode;

/// Every reason but those of statuses (`status_400`).
pub const DEAD_LETTER_REASONS: &[&str] = &[
    MappingErrorCode::InvalidJson.as_str(),
    MappingErrorCode::InvalidUtf8.as_str(),
    MappingErrorCode::NotAnObject.as_str(),
    MappingErrorCode::MissingRequired.as_str(),
    MappingErrorCode::ConversionFailed.as_str(),
    MappingErrorCode::NoIdentity.as_str(),
    MappingErrorCode::NoGroupId.as_str(),
    MappingErrorCode::NoEvent.as_str(),
    MappingErrorCode::NoPreviousId.as_str(),
    MappingErrorCode::TooManyCalls.as_str(),
    MappingErrorCode::IdNotText.as_str(),
    "id_too_long",
    "no_page",
    "timestamp_before_1970",
    "undecodable",
    "unmatched",
    "rejected",
    "poison",
    "route_closed",
];

/// Whether records can become dead letters for this reason.
pub fn is_dead_letter_reason(reason: &str) -> bool {
    let status = reason.strip_prefix("status_").and_then(|status| status.parse::<u16>().ok());
    DEAD_LETTER_REASONS.contains(&reason)
        || status.is_some_and(|status| (100..600).contains(&status))
}
