//! Eight bytes of text in one step: which of them JSON treats specially.
//!
//! A mark is the top bit of a byte. The lowest mark of an answer is exact, because nothing below it
//! borrows; those above it may be wrong, so that answers tell the first such byte, or whether there
//! is one.

const LO: u64 = 0x0101_0101_0101_0101;
const HI: u64 = 0x8080_8080_8080_8080;

/// Marks quotes and backslashes.
pub(super) fn quotes_and_backslashes(word: u64) -> u64 {
    bytes_below(word ^ (LO * 0x22), 1) | bytes_below(word ^ (LO * 0x5c), 1)
}

/// Marks what cannot stand in a JSON string as it is: quotes, backslashes, control characters.
pub(super) fn needs_escape(word: u64) -> u64 {
    quotes_and_backslashes(word) | bytes_below(word, 0x20)
}

/// Marks bytes below a limit.
fn bytes_below(word: u64, limit: u64) -> u64 {
    word.wrapping_sub(LO * limit) & !word & HI
}
