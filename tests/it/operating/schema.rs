//! Row 11: what an editor underlines with the published schema.

use serde_json::{Value, json};

use crate::support::{TestDir, binary, usercom_sink};

/// The schema as the program prints it.
fn schema() -> Value {
    let output = usercom_sink(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn pipeline() -> Value {
    json!({
        "sources": { "app": { "type": "file", "include": ["*.ndjson"], "decoding": { "codec": "json" } } },
        "sinks": { "crm": {
            "type": "usercom", "inputs": ["app"], "app": "acme", "api_key": "k",
            "mapping": [{
                "call": "identify",
                "when": { ".kind": "signup", "any": [{ ".a": { "exists": true } }] },
                "fields": {
                    "user_id": ".id",
                    "traits.email": { "path": [".email", ".mail"], "then": ["trim", { "get": ".x" }] },
                    "traits.n": { "path": ".n", "as": "integer" },
                },
            }],
        } },
    })
}

/// The pipeline with the value at a pointer put in, which may be a new key.
fn with(pointer: &str, value: &Value) -> Value {
    let mut changed = pipeline();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match changed.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}")) {
        Value::Object(object) => {
            object.insert(key.to_owned(), value.clone());
        }
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value.clone(),
        _ => panic!("{pointer}"),
    }
    changed
}

#[test]
fn f3_11_errors_are_at_the_value_at_fault() {
    // Guarantees that no error is at a table around the value: each is at the value, or at the table
    // whose key is unknown or missing.
    let validator = jsonschema::validator_for(&schema()).expect("a valid schema");
    let places = |instance: &Value| -> Vec<String> {
        validator.iter_errors(instance).map(|error| error.instance_path().to_string()).collect()
    };
    assert_eq!(places(&pipeline()), Vec::<String>::new());
    let rule = "/sinks/crm/mapping/0";
    for (pointer, value, at) in [
        ("/fields/traits.email/then/0".to_owned(), json!("trimm"), None),
        ("/fields/traits.email/then/1".to_owned(), json!({ "got": ".x" }), None),
        ("/fields/traits.email/path/1".to_owned(), json!("mail"), None),
        ("/fields/traits.n/as".to_owned(), json!("int"), None),
        ("/fields/traits.n/requird".to_owned(), json!(true), Some("/fields/traits.n")),
        ("/fields/user_id".to_owned(), json!("id"), None),
        ("/fields/user_id".to_owned(), json!(7), None),
        ("/fields/messageid".to_owned(), json!(".m"), Some("/fields")),
        ("/fields/data.title".to_owned(), json!(".m"), Some("/fields")),
        ("/fields/properties.x".to_owned(), json!(".m"), Some("/fields")),
        ("/fields/event".to_owned(), json!(".m"), Some("/fields")),
        ("/call".to_owned(), json!("identifyy"), None),
        ("/when/kind".to_owned(), json!("x"), Some("/when")),
        ("/when/any".to_owned(), json!({ ".a": 1 }), None),
        ("/foreach".to_owned(), json!("items"), None),
    ] {
        let found = places(&with(&format!("{rule}{pointer}"), &value));
        let at = format!("{rule}{}", at.unwrap_or(&pointer));
        assert!(!found.is_empty(), "{pointer} = {value} is accepted");
        assert!(found.iter().all(|place| place.starts_with(&at)), "{pointer} = {value}: {found:?}");
    }
    for (pointer, value, at) in [
        ("/sources/app/type", json!("fille"), "/sources/app/type"),
        ("/sources/app/includ", json!([]), "/sources/app"),
        ("/sources/app/decoding/codec", json!("regex"), "/sources/app/decoding"),
        ("/sources/app/decoding/columns", json!(["a"]), "/sources/app/decoding/columns"),
        ("/sources/app/decoding/codec", json!("jsn"), "/sources/app/decoding/codec"),
        ("/sinks/crm/buffer", json!({ "type": "dsk" }), "/sinks/crm/buffer/type"),
        ("/sinks/crm/request", json!({ "concurrency": "fast" }), "/sinks/crm/request/concurrency"),
    ] {
        let found = places(&with(pointer, &value));
        assert!(!found.is_empty(), "{pointer} = {value} is accepted");
        assert!(found.iter().all(|place| place.starts_with(at)), "{pointer} = {value}: {found:?}");
    }
}

#[test]
fn f3_11_schema_and_validate_agree_on_the_targets_of_every_call() {
    // Guarantees that editors accept the targets that the program accepts, and no others.
    let validator = jsonschema::validator_for(&schema()).expect("a valid schema");
    let place = TestDir::new();
    let targets = [
        "user_id",
        "anonymous_id",
        "message_id",
        "timestamp",
        "event",
        "name",
        "category",
        "group_id",
        "previous_id",
        "user_key",
        "traits.x",
        "properties.x",
        "context.x",
        "traits.*",
        "properties.*",
        "context.*",
        "userId",
        "data.x",
        "traits",
    ];
    for call in ["identify", "page", "track", "group", "alias"] {
        let mut accepted = Vec::new();
        for target in targets {
            let mut instance = pipeline();
            let rule = &mut instance["sinks"]["crm"]["mapping"][0];
            rule["call"] = call.into();
            rule["fields"] = json!({ target: ".x" });
            accepted.push(validator.is_valid(&instance));
        }
        // All targets in one file: each that the program refuses has a fault of its own.
        let mut instance = pipeline();
        let rule = &mut instance["sinks"]["crm"]["mapping"][0];
        rule["call"] = call.into();
        rule["fields"] = targets.iter().map(|target| ((*target).to_owned(), json!(".x"))).collect();
        let config = place.write("pipeline.json", &instance.to_string());
        let output = binary()
            .args(["validate", "--no-environment", "--format", "json", "-c"])
            .arg(config)
            .output()
            .unwrap();
        let faults: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        for (target, accepted) in targets.iter().zip(accepted) {
            let refused = faults.iter().any(|fault| {
                let message = fault["message"].as_str().unwrap();
                ["E0204", "E0205"].contains(&fault["code"].as_str().unwrap())
                    && message.contains(&format!("`{target}`"))
            });
            assert_eq!(accepted, !refused, "{call}, {target}: {faults:#?}");
        }
    }
}

#[test]
fn f3_11_schema_has_an_id_and_examples() {
    // Guarantees that editors can find the schema again, and show how settings look.
    let schema = schema();
    assert!(schema["$id"].as_str().unwrap().ends_with("/schema/pipeline.schema.json"));
    let validator = jsonschema::validator_for(&schema).unwrap();
    let example = &schema["examples"][0];
    assert!(validator.is_valid(example), "{example}");
    let text = schema.to_string();
    for example in
        ["logs/*.ndjson", "127.0.0.1:8080", "Europe/Warsaw", "${file:/run/secrets/usercom}"]
    {
        assert!(text.contains(example), "{example}");
    }
}
