//! Valid JSON text as a value; escaping and unescaping of JSON strings.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::de::{Deserializer as _, Visitor};

use super::swar;

/// JSON text known to be valid: one value, no surrounding white space.
#[derive(Clone, PartialEq, Eq)]
pub struct Json<'a>(Cow<'a, str>);

impl<'a> Json<'a> {
    /// Wraps text without checking it. It must be one valid JSON value without surrounding white
    /// space.
    pub fn from_valid_unchecked(text: impl Into<Cow<'a, str>>) -> Self {
        Self(text.into())
    }

    /// Renders a string as JSON.
    pub fn string(text: &str) -> Self {
        let mut out = String::with_capacity(text.len() + 2);
        write_string(&mut out, text);
        Self(Cow::Owned(out))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, without copying it.
    pub fn into_text(self) -> Cow<'a, str> {
        self.0
    }

    /// Whether the value is `null`.
    pub fn is_null(&self) -> bool {
        self.0 == "null"
    }

    /// The same value, borrowing nothing.
    pub fn into_owned(self) -> Json<'static> {
        Json(Cow::Owned(self.0.into_owned()))
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Appends a string as JSON. Most strings need no escapes and are copied.
pub fn write_string(out: &mut String, text: &str) {
    if needs_no_escaping(text) {
        out.reserve(text.len() + 2);
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// Whether a string can stand between the quotes of a JSON string without escapes.
pub fn needs_no_escaping(text: &str) -> bool {
    let bytes = text.as_bytes();
    let odd = |word: &[u8; 8]| swar::needs_escape(u64::from_le_bytes(*word)) != 0;
    // The last word overlaps the one before, so that no byte is tested alone.
    if let Some(last) = bytes.last_chunk() {
        let (words, _) = bytes.as_chunks();
        !words.iter().any(odd) && !odd(last)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let four = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
        swar::needs_escape(four(first) << 32 | four(last)) == 0
    } else {
        !bytes.iter().any(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'))
    }
}

/// A string without surrounding white space. Most have none, which the first and last byte show.
pub fn trimmed(text: &str) -> &str {
    let is_graphic = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_graphic);
    match is_graphic(text.as_bytes().first()) && is_graphic(text.as_bytes().last()) {
        true => text,
        false => text.trim(),
    }
}

/// The value of a JSON string. A lone surrogate, which JSON's grammar allows and Unicode does not,
/// becomes one replacement character.
pub fn unescape(raw: &str) -> Cow<'_, str> {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw);
    if !has_escapes(inner) {
        return Cow::Borrowed(inner);
    }
    // As bytes, because a lone surrogate is an error in a string.
    let mut de = serde_json::Deserializer::from_str(raw);
    match de.deserialize_bytes(LossyString) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Borrowed(inner),
    }
}

/// Whether the content of a JSON string has an escape.
pub fn has_escapes(inner: &str) -> bool {
    memchr::memchr(b'\\', inner.as_bytes()).is_some()
}

struct LossyString;

impl Visitor<'_> for LossyString {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
        Ok(match simdutf8::basic::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => replace_encoded_surrogates(bytes),
        })
    }
}

/// Decodes bytes in which halves of surrogate pairs are encoded as three bytes each, as the parser
/// writes them.
fn replace_encoded_surrogates(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|two| two[0] == 0xed && two[1] >= 0xa0) {
        out.push_str(&String::from_utf8_lossy(&rest[..at]));
        out.push(char::REPLACEMENT_CHARACTER);
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    out.push_str(&String::from_utf8_lossy(rest));
    out
}

/// Whether the text may contain an escaped surrogate, lone or in a pair.
pub fn may_have_surrogates(json: &[u8]) -> bool {
    static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u"));
    let is_surrogate = |at: usize| {
        let is_d = matches!(json.get(at + 2), Some(b'd' | b'D'));
        is_d && matches!(json.get(at + 3), Some(b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F'))
    };
    ESCAPE.find_iter(json).any(is_surrogate)
}

/// Replaces lone surrogates by replacement characters, so that every JSON parser accepts the text.
pub fn replace_lone_surrogates(json: &str) -> Cow<'_, str> {
    if !may_have_surrogates(json.as_bytes()) {
        return Cow::Borrowed(json);
    }
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', json.as_bytes().get(at..).unwrap_or_default()) {
        let escape = at + found;
        match surrogate(json, escape) {
            None => at = escape + 2,
            Some(high) if high < 0xdc00 && surrogate(json, escape + 6).is_some_and(is_low) => {
                at = escape + 12;
            }
            Some(_) => {
                out.push_str(&json[copied..escape]);
                out.push(char::REPLACEMENT_CHARACTER);
                at = escape + 6;
                copied = at;
            }
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(&json[copied..]);
    Cow::Owned(out)
}

fn is_low(unit: u16) -> bool {
    unit >= 0xdc00
}

/// The surrogate whose escape starts at an offset.
fn surrogate(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
    let unit = u16::from_str_radix(digits, 16).ok()?;
    (0xd800..0xe000).contains(&unit).then_some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogate_becomes_one_replacement_character() {
        // Lone surrogates are replaced; pairs and all other text are unchanged, in the unescaped
        // string as well as in the repaired JSON.
        for (json, text) in [
            (r#""a\ud83d""#, "a\u{fffd}"),
            (r#""\ude00b""#, "\u{fffd}b"),
            (r#""\ud83d\ud83d\ude00\uD83D""#, "\u{fffd}\u{1f600}\u{fffd}"),
            (r#""\ude00\ud83d-\u00e9\n\\ud83d""#, "\u{fffd}\u{fffd}-é\n\\ud83d"),
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""żółw \ud83d ęą""#, "żółw \u{fffd} ęą"),
            (r#""\ud7ff\ue000""#, "\u{d7ff}\u{e000}"),
        ] {
            assert_eq!(unescape(json), text, "{json}");
            assert_eq!(
                serde_json::from_str::<String>(&replace_lone_surrogates(json)).unwrap(),
                text,
                "{json}"
            );
        }
    }

    #[test]
    fn written_string_reads_back_unchanged() {
        // A written string reads back unchanged, with escapes where JSON needs them.
        for text in ["", "plain", "a\"b\\c", "line\nbreak\u{1}", "Łódź \u{1f600}"] {
            assert_eq!(unescape(Json::string(text).as_str()), text);
            assert_eq!(serde_json::from_str::<String>(Json::string(text).as_str()).unwrap(), text);
        }
    }

    #[test]
    fn special_byte_at_any_offset_needs_escaping() {
        // One byte that JSON must escape is found at any offset of a string of any length.
        for length in 0..40 {
            let plain = "a".repeat(length);
            assert!(needs_no_escaping(&plain));
            for (place, odd) in (0..length).flat_map(|at| ["\"", "\\", "\u{1f}"].map(|o| (at, o))) {
                let mut text = plain.clone();
                text.replace_range(place..=place, odd);
                assert!(!needs_no_escaping(&text), "{text:?}");
            }
        }
    }
}
