//! Units of number settings: what to write where a text such as `"30s"` or `"1GB"` stands.

/// A unit in which settings are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    Bytes,
}

/// Units that people write behind numbers, with their size in nanoseconds.
const TIMES: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("sec", 1_000_000_000),
    ("secs", 1_000_000_000),
    ("second", 1_000_000_000),
    ("seconds", 1_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("mins", 60_000_000_000),
    ("minute", 60_000_000_000),
    ("minutes", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("hour", 3_600_000_000_000),
    ("hours", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("day", 86_400_000_000_000),
    ("days", 86_400_000_000_000),
];

/// Units of sizes, in bytes.
const SIZES: &[(&str, u128)] = &[
    ("b", 1),
    ("byte", 1),
    ("bytes", 1),
    ("k", 1_000),
    ("kb", 1_000),
    ("kib", 1 << 10),
    ("ki", 1 << 10),
    ("m", 1_000_000),
    ("mb", 1_000_000),
    ("mib", 1 << 20),
    ("mi", 1 << 20),
    ("g", 1_000_000_000),
    ("gb", 1_000_000_000),
    ("gib", 1 << 30),
    ("gi", 1 << 30),
    ("t", 1_000_000_000_000),
    ("tb", 1_000_000_000_000),
    ("tib", 1 << 40),
    ("ti", 1 << 40),
];

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
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let number: u128 = text[..digits].parse().ok()?;
        let unit = text[digits..].trim();
        let (known, own) = match self {
            Self::Seconds => (TIMES, 1_000_000_000),
            Self::Milliseconds => (TIMES, 1_000_000),
            Self::Bytes => (SIZES, 1),
        };
        let (_, size) = known.iter().find(|(name, _)| *name == unit)?;
        let all = number.checked_mul(*size)?;
        (all % own == 0).then(|| u64::try_from(all / own).ok()).flatten()
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
            ("timeout_ms", "2s", Some(2_000)),
            ("max_size", "1GB", Some(1_000_000_000)),
            ("max_body_bytes", "1 MiB", Some(1 << 20)),
            ("timeout_secs", "soon", None),
            ("timeout_secs", "99999999999999999999999999999999999999999s", None),
        ] {
            assert_eq!(Unit::of(key).and_then(|unit| unit.count(text)), number, "{text}");
        }
        assert_eq!(Unit::of("rate_limit_num"), None);
    }
}
