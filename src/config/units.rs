//! Units of number settings: what to write in place of a text such as `"30s"` or `"1GB"`.

use super::quantity::{bytes, duration};

/// A unit in which settings are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    Bytes,
}

impl Unit {
    /// The unit of a setting, known by its name.
    pub(super) fn of(key: &str) -> Option<Self> {
        if key.ends_with("_secs") {
            Some(Self::Seconds)
        } else if key.ends_with("_ms") {
            Some(Self::Milliseconds)
        } else if key.ends_with("_bytes") || key == "max_size" {
            Some(Self::Bytes)
        } else {
            None
        }
    }

    /// The word for the unit.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Bytes => "bytes",
        }
    }

    /// What a text with a unit is as a whole number of this unit: `"5m"` is 300 seconds. `None` if
    /// it cannot be read or is not whole.
    pub(super) fn count(self, text: &str) -> Option<u64> {
        let text = text.trim().to_ascii_lowercase();
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let (nanos, own) = match self {
            Self::Seconds => (duration(&text)?.as_nanos(), 1_000_000_000),
            Self::Milliseconds => (duration(&text)?.as_nanos(), 1_000_000),
            Self::Bytes => {
                let number = text.strip_suffix("bytes").or_else(|| text.strip_suffix("byte"));
                return bytes(number.unwrap_or(&text));
            }
        };
        (nanos % own == 0).then(|| u64::try_from(nanos / own).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_with_units_become_whole_numbers_of_the_setting() {
        // Guarantees what the help says to write in place of a duration or a size.
        for (key, text, number) in [
            ("timeout_secs", "30s", Some(30)),
            ("timeout_secs", "5 min", Some(300)),
            ("timeout_secs", "1500ms", None),
            ("timeout_secs", "1h 30min", Some(5_400)),
            ("timeout_ms", "2s", Some(2_000)),
            ("max_size", "1GB", Some(1_000_000_000)),
            ("max_body_bytes", "1 MiB", Some(1 << 20)),
            ("max_body_bytes", "512 bytes", Some(512)),
            ("timeout_secs", "soon", None),
            ("timeout_secs", "99999999999999999999999999999999999999999s", None),
        ] {
            assert_eq!(Unit::of(key).and_then(|unit| unit.count(text)), number, "{text}");
        }
        assert_eq!(Unit::of("rate_limit_num"), None);
    }
}
