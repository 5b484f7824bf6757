//! The scan over JSON text agrees with a parser on valid JSON, and survives everything else.

use indexmap::IndexMap;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::call::{
    elements, entries, normalize_escapes, replace_lone_surrogates, trimmed, unique_entries,
};

pub(super) fn json_scan(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let text = trimmed(text);
    // On text that is no JSON both end, and give no more than there is.
    let sum: usize = entries(text).map(|(_, value)| value.len()).sum();
    assert!(sum <= text.len(), "entries overlap");
    let sum: usize = elements(text).map(str::len).sum();
    assert!(sum <= text.len(), "elements overlap");
    let _ = unique_entries(text);
    let normal = normalize_escapes(text);
    let whole = replace_lone_surrogates(text);
    if serde_json::from_str::<&RawValue>(text).is_err() {
        return;
    }
    assert!(serde_json::from_str::<&RawValue>(&whole).is_ok(), "surrogates: {whole}");
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        assert_eq!(serde_json::from_str::<Value>(&normal).ok().as_ref(), Some(&value));
        assert_eq!(serde_json::from_str::<Value>(&whole).ok().as_ref(), Some(&value));
    }
    if let Ok(parsed) = serde_json::from_str::<IndexMap<String, &RawValue>>(text) {
        let mut scanned = IndexMap::new();
        for (name, value) in entries(text) {
            scanned.insert(name.into_owned(), value);
        }
        let parsed: IndexMap<String, &str> =
            parsed.into_iter().map(|(name, value)| (name, value.get())).collect();
        assert_eq!(scanned, parsed);
    }
    if let Ok(parsed) = serde_json::from_str::<Vec<&RawValue>>(text) {
        let scanned: Vec<&str> = elements(text).collect();
        let parsed: Vec<&str> = parsed.into_iter().map(RawValue::get).collect();
        assert_eq!(scanned, parsed);
    }
}
