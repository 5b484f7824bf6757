//! The `regex` codec: named groups become fields.
//!
//! # Invariants
//!
//! A line that does not match is a decode error, never an empty record.

use bytes::Bytes;
use regex::Regex;

#[derive(Debug, Clone)]
pub(super) struct RegexDecoder {
    regex: Regex,
    /// The named groups, by number.
    groups: Vec<(usize, String)>,
}

impl RegexDecoder {
    pub(super) fn new(pattern: Option<&str>) -> Result<Self, String> {
        let pattern =
            pattern.ok_or("the codec `regex` needs `decoding.pattern` with named groups")?;
        let regex = Regex::new(pattern).map_err(|e| format!("`decoding.pattern`: {e}"))?;
        let groups: Vec<_> = regex
            .capture_names()
            .enumerate()
            .filter_map(|(n, name)| Some((n, name?.to_owned())))
            .collect();
        if groups.is_empty() {
            return Err(
                "`decoding.pattern` has no named group; name what shall become a field, as in \
                 `(?<status>\\d+)`"
                    .into(),
            );
        }
        Ok(Self { regex, groups })
    }

    pub(super) fn decode(&self, line: &str) -> Result<Bytes, String> {
        let captures =
            self.regex.captures(line).ok_or("the line does not match `decoding.pattern`")?;
        let fields = self
            .groups
            .iter()
            .filter_map(|(n, name)| Some((name.as_str(), captures.get(*n)?.as_str())));
        Ok(super::object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_groups_become_fields_of_the_record() {
        // Named groups that matched are fields; unnamed ones and those that did not match are
        // absent.
        let pattern =
            RegexDecoder::new(Some(r"^(?<verb>[A-Z]+) (\S+)(?: (?<code>\d+))?$")).unwrap();
        assert_eq!(pattern.decode("GET /a 200").unwrap(), r#"{"verb":"GET","code":"200"}"#);
        assert_eq!(pattern.decode("GET /a").unwrap(), r#"{"verb":"GET"}"#);
        assert!(pattern.decode("get").unwrap_err().contains("does not match"));
    }

    #[test]
    fn pattern_without_named_groups_is_rejected() {
        // A missing pattern, a broken one and one without named groups are errors.
        for pattern in [None, Some("("), Some("(a)")] {
            assert!(RegexDecoder::new(pattern).is_err(), "{pattern:?}");
        }
    }
}
