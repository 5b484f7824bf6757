//! The schema as it is published, for editors. It accepts the same files as the schema of the types,
//! but an editor underlines the value at fault and not the table around it: choices between
//! alternatives become `if`/`then` on the type of the value, or on the key that decides.
//!
//! Also stricter where the types only say "text": targets of a mapping, paths, settings of a codec.

use serde_json::{Map, Value, json};

use crate::call::CallKind;

/// Where the schema is published.
const ID: &str =
    "https://raw.githubusercontent.com/usercom-sink/usercom-sink/main/schema/pipeline.schema.json";

/// How paths begin. A path may also come from `${}`.
const PATH: &str = r"^(\.|\^\.|%|\$\{)";

/// Targets that are not objects, for each call. `mapping::compile` checks the same.
const TARGETS: [(CallKind, &[&str], &str); 5] = [
    (
        CallKind::Identify,
        &["user_id", "anonymous_id", "user_key", "message_id", "timestamp"],
        "traits",
    ),
    (
        CallKind::Page,
        &["user_id", "anonymous_id", "user_key", "message_id", "timestamp", "name", "category"],
        "properties",
    ),
    (
        CallKind::Track,
        &["user_id", "anonymous_id", "user_key", "message_id", "timestamp", "event"],
        "properties",
    ),
    (
        CallKind::Group,
        &["user_id", "anonymous_id", "user_key", "message_id", "timestamp", "group_id"],
        "traits",
    ),
    (CallKind::Alias, &["user_id", "previous_id", "message_id", "timestamp"], "context"),
];

/// Examples of settings, by the name of the definition and of the property.
const EXAMPLES: [(&str, &str, &str); 8] = [
    (
        "SourceConfig",
        "include",
        r#"[["logs/*.ndjson"], ["/var/log/app/*.log", "/var/log/app/*.log.gz"]]"#,
    ),
    ("SourceConfig", "address", r#"["127.0.0.1:8080", "0.0.0.0:8080"]"#),
    ("SourceConfig", "timezone", r#"["Europe/Warsaw"]"#),
    ("SinkConfig", "inputs", r#"[["app"]]"#),
    ("SinkConfig", "app", r#"["acme"]"#),
    ("SinkConfig", "api_key", r#"["${USERCOM_API_KEY}", "${file:/run/secrets/usercom}"]"#),
    ("RequestConfig", "rate_limit_num", "[10]"),
    ("BufferConfig", "max_size", "[1073741824]"),
];

/// The published schema.
pub(super) fn editor_schema(types: &Value) -> Value {
    let mut schema = types.clone();
    let definitions = schema.get("$defs").cloned().unwrap_or_default();
    let editor = Editor { definitions };
    editor.rewrite(&mut schema);
    let Value::Object(root) = &mut schema else {
        return schema;
    };
    root.insert("$id".to_owned(), ID.into());
    root.insert("examples".to_owned(), json!([example()]));
    if let Some(Value::Object(definitions)) = root.get_mut("$defs") {
        mapping(definitions);
        decoding(definitions);
        for (definition, property, text) in EXAMPLES {
            let examples: Value = serde_json::from_str(text).expect("a constant JSON text");
            if let Some(found) = definitions.get_mut(definition) {
                add_examples(found, property, &examples);
            }
        }
    }
    schema
}

fn example() -> Value {
    json!({
        "sources": { "app": { "type": "file", "include": ["logs/*.ndjson"] } },
        "sinks": { "crm": {
            "type": "usercom", "inputs": ["app"], "app": "acme",
            "api_key": "${USERCOM_API_KEY}", "preset": "segment",
        } },
    })
}

/// Adds examples to a property, in every alternative that has it.
fn add_examples(schema: &mut Value, property: &str, examples: &Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(found)) =
                object.get_mut("properties").and_then(|all| all.get_mut(property))
            {
                found.insert("examples".to_owned(), examples.clone());
            }
            for word in ["allOf", "then"] {
                if let Some(below) = object.get_mut(word) {
                    add_examples(below, property, examples);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                add_examples(item, property, examples);
            }
        }
        _ => {}
    }
}

/// Rewrites choices.
struct Editor {
    definitions: Value,
}

impl Editor {
    fn rewrite(&self, schema: &mut Value) {
        match schema {
            Value::Object(object) => {
                for (key, below) in object.iter_mut() {
                    // Values of these are not schemas.
                    if !["default", "examples", "enum", "const"].contains(&key.as_str()) {
                        self.rewrite(below);
                    }
                }
                self.choice(object);
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.rewrite(item)),
            _ => {}
        }
    }

    fn choice(&self, object: &mut Map<String, Value>) {
        let word = ["anyOf", "oneOf"].into_iter().find(|word| object.contains_key(*word));
        let Some(Value::Array(alternatives)) = word.and_then(|word| object.remove(word)) else {
            return;
        };
        let tags: Vec<Option<String>> = alternatives.iter().map(tag).collect();
        if alternatives.iter().any(|alternative| self.types(alternative).is_empty()) {
            object.insert("anyOf".to_owned(), alternatives.into());
            return;
        }
        if tags.iter().all(Option::is_some) {
            by_tag(object, alternatives, tags.into_iter().flatten().collect());
        } else {
            self.by_type(object, alternatives);
        }
    }

    /// Alternatives of different types: the type of the value decides.
    fn by_type(&self, object: &mut Map<String, Value>, alternatives: Vec<Value>) {
        let mut groups: Vec<(String, Vec<Value>)> = Vec::new();
        for alternative in alternatives {
            for kind in self.types(&alternative) {
                match groups.iter_mut().find(|(known, _)| *known == kind) {
                    Some((_, group)) => group.push(alternative.clone()),
                    None => groups.push((kind, vec![alternative.clone()])),
                }
            }
        }
        let kinds: Vec<&str> = groups.iter().map(|(kind, _)| kind.as_str()).collect();
        let kinds = match kinds.as_slice() {
            [only] => json!(only),
            several => json!(several),
        };
        object.insert("type".to_owned(), kinds);
        if let [(_, group)] = groups.as_slice()
            && let Some((words, descriptions)) = words(group)
        {
            object.insert("enum".to_owned(), words);
            object.insert("enumDescriptions".to_owned(), descriptions);
            return;
        }
        let rules: Vec<Value> = groups
            .into_iter()
            .filter_map(|(kind, group)| {
                let then = match (words(&group), group.as_slice()) {
                    (Some((words, descriptions)), _) => {
                        json!({ "enum": words, "enumDescriptions": descriptions })
                    }
                    (None, [only]) if says_only_its_type(only) => return None,
                    (None, [only]) => only.clone(),
                    (None, several) if several.iter().any(says_only_its_type) => return None,
                    (None, several) => json!({ "anyOf": several }),
                };
                Some(json!({ "if": { "type": kind }, "then": then }))
            })
            .collect();
        if !rules.is_empty() {
            object.insert("allOf".to_owned(), rules.into());
        }
    }

    /// The JSON types that a schema admits.
    fn types(&self, schema: &Value) -> Vec<String> {
        let reference = schema.get("$ref").and_then(Value::as_str);
        if let Some(name) = reference.and_then(|name| name.strip_prefix("#/$defs/")) {
            return self.definitions.get(name).map(|found| self.types(found)).unwrap_or_default();
        }
        let below = ["anyOf", "oneOf"].into_iter().find_map(|word| schema.get(word)?.as_array());
        let mut types: Vec<String> = match (below, schema.get("type")) {
            (Some(below), _) => below.iter().flat_map(|below| self.types(below)).collect(),
            (None, Some(Value::String(kind))) => vec![kind.clone()],
            (None, Some(Value::Array(kinds))) => {
                kinds.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        // In JSON a whole number is a number.
        if types.iter().any(|kind| kind == "number") {
            types.retain(|kind| kind != "integer");
        }
        let mut seen = Vec::new();
        types.retain(|kind| {
            !seen.contains(kind) && {
                seen.push(kind.clone());
                true
            }
        });
        types
    }
}

/// The value of `type` that selects an alternative.
fn tag(schema: &Value) -> Option<String> {
    schema.get("properties")?.get("type")?.get("const")?.as_str().map(str::to_owned)
}

/// Alternatives that the key `type` selects.
fn by_tag(object: &mut Map<String, Value>, alternatives: Vec<Value>, tags: Vec<String>) {
    object.insert("type".to_owned(), "object".into());
    object.insert("required".to_owned(), json!(["type"]));
    object.insert("properties".to_owned(), json!({ "type": { "enum": tags } }));
    let rules: Vec<Value> = tags
        .iter()
        .zip(alternatives)
        .map(|(tag, then)| {
            let condition =
                json!({ "properties": { "type": { "const": tag } }, "required": ["type"] });
            json!({ "if": condition, "then": then })
        })
        .collect();
    object.insert("allOf".to_owned(), rules.into());
}

/// The words of alternatives that are all words, and what they mean.
fn words(alternatives: &[Value]) -> Option<(Value, Value)> {
    let words: Option<Vec<&Value>> = alternatives.iter().map(|one| one.get("const")).collect();
    let descriptions = alternatives.iter().map(|one| one.get("description").cloned());
    let descriptions: Vec<Value> = descriptions.map(Option::unwrap_or_default).collect();
    Some((json!(words?), json!(descriptions)))
}

fn says_only_its_type(schema: &Value) -> bool {
    let silent = |key: &String| ["type", "description", "format"].contains(&key.as_str());
    schema.as_object().is_some_and(|object| object.keys().all(silent))
}

/// Targets and paths of mapping rules.
fn mapping(definitions: &mut Map<String, Value>) {
    let path = json!({ "type": "string", "pattern": PATH });
    let value = json!({ "$ref": "#/$defs/FieldValue" });
    let mut calls = Vec::new();
    let mut everything: Vec<&str> = Vec::new();
    for (call, targets, object) in TARGETS {
        let plain: Map<String, Value> =
            targets.iter().map(|name| ((*name).to_owned(), value.clone())).collect();
        everything.extend(targets);
        calls.push(json!({
            "if": { "properties": { "call": { "const": call.as_str() } }, "required": ["call"] },
            "then": { "properties": { "fields": {
                "properties": plain,
                "patternProperties": { format!(r"^({object}|context)\."): value },
                "additionalProperties": false,
            } } },
        }));
    }
    everything.sort_unstable();
    everything.dedup();
    let names: Vec<&str> = TARGETS.iter().map(|(call, ..)| call.as_str()).collect();
    let any = format!(r"^(({})$|(traits|properties|context)\.)", everything.join("|"));
    calls.push(json!({
        "if": { "not": { "properties": { "call": { "enum": names } }, "required": ["call"] } },
        "then": { "properties": { "fields": { "propertyNames": { "pattern": any } } } },
    }));
    set(definitions, "/Rule/allOf", calls.into());
    set(definitions, "/Rule/properties/foreach/pattern", PATH.into());
    merge_where(definitions, "FieldValue", "string", &path);
    merge_where(definitions, "PathOrPaths", "string", &path);
    merge_where(definitions, "PathOrPaths", "array", &json!({ "type": "array", "items": path }));
    let group = json!({ "type": "array", "items": { "$ref": "#/$defs/Condition" } });
    let keys = format!(r"{PATH}|^(any|all|none)$");
    set(definitions, "/Condition/propertyNames", json!({ "pattern": keys }));
    set(definitions, "/Condition/properties", json!({ "any": group, "all": group, "none": group }));
}

/// Settings of a decoding step that belong to one codec, and its paths.
fn decoding(definitions: &mut Map<String, Value>) {
    for key in ["from", "into"] {
        set(definitions, &format!("/DecodingStep/properties/{key}/pattern"), PATH.into());
    }
    let codec =
        |name: &str| json!({ "properties": { "codec": { "const": name } }, "required": ["codec"] });
    let absent = |keys: &[&str]| {
        let none = keys.iter().map(|key| ((*key).to_owned(), json!({ "type": "null" })));
        json!({ "properties": none.collect::<Map<String, Value>>() })
    };
    let rules = json!([
        { "if": codec("regex"), "then": { "required": ["pattern"] }, "else": absent(&["pattern"]) },
        { "if": codec("csv"), "else": absent(&["columns", "delimiter"]) },
    ]);
    set(definitions, "/DecodingStep/allOf", rules);
}

/// Sets a value below a definition; the definition is there.
fn set(definitions: &mut Map<String, Value>, pointer: &str, value: Value) {
    let mut parts = pointer.trim_start_matches('/').split('/').peekable();
    let Some(first) = parts.next() else { return };
    let mut at = definitions.entry(first).or_insert_with(|| json!({}));
    while let Some(part) = parts.next() {
        let Value::Object(object) = at else { return };
        if parts.peek().is_none() {
            object.insert(part.to_owned(), value);
            return;
        }
        at = object.entry(part).or_insert_with(|| json!({}));
    }
}

/// Makes the alternative of a type stricter.
fn merge_where(definitions: &mut Map<String, Value>, name: &str, kind: &str, stricter: &Value) {
    let Some(Value::Object(object)) = definitions.get_mut(name) else { return };
    let rules = object.entry("allOf").or_insert_with(|| json!([]));
    let Value::Array(rules) = rules else { return };
    let condition = json!({ "type": kind });
    match rules.iter_mut().find(|rule| rule.get("if") == Some(&condition)) {
        Some(rule) => rule["then"] = stricter.clone(),
        None => rules.push(json!({ "if": condition, "then": stricter })),
    }
}
