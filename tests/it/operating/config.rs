//! Rows 3, 6, 17 and 19 of the field report: what `validate` and its siblings say of a file.

use serde_json::Value;

use crate::support::{TestDir, binary, usercom_sink};

/// A pipeline from `records.ndjson`, whose key is not set, with one rule.
pub(super) const UNSET: &str = r#"
data_dir = "./data"

[sources.app]
type = "file"
include = ["records.ndjson"]

[sinks.crm]
type = "usercom"
inputs = ["app"]
endpoint = "http://127.0.0.1:9/api/public/"
api_key = "${USERCOM_SINK_TEST_UNSET}"

[[sinks.crm.mapping]]
name = "signup"
when = { ".kind" = "signup" }
call = "identify"
[sinks.crm.mapping.fields]
user_id = ".id"
"traits.email" = { path = ".email", required = true }
"#;

/// What `validate` prints as JSON for a file.
fn validate(place: &TestDir, text: &str) -> Vec<Value> {
    let config = place.write("checked.toml", text);
    let output = binary()
        .args(["validate", "--no-environment", "--format", "json", "-c"])
        .arg(config)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// The code and help of every fault whose line in the file holds `text`.
fn faults_at<'a>(faults: &'a [Value], file: &str, text: &str) -> Vec<(&'a str, &'a str)> {
    let line = file.lines().position(|line| line.contains(text)).expect(text) + 1;
    let here = faults.iter().filter(|fault| fault["line"] == line);
    here.map(|fault| (fault["code"].as_str().unwrap(), fault["help"].as_str().unwrap_or_default()))
        .collect()
}

#[test]
fn f3_06_unset_key_is_a_warning_where_no_network_is_used() {
    // Guarantees that commands without network run without the key, and that those with it refuse.
    let place = TestDir::new();
    place.write("records.ndjson", "{\"kind\":\"signup\",\"id\":\"u1\",\"email\":\"a@b.c\"}\n");
    let tests = "[[tests]]\nname = \"t\"\nsink = \"crm\"\nrecord = { kind = \"other\" }\noutcome = \"unmatched\"\n";
    let config = place.write("pipeline.toml", &format!("{UNSET}{tests}"));
    let records = place.path().join("records.ndjson");
    let run = |args: &[&str]| {
        let output = binary().args(args).arg("-c").arg(&config).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for args in
        [&["validate", "--no-environment"][..], &["test"], &["explain", records.to_str().unwrap()]]
    {
        let (code, stderr) = run(args);
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
        assert!(stderr.contains("W0010"), "{args:?}: {stderr}");
    }
    for args in [&["validate"][..], &["run", "--once"]] {
        let (code, stderr) = run(args);
        assert_eq!(code, Some(78), "{args:?}: {stderr}");
        assert!(stderr.contains("E0010"), "{args:?}: {stderr}");
    }
}

#[test]
fn f3_06_unset_value_that_matters_offline_stays_an_error() {
    // Guarantees that no stand-in is used where state, decoding or mapping would be another one.
    let place = TestDir::new();
    for (from, to) in [
        ("\"./data\"", "\"${USERCOM_SINK_TEST_UNSET}\""),
        (
            "\"records.ndjson\"]",
            "\"records.ndjson\"]\ndecoding.codec = \"${USERCOM_SINK_TEST_UNSET}\"",
        ),
        ("\".kind\" = \"signup\"", "\".kind\" = \"${USERCOM_SINK_TEST_UNSET}\""),
        ("type = \"usercom\"", "type = \"usercom\"\nbuffer.type = \"${USERCOM_SINK_TEST_UNSET}\""),
    ] {
        assert!(UNSET.contains(from));
        let text = UNSET.replace(from, to);
        let faults = validate(&place, &text);
        assert!(faults.iter().any(|fault| fault["code"] == "E0010"), "{to}: {faults:?}");
    }
}

#[test]
fn f3_03_pattern_without_a_file_is_a_warning_with_its_place() {
    // Guarantees that `validate` names a pattern that matches nothing, and no other.
    let place = TestDir::new();
    place.write("here.ndjson", "");
    let text = UNSET.replace("\"records.ndjson\"", "\"here.ndjson\",\n  \"log/*.ndjson\"");
    let faults = validate(&place, &text);
    let warned: Vec<_> = faults.iter().filter(|fault| fault["code"] == "W0306").collect();
    assert_eq!(warned.len(), 1, "{faults:?}");
    assert_eq!(faults_at(&faults, &text, "log/*").len(), 1, "{faults:?}");
}

#[test]
fn f3_19_wrong_call_does_not_hide_other_faults() {
    // Guarantees that every fault of every rule is reported, also in a rule whose call is wrong or
    // missing, and that faults which only follow from the call are not.
    let place = TestDir::new();
    let rules = r#"
[[sinks.crm.mapping]]
name = "a"
call = "trakk"
[sinks.crm.mapping.fields]
user_id = ".id[a]"
event = ".event"
messageid = ".m"
"properties.title" = { path = "title", then = ["lower"] }
[[sinks.crm.mapping]]
name = "b"
[sinks.crm.mapping.fields]
user_id = "user.id"
[[sinks.crm.mapping]]
name = "c"
call = "group"
when = { "kind" = "x" }
"#;
    let text = format!("{UNSET}{rules}");
    let faults = validate(&place, &text);
    for (place, codes) in [
        ("call = \"trakk\"", &["E0104"][..]),
        ("user_id = \".id[a]\"", &["E0201"]),
        ("event = \".event\"", &[]),
        ("messageid", &["E0204"]),
        ("properties.title", &["E0202", "E0104"]),
        ("user_id = \"user.id\"", &["E0202"]),
        ("\"kind\" = \"x\"", &["E0202"]),
    ] {
        let found: Vec<_> =
            faults_at(&faults, &text, place).iter().map(|(code, _)| *code).collect();
        assert_eq!(found, codes, "{place}: {faults:#?}");
    }
}

#[test]
fn f3_17_hints_say_units_and_translate_other_notations() {
    // Guarantees that a duration, a size and a JSONPath are answered with what to write.
    let place = TestDir::new();
    let text = UNSET
        .replace("\".id\"", "\"$.data.id\"")
        .replace("{ path = \".email\"", "{ path = \"$['e mail']\"")
        .replace(
            "type = \"usercom\"",
            "type = \"usercom\"\nrequest.timeout_secs = \"30s\"\nbuffer.max_size = \"256MiB\"\nusers.unchanged_ttl_secs = 1.5",
        );
    let faults = validate(&place, &text);
    for (place, help) in [
        ("$.data.id", "write `.data.id` to read the record"),
        ("e mail", "write `.\"e mail\"` to read the record"),
        ("30s", "is a whole number of seconds: write 30"),
        ("256MiB", "is a whole number of bytes: write 268435456"),
        ("1.5", "is a whole number of seconds"),
    ] {
        let found = faults_at(&faults, &text, place);
        assert!(found.iter().any(|(_, text)| text.contains(help)), "{place}: {found:?}");
    }
    // And the article of a call agrees with it.
    let text = UNSET.replace("user_id = \".id\"\n", "");
    let faults = validate(&place, &text);
    let missing = faults.iter().find(|fault| fault["code"] == "E0214").expect("a fault");
    assert!(missing["message"].as_str().unwrap().starts_with("an identify call"), "{missing}");
}

#[test]
fn f3_19_emulator_takes_a_bare_number_as_rate_limit() {
    // Guarantees that `--rate-limit 200` means 200 a second.
    let output = usercom_sink(&["emulator", "--api-key", "k", "--rate-limit", "0"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("such as 10 or 10/s"), "{text}");
}
