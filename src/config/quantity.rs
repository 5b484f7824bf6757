//! Parses sizes and durations as people write them: `1 MB`, `16MiB`, `2h 30m`.

use std::time::Duration;

use bytesize::ByteSize;

/// Bytes: a number with or without a unit. `k`, `m` and `g` are powers of 1000, `ki`, `mi` and `gi`
/// powers of 1024.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let size: ByteSize = text.trim().parse().ok()?;
    // A number that is too large for its type is parsed as the largest one.
    Some(size.as_u64()).filter(|bytes| *bytes <= i64::MAX.cast_unsigned())
}

/// One or more numbers, each with a unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    // `0` needs no unit for the crate, but no other number lacks one.
    let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
    has_unit.then(|| humantime::parse_duration(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantity_is_parsed_with_its_unit_or_rejected() {
        // Every usual notation is parsed; anything else is rejected.
        for (text, expected) in [
            ("1 MB", Some(1_000_000)),
            ("16MiB", Some(16 << 20)),
            ("1.5k", Some(1_500)),
            ("512", Some(512)),
            ("1 XB", None),
            ("1 5 MB", None),
            ("-1", None),
            ("", None),
            ("999999999999 TB", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
        for (text, expected) in [
            ("2h 30m", Some(9_000)),
            ("7d", Some(604_800)),
            ("90 seconds", Some(90)),
            ("1week", Some(604_800)),
            ("90", None),
            ("0", None),
            ("h", None),
            ("", None),
            ("1h x", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_secs), "{text}");
        }
    }
}
