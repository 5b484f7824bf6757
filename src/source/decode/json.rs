//! The `json` codec: checks a line, and splits one that contains several records.
//!
//! # Invariants
//!
//! What is yielded is UTF-8 and JSON, byte for byte as received. The check does not recurse, so
//! nesting cannot exhaust the stack.

use bytes::Bytes;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::{SmallVec, smallvec};

/// The most records of one line or message; their memory besides their bytes is bounded by it.
pub(super) const MAX_PARTS: usize = 10_000;

/// The records of one line, usually one.
pub(super) type JsonValues = SmallVec<[Bytes; 1]>;

/// The records of a line: the value itself; of an array each element; of several adjacent objects
/// or arrays each of them. None for a blank line and for an empty array.
pub(super) fn decode(line: Bytes) -> Result<JsonValues, String> {
    let head = line.trim_ascii_start().first().copied();
    let Some(head) = head else {
        return Ok(JsonValues::new());
    };
    let text = super::utf8(&line)?;
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(IgnoredAny) if head != b'[' => Ok(smallvec![line]),
        Ok(IgnoredAny) => {
            let mut values = JsonValues::new();
            elements(&line, text, &mut values).map(|()| values)
        }
        Err(error) => several(&line, text, head).unwrap_or_else(|| Err(reason(&error))),
    }
}

/// Whether a last line without a newline is complete: nothing that could still be appended would
/// change its value.
pub(super) fn is_whole(line: &[u8]) -> bool {
    // A number or a word may continue.
    line.trim_ascii_start().first().is_some_and(|head| b"{[\"".contains(head))
        && serde_json::from_slice::<IgnoredAny>(line).is_ok()
}

/// Several adjacent values, as programs that write no newlines produce them. `None` where the line
/// is something else. Only objects and arrays: `1 2` is not accepted.
fn several(line: &Bytes, text: &str, head: u8) -> Option<Result<JsonValues, String>> {
    if !matches!(head, b'{' | b'[') {
        return None;
    }
    let mut values = JsonValues::new();
    let mut over = false;
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let value = value.ok()?.get();
        let added = match value.as_bytes().first()? {
            b'{' => add(line, value, &mut values),
            b'[' => elements(line, value, &mut values),
            _ => return None,
        };
        over |= added.is_err();
        if over {
            // The rest is still checked: the line may not be JSON at all.
            values.clear();
        }
    }
    Some(if over { Err(too_many()) } else { Ok(values) })
}

fn add(line: &Bytes, value: &str, values: &mut JsonValues) -> Result<(), String> {
    if values.len() == MAX_PARTS {
        return Err(too_many());
    }
    values.push(line.slice_ref(value.as_bytes()));
    Ok(())
}

/// Adds the elements of a valid array, as slices of the line.
fn elements(line: &Bytes, array: &str, values: &mut JsonValues) -> Result<(), String> {
    let mut de = serde_json::Deserializer::from_str(array);
    de.deserialize_seq(ArrayElements { line, values }).map_err(|_| too_many())
}

struct ArrayElements<'a> {
    line: &'a Bytes,
    values: &'a mut JsonValues,
}

impl<'de> Visitor<'de> for ArrayElements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element::<&RawValue>()? {
            add(self.line, element.get(), self.values).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

fn too_many() -> String {
    format!("the line holds more than {MAX_PARTS} records")
}

/// serde_json says "… at line 1 column 7"; for a single line only the column is useful.
fn reason(e: &serde_json::Error) -> String {
    let full = e.to_string();
    let what = full.rsplit_once(" at line ").map_or(full.as_str(), |(what, _)| what);
    format!("not valid JSON at column {}: {what}", e.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: impl Into<Bytes>) -> Result<Vec<String>, String> {
        let values = decode(line.into())?;
        Ok(values.iter().map(|value| String::from_utf8(value.to_vec()).unwrap()).collect())
    }

    #[test]
    fn single_value_is_unchanged_byte_for_byte() {
        // Notation, spaces and repeated keys of a valid line are unchanged.
        let line = r#" {"a": 1.0e+2, "a":"\u0041"} "#;
        assert_eq!(check(line).unwrap(), [line]);
    }

    #[test]
    fn arrays_and_adjacent_values_are_several_records() {
        // Each element of an array and each of several objects is a record; inner arrays are not
        // split.
        assert_eq!(check(r#" [{"a":1}, 2,[3, 4]]"#).unwrap(), [r#"{"a":1}"#, "2", "[3, 4]"]);
        assert_eq!(
            check(r#"{"a":1}{"b":2} {"c":3}"#).unwrap(),
            ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]
        );
        assert_eq!(check(r#"[1,2] {"a":1}"#).unwrap(), ["1", "2", r#"{"a":1}"#]);
        assert_eq!(check("[]").unwrap(), [""; 0]);
    }

    #[test]
    fn broken_value_among_adjacent_ones_makes_one_fault() {
        // A line is one decode error where one of its values is broken or is a bare word.
        for line in [r#"{"a":1}{"#, r#"{"a":1} 2"#, "1 2", r#"[1] ]"#, r#"{"a":1},{"a":2}"#] {
            assert!(check(line).unwrap_err().contains("not valid JSON at column"), "{line}");
        }
    }

    #[test]
    fn line_with_too_many_values_is_one_fault() {
        // More records than the limit on one line are a decode error that names the limit.
        let array = |n: usize| format!("[{}]", vec!["1"; n].join(","));
        assert_eq!(check(array(MAX_PARTS)).unwrap().len(), MAX_PARTS);
        assert!(check(array(MAX_PARTS + 1)).unwrap_err().contains("10000"));
        assert!(check("{}".repeat(MAX_PARTS + 1)).unwrap_err().contains("10000"));
        assert!(check("{}".repeat(MAX_PARTS + 1) + "x").unwrap_err().contains("column"));
    }

    #[test]
    fn faults_name_the_column() {
        // Each error says what is wrong and at which column, and does not mention a line number.
        let why = check(&b"{\"a\":1} x"[..]).unwrap_err();
        assert_eq!(why, "not valid JSON at column 9: trailing characters");
        let why = check(&b"{\"a\":\"\xff\"}"[..]).unwrap_err();
        assert_eq!(why, "not valid UTF-8 at column 7");
        let why = check(&b"{\"a\":"[..]).unwrap_err();
        assert!(why.contains("column 5") && !why.contains("line 1"), "{why}");
    }

    #[test]
    fn blank_lines_are_skipped() {
        // Empty and blank lines are neither records nor decode errors.
        assert_eq!(check(&b""[..]).unwrap(), [""; 0]);
        assert_eq!(check(&b" \t "[..]).unwrap(), [""; 0]);
    }

    #[test]
    fn deep_nesting_is_scanned_without_recursion() {
        // A million nested brackets do not overflow the stack, and are rejected when one is left
        // open.
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert_eq!(check(deep.clone()).unwrap(), [&deep[1..deep.len() - 1]]);
        assert!(check(deep[1..].to_owned()).is_err());
    }

    #[test]
    fn only_closed_values_are_complete() {
        // Closed objects, arrays and strings are complete; numbers and words may continue.
        for line in [r#"{"a":1}"#, " [1]\r", r#""a""#] {
            assert!(is_whole(line.as_bytes()), "{line}");
        }
        for line in ["10", "true", r#"{"a":1"#, r#"{"a":1}{"#, "", "1e4"] {
            assert!(!is_whole(line.as_bytes()), "{line}");
        }
    }
}
