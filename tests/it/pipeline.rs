//! End to end: the built binary delivers files to an account.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use crate::support::mix::{self, Expected};
use crate::support::{EmulatorAccount, TestDir, json_of, usercom_sink};

/// The content of an account, as [`Expected`].
pub(crate) async fn held(account: &EmulatorAccount) -> Expected {
    let mut held = Expected::default();
    let users = account.all("users/").await;
    let mut own_ids = BTreeMap::new();
    for user in &users {
        let id = user["custom_id"].as_str().unwrap().to_owned();
        let number = user["id"].as_u64().unwrap();
        own_ids.insert(number, id.clone());
        held.pages.insert(id.clone(), user["page_views"].as_u64().unwrap());
        if let Some(at) = user["last_seen"].as_str() {
            held.last_seen.insert(id.clone(), at.parse().unwrap());
        }
        let mut events = account.all(&format!("users/{number}/events/")).await;
        events.sort_by_key(|event| event["id"].as_u64());
        let names: Vec<String> =
            events.iter().map(|event| event["name"].as_str().unwrap().to_owned()).collect();
        if !names.is_empty() {
            held.events.insert(id, names);
        }
    }
    for company in account.all("companies/").await {
        let id = company["custom_id"].as_str().unwrap().to_owned();
        for member in company["employees"].as_array().unwrap() {
            let member = own_ids[&member.as_u64().unwrap()].clone();
            held.members.insert((id.clone(), member));
        }
        held.companies.insert(id);
    }
    held
}

pub(crate) fn load() -> Vec<Value> {
    mix::beside_the_project().unwrap_or_else(|| mix::records(1000, "a"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segment_records_arrive_without_mapping() {
    // 1,000 records in Segment's format arrive complete: nothing is lost, rejected or doubled; page
    // views, last_seen, the order of events, companies and members match the input.
    let records = load();
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    place.write("records.ndjson", &mix::lines(&records));
    let config = place.pipeline(&account.endpoint(), r#"preset = "segment""#);
    let summary = json_of(&place.run_once(&config, &["--fail-on-dead-letter"]), 0);
    let sink = &summary["sinks"]["crm"];
    assert_eq!(sink["records"], 1000, "{summary}");
    assert_eq!(sink["delivered"], 1000, "{summary}");
    assert_eq!(held(&account).await, mix::expected(&records));
    let requests = sink["requests"].as_u64().unwrap();
    assert!(requests <= 1200, "{requests} requests: {summary:#}");
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_run_sends_no_event_twice() {
    // The same records in another file: every message is known, so no event is sent. The empty line
    // makes the content differ; a copy would not be read at all.
    let records = mix::records(200, "a");
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    place.write("records.ndjson", &mix::lines(&records));
    let config = place.pipeline(&account.endpoint(), r#"preset = "segment""#);
    json_of(&place.run_once(&config, &[]), 0);
    let before = held(&account).await;
    place.write("records-again.ndjson", &format!("\n{}", mix::lines(&records)));
    let summary = json_of(&place.run_once(&config, &[]), 0);
    assert_eq!(summary["sinks"]["crm"]["delivered"], 200, "{summary}");
    assert_eq!(held(&account).await, before);
    account.close().await;
}

/// The same load with other names and nesting, and its mapping.
const OTHER_SHAPE: &str = r#"
[[sinks.crm.mapping]]
name = "who"
when = { ".what" = "identify" }
call = "identify"
[sinks.crm.mapping.fields]
user_id = ".who.id"
anonymous_id = ".who.browser"
message_id = ".no"
timestamp = ".at"
"traits.*" = ".data"
"context.*" = ".env"

[[sinks.crm.mapping]]
name = "page"
when = { ".what" = "page" }
call = "page"
[sinks.crm.mapping.fields]
user_id = ".who.id"
anonymous_id = ".who.browser"
message_id = ".no"
timestamp = ".at"
name = ".label"
"properties.*" = ".data"

[[sinks.crm.mapping]]
name = "event"
when = { ".what" = "track" }
call = "track"
[sinks.crm.mapping.fields]
user_id = ".who.id"
anonymous_id = ".who.browser"
message_id = ".no"
timestamp = ".at"
event = ".label"
"properties.*" = ".data"

[[sinks.crm.mapping]]
name = "team"
when = { ".what" = "group" }
call = "group"
[sinks.crm.mapping.fields]
user_id = ".who.id"
anonymous_id = ".who.browser"
message_id = ".no"
timestamp = ".at"
group_id = ".team"
"traits.*" = ".data"
"#;

fn in_other_shape(record: &Value) -> Value {
    let data = if record["traits"].is_null() { &record["properties"] } else { &record["traits"] };
    let label = if record["event"].is_null() { &record["name"] } else { &record["event"] };
    json!({
        "what": record["type"], "no": record["messageId"], "at": record["timestamp"],
        "who": { "id": record["userId"], "browser": record["anonymousId"] },
        "label": label, "team": record["groupId"], "data": data, "env": record["context"],
    })
}

fn without_numbers(mut users: Vec<Value>) -> BTreeSet<String> {
    for user in &mut users {
        let user = user.as_object_mut().unwrap();
        for key in ["id", "user_key", "created_at", "updated_at", "companies", "tags", "attributes"]
        {
            user.remove(key);
        }
        // A user created by a track has no first_seen from a record.
        user.remove("first_seen");
    }
    users.into_iter().map(|user| user.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_mapping_gives_same_account() {
    // The same load in another format, through a mapping table, gives identical users, events,
    // companies and members. Context traits are the preset's own business, so they are left out of
    // this load.
    let mut records = load();
    for record in &mut records {
        record["context"].as_object_mut().unwrap().remove("traits");
    }
    let mut worlds = Vec::new();
    for own in [false, true] {
        let account = EmulatorAccount::open(Faults::default()).await;
        let place = TestDir::new();
        let (lines, sink) = match own {
            false => (mix::lines(&records), r#"preset = "segment""#),
            true => {
                let other: Vec<Value> = records.iter().map(in_other_shape).collect();
                (mix::lines(&other), OTHER_SHAPE)
            }
        };
        place.write("records.ndjson", &lines);
        let config = place.pipeline(&account.endpoint(), sink);
        json_of(&place.run_once(&config, &["--fail-on-dead-letter"]), 0);
        worlds.push((held(&account).await, without_numbers(account.all("users/").await)));
        account.close().await;
    }
    assert_eq!(worlds[0].0, worlds[1].0);
    assert_eq!(worlds[0].1, worlds[1].1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_attributes_keep_type_and_unknown_become_strings() {
    // A known integer attribute gets 123 from '123'; an unknown one is created with type string
    // and gets '999' from 999.
    let account = EmulatorAccount::open(Faults::default()).await;
    let attribute =
        json!({ "name": "custom_integer", "value_type": "integer", "content_type": "clientuser" });
    account.post("attributes/", &attribute).await;
    let place = TestDir::new();
    let traits = json!({ "custom_integer": "123", "custom_integer_new": 999 });
    let record = json!({ "type": "identify", "userId": "u", "traits": traits });
    place.write("records.ndjson", &mix::lines(&[record]));
    let config = place.pipeline(&account.endpoint(), r#"preset = "segment""#);
    json_of(&place.run_once(&config, &["--fail-on-dead-letter"]), 0);
    let user = account.get("users-by-id/u/").await;
    assert_eq!(user["custom_integer"], 123);
    assert_eq!(user["custom_integer_new"], "999");
    let attributes = account.all("attributes/").await;
    let new = attributes.iter().find(|a| a["name_std"] == "custom_integer_new").unwrap();
    assert_eq!(new["value_type"], "string");
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn special_characters_in_ids_arrive_unchanged() {
    // Ids with special URL characters reach exactly their user.
    let ids = ["a/b c?x", "../companies/1", "ü", "kasia+test@example.com", "..", "a#b%2F", "."];
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let records: Vec<Value> = ids
        .iter()
        .flat_map(|id| {
            let page = json!({ "url": "https://x.example/p" });
            [
                json!({ "type": "track", "event": "E", "userId": id, "timestamp": "2026-01-01T00:00:00Z" }),
                json!({ "type": "page", "properties": page, "userId": id, "timestamp": "2026-01-01T00:00:01Z" }),
                json!({ "type": "group", "groupId": format!("co {id}"), "userId": id }),
            ]
        })
        .collect();
    place.write("records.ndjson", &mix::lines(&records));
    let config = place.pipeline(&account.endpoint(), r#"preset = "segment""#);
    json_of(&place.run_once(&config, &["--fail-on-dead-letter"]), 0);
    let held = held(&account).await;
    let expected: BTreeMap<String, u64> = ids.iter().map(|id| ((*id).to_owned(), 1)).collect();
    assert_eq!(held.pages, expected);
    assert_eq!(held.events.len(), ids.len());
    assert_eq!(held.members.len(), ids.len());
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undeliverable_records_become_dead_letters_and_replay() {
    // Invalid lines, records without identity and rejected records become dead letters with
    // location and reason; the others are delivered; a replay delivers the corrected ones.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let lines = [
        r#"{"type":"track","event":"E","userId":"u1","timestamp":"2026-01-01T00:00:00Z"}"#,
        "{not json",
        r#"{"type":"track","event":"E"}"#,
        r#"{"type":"group","userId":"u1"}"#,
        r#"{"type":"track","event":"E","userId":"u2","timestamp":"2026-01-01T00:00:00Z"}"#,
    ];
    place.write("records.ndjson", &(lines.join("\n") + "\n"));
    let sink = "preset = \"segment\"\n[sinks.crm.users]\ncreate_missing = false";
    account.post("users/", &json!({ "custom_id": "u1" })).await;
    let config = place.pipeline(&account.endpoint(), sink);
    let config_text = config.to_str().unwrap();
    let output = place.run_once(&config, &["--fail-on-dead-letter"]);
    assert_eq!(output.status.code(), Some(65));

    let listed = usercom_sink(&["dead-letters", "list", "-c", config_text, "--format", "json"]);
    let text = String::from_utf8(listed.stdout).unwrap();
    let letters: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(letters.len(), 4, "{text}");
    assert!(letters.iter().any(|l| l["place"].as_str().unwrap().ends_with("records.ndjson:2")));
    assert!(letters.iter().any(|l| l["status"] == 404 && l["attempts"].as_u64() > Some(0)));
    assert!(!text.contains(KEY), "a secret is in the dead letters");

    account.post("users/", &json!({ "custom_id": "u2" })).await;
    let replayed = usercom_sink(&["dead-letters", "replay", "-c", config_text, "--format", "json"]);
    assert_eq!(json_of(&replayed, 0), json!({ "replayed": 4, "delivered": 1, "kept": 3 }),);
    let events = account.all("users-by-id/u2/events/").await;
    assert_eq!(events.len(), 1);
    let purged =
        usercom_sink(&["dead-letters", "purge", "--all", "-c", config_text, "--format", "json"]);
    assert_eq!(json_of(&purged, 0), json!({ "purged": 3 }));
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_key_ends_run_once_with_77_without_loss() {
    // With a revoked key `run --once` ends with 77, names the remedy, shows no key, and the records
    // are delivered by the next run.
    let account = EmulatorAccount::open(Faults { revoked: true, ..Faults::default() }).await;
    let place = TestDir::new();
    let records = mix::records(20, "a");
    place.write("records.ndjson", &mix::lines(&records));
    let config = place.pipeline(&account.endpoint(), r#"preset = "segment""#);
    let output = place.run_once(&config, &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{stderr}");
    assert!(stderr.contains("App settings > Advanced"), "{stderr}");
    assert!(!stderr.contains(KEY), "{stderr}");
    account.set_faults(&json!({ "revoked": false })).await;
    let summary = json_of(&place.run_once(&config, &["--fail-on-dead-letter"]), 0);
    assert_eq!(summary["sinks"]["crm"]["delivered"], 20);
    assert_eq!(held(&account).await, mix::expected(&records));
    account.close().await;
}

use crate::support::KEY;

#[test]
fn embedded_example_delivers() {
    // The sink inside another program delivers a stream made in code.
    let program = Path::new(env!("CARGO_BIN_EXE_usercom-sink"));
    let output =
        Command::new(program.with_file_name("examples").join("embedded")).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.starts_with("10 events delivered"), "{told}");
}
