//! Conversions between Rust values and SQL values, and the batch size of deletions.

use jiff::Timestamp;

/// Rows that one transaction deletes at most, so that other writes run in between.
pub(super) const MAX_DELETE_ROWS: i64 = 1000;

/// A time as it is stored: microseconds since 1970.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// A stored time. Only valid times are stored; a value out of range means that the file was edited
/// by hand, and reads as 1970.
pub(super) fn from_micros(at: i64) -> Timestamp {
    Timestamp::from_microsecond(at).unwrap_or_default()
}

/// A number of rows, as `LIMIT` and `OFFSET` take it.
pub(super) fn row_count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Numbers as the JSON array that `json_each` takes.
pub(super) fn json_array(numbers: &[i64]) -> String {
    format!("{numbers:?}")
}
