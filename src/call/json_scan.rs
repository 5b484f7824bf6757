//! Iterators over the entries of a JSON object and the elements of a JSON array, as slices of text
//! that a parser has already accepted.
//!
//! # Invariants
//! Invalid JSON ends the iteration early or yields invalid slices; it never panics or loops.
//! Iteration is one level deep. Deeper levels are skipped by counting brackets, so nesting needs no
//! stack.

use std::borrow::Cow;

use super::json::{has_escapes, unescape, write_string};
use super::swar;

/// Bytes of a string that are searched without starting a vectorized search.
const SHORT_STRING_LEN: usize = 32;

/// The entries of an object, including nulls and repeated names.
#[derive(Debug, Clone)]
pub struct EntryIter<'r> {
    text: &'r str,
    at: usize,
}

/// The elements of an array.
#[derive(Debug, Clone)]
pub struct ElementIter<'r> {
    text: &'r str,
    at: usize,
}

/// Iterates over the text of an object.
pub fn entries(object: &str) -> EntryIter<'_> {
    EntryIter { text: object, at: 1 }
}

/// Iterates over the text of an array.
pub fn elements(array: &str) -> ElementIter<'_> {
    ElementIter { text: array, at: 1 }
}

impl<'r> Iterator for EntryIter<'r> {
    type Item = (Cow<'r, str>, &'r str);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let name = skip_comma(bytes, self.at);
        if bytes.get(name) != Some(&b'"') {
            return None;
        }
        let (quote, escapes) = skip_string(bytes, name + 1);
        let colon = skip_ws(bytes, quote + 1);
        let value = skip_ws(bytes, colon + 1);
        self.at = skip_value(bytes, value);
        let json = self.text.get(value..self.at)?;
        let name = match escapes {
            false => Cow::Borrowed(self.text.get(name + 1..quote)?),
            true => unescape(self.text.get(name..=quote)?),
        };
        Some((name, json))
    }
}

impl<'r> Iterator for ElementIter<'r> {
    type Item = &'r str;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let start = skip_comma(bytes, self.at);
        self.at = skip_value(bytes, start);
        self.text.get(start..self.at).filter(|json| !json.is_empty())
    }
}

fn skip_ws(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

fn skip_comma(bytes: &[u8], at: usize) -> usize {
    let at = skip_ws(bytes, at);
    match bytes.get(at) {
        Some(b',') => skip_ws(bytes, at + 1),
        _ => at,
    }
}

/// The same value with escapes only where JSON needs them, so that equal strings have equal text.
pub fn normalize_escapes(json: &str) -> Cow<'_, str> {
    if !has_escapes(json) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(quote) = rest.find('"') {
        let (end, escapes) = skip_string(rest.as_bytes(), quote + 1);
        let (before, string) = rest.split_at(quote);
        let (string, behind) = string.split_at((end + 1 - quote).min(string.len()));
        out.push_str(before);
        match escapes {
            true => write_string(&mut out, &unescape(string)),
            false => out.push_str(string),
        }
        rest = behind;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The offset of the closing quote of a string whose content starts at `at`, and whether the string
/// has escapes.
fn skip_string(bytes: &[u8], mut at: usize) -> (usize, bool) {
    let mut escapes = false;
    loop {
        at += unescaped_prefix_len(bytes.get(at..).unwrap_or_default());
        match bytes.get(at) {
            Some(b'\\') => {
                escapes = true;
                at += 2;
            }
            Some(_) => return (at, escapes),
            None => return (bytes.len(), escapes),
        }
    }
}

/// The number of bytes before the first quote or backslash. Most strings are short; a vectorized
/// search pays only for long ones.
fn unescaped_prefix_len(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().take(SHORT_STRING_LEN / 8).enumerate() {
        let matches = swar::quotes_and_backslashes(u64::from_le_bytes(*word));
        if matches != 0 {
            return 8 * n + matches.trailing_zeros() as usize / 8;
        }
    }
    let searched = 8 * words.len().min(SHORT_STRING_LEN / 8);
    let rest = &bytes[searched..];
    searched + memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len())
}

fn skip_value(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'"') => (skip_string(bytes, at + 1).0 + 1).min(bytes.len()),
        Some(b'{' | b'[') => skip_container(bytes, at),
        _ => {
            let ends = |b: &u8| matches!(b, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
            let rest = bytes.get(at..).unwrap_or_default();
            at + rest.iter().position(ends).unwrap_or(rest.len())
        }
    }
}

/// The offset after the bracket that closes the one at `at`.
fn skip_container(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = skip_string(bytes, at).0 + 1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    fn value() -> impl Strategy<Value = Value> {
        let text = "[a-z\"\\\\\\n\u{e9}\u{1f600},:{}\\[\\] ]{0,20}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let list = proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from);
            let object = proptest::collection::btree_map(text, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect()));
            prop_oneof![list, object]
        })
    }

    fn rebuilt(text: &str) -> Value {
        match text.as_bytes().first() {
            Some(b'{') => {
                let entries = entries(text).map(|(name, json)| (name.into_owned(), rebuilt(json)));
                Value::Object(entries.collect::<Map<_, _>>())
            }
            Some(b'[') => elements(text).map(rebuilt).collect(),
            _ => serde_json::from_str(text).unwrap(),
        }
    }

    proptest! {
        #[test]
        fn any_value_iterated_equals_parsed_value(value in value()) {
            // A value printed compactly or with white space, rebuilt level by level, equals the original.
            prop_assert_eq!(&rebuilt(&value.to_string()), &value);
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(&rebuilt(&pretty), &value);
        }

        #[test]
        fn invalid_text_never_panics_or_loops(text in "[\\[\\]{}\",:\\\\ a1\u{e9}]{0,40}") {
            // Invalid JSON ends the iteration within as many steps as it has bytes.
            drop(normalize_escapes(&text));
            prop_assert!(entries(&text).count() <= text.len());
            prop_assert!(elements(&text).count() <= text.len());
        }
    }

    #[test]
    fn needless_escapes_are_removed() {
        // Needless escapes are removed, in names too; everything else is unchanged.
        let text = r#"{"\u0061": [ "\/x\n\"", 1.50 ],"b":"\u00e9\\"}"#;
        assert_eq!(normalize_escapes(text), r#"{"a": [ "/x\n\"", 1.50 ],"b":"é\\"}"#);
        assert_eq!(normalize_escapes(r#"{"a":"b"}"#), r#"{"a":"b"}"#);
    }

    #[test]
    fn deep_nesting_is_skipped() {
        // A hundred thousand nested brackets need no stack.
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let text = format!(r#"{{"a":{deep},"b":1}}"#);
        let names: Vec<_> = entries(&text).map(|(name, json)| (name, json.len())).collect();
        assert_eq!(names, [("a".into(), 200_000), ("b".into(), 1)]);
    }
}
