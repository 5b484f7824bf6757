//! Lines of real files and streams, decoded.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use crate::support::{EmulatorAccount, KEY, TestDir, binary};

const SINK: &str = r#"
[[sinks.crm.mapping]]
call = "identify"
[sinks.crm.mapping.fields]
user_id = ".id"
"traits.*" = { path = ".", except = ["id"] }
"#;

/// A pipeline file of one source and one sink.
fn pipeline(source: &str, endpoint: &str, sink: &str) -> String {
    format!(
        "data_dir = \"state\"\n[sources.in]\n{source}\n[sinks.crm]\ntype = \"usercom\"\ninputs = [\"in\"]\nendpoint = \"{endpoint}\"\napi_key = \"{KEY}\"\n{sink}"
    )
}

/// Runs the built program in a folder.
fn run_in(dir: &Path, args: &[&str]) -> Output {
    binary().current_dir(dir).args(args).output().unwrap()
}

/// The same next to a running account.
async fn run_beside(dir: &Path, args: &'static [&'static str]) -> Output {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || run_in(&dir, args)).await.unwrap()
}

/// What `explain --format json` says, by record.
fn explained(source: &str, sink: &str, input: &[u8]) -> Vec<Value> {
    let place = TestDir::new();
    let text = pipeline(source, "http://127.0.0.1:9/api/public/", sink);
    fs::write(place.path().join("p.toml"), text).unwrap();
    fs::write(place.path().join("input"), input).unwrap();
    let output = run_in(place.path(), &["explain", "-c", "p.toml", "input", "--format", "json"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn dead_letters(dir: &Path) -> Vec<Value> {
    let output = run_in(dir, &["dead-letters", "list", "-c", "p.toml", "--format", "json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_ran(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The value of a custom attribute, or of a field, of a user; null where there is none.
async fn value_of(account: &EmulatorAccount, user: &str, name: &str) -> Value {
    let user = account.get(&format!("users-by-id/{user}/")).await;
    let attributes = user["attributes"].as_array().cloned().unwrap_or_default();
    let found = attributes.into_iter().find(|attribute| attribute["name"] == name);
    found.map_or(user[name].clone(), |attribute| attribute["value"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_newline_in_quoted_cell_stays_in_its_record() {
    // A quoted value over two lines is one value of one user, and no line of it is a row.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let source = "type = \"file\"\ninclude = [\"*.csv\"]\ndecoding.codec = \"csv\"";
    fs::write(place.path().join("p.toml"), pipeline(source, &account.endpoint(), SINK)).unwrap();
    fs::write(place.path().join("a.csv"), "id,note\n1,\"see:\n7,hacked\"\n8,ok\n").unwrap();
    assert_ran(&run_beside(place.path(), &["run", "-c", "p.toml", "--once"]).await);
    assert_eq!(value_of(&account, "1", "note").await, "see:\n7,hacked");
    assert_eq!(value_of(&account, "8", "note").await, "ok");
    assert_eq!(value_of(&account, "7", "note").await, Value::Null);
    assert_eq!(dead_letters(place.path()), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_quote_that_never_closes_makes_dead_letter() {
    // What is after a quote that is never closed is a dead letter, never a record.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let source = "type = \"file\"\ninclude = [\"*.csv\"]\ndecoding.codec = \"csv\"";
    fs::write(place.path().join("p.toml"), pipeline(source, &account.endpoint(), SINK)).unwrap();
    fs::write(place.path().join("a.csv"), "id,note\n8,ok\n1,\"see:\n7,hacked\n").unwrap();
    assert_ran(&run_beside(place.path(), &["run", "-c", "p.toml", "--once"]).await);
    assert_eq!(value_of(&account, "8", "note").await, "ok");
    assert_eq!(value_of(&account, "7", "note").await, Value::Null);
    let letters = dead_letters(place.path());
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].to_string().contains("not closed"), "{letters:?}");
}

#[test]
fn logfmt_escapes_are_decoded() {
    // Escapes of JSON, Go and C become the characters they stand for.
    let sink = "[[sinks.crm.mapping]]\ncall = \"track\"\n[sinks.crm.mapping.fields]\nuser_id = \".user\"\nevent = \".msg\"\n";
    let input = br#"user=u1 msg="caf\u00e9 \u20ac 5"
user=u1 msg="\ud83d\ude00"
user=u1 msg="\x41 \033[31mred"
"#;
    let got = explained("type = \"stdin\"\ndecoding.codec = \"logfmt\"", sink, input);
    let events: Vec<_> = got.iter().map(|line| line["record"]["msg"].clone()).collect();
    assert_eq!(events, [json!("café € 5"), json!("😀"), json!("A \u{1b}[31mred")]);
}

#[test]
fn json_array_on_one_line_makes_one_record_each() {
    // Each element of an array, and each of several objects on one line, is a record.
    let input =
        br#"[{"type":"track","userId":"u","event":"a"},{"type":"track","userId":"v","event":"b"}]
{"type":"track","userId":"u","event":"a"}{"type":"track","userId":"v","event":"b"}
"#;
    for source in ["type = \"stdin\"", "type = \"file\"\ninclude = [\"x\"]"] {
        let got = explained(source, "preset = \"segment\"", input);
        let users: Vec<_> = got.iter().map(|line| line["calls"][0]["userId"].clone()).collect();
        assert_eq!(users, [json!("u"), json!("v"), json!("u"), json!("v")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relative_paths_start_at_the_pipeline_file() {
    // Started in another folder, the same files are read and the same state is kept; where state
    // lies in the working directory instead, that is said.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    fs::create_dir_all(place.path().join("conf/logs")).unwrap();
    let source = "type = \"file\"\ninclude = [\"logs/*.ndjson\"]";
    let text = pipeline(source, &account.endpoint(), SINK).replace(KEY, "${file:key}");
    fs::write(place.path().join("conf/p.toml"), text).unwrap();
    fs::write(place.path().join("conf/key"), KEY).unwrap();
    fs::write(place.path().join("conf/logs/a.ndjson"), "{\"id\":\"u1\",\"note\":\"x\"}\n").unwrap();
    let args = &["run", "-c", "conf/p.toml", "--once"];
    let output = run_beside(place.path(), args).await;
    assert_ran(&output);
    assert_eq!(value_of(&account, "u1", "note").await, "x");
    assert!(place.path().join("conf/state/usercom-sink.db").is_file());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("conf/state") && !said.contains("W0305"), "{said}");
    fs::rename(place.path().join("conf/state"), place.path().join("state")).unwrap();
    let said = String::from_utf8_lossy(&run_beside(place.path(), args).await.stderr).into_owned();
    assert!(said.contains("W0305") && said.contains("sent again"), "{said}");
}

#[test]
fn lines_of_config_tests_are_decoded() {
    // `line` goes through the decoding of the sink's source or the one that is named, headers
    // and joined lines included; a dead letter shows its reason where calls were expected.
    let place = TestDir::new();
    let tests = r#"
[sources.rows]
type = "stdin"
decoding.codec = "csv"
[[tests]]
name = "rows"
sink = "crm"
source = "rows"
line = "id,note\n1,\"a\nb\"\n2,c"
calls = [{ type = "identify", userId = "1", traits = { note = "a\nb" } }, { type = "identify", userId = "2" }]
[[tests]]
name = "bad"
sink = "crm"
line = "{"
calls = [{ type = "identify" }]
"#;
    let source = "type = \"file\"\ninclude = [\"x\"]";
    let text = pipeline(source, "http://127.0.0.1:9/api/public/", SINK) + tests;
    let text = text.replace("inputs = [\"in\"]", "inputs = [\"in\", \"rows\"]");
    fs::write(place.path().join("p.toml"), text).unwrap();
    let output = run_in(place.path(), &["test", "-c", "p.toml"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("test rows ... ok") && said.contains("test bad ... FAILED"), "{said}");
    assert!(said.contains("line 1: not valid JSON"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}
