//! One scan of a JSON text that validates it and selects values of the top-level object.
//!
//! # Invariants
//! Nested values are skipped without recursion, however deep they are.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Selects keys of an object and receives their values.
pub(super) trait KeySelector<'r> {
    /// The identity of a selected key.
    type Key;

    /// The identity of a key if it is selected.
    fn key(&self, name: &[u8]) -> Option<Self::Key>;

    /// Receives the text of a key's value. Of a repeated key the last value counts.
    fn take(&mut self, key: Self::Key, raw: &'r str);
}

/// Scans a text; returns whether it is an object.
///
/// # Errors
/// Where the text is not one JSON value.
pub(super) fn scan<'r>(
    text: &'r str,
    selector: &mut impl KeySelector<'r>,
) -> Result<bool, serde_json::Error> {
    // Keys are read fastest as strings, but a lone surrogate in a key is then an error. Read as
    // bytes it is accepted.
    let passed = read::<true, _>(text, selector).or_else(|_| read::<false, _>(text, selector));
    passed.or_else(|_| {
        // At the top level a number beyond f64 or a string with a lone surrogate fails above, but is
        // valid JSON.
        let IgnoredAny = serde_json::from_str(text)?;
        Ok(false)
    })
}

fn read<'r, const KEYS_ARE_TEXTS: bool, W: KeySelector<'r>>(
    text: &'r str,
    selector: &mut W,
) -> Result<bool, serde_json::Error> {
    let mut de = serde_json::Deserializer::from_str(text);
    let visitor = TopLevelVisitor::<'_, W, KEYS_ARE_TEXTS>(selector);
    let is_object = serde::Deserializer::deserialize_any(&mut de, visitor)?;
    de.end()?;
    Ok(is_object)
}

struct TopLevelVisitor<'w, W, const KEYS_ARE_TEXTS: bool>(&'w mut W);

impl<'r, W: KeySelector<'r>, const KEYS_ARE_TEXTS: bool> Visitor<'r>
    for TopLevelVisitor<'_, W, KEYS_ARE_TEXTS>
{
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'r>>(self, mut map: A) -> Result<bool, A::Error> {
        let Self(selector) = self;
        while let Some(key) = map.next_key_seed(KeySeed::<_, KEYS_ARE_TEXTS>(selector))? {
            match key {
                Some(key) => selector.take(key, map.next_value::<&'r RawValue>()?.get()),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'r>>(self, mut seq: A) -> Result<bool, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }
}

/// Reads a key and selects it.
struct KeySeed<'w, W, const AS_TEXT: bool>(&'w W);

impl<'r, W: KeySelector<'r>, const AS_TEXT: bool> DeserializeSeed<'r> for KeySeed<'_, W, AS_TEXT> {
    type Value = Option<W::Key>;

    fn deserialize<D: serde::Deserializer<'r>>(self, d: D) -> Result<Self::Value, D::Error> {
        match AS_TEXT {
            true => d.deserialize_str(self),
            false => d.deserialize_bytes(self),
        }
    }
}

impl<'r, W: KeySelector<'r>, const AS_TEXT: bool> Visitor<'r> for KeySeed<'_, W, AS_TEXT> {
    type Value = Option<W::Key>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.key(name.as_bytes()))
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.key(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Selects all keys of one letter.
    struct Letters<'r>(Vec<(u8, &'r str)>);

    impl<'r> KeySelector<'r> for Letters<'r> {
        type Key = u8;

        fn key(&self, name: &[u8]) -> Option<u8> {
            match name {
                [letter] => Some(*letter),
                _ => None,
            }
        }

        fn take(&mut self, key: u8, raw: &'r str) {
            self.0.retain(|(known, _)| *known != key);
            self.0.push((key, raw));
        }
    }

    fn passed(text: &str) -> Option<(bool, Vec<(u8, &str)>)> {
        let mut letters = Letters(Vec::new());
        scan(text, &mut letters).ok().map(|is_object| (is_object, letters.0))
    }

    #[test]
    fn any_valid_json_is_accepted() {
        // One JSON value is accepted, also with lone surrogates or huge numbers; all else is rejected.
        let found = |entries: &[(u8, &'static str)]| Some((true, entries.to_vec()));
        assert_eq!(passed(r#"{"a": 1e999 ,"\ud800":"\ud800","bc":[1e999],"\u0062":[ ]}"#), {
            found(&[(b'a', "1e999"), (b'b', "[ ]")])
        });
        assert_eq!(passed(r#"{"a":1,"c\ud800":2,"a":3}"#), found(&[(b'a', "3")]));
        for other in [r#""\ud800""#, "1e999", " [1e999,{}] ", "null", "true", "-7", "1.5", r#""x""#]
        {
            assert_eq!(passed(other), Some((false, vec![])), "{other}");
        }
        for bad in ["", "{", r#"{"a":1} x"#, r#"{"a":}"#, "[1,]", "nul", r#"{"a":"\x"}"#, "{1:2}"] {
            assert_eq!(passed(bad), None, "{bad}");
        }
    }
}
