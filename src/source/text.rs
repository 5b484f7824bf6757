//! Bytes of a transport as text for `%` paths.
//!
//! One invariant: bytes that are no UTF-8 are never taken for another text: they become `0x` and
//! their hexadecimal digits, so that two keys never look the same.

use std::fmt::Write as _;

/// The text of bytes.
pub(super) fn of_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("0x".to_owned(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string does not fail");
            hex
        }),
    }
}
