//! Bytes of a transport as text for `%` paths.
//!
//! One invariant: bytes that are no UTF-8 are never taken for another text: they become `0x` and
//! their hexadecimal digits, so that two keys never look the same.

use std::borrow::Cow;

/// The text of bytes.
pub(super) fn utf8_or_hex(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(format!("0x{}", hex::encode(bytes))),
    }
}
