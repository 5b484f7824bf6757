//! Bytes of a transport as text for `%` paths.
//!
//! One invariant: bytes that are no UTF-8 are never taken for another text: they become `0x` and
//! their hexadecimal digits, so that two keys never look the same.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text of bytes.
pub(super) fn of_bytes(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().fold("0x".to_owned(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string does not fail");
            hex
        })),
    }
}
