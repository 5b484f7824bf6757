//! Decodes web forms (`application/x-www-form-urlencoded`), as many webhooks send them: one record
//! each.
//!
//! `a=1&b=2` is `{"a":"1","b":"2"}`. A repeated name makes a list. Names in brackets nest, as PHP,
//! Rails and Mailchimp write them: `data[email]=x` is `{"data":{"email":"x"}}`, `tags[]=a` appends
//! to a list, and an object whose names are `0`, `1`, `2` … is a list. A name that fits none of
//! this, or contradicts an earlier one, is used unchanged.
//!
//! # Invariants
//!
//! Every value is in the record; nothing is overwritten.

use serde_json::{Map, Value};

use super::reply::RequestError;

/// The most values of one form.
const MAX_VALUES: usize = 10_000;

/// How deep names may nest.
const MAX_DEPTH: usize = 16;

/// The media type of forms.
pub(super) const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// Memory that one value of a form may take besides its bytes.
pub(super) const VALUE_BYTES: usize = 256;

/// The record of a form.
pub(super) fn record(body: &[u8]) -> Result<Value, RequestError> {
    if body.iter().filter(|byte| **byte == b'&').count() >= MAX_VALUES {
        return Err(RequestError::TooMany);
    }
    let mut record = Map::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        insert(&mut record, &name, value.into_owned());
    }
    Ok(with_lists(Value::Object(record)))
}

fn insert(record: &mut Map<String, Value>, name: &str, value: String) {
    let nested = parts(name).is_some_and(|parts| place(record, &parts, &value));
    if !nested {
        add(record, name, Value::String(value));
    }
}

/// The parts of a name in brackets: `a[b][]` is `a`, `b` and an empty part.
fn parts(name: &str) -> Option<Vec<&str>> {
    let (base, rest) = name.split_at(name.find('[')?);
    let inner = rest.strip_prefix('[')?.strip_suffix(']')?;
    let mut parts = vec![base];
    parts.extend(inner.split("]["));
    let last = parts.len() - 1;
    let sound = parts.iter().enumerate().all(|(at, part)| {
        !part.contains(['[', ']']) && (!part.is_empty() || (at == last && at > 0))
    });
    (sound && parts.len() <= MAX_DEPTH).then_some(parts)
}

/// Inserts a value at the path of these parts; `false` where another value is in the way.
fn place(record: &mut Map<String, Value>, parts: &[&str], value: &str) -> bool {
    match parts {
        [] => false,
        [name] => {
            if matches!(record.get(*name), Some(Value::Object(_))) {
                return false;
            }
            add(record, name, value.into());
            true
        }
        [name, ""] => match record.entry(*name).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(items) => {
                items.push(value.into());
                true
            }
            _ => false,
        },
        [name, rest @ ..] => {
            match record.entry(*name).or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(inner) => place(inner, rest, value),
                _ => false,
            }
        }
    }
}

/// Adds a value to an object; a second one of the same name makes a list.
fn add(record: &mut Map<String, Value>, name: &str, value: Value) {
    match record.get_mut(name) {
        None => drop(record.insert(name.to_owned(), value)),
        Some(Value::Array(items)) => items.push(value),
        Some(other) => *other = Value::Array(vec![other.take(), value]),
    }
}

/// Turns objects whose names count from 0 into lists.
fn with_lists(value: Value) -> Value {
    let Value::Object(object) = value else { return value };
    let counts = !object.is_empty()
        && (0..object.len()).all(|number| object.contains_key(number.to_string().as_str()));
    if !counts {
        let nested = object.into_iter().map(|(name, value)| match value {
            Value::Object(_) => (name, with_lists(value)),
            other => (name, other),
        });
        return Value::Object(nested.collect());
    }
    let mut object = object;
    let items = (0..object.len()).filter_map(|number| object.remove(&number.to_string()));
    // Collected first, because the number of names is compared.
    let items: Vec<Value> = items.collect();
    Value::Array(items.into_iter().map(with_lists).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(body: &str) -> Value {
        record(body.as_bytes()).unwrap()
    }

    #[test]
    fn form_names_nest_and_repeat() {
        // Guarantees the record of flat, repeated, nested and numbered names.
        assert_eq!(read("a=1&b=x+y%21&c"), json!({"a": "1", "b": "x y!", "c": ""}));
        assert_eq!(read("a=1&a=2&a=3"), json!({"a": ["1", "2", "3"]}));
        assert_eq!(
            read(
                "type=subscribe&data%5Bemail%5D=a%40b.c&data[merges][FNAME]=Ann&tags[]=x&tags[]=y"
            ),
            json!({"type": "subscribe", "data": {"email": "a@b.c", "merges": {"FNAME": "Ann"}}, "tags": ["x", "y"]})
        );
        assert_eq!(
            read("items[0][sku]=a&items[1][sku]=b"),
            json!({"items": [{"sku": "a"}, {"sku": "b"}]})
        );
        assert_eq!(read("%F0%9F%98%80=%C5%BC"), json!({"😀": "ż"}));
    }

    #[test]
    fn malformed_form_name_is_kept_unchanged() {
        // Guarantees that nothing is lost where names are malformed or contradict each other.
        assert_eq!(read("a=1&a[b]=2"), json!({"a": "1", "a[b]": "2"}));
        assert_eq!(read("a[b]=2&a=1"), json!({"a": [{"b": "2"}, "1"]}));
        assert_eq!(
            read("a[=1&]=2&[x]=3&a[b=4"),
            json!({"a[": "1", "]": "2", "[x]": "3", "a[b": "4"})
        );
        let deep = format!("a{}=1", "[b]".repeat(20));
        assert_eq!(read(&deep)[&deep[..deep.len() - 2]], "1");
    }

    proptest! {
        #[test]
        fn every_form_value_is_in_the_record(names in prop::collection::vec("[a-c\\[\\]0-1]{0,6}", 0..12)) {
            // Guarantees that no value is lost, whatever the names are.
            let pairs = names.iter().enumerate().map(|(n, name)| format!("{name}=v{n};"));
            let body = pairs.collect::<Vec<_>>().join("&");
            let text = read(&body).to_string();
            for n in 0..names.len() {
                let value = format!("\"v{n};\"");
                prop_assert!(text.contains(&value), "{value} of {body} is not in {text}");
            }
        }
    }
}
