//! Tests eight bytes of text at once for bytes that JSON treats specially.
//!
//! The result marks a byte by its top bit. Only the lowest mark is exact, because nothing below it
//! borrows; higher marks may be wrong. So a result gives the first special byte, or whether there
//! is one.

const LO: u64 = 0x0101_0101_0101_0101;
const HI: u64 = 0x8080_8080_8080_8080;

/// Marks quotes and backslashes.
pub(super) fn quotes_and_backslashes(word: u64) -> u64 {
    bytes_below(word ^ (LO * 0x22), 1) | bytes_below(word ^ (LO * 0x5c), 1)
}

/// Marks bytes that must be escaped in a JSON string: quotes, backslashes, control characters.
pub(super) fn needs_escape(word: u64) -> u64 {
    quotes_and_backslashes(word) | bytes_below(word, 0x20)
}

/// Marks bytes less than a limit.
fn bytes_below(word: u64, limit: u64) -> u64 {
    word.wrapping_sub(LO * limit) & !word & HI
}
