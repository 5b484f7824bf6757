//! A tried record as `[[tests]]` of a pipeline file.

use serde_json::{Map, Value};

use crate::api::TriedRecord;

/// Keys of a call that a test can name.
const CALL_KEYS: &[&str] = &[
    "type",
    "userId",
    "anonymousId",
    "messageId",
    "timestamp",
    "event",
    "name",
    "category",
    "groupId",
    "previousId",
    "traits",
    "properties",
    "context",
];

/// The record as a test that holds now.
pub(super) fn test_text(sink: &str, tried: &TriedRecord, number: usize) -> String {
    let mut text = format!(
        "[[tests]]\nname = \"record {number}\"\nsink = {}\n",
        toml_value(&Value::from(sink)).unwrap_or_default()
    );
    let record = serde_json::from_str::<Value>(&tried.record).ok();
    match record.as_ref().and_then(toml_value) {
        Some(record) => text += &format!("record = {record}\n"),
        None => {
            let line = toml_value(&Value::from(tried.record.as_str())).unwrap_or_default();
            text += &format!("line = {line}\n");
        }
    }
    if !tried.errors.is_empty() {
        text += "outcome = \"dead_letter\"\n";
    } else if tried.calls.is_empty() {
        text += "outcome = \"unmatched\"\n";
    } else {
        for call in &tried.calls {
            text += "[[tests.calls]]\n";
            for key in CALL_KEYS {
                // An empty object names nothing to compare.
                let value = call.get(*key).filter(|value| **value != Value::Object(Map::new()));
                if let Some(value) = value.and_then(toml_value) {
                    text += &format!("{key} = {value}\n");
                }
            }
        }
    }
    text.push('\n');
    text
}

/// A value in TOML's notation; `None` where TOML has no such value (null).
fn toml_value(value: &Value) -> Option<String> {
    let value = match value {
        Value::Null => return None,
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.to_string(),
            // `1e20` is a float in TOML too, `{:?}` writes the point that it needs.
            (None, Some(float)) if float.is_finite() => format!("{float:?}"),
            _ => return None,
        },
        Value::String(text) => toml_string(text),
        Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(toml_value).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Object(entries) => {
            let entries: Option<Vec<_>> = entries
                .iter()
                .map(|(key, value)| Some(format!("{} = {}", toml_key(key), toml_value(value)?)))
                .collect();
            let entries = entries?;
            if entries.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{ {} }}", entries.join(", "))
            }
        }
    };
    Some(value)
}

fn toml_key(key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !key.is_empty() && key.bytes().all(bare) { key.to_owned() } else { toml_string(key) }
}

fn toml_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            // `$${` is how a pipeline file writes `${`.
            c => out.push(c),
        }
    }
    let out = out.replace("${", "$${");
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tests_hold_every_value_that_toml_can_write() {
        // Guarantees that a parser reads back the same record and the same calls, whatever is in them.
        let record = json!({
            "a b": "\"quoted\" \\ \u{1}\n\u{e9}", "n": [1, -2.5, 1e20, true], "o": { "": {} },
        });
        let call = json!({ "type": "track", "userId": "u", "event": "E", "properties": {} });
        let tried =
            TriedRecord { record: record.to_string(), calls: vec![call], ..TriedRecord::default() };
        let text = test_text("crm", &tried, 1);
        let parsed: toml::Value = toml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let parsed = serde_json::to_value(parsed).unwrap();
        assert_eq!(parsed["tests"][0]["record"], record, "{text}");
        let calls = json!([{ "type": "track", "userId": "u", "event": "E" }]);
        assert_eq!(parsed["tests"][0]["calls"], calls, "{text}");
    }

    #[test]
    fn record_with_null_is_written_as_its_line() {
        // Guarantees that a record TOML cannot write is still tested.
        let tried = TriedRecord { record: r#"{"a":null}"#.to_owned(), ..TriedRecord::default() };
        let text = test_text("crm", &tried, 2);
        assert!(text.contains(r#"line = "{\"a\":null}""#), "{text}");
        assert!(text.contains("outcome = \"unmatched\""), "{text}");
    }
}
