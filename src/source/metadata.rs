//! Builds the JSON object of a record's transport metadata for `%` paths: `%file`, `%topic`,
//! `%decoded.cri.stream`.
//!
//! # Invariants
//!
//! The result is one JSON object, and an entry never replaces an earlier one.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

/// An object under construction.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// `{` and the entries, or nothing yet.
    object: BytesMut,
}

impl Metadata {
    /// Adds an entry. Keys must be distinct, and the value must serialize as JSON.
    pub(super) fn with(mut self, key: &str, value: impl Serialize) -> Self {
        self.object.put_u8(if self.object.is_empty() { b'{' } else { b',' });
        let mut writer = (&mut self.object).writer();
        serde_json::to_writer(&mut writer, key).expect("a text is always JSON");
        writer.get_mut().put_u8(b':');
        serde_json::to_writer(&mut writer, &value).expect("values of metadata become JSON");
        self
    }

    /// The finished object.
    pub(super) fn finish(mut self) -> Bytes {
        if self.object.is_empty() {
            return Bytes::from_static(b"{}");
        }
        self.object.put_u8(b'}');
        self.object.freeze()
    }
}

/// Merges two objects. Their keys must be distinct; where they are not, mapping uses the last.
pub(super) fn merge(transport: Bytes, decoded: Option<Bytes>) -> Bytes {
    let Some(decoded) = decoded else {
        return transport;
    };
    let inner = |object: &Bytes| {
        let inner = object.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}"));
        object.slice_ref(inner.unwrap_or_default())
    };
    let (first, second) = (inner(&decoded), inner(&transport));
    if first.is_empty() || second.is_empty() {
        return if first.is_empty() { transport } else { decoded };
    }
    let mut object = BytesMut::with_capacity(first.len() + second.len() + 3);
    object.put_u8(b'{');
    object.extend_from_slice(&first);
    object.put_u8(b',');
    object.extend_from_slice(&second);
    object.put_u8(b'}');
    object.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn value(object: &Bytes) -> Value {
        serde_json::from_slice(object).unwrap()
    }

    #[test]
    fn built_and_merged_metadata_is_one_object() {
        // The object parses and holds the entries of both, whatever characters keys and values
        // contain.
        let file = Metadata::default().with("file", "a\"b").with("line", 7_u64).finish();
        assert_eq!(value(&file), json!({"file": "a\"b", "line": 7}));
        let decoded = Bytes::from_static(br#"{"decoded":{"cri":{"stream":"stdout"}}}"#);
        let both = merge(file.clone(), Some(decoded.clone()));
        let expected = json!({"file": "a\"b", "line": 7, "decoded": {"cri": {"stream": "stdout"}}});
        assert_eq!(value(&both), expected);
        assert_eq!(merge(file.clone(), None), file);
        let empty = Metadata::default().finish();
        assert_eq!(value(&empty), json!({}));
        assert_eq!(merge(empty.clone(), Some(decoded.clone())), decoded);
        assert_eq!(merge(file.clone(), Some(empty)), file);
    }
}
