//! Times, ids, names and text in records of real senders.

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use crate::support::{EmulatorAccount, KEY, TestDir, binary, json_of, usercom_sink};

/// A pipeline that reads standard input; `source` and `sink` are the rest of their tables.
fn pipeline(place: &TestDir, endpoint: &str, source: &str, sink: &str) -> String {
    let dir = place.path().display();
    let text = format!(
        "data_dir = \"{dir}/data\"\n[sources.in]\ntype = \"stdin\"\n{source}\n[sinks.crm]\n\
         type = \"usercom\"\ninputs = [\"in\"]\nendpoint = \"{endpoint}\"\napi_key = \"{KEY}\"\n{sink}"
    );
    place.write("pipeline.toml", &text).to_str().unwrap().to_owned()
}

fn fed(args: &[&str], input: &str) -> Output {
    let mut child = binary()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What `explain --format json` says of each line.
fn explained(source: &str, sink: &str, lines: &[&str]) -> Vec<Value> {
    let place = TestDir::new();
    let config = pipeline(&place, "http://127.0.0.1:9/api/public/", source, sink);
    let output = fed(&["explain", "-c", &config, "--format", "json"], &(lines.join("\n") + "\n"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let values: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(values.len(), lines.len(), "{text}");
    values
}

const PRESET: &str = "preset = \"segment\"\n";

/// The body of the last request a record makes.
fn last_body(explained: &Value) -> &Value {
    &explained["requests"].as_array().unwrap().last().unwrap()["body"]
}

#[test]
fn preset_times_of_real_senders_are_read() {
    // Times of JavaScript, Go, Ruby, MongoDB and Apache are the moment they name.
    let lines = [
        (r#""2024-05-21 10:11:12 UTC""#, 1_716_286_272),
        (r#""Tue May 21 2024 10:11:12 GMT+0200 (CEST)""#, 1_716_279_072),
        (r#""2024-05-21 10:11:12.123456 +0000 UTC""#, 1_716_286_272),
        (r#""2024-05-21 10:11:12.123456 +0000 UTC m=+0.010""#, 1_716_286_272),
        (r#"{"$date":"2024-05-21T10:11:12Z"}"#, 1_716_286_272),
        (r#"{"$date":{"$numberLong":"1716286272000"}}"#, 1_716_286_272),
        (r#""21/May/2024:10:11:12 +0000""#, 1_716_286_272),
        (r#""20240521T101112Z""#, 1_716_286_272),
        (r#""2024-05-21T12:11:12+02:00[Europe/Warsaw]""#, 1_716_286_272),
        ("20240521101112", 1_716_286_272),
        ("1716286272000", 1_716_286_272),
    ];
    let records: Vec<String> = lines
        .iter()
        .map(|(time, _)| {
            format!(r#"{{"type":"track","userId":"u","event":"e","timestamp":{time}}}"#)
        })
        .collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    for (found, (time, expected)) in explained("", PRESET, &records).iter().zip(lines) {
        assert_eq!(last_body(found)["timestamp"], json!(expected), "{time}");
        assert_eq!(found["left_out"], json!([]), "{time}");
    }
}

#[test]
fn invalid_preset_time_falls_back_to_the_next() {
    // A zero time never beats a good one; where none is good the record is a dead letter. Both are
    // told.
    let found = explained(
        "",
        PRESET,
        &[
            r#"{"type":"track","userId":"u","event":"e","timestamp":"0001-01-01T00:00:00Z","originalTimestamp":"2024-05-21T10:11:12Z"}"#,
            r#"{"type":"track","userId":"u","event":"e","timestamp":"soon","sentAt":"2024-05-22T00:00:00Z","receivedAt":"2024-05-21T10:11:12Z"}"#,
            r#"{"type":"track","userId":"u","event":"e","timestamp":"5/6/2024"}"#,
        ],
    );
    for found in &found[..2] {
        assert_eq!(last_body(found)["timestamp"], json!(1_716_286_272));
        assert_eq!(found["left_out"][0]["field"], "timestamp");
    }
    assert_eq!(found[2]["requests"], json!([]));
    let error = found[2]["errors"][0].as_str().unwrap();
    assert!(error.contains("conversion_failed") && error.contains("5/6/2024"), "{error}");
}

#[test]
fn source_timezone_applies_to_times_without_zone() {
    // Local times are moved by the source's zone, summer and winter; times that say where they are
    // stay.
    let records = [
        r#"{"type":"track","userId":"u","event":"e","timestamp":"2024-05-21 10:11:12"}"#,
        r#"{"type":"track","userId":"u","event":"e","timestamp":"2024-01-21 10:11:12"}"#,
        r#"{"type":"track","userId":"u","event":"e","timestamp":"2024-05-21T10:11:12Z"}"#,
    ];
    let found = explained("timezone = \"Europe/Warsaw\"", PRESET, &records);
    let times: Vec<_> = found.iter().map(|found| last_body(found)["timestamp"].clone()).collect();
    assert_eq!(times, [1_716_279_072, 1_705_828_272, 1_716_286_272]);
}

#[tokio::test(flavor = "multi_thread")]
async fn source_timezone_applies_to_unmapped_traits() {
    // A trait without a rule that goes to a datetime or date attribute is read in the source's
    // zone, also where several writes of one user are sent as one.
    let account = EmulatorAccount::open(Faults::default()).await;
    for (name, kind) in [("signed_up", "datetime"), ("birthday", "date")] {
        let attribute = json!({ "name": name, "value_type": kind, "content_type": "clientuser" });
        account.post("attributes/", &attribute).await;
    }
    let lines = [
        r#"{"type":"identify","userId":"u","traits":{"signed_up":"2024-05-21 10:11:12","a":1}}"#,
        r#"{"type":"identify","userId":"u","traits":{"birthday":"2024-05-21 00:30:00","b":1}}"#,
        r#"{"type":"identify","userId":"w","traits":{"signed_up":"2024-01-21T10:11:12"}}"#,
        r#"{"type":"identify","userId":"z","traits":{"signed_up":"2024-05-21T10:11:12Z"}}"#,
    ];
    let place = TestDir::new();
    let source = "timezone = \"Europe/Warsaw\"";
    let config = pipeline(&place, &account.endpoint(), source, PRESET);
    let input = lines.join("\n");
    let run = tokio::task::spawn_blocking(move || {
        fed(&["run", "-c", &config, "--once", "--format", "json"], &input)
    });
    let run = run.await.unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let user = account.get("users-by-id/u/").await;
    assert_eq!(user["signed_up"], "2024-05-21T08:11:12.000000Z", "{user}");
    assert_eq!(user["birthday"], "2024-05-21", "{user}");
    let winter = account.get("users-by-id/w/").await;
    assert_eq!(winter["signed_up"], "2024-01-21T09:11:12.000000Z", "{winter}");
    let zoned = account.get("users-by-id/z/").await;
    assert_eq!(zoned["signed_up"], "2024-05-21T10:11:12.000000Z", "{zoned}");
    account.close().await;
}

#[test]
fn integrations_setting_is_obeyed() {
    // The calls of a user who refused User.com, or all destinations, are not sent; the reason is
    // reported.
    let track = |more: &str| format!(r#"{{"type":"track","userId":"u","event":"e"{more}}}"#);
    let records = [
        (track(r#","integrations":{"User.com":false}"#), false),
        (track(r#","integrations":{"USER":false}"#), false),
        (track(r#","integrations":{"All":false}"#), false),
        (track(r#","integrations":{"All":false,"User.com":true}"#), true),
        (track(r#","integrations":{"All":false,"user.com":{"lookup":"email"}}"#), true),
        (track(r#","integrations":{"Mixpanel":false}"#), true),
        (format!(r#"{{"batch":[{}],"integrations":{{"USER":false}}}}"#, track("")), false),
        (
            format!(
                r#"{{"batch":[{}],"integrations":{{"All":false}}}}"#,
                track(r#","integrations":{"user":true}"#)
            ),
            true,
        ),
    ];
    let lines: Vec<&str> = records.iter().map(|(record, _)| record.as_str()).collect();
    for (found, (record, sent)) in explained("", PRESET, &lines).iter().zip(&records) {
        assert_eq!(!found["requests"].as_array().unwrap().is_empty(), *sent, "{record}");
        let why = found["rules"][0]["why"].as_str().unwrap();
        assert!(*sent || why.contains("`integrations`"), "{record}: {why}");
        assert_eq!(found["errors"], json!([]), "{record}");
    }
}

#[test]
fn failed_field_does_not_send_the_raw_spread_value() {
    // What a rule was to hide or convert is not sent in another way, whichever step failed.
    let sink = "[[sinks.crm.mapping]]\ncall = \"identify\"\n[sinks.crm.mapping.fields]\n\
        user_id = \".id\"\n\"traits.*\" = { path = \".\", except = [\"id\"] }\n\
        \"traits.pesel\" = { path = \".pesel\", then = [\"sha256\"] }\n\
        \"traits.seats\" = { path = \".seats\", as = \"integer\" }\n\
        \"traits.plan\" = { path = \".plan\", map = { P = \"pro\" } }\n\
        \"traits.born\" = { path = \".born\", as = \"timestamp\", format = \"%d.%m.%Y\" }\n\
        \"traits.dom\" = { path = \".dom\", then = [\"url_host\"] }\n";
    let found = explained(
        "",
        sink,
        &[
            r#"{"id":"u2","pesel":90050712345,"seats":"many","plan":"X","born":"1990-05-07","dom":"not a url","ok":1}"#,
            r#"{"id":"u3","pesel":["90050712345"],"PESEL":"90050712345","seats":[5],"plan":null,"born":"","dom":5}"#,
        ],
    );
    let traits = &found[0]["calls"][0]["traits"];
    let names: Vec<_> = traits.as_object().unwrap().keys().collect();
    assert_eq!(names, ["ok", "pesel"]);
    assert_eq!(traits["pesel"].as_str().unwrap().len(), 64);
    assert_eq!(found[0]["left_out"].as_array().unwrap().len(), 4);
    assert!(!found[1]["calls"].to_string().contains("90050712345"), "{}", found[1]["calls"]);
    assert!(!found[1]["requests"].to_string().contains("90050712345"));
}

#[test]
fn lone_surrogate_in_record_becomes_replacement_character() {
    // Whatever field, key or id text cut in the middle of a character stands in, it is kept.
    let found = explained(
        "",
        PRESET,
        &[
            r#"{"type":"identify","userId":"u","traits":{"firstName":"Ann \ud83d","email":"a\ud83d@b.c","note":"cut \ud83d","nest":{"k":"v\ud83d"},"list":["\ud83d"]}}"#,
            r#"{"type":"track","userId":"u\ud83d","event":"Ev\ud83d","timestamp":"2024-05-21T10:11:12Z","properties":{"k\ud83d":"v","whole":"\ud83d\ude00"}}"#,
            r#"{"type":"group","userId":"u","groupId":"g\ud83d","traits":{"name":"N\ud83d"}}"#,
        ],
    );
    let user = last_body(&found[0]);
    assert_eq!(user["first_name"], "Ann \u{fffd}");
    assert_eq!(user["note"], "cut \u{fffd}");
    assert_eq!(user["nest_k"], "v\u{fffd}");
    assert_eq!(user["list"], "[\"\u{fffd}\"]");
    assert!(user["email"].as_str().is_some());
    let event = last_body(&found[1]);
    assert_eq!(event["name"], "Ev\u{fffd}");
    assert_eq!(event["data"], json!({ "k\u{fffd}": "v", "whole": "\u{1f600}" }));
    assert_eq!(found[1]["calls"][0]["userId"], "u\u{fffd}");
    assert_eq!(found[2]["calls"][0]["groupId"], "g\u{fffd}");
    assert!(found.iter().all(|found| found["errors"] == json!([])));
}

#[test]
fn only_strings_and_integers_are_ids() {
    // Booleans are no ids, integers are integers however written, and an id of undecodable bytes is
    // a dead letter.
    let found = explained(
        "",
        PRESET,
        &[
            r#"{"type":"track","userId":false,"anonymousId":"a-9","event":"e"}"#,
            r#"{"type":"track","userId":12.0,"event":"e"}"#,
            r#"{"type":"track","userId":1.2e3,"event":"e"}"#,
            r#"{"type":"group","userId":"u","groupId":7.0,"traits":{"name":"A"}}"#,
            "{\"type\":\"track\",\"userId\":\"J\u{fffd}r\u{fffd}me\",\"event\":\"e\"}",
        ],
    );
    assert_eq!(found[0]["calls"][0]["anonymousId"], "a-9");
    assert_eq!(found[0]["calls"][0]["userId"], Value::Null);
    assert_eq!(found[1]["calls"][0]["userId"], "12");
    assert_eq!(found[2]["calls"][0]["userId"], "1200");
    assert_eq!(found[3]["calls"][0]["groupId"], "7");
    assert!(found[4]["errors"][0].as_str().unwrap().starts_with("id_not_text"), "{}", found[4]);
}

#[test]
fn page_with_only_a_name_is_a_page_view() {
    // The name is the path, as a screen's is, in the preset and in a rule.
    let rule =
        "[[sinks.crm.mapping]]\ncall = \"page\"\nfields = { user_id = \".u\", name = \".n\" }\n";
    let page = explained(
        "",
        PRESET,
        &[
            r#"{"type":"page","userId":"u","name":"Home","timestamp":"2024-05-21T10:11:12Z"}"#,
            r#"{"type":"screen","userId":"u","name":"Home","timestamp":"2024-05-21T10:11:12Z"}"#,
        ],
    );
    let by_rule = explained("", rule, &[r#"{"u":"u","n":"Home"}"#]);
    for found in page.iter().chain(&by_rule) {
        assert_eq!(last_body(found)["page_path"], "/Home", "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn date_reaches_attribute_as_written() {
    // Digits of a calendar date are that date, a bare year is none, and what is left out is
    // counted.
    let account = EmulatorAccount::open(Faults::default()).await;
    for (name, kind) in [("birthday", "date"), ("signed_up", "datetime")] {
        let attribute = json!({ "name": name, "value_type": kind, "content_type": "clientuser" });
        account.post("attributes/", &attribute).await;
    }
    let rows = [
        ("birthday", r#""19900507""#, json!("1990-05-07")),
        ("birthday", "19900507", json!("1990-05-07")),
        ("birthday", r#""199005071200""#, json!("1990-05-07")),
        ("birthday", r#""1990/05/07""#, json!("1990-05-07")),
        ("birthday", r#""1990-05-07T00:00:00.000+02:00""#, json!("1990-05-07")),
        ("birthday", "641865600", json!("1990-05-05")),
        ("birthday", r#""1990""#, Value::Null),
        ("birthday", "1990", Value::Null),
        ("birthday", r#""31.12.1990""#, Value::Null),
        ("signed_up", r#""20240521101112""#, json!("2024-05-21T10:11:12.000000Z")),
        ("signed_up", r#""20240521""#, json!("2024-05-21T00:00:00.000000Z")),
        ("signed_up", r#""20240521T101112Z""#, json!("2024-05-21T10:11:12.000000Z")),
    ];
    let lines: String = rows
        .iter()
        .enumerate()
        .map(|(n, (name, value, _))| {
            format!(
                "{{\"type\":\"identify\",\"userId\":\"x{n}\",\"traits\":{{\"{name}\":{value}}}}}\n"
            )
        })
        .collect();
    let place = TestDir::new();
    let config = pipeline(&place, &account.endpoint(), "", PRESET);
    let args = ["run", "-c", &config, "--once", "--format", "json"].map(str::to_owned);
    let output = tokio::task::spawn_blocking(move || {
        fed(&args.iter().map(String::as_str).collect::<Vec<_>>(), &lines)
    });
    json_of(&output.await.unwrap(), 0);
    for (n, (name, value, expected)) in rows.iter().enumerate() {
        let user = account.get(&format!("users-by-id/x{n}/")).await;
        assert_eq!(user[*name], *expected, "{name} {value}");
    }
    account.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn constant_message_ids_drop_no_record() {
    // Blank, zero, NUL, false, empty and all-zero message ids are none: only a real pair is one
    // message.
    let account = EmulatorAccount::open(Faults::default()).await;
    let ids = [
        r#""""#,
        "null",
        r#"" ""#,
        "0",
        r#""0""#,
        r#""\u0000""#,
        "{}",
        "[]",
        "false",
        r#""undefined""#,
        r#""00000000-0000-0000-0000-000000000000""#,
        r#""real""#,
    ];
    let mut lines = String::new();
    for (n, id) in ids.iter().flat_map(|id| [id, id]).enumerate() {
        lines += &format!(
            "{{\"type\":\"track\",\"userId\":\"u\",\"event\":\"m{n}\",\"messageId\":{id}}}\n"
        );
    }
    let place = TestDir::new();
    let config = pipeline(&place, &account.endpoint(), "", PRESET);
    let args = ["run", "-c", &config, "--once", "--format", "json"].map(str::to_owned);
    let output = tokio::task::spawn_blocking(move || {
        fed(&args.iter().map(String::as_str).collect::<Vec<_>>(), &lines)
    });
    json_of(&output.await.unwrap(), 0);
    let events = account.admin("stats").await["events"].as_u64().unwrap();
    assert_eq!(events, 2 * ids.len() as u64 - 1);
    account.close().await;
}

/// Bodies that readers of JSON choke on, none of which can become a call, and one that is no JSON.
fn hostile_lines() -> Vec<String> {
    let deep = "{\"a\":".repeat(131) + "1" + &"}".repeat(131);
    [
        r#"{"note":"cut \ud83d"}"#.to_owned(),
        r#"{"a":1e400}"#.to_owned(),
        format!(r#"{{"a":{}}}"#, "9".repeat(400)),
        format!(r#"{{"a":{deep}}}"#),
        r#"{"\ude00":"\u0000\u001b[31m"}"#.to_owned(),
    ]
    .into_iter()
    .map(|properties| format!(r#"{{"type":"track","userId":"u","properties":{properties}}}"#))
    .chain(["{\"no\": json \u{1b}[31m".to_owned(), "\"\\ud83d\"".to_owned(), "1e400".to_owned()])
    .collect()
}

/// Runs a verb, and sees that its output is JSON lines for every reader of JSON.
fn lines_of(args: &[&str]) -> Vec<Value> {
    let output = usercom_sink(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn all_verbs(place: &Path, config: &str, letters: usize) {
    let list = lines_of(&["dead-letters", "list", "-c", config, "--format", "json"]);
    assert_eq!(list.len(), letters);
    assert!(list.iter().all(|letter| {
        ["record", "record_text", "record_escaped"].iter().any(|key| !letter[key].is_null())
    }));
    for letter in &list {
        let id = letter["id"].to_string();
        let shown = lines_of(&["dead-letters", "show", &id, "-c", config, "--format", "json"]);
        assert_eq!(&shown[0], letter);
    }
    for verb in ["list", "show"] {
        let output = usercom_sink(&["dead-letters", verb, "-c", config]);
        assert_eq!(output.status.code(), Some(0), "{verb}");
        assert!(!output.stdout.contains(&0x1b), "{verb} writes control characters as they are");
    }
    let exported = usercom_sink(&["dead-letters", "export", "-c", config]);
    assert_eq!(exported.status.code(), Some(0));
    let exported = String::from_utf8(exported.stdout).unwrap();
    let expected: Vec<String> = hostile_lines();
    for line in exported.lines() {
        assert!(expected.iter().any(|known| known == line), "{line}");
    }
    let records = place.join("exported.ndjson");
    std::fs::write(&records, &exported).unwrap();
    let records = records.to_str().unwrap();
    let explained = lines_of(&["explain", "-c", config, "--format", "json", records]);
    assert!(explained.len() >= letters);
    assert_eq!(usercom_sink(&["explain", "-c", config, records]).status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_handles_every_stored_record() {
    // Half an emoji, numbers beyond f64, nesting beyond 128 and lines that are no JSON are listed,
    // shown, exported, explained and replayed, and what is printed is JSON for every reader.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let sink = format!("unmatched = \"dead_letter\"\n{PRESET}");
    let config = pipeline(&place, &account.endpoint(), "", &sink);
    let dir = place.path().to_owned();
    let done = tokio::task::spawn_blocking(move || {
        let lines = hostile_lines().join("\n") + "\n";
        let ran = fed(&["run", "-c", &config, "--once", "--format", "json"], &lines);
        let summary = json_of(&ran, 0);
        let letters = usercom_sink(&["dead-letters", "list", "-c", &config]);
        // The first line names the columns.
        let letters = String::from_utf8(letters.stdout).unwrap().lines().count() - 1;
        assert_eq!(letters, hostile_lines().len(), "{summary}");
        all_verbs(&dir, &config, letters);
        let replayed = lines_of(&["dead-letters", "replay", "-c", &config, "--format", "json"]);
        assert_eq!(replayed[0]["kept"], json!(letters), "{replayed:?}");
        all_verbs(&dir, &config, letters);
    });
    done.await.unwrap();
    account.close().await;
}

#[test]
fn unknown_timezone_is_rejected() {
    // A misspelt zone of a source is an error that names the near ones.
    let place = TestDir::new();
    let config = pipeline(&place, "http://127.0.0.1:9/", "timezone = \"Europe/Warszawa\"", PRESET);
    let output = usercom_sink(&["validate", "-c", &config, "--no-environment"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("E0370") && stderr.contains("Europe/Warsaw"), "{stderr}");
}
