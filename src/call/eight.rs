//! Eight bytes of text in one step: which of them JSON treats specially.
//!
//! A mark is the top bit of a byte. The lowest mark of an answer is exact, because nothing below it
//! borrows; those above it may be wrong, so that answers tell the first such byte, or whether there
//! is one.

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

/// Marks quotes and backslashes.
pub(super) fn quotes_and_backslashes(eight: u64) -> u64 {
    below(eight ^ (ONES * 0x22), 1) | below(eight ^ (ONES * 0x5c), 1)
}

/// Marks what cannot stand in a JSON string as it is: quotes, backslashes, control characters.
pub(super) fn escaped(eight: u64) -> u64 {
    quotes_and_backslashes(eight) | below(eight, 0x20)
}

/// Marks bytes below a limit.
fn below(eight: u64, limit: u64) -> u64 {
    eight.wrapping_sub(ONES * limit) & !eight & TOPS
}
