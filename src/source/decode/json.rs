//! The `json` codec: checks a line, never changes it.
//!
//! Not here: reading fields. One invariant: what passes is UTF-8 and exactly one JSON value, byte
//! for byte as it came. The check walks without recursion, so nesting cannot exhaust the stack.

use bytes::Bytes;
use serde::de::IgnoredAny;

/// The line itself, or why it is not one JSON value.
pub(super) fn decode(line: Bytes) -> Result<Option<Bytes>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let text = super::utf8(&line)?;
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(IgnoredAny) => Ok(Some(line)),
        Err(e) => Err(reason(&e)),
    }
}

/// serde_json says "… at line 1 column 7"; of a line only the column is worth saying.
fn reason(e: &serde_json::Error) -> String {
    let full = e.to_string();
    let what = full.rsplit_once(" at line ").map_or(full.as_str(), |(what, _)| what);
    format!("not valid JSON at column {}: {what}", e.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: impl Into<Bytes>) -> Result<Option<Bytes>, String> {
        decode(line.into())
    }

    #[test]
    fn the_very_bytes_pass() {
        // Spelling, spaces and repeated keys of a valid line are left as they are.
        let line = Bytes::from_static(br#" {"a": 1.0e+2, "a":"\u0041"} "#);
        assert_eq!(check(line.clone()).unwrap().unwrap(), line);
    }

    #[test]
    fn faults_name_the_column() {
        // Each fault says what is wrong and at which column, and does not speak of lines.
        let why = check(&b"{\"a\":1} x"[..]).unwrap_err();
        assert_eq!(why, "not valid JSON at column 9: trailing characters");
        let why = check(&b"{\"a\":\"\xff\"}"[..]).unwrap_err();
        assert_eq!(why, "not valid UTF-8 at column 7");
        let why = check(&b"{\"a\":"[..]).unwrap_err();
        assert!(why.contains("column 5") && !why.contains("line 1"), "{why}");
    }

    #[test]
    fn white_lines_are_nothing() {
        // Empty lines and lines of white space are no records and no faults.
        assert_eq!(check(&b""[..]), Ok(None));
        assert_eq!(check(&b" \t "[..]), Ok(None));
    }

    #[test]
    fn deep_nesting_is_walked_flat() {
        // A million open brackets neither overflow the stack nor pass when one is left open.
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert!(check(deep.clone()).unwrap().is_some());
        assert!(check(deep[1..].to_owned()).is_err());
    }
}
