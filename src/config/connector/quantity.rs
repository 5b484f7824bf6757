//! Sizes and times as Fluvio's configs write them: `1 MB`, `16MiB`, `2h 30m`.
//!
//! One invariant: a text that is not wholly understood is no quantity.

/// Bytes: a number with or without a unit. `k`, `m` and `g` count by 1000, `ki`, `mi` and `gi` by
/// 1024.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "ki" | "kib" => 1024.0,
        "m" | "mb" => 1e6,
        "mi" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" => 1e9,
        "gi" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tb" => 1e12,
        "ti" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = number * factor;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is positive, and below what a number of this kind holds"
    )]
    (bytes < 9e18).then_some(bytes as u64)
}

/// Seconds: numbers with units, one behind the other.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let factor = match &rest[..letters] {
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = rest[letters..].trim_start();
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantity_is_parsed_with_its_unit_or_rejected() {
        // Every usual spelling means what it says; anything else means nothing.
        for (text, expected) in [
            ("1 MB", Some(1_000_000)),
            ("16MiB", Some(16 << 20)),
            ("1.5k", Some(1_500)),
            ("512", Some(512)),
            ("1 XB", None),
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
            ("h", None),
            ("", None),
            ("1h x", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
