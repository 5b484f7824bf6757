//! What is known about a record beside its body, as one JSON object for `%` paths: `%file`,
//! `%topic`, `%decoded.cri.stream`.
//!
//! Not here: where it is known from. One invariant: what is made here is one JSON object, and a key
//! of its own source is never replaced by one that came later.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

/// An object in the making.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// The entries, without the braces around them.
    entries: BytesMut,
}

impl Metadata {
    /// Adds an entry. Keys must differ, and a value must be one that becomes JSON.
    pub(super) fn with(mut self, key: &str, value: impl Serialize) -> Self {
        if !self.entries.is_empty() {
            self.entries.put_u8(b',');
        }
        let mut writer = (&mut self.entries).writer();
        serde_json::to_writer(&mut writer, key).expect("a text is always JSON");
        writer.get_mut().put_u8(b':');
        serde_json::to_writer(&mut writer, &value).expect("values of metadata become JSON");
        self
    }

    /// The object.
    pub(super) fn finish(self) -> Bytes {
        let mut object = BytesMut::with_capacity(self.entries.len() + 2);
        object.put_u8(b'{');
        object.extend_from_slice(&self.entries);
        object.put_u8(b'}');
        object.freeze()
    }
}

/// One object of two. Their keys must differ; where they do not, mapping takes the last.
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
        // Whatever stands in keys and values, the object parses and holds the entries of both.
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
