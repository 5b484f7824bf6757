//! A walk through JSON text that a parser has accepted: the entries of an object, the elements of
//! an array, as slices of it.
//!
//! Not a parser: it checks nothing. On text that is no JSON it ends early or yields what is no
//! JSON either, but never panics and never runs on. Invariant: it looks one level deep only; what
//! lies deeper is passed over by counting brackets, so that nesting costs no stack.

use std::borrow::Cow;

use super::eight;
use super::json::{has_escapes, unescape, write_string};

/// Bytes of a string up to which it is short.
const SHORT: usize = 32;

/// The entries of an object, as they stand: nulls and repeated names included.
#[derive(Debug, Clone)]
pub struct Entries<'r> {
    text: &'r str,
    at: usize,
}

/// The elements of an array.
#[derive(Debug, Clone)]
pub struct Elements<'r> {
    text: &'r str,
    at: usize,
}

/// Walks through the text of an object.
pub fn entries(object: &str) -> Entries<'_> {
    Entries { text: object, at: 1 }
}

/// Walks through the text of an array.
pub fn elements(array: &str) -> Elements<'_> {
    Elements { text: array, at: 1 }
}

impl<'r> Iterator for Entries<'r> {
    type Item = (Cow<'r, str>, &'r str);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let name = behind_comma(bytes, self.at);
        if bytes.get(name) != Some(&b'"') {
            return None;
        }
        let (quote, escapes) = string_end(bytes, name + 1);
        let colon = behind_blanks(bytes, quote + 1);
        let value = behind_blanks(bytes, colon + 1);
        self.at = value_end(bytes, value);
        let json = self.text.get(value..self.at)?;
        let name = match escapes {
            false => Cow::Borrowed(self.text.get(name + 1..quote)?),
            true => unescape(self.text.get(name..=quote)?),
        };
        Some((name, json))
    }
}

impl<'r> Iterator for Elements<'r> {
    type Item = &'r str;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let start = behind_comma(bytes, self.at);
        self.at = value_end(bytes, start);
        self.text.get(start..self.at).filter(|json| !json.is_empty())
    }
}

fn behind_blanks(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

fn behind_comma(bytes: &[u8], at: usize) -> usize {
    let at = behind_blanks(bytes, at);
    match bytes.get(at) {
        Some(b',') => behind_blanks(bytes, at + 1),
        _ => at,
    }
}

/// The same value with its strings written one way: escapes only where there must be some.
pub fn canonical(json: &str) -> Cow<'_, str> {
    if !has_escapes(json) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(quote) = rest.find('"') {
        let (end, escapes) = string_end(rest.as_bytes(), quote + 1);
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

/// Where the closing quote of a string stands whose first byte behind the opening one is `at`, and
/// whether there are escapes in it.
fn string_end(bytes: &[u8], mut at: usize) -> (usize, bool) {
    let mut escapes = false;
    loop {
        at += plain_start(bytes.get(at..).unwrap_or_default());
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

/// How many bytes stand before the first quote or backslash. Most strings are short: only long ones
/// are worth the start of a search in wide steps.
fn plain_start(bytes: &[u8]) -> usize {
    let (eights, _) = bytes.as_chunks::<8>();
    for (n, eight) in eights.iter().take(SHORT / 8).enumerate() {
        let marks = eight::quotes_and_backslashes(u64::from_le_bytes(*eight));
        if marks != 0 {
            return 8 * n + marks.trailing_zeros() as usize / 8;
        }
    }
    let looked_at = 8 * eights.len().min(SHORT / 8);
    let rest = &bytes[looked_at..];
    looked_at + memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len())
}

fn value_end(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'"') => (string_end(bytes, at + 1).0 + 1).min(bytes.len()),
        Some(b'{' | b'[') => bracket_end(bytes, at),
        _ => {
            let ends = |b: &u8| matches!(b, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
            let rest = bytes.get(at..).unwrap_or_default();
            at + rest.iter().position(ends).unwrap_or(rest.len())
        }
    }
}

/// Behind the bracket that closes the one at `at`.
fn bracket_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = string_end(bytes, at).0 + 1,
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
        fn walking_is_parsing(value in value()) {
            // Whatever value, printed densely or with blanks: walked level by level it is the same.
            prop_assert_eq!(&rebuilt(&value.to_string()), &value);
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(&rebuilt(&pretty), &value);
        }

        #[test]
        fn no_text_makes_it_panic_or_run_on(text in "[\\[\\]{}\",:\\\\ a1\u{e9}]{0,40}") {
            // Text that is no JSON ends the walk within as many steps as it has bytes.
            drop(canonical(&text));
            prop_assert!(entries(&text).count() <= text.len());
            prop_assert!(elements(&text).count() <= text.len());
        }
    }

    #[test]
    fn one_value_is_written_one_way() {
        // Escapes that need not be are gone, in names, too; everything else stays as it is.
        let text = r#"{"\u0061": [ "\/x\n\"", 1.50 ],"b":"\u00e9\\"}"#;
        assert_eq!(canonical(text), r#"{"a": [ "/x\n\"", 1.50 ],"b":"é\\"}"#);
        assert_eq!(canonical(r#"{"a":"b"}"#), r#"{"a":"b"}"#);
    }

    #[test]
    fn deep_nesting_is_passed_over() {
        // A hundred thousand brackets cost no stack.
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let text = format!(r#"{{"a":{deep},"b":1}}"#);
        let names: Vec<_> = entries(&text).map(|(name, json)| (name, json.len())).collect();
        assert_eq!(names, [("a".into(), 200_000), ("b".into(), 1)]);
    }
}
