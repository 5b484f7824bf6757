//! No text makes the loader panic.

use proptest::prelude::*;
use serde_json::{Value, json};
use usercom_sink::config::{Style, pipeline_schema};

use super::load_text;

const EXAMPLE: &str = include_str!("../../../examples/01-signup.toml");

const YAML: &str = "sources: {app: {type: stdin}}\nsinks:\n  crm: &a\n    type: usercom\n    inputs: [app]\n    app: acme\n    api_key: ${KEY}\n    preset: segment\n    x: *a\n";

const JSON: &str = r#"{"sources":{"app":{"type":"stdin"}},"sinks":{"crm":{"type":"usercom","inputs":["app"],"app":"acme","api_key":"${KEY}","mapping":[{"call":"track","fields":{"user_id":".\ud83d\ude00"}}]}}}"#;

fn survives(name: &str, text: &str) {
    if let Err(report) = load_text(name, text) {
        assert!(!report.is_empty(), "a refusal says why");
        let rendered = report.render(Style::Plain);
        assert!(rendered.contains("error"), "{rendered}");
        report.render(Style::Coloured);
    }
}

/// A text with a stretch of it replaced.
fn mutated(text: &'static str) -> impl Strategy<Value = String> {
    let characters: Vec<char> = text.chars().collect();
    let length = characters.len();
    let insertion = prop_oneof![
        Just(String::new()),
        "[\\[\\]{}\"'=:,.#\\n$*&|>-]{1,4}",
        "\\PC{0,3}",
        Just("${".to_owned()),
        Just("\"\"\"".to_owned()),
    ];
    prop::collection::vec((0..length, 0..6_usize, insertion), 1..4).prop_map(move |edits| {
        let mut characters = characters.clone();
        for (at, taken, insertion) in edits {
            let at = at.min(characters.len());
            let end = (at + taken).min(characters.len());
            characters.splice(at..end, insertion.chars());
        }
        characters.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_toml_file_is_loaded_or_rejected(text in mutated(EXAMPLE)) {
        // TOML with damage anywhere never makes the loader panic.
        survives("p.toml", &text);
    }

    #[test]
    fn mutated_yaml_file_is_loaded_or_rejected(text in mutated(YAML)) {
        // YAML with damage anywhere never makes the loader panic.
        survives("p.yaml", &text);
    }

    #[test]
    fn mutated_json_file_is_loaded_or_rejected(text in mutated(JSON)) {
        // JSON with damage anywhere never makes the loader panic.
        survives("p.json", &text);
    }

    #[test]
    fn any_text_is_loaded_or_rejected(text in "\\PC{0,60}") {
        // Text that was never a pipeline is refused in every notation.
        for name in ["p.toml", "p.yaml", "p.json"] {
            survives(name, &text);
        }
    }
}

/// A pipeline that uses most settings.
const RICH: &str = r#"
data_dir = "state"
[api]
listen = "127.0.0.1:8686"
[sources.app]
type = "file"
include = ["a", "b"]
read_from = "end"
max_line_bytes = 10
decoding = { codec = "csv", columns = ["a"], delimiter = ";" }
[sources.in]
type = "stdin"
[sinks.crm]
type = "usercom"
inputs = ["app", "in"]
app = "acme"
api_key = "k"
preset = "segment"
unmatched = "dead_letter"
request = { concurrency = 4, rate_limit_num = 10, timeout_secs = 3, retry_attempts = 2 }
buffer = { type = "disk", max_size = 10, when_full = "block" }
users = { create_missing = true, unknown_attributes = "drop", cache_size = 10 }
delivery = { fold = false, max_in_flight = 5 }
healthcheck = { enabled = true }
[[sinks.crm.mapping]]
name = "one"
call = "track"
foreach = ".items"
stop = true
when = { ".a" = 1, ".b" = { in = ["x", 2, true], gt = 1.5 }, any = [{ ".c" = true }] }
[sinks.crm.mapping.fields]
user_id = ".u"
event = { cases = [{ when = { ".a" = 1 }, path = [".b", ".c"] }, { value = "x" }] }
"properties.a" = { path = ".a", then = ["trim"], replace = [["a", "b"]], as = "float", map = { a = 1 }, required = true }
"properties.*" = [".x", { path = ".y", only = ["a"], rename = { a = "b" }, each = { a = ".b" } }]
[[tests]]
name = "t"
sink = "crm"
record = { a = [1] }
exact = true
calls = [{ type = "track", userId = "u", properties = { a = 1 } }]
requests = [{ method = "POST", body = { a = 1 } }]
"#;

/// Every place in a value, as a JSON pointer.
fn pointers(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(value, format!("{at}/{key}"), out);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                pointers(value, format!("{at}/{index}"), out);
            }
        }
        _ => {}
    }
    out.push(at);
}

#[test]
fn schema_and_loader_agree_on_mutated_values() {
    // At every place of a rich pipeline, every kind of value is refused for its shape by the
    // loader exactly where the schema refuses it, and what both accept is understood.
    let validator = jsonschema::validator_for(pipeline_schema()).expect("a valid schema");
    let rich = super::json("p.toml", RICH);
    let mut places = Vec::new();
    pointers(&rich, String::new(), &mut places);
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(7.0),
        json!(1.5),
        json!(5_000_000_000_u64),
        json!(u64::MAX),
        json!("word"),
        json!("stdin"),
        json!([]),
        json!(["x"]),
        json!([["x"]]),
        json!({}),
        json!({ "x": 1 }),
        json!({ "type": "stdin" }),
        json!({ "path": ".x" }),
    ];
    let mut differences = Vec::new();
    for place in places {
        for value in &values {
            let mut changed = rich.clone();
            *changed.pointer_mut(&place).expect("a place of it") = value.clone();
            let report = load_text("p.json", &changed.to_string()).err();
            let found = report.iter().flat_map(|report| report.diagnostics());
            let codes: Vec<_> = found.map(|d| d.code).collect();
            let refused = codes.iter().any(|code| code.starts_with("E01"));
            if refused == validator.is_valid(&changed) || codes.contains(&"E0199") {
                differences.push(format!("{place} = {value}: {codes:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn depth_and_aliases_are_bounded() {
    // Files made to exhaust stack or memory are refused with a place.
    let deep = "[".repeat(50_000);
    for (name, text) in [
        ("p.toml", format!("a = {deep}")),
        ("p.json", deep.clone()),
        ("p.yaml", deep.clone()),
        ("p.json", format!("{}{}", "[".repeat(300), "]".repeat(300))),
    ] {
        let report = load_text(name, &text).expect_err(name);
        assert_eq!(report.diagnostics()[0].code, "E0002", "{name}");
    }
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let report = load_text("p.yaml", &laughs).expect_err("too large");
    assert_eq!(report.diagnostics()[0].code, "E0002");
}
