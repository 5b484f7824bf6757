//! Paths of decoding steps: where a step reads its string, and where it inserts its result.
//!
//! # Invariants
//!
//! Inserting a value leaves all other bytes of the record's values unchanged.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::value::RawValue;

/// How many keys a path may have.
const MAX_KEYS: usize = 16;

/// A path of keys: `.a.b."odd key"`. Empty for `.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    keys: Vec<String>,
    written: String,
}

/// The value at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Picked {
    Text(Bytes),
    /// An object or a list, as JSON.
    Json(Bytes),
    Nothing,
    /// A number, a boolean or null.
    Other,
}

impl Keys {
    /// Parses a path.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a path such as `.message` or `.a.\"odd key\"`");
        let mut keys = Vec::new();
        let mut rest = text;
        while !rest.is_empty() && text != "." {
            rest = rest.strip_prefix('.').ok_or_else(wrong)?;
            let (key, behind) = match rest.starts_with('"') {
                true => quoted(rest).ok_or_else(wrong)?,
                false => {
                    let end = rest.find(['.', '"', '[', ' ']).unwrap_or(rest.len());
                    (rest[..end].to_owned(), &rest[end..])
                }
            };
            if key.is_empty() {
                return Err(wrong());
            }
            keys.push(key);
            rest = behind;
        }
        match keys.len() {
            0 if text != "." => Err(wrong()),
            n if n > MAX_KEYS => {
                Err(format!("{text:?} has {n} keys, at most {MAX_KEYS} are allowed"))
            }
            _ => Ok(Self { keys, written: text.to_owned() }),
        }
    }

    /// As the pipeline file writes it.
    pub(super) fn written(&self) -> &str {
        &self.written
    }

    /// Whether it selects the whole record.
    pub(super) fn is_whole(&self) -> bool {
        self.keys.is_empty()
    }

    /// The value at the path in a record.
    pub(super) fn pick(&self, record: &Bytes) -> Picked {
        let mut at: &[u8] = record;
        for key in &self.keys {
            let Ok(object) = serde_json::from_slice::<HashMap<Cow<'_, str>, &RawValue>>(at) else {
                return Picked::Nothing;
            };
            match object.get(key.as_str()) {
                Some(value) => at = value.get().as_bytes(),
                None => return Picked::Nothing,
            }
        }
        match at.trim_ascii_start().first() {
            None | Some(b'n') => Picked::Nothing,
            Some(b'"') => match serde_json::from_slice::<Cow<'_, str>>(at) {
                Ok(text) => Picked::Text(Bytes::copy_from_slice(text.as_bytes())),
                // Half a surrogate pair.
                Err(_) => Picked::Other,
            },
            Some(b'{' | b'[') => Picked::Json(record.slice_ref(at)),
            Some(_) => Picked::Other,
        }
    }

    /// The record with a value inserted at the path. `None` where the record is not an object.
    pub(super) fn put(&self, record: &Bytes, value: &Bytes) -> Option<Bytes> {
        let value = std::str::from_utf8(value).ok()?.to_owned();
        let value = RawValue::from_string(value).ok()?;
        let record = RawValue::from_string(std::str::from_utf8(record).ok()?.to_owned()).ok()?;
        put(&self.keys, Some(&record), value)
            .map(|record| Box::<str>::from(record).into_string().into())
    }
}

/// A quoted key at the start, written as a JSON string, and the rest after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut keys = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let key = keys.next()?.ok()?;
    Some((key, &text[keys.byte_offset()..]))
}

fn put(keys: &[String], record: Option<&RawValue>, value: Box<RawValue>) -> Option<Box<RawValue>> {
    let Some((key, rest)) = keys.split_first() else {
        return Some(value);
    };
    let mut object: IndexMap<String, Box<RawValue>> = match record {
        Some(record) if record.get().starts_with('{') => serde_json::from_str(record.get()).ok()?,
        Some(record) if !rest.is_empty() || record.get() != "null" => return None,
        _ => IndexMap::new(),
    };
    let inner = put(rest, object.get(key).map(|inner| &**inner), value)?;
    object.insert(key.clone(), inner);
    serde_json::value::to_raw_value(&object).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(path: &str) -> Keys {
        Keys::parse(path).unwrap()
    }

    #[test]
    fn path_selects_string_or_object() {
        // A string is unescaped, objects and lists stay JSON, null and absent are nothing.
        let record = Bytes::from_static(
            br#" {"a": {"odd key": "x\n\u00e9", "n": null, "o": {"b":1.0}}, "t": 1, "h": "\ud800"}"#,
        );
        let pick = |path: &str| keys(path).pick(&record);
        assert_eq!(pick(".a.\"odd key\""), Picked::Text("x\né".into()));
        assert_eq!(pick(".a.o"), Picked::Json(r#"{"b":1.0}"#.into()));
        assert_eq!(pick(".t"), Picked::Other);
        for path in [".a.n", ".b", ".t.x", ".a.o.c"] {
            assert_eq!(pick(path), Picked::Nothing, "{path}");
        }
    }

    #[test]
    fn result_is_inserted_at_its_path() {
        // Keys keep their order and other values their notation; missing objects are created.
        let record = Bytes::from_static(br#"{"z":1.00,"a":{"b":1}}"#);
        let put = |path: &str| {
            let put = keys(path).put(&record, &Bytes::from_static(b"[2]"));
            put.map(|record| String::from_utf8(record.to_vec()).unwrap())
        };
        assert_eq!(put(".a.c").unwrap(), r#"{"z":1.00,"a":{"b":1,"c":[2]}}"#);
        assert_eq!(put(".a").unwrap(), r#"{"z":1.00,"a":[2]}"#);
        assert_eq!(put(".x.y").unwrap(), r#"{"z":1.00,"a":{"b":1},"x":{"y":[2]}}"#);
        assert_eq!(put(".").unwrap(), "[2]");
        assert_eq!(put(".z.y"), None);
    }

    #[test]
    fn invalid_path_is_rejected() {
        // Without a dot, with empty keys or with brackets a string is not a path.
        for path in ["", "message", ".a..b", "..", ".a[0]", ".\"open", "%a", ".a b"] {
            assert!(Keys::parse(path).is_err(), "{path}");
        }
        assert!(keys(".").is_whole() && !keys(".message").is_whole());
    }
}
