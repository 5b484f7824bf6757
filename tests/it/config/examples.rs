//! What is shipped: the schema and the examples.

use std::path::Path;

use secrecy::ExposeSecret;
use usercom_sink::config::{Style, editor_schema, pipeline_schema, pipeline_schema_text};

use super::{GOOD, json, load_text, usercom};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn examples() -> Vec<(String, String)> {
    let folder = std::fs::read_dir(root().join("examples")).expect("the folder of examples");
    let mut examples: Vec<_> = folder
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a readable example");
            (path.display().to_string(), text)
        })
        .collect();
    examples.sort();
    examples
}

#[test]
fn committed_schema_is_current() {
    // An editor of a file with the committed schema shows what this program would report.
    let path = root().join("schema/pipeline.schema.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == pipeline_schema_text(),
        "schema/pipeline.schema.json is out of date: run \
         `cargo run -- schema > schema/pipeline.schema.json`"
    );
}

#[test]
fn schema_is_a_valid_json_schema() {
    // The schema itself follows its draft's rules.
    jsonschema::meta::validate(pipeline_schema()).expect("a valid schema");
    jsonschema::meta::validate(editor_schema()).expect("a valid schema for editors");
}

#[test]
fn every_setting_has_a_schema_description() {
    // Editors show a description for every key of every table.
    let schema = pipeline_schema();
    let mut missing = Vec::new();
    undocumented(schema, "", &mut missing);
    assert!(missing.is_empty(), "without description: {missing:?}");
}

fn undocumented(schema: &serde_json::Value, at: &str, missing: &mut Vec<String>) {
    match schema {
        serde_json::Value::Object(object) => {
            if let Some(properties) = object.get("properties").and_then(|p| p.as_object()) {
                for (key, property) in properties {
                    let tag = property.get("const").is_some();
                    if !tag && property.get("description").is_none() {
                        missing.push(format!("{at}.{key}"));
                    }
                }
            }
            for (word, value) in object.iter().filter(|(word, _)| *word != "default") {
                let at = format!("{at}/{word}");
                match value {
                    // The keys of this object are settings, not words of the schema.
                    serde_json::Value::Object(settings) if word == "properties" => {
                        for (key, setting) in settings {
                            undocumented(setting, &format!("{at}/{key}"), missing);
                        }
                    }
                    _ => undocumented(value, &at, missing),
                }
            }
        }
        serde_json::Value::Array(items) => {
            for item in items {
                undocumented(item, at, missing);
            }
        }
        _ => {}
    }
}

#[test]
fn every_example_passes_schema_and_loader() {
    // What is shipped as an example is free of faults and warnings, for editors and for the
    // program.
    let validator = jsonschema::validator_for(editor_schema()).expect("a valid schema");
    let examples = examples();
    assert!(examples.len() >= 6, "{} examples", examples.len());
    for (name, text) in examples {
        let instance = json(&name, &text);
        let errors: Vec<_> = validator
            .iter_errors(&instance)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        match load_text(&name, &text) {
            Ok(loaded) => {
                assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
                assert!(loaded.pipeline.tests.len() >= 2, "{name} shows its lesson by tests");
            }
            // A source that this build is without is the one fault an example may have here.
            Err(report)
                if !(cfg!(feature = "fluvio")
                    && cfg!(feature = "kafka")
                    && cfg!(feature = "vector"))
                    && report.diagnostics().iter().all(|d| d.code == "E0106") => {}
            Err(report) => panic!("{}", report.render(Style::Plain)),
        }
        assert!(text.contains("usercom-sink "), "{name} says how to run it");
    }
}

#[test]
fn defaults_equal_the_documented_ones() {
    // A minimal file gets the documented defaults, in the file's order, with its secret resolved.
    let loaded = load_text("p.toml", GOOD).expect("a good file");
    let sink = usercom(&loaded);
    assert_eq!(loaded.pipeline.data_dir, Path::new("./data"));
    assert_eq!(sink.api_key.expose_secret(), "s3cr3t-key");
    assert_eq!(sink.request.concurrency.fixed(), None);
    assert_eq!(sink.base_url().unwrap().as_str(), "https://acme.user.com/api/public/");
    assert_eq!(sink.request.timeout_secs, 30);
    assert_eq!(sink.buffer.max_events, 5_000);
    assert!(loaded.warnings.is_empty());
    assert!(!format!("{loaded:?}").contains("s3cr3t"), "secrets are not in Debug output");
}

#[test]
fn toml_json_and_yaml_load_equal() {
    // One pipeline in three notations becomes the same settings, order included.
    let toml = r#"
data_dir = "state"
[sources.z]
type = "file"
include = ["logs/*.ndjson"]
[sources.a]
type = "stdin"
decoding.codec = "logfmt"
[sinks.crm]
type = "usercom"
inputs = ["z", "a"]
endpoint = "http://127.0.0.1:8765/api/public"
api_key = "${KEY}"
request = { concurrency = 4, rate_limit_num = 10 }
[[sinks.crm.mapping]]
call = "track"
when = { ".n" = { gt = 1.5 }, ".on" = true }
fields = { user_id = ".u", event = { value = "caf\u00e9 😀" }, "properties.z" = ".z", "properties.a" = ".a" }
[[tests]]
name = "one"
sink = "crm"
record = { u = "1", n = 2, at = 2026-01-01T00:00:00Z }
calls = [{ type = "track", userId = "1" }]
"#;
    let json = r#"{
  "data_dir": "state",
  "sources": {
    "z": { "type": "file", "include": ["logs/*.ndjson"] },
    "a": { "type": "stdin", "decoding": { "codec": "logfmt" } }
  },
  "sinks": { "crm": {
    "type": "usercom", "inputs": ["z", "a"],
    "endpoint": "http:\/\/127.0.0.1:8765/api/public", "api_key": "${KEY}",
    "request": { "concurrency": 4, "rate_limit_num": 10 },
    "mapping": [{
      "call": "track",
      "when": { ".n": { "gt": 1.5 }, ".on": true },
      "fields": { "user_id": ".u", "event": { "value": "caf\u00e9 \ud83d\ude00" },
        "properties.z": ".z", "properties.a": ".a" }
    }]
  } },
  "tests": [{ "name": "one", "sink": "crm",
    "record": { "u": "1", "n": 2, "at": "2026-01-01T00:00:00Z" },
    "calls": [{ "type": "track", "userId": "1" }] }]
}"#;
    let yaml = r#"
data_dir: state
sources:
  z: { type: file, include: ["logs/*.ndjson"] }
  a:
    type: stdin
    decoding: { codec: logfmt }
sinks:
  crm:
    type: usercom
    inputs: [z, a]
    endpoint: http://127.0.0.1:8765/api/public
    api_key: ${KEY}
    request: { concurrency: 4, rate_limit_num: 10 }
    mapping:
      - call: track
        when: { .n: { gt: 1.5 }, .on: true }
        fields:
          user_id: .u
          event: { value: "caf\u00e9 😀" }
          properties.z: .z
          properties.a: .a
tests:
  - name: one
    sink: crm
    record: { u: "1", n: 2, at: 2026-01-01T00:00:00Z }
    calls: [{ type: track, userId: "1" }]
"#;
    let loaded = |name: &str, text: &str| match load_text(name, text) {
        Ok(loaded) => loaded,
        Err(report) => panic!("{}", report.render(Style::Plain)),
    };
    let from_toml = loaded("p.toml", toml);
    let from_json = loaded("p.json", json);
    let from_yaml = loaded("p.yaml", yaml);
    assert_eq!(format!("{:?}", from_toml.pipeline), format!("{:?}", from_json.pipeline));
    assert_eq!(format!("{:?}", from_toml.pipeline), format!("{:?}", from_yaml.pipeline));
    let names: Vec<_> = from_toml.pipeline.sources.keys().collect();
    assert_eq!(names, ["z", "a"], "file order is kept");
    let targets: Vec<_> = usercom(&from_toml).mapping[0].fields.keys().collect();
    assert_eq!(targets, ["user_id", "event", "properties.z", "properties.a"]);
    assert_eq!(
        usercom(&from_yaml).endpoint.as_deref(),
        Some("http://127.0.0.1:8765/api/public/"),
        "a missing slash is added"
    );
    assert_eq!(
        usercom(&from_yaml).base_url().unwrap().as_str(),
        "http://127.0.0.1:8765/api/public/"
    );
}
