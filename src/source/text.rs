//! Shows bytes of a transport as text for `%` paths.
//!
//! # Invariants
//!
//! Bytes that are not UTF-8 become `0x` and their hexadecimal digits, so that two different keys
//! never look the same.

use std::borrow::Cow;

/// The bytes as text.
pub(super) fn utf8_or_hex(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(format!("0x{}", hex::encode(bytes))),
    }
}
