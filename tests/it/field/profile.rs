//! What reaches a profile, an event or a company.

use std::process::Output;

use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use crate::support::{EmulatorAccount, TestDir, json_of, usercom_sink};

const PRESET: &str = "preset = \"segment\"\n";

/// An account in which attributes have types: name, type, content.
async fn account(types: &[(&str, &str, &str)]) -> EmulatorAccount {
    let account = EmulatorAccount::open(Faults::default()).await;
    for (name, value_type, content_type) in types {
        let body = json!({"name": name, "value_type": value_type, "content_type": content_type});
        account.post("attributes/", &body).await;
    }
    account
}

fn run(place: &TestDir, account: &EmulatorAccount, sink: &str, lines: &[String]) -> Output {
    place.write("records.ndjson", &format!("{}\n", lines.join("\n")));
    let config = place.pipeline(&account.endpoint(), &format!("{PRESET}{sink}"));
    place.run_once(&config, &[])
}

fn identify(user: &str, traits: &Value) -> String {
    json!({"type": "identify", "userId": user, "traits": traits}).to_string()
}

fn group(user: &str, group: &str, traits: &Value) -> String {
    json!({"type": "group", "userId": user, "groupId": group, "traits": traits}).to_string()
}

fn explain(line: &str) -> Value {
    let place = TestDir::new();
    let config = place.pipeline("http://127.0.0.1:9/api/public/", PRESET);
    let records = place.write("one.ndjson", &format!("{line}\n"));
    let [config, records] = [config, records].map(|path| path.to_str().unwrap().to_owned());
    json_of(&usercom_sink(&["explain", "-c", &config, &records, "--format", "json"]), 0)
}

/// The first request that explaining shows, as its body.
fn body_of(explained: &Value) -> &Value {
    let requests = explained["requests"].as_array().unwrap();
    let writes = |request: &&Value| request["path"] == "users/update_or_create/";
    &requests.iter().find(writes).unwrap()["body"]
}

#[tokio::test(flavor = "multi_thread")]
async fn merged_value_that_does_not_convert_keeps_the_older_one() {
    // '123' and then 'not a number' for an integer of a user and of a company: it ends with 123.
    let types = [("n", "integer", "clientuser"), ("n", "integer", "company")];
    let account = account(&types).await;
    let lines = [
        identify("u1", &json!({"n": "123", "email": "a@b.pl"})),
        identify("u1", &json!({"n": "not a number"})),
        group("u1", "g", &json!({"name": "G", "n": "7"})),
        group("u1", "g", &json!({"n": {"a": "list"}})),
        group("u1", "g", &json!({"n": "none"})),
    ];
    let place = TestDir::new();
    let output = run(&place, &account, "", &lines);
    let summary = json_of(&output, 0);
    assert_eq!(account.get("users-by-id/u1/").await["n"], 123);
    assert_eq!(account.get("companies-by-id/g/").await["n"], 7);
    assert!(summary.to_string().contains("\"conversions_failed\":2"), "{summary}");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("crm") && log.contains("not a whole number"), "{log}");
    account.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn object_for_a_json_attribute_is_not_flattened() {
    // Field case 10, lines 1 and 2: the object is the value, and no attribute is made of its keys;
    // an object for any other name is still opened up.
    let types = [("t_json", "json", "clientuser"), ("c_json", "json", "company")];
    let account = account(&types).await;
    let object = json!({"a": 1, "b": [1, {"c": 2}]});
    let lines = [
        identify("x0", &json!({"t_json": object, "other": {"k": {"l": 1}}})),
        identify("x1", &json!({"t_json": {}})),
        group("x0", "g", &json!({"name": "G", "c_json": object})),
    ];
    json_of(&run(&TestDir::new(), &account, "", &lines), 0);
    let user = account.get("users-by-id/x0/").await;
    assert_eq!((&user["t_json"], &user["other_k_l"]), (&object, &json!("1")));
    assert_eq!(account.get("users-by-id/x1/").await["t_json"], json!({}));
    assert_eq!(account.get("companies-by-id/g/").await["c_json"], object);
    let names: Vec<_> = account.all("attributes/").await;
    assert_eq!(names.len(), 3, "{names:?}");
    account.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_created_with_the_type_the_settings_name() {
    // `mrr = "float"` makes a number of it; the type of one that exists holds, and a warning says so.
    let account = account(&[("seats", "integer", "clientuser")]).await;
    let sink = "[sinks.crm.attributes]\nMRR = \"float\"\nextra = \"json\"\nseats = \"boolean\"\n\
                [sinks.crm.company_attributes]\nfounded = \"date\"\n";
    let traits = json!({"mrr": "12.50", "plan": 7, "seats": "3", "extra": {"a": [1]}});
    let lines = [
        identify("u1", &traits),
        group("u1", "g", &json!({"name": "G", "founded": "2001-02-03T10:00:00Z"})),
    ];
    let output = run(&TestDir::new(), &account, sink, &lines);
    json_of(&output, 0);
    let user = account.get("users-by-id/u1/").await;
    assert_eq!((&user["mrr"], &user["plan"]), (&json!(12.5), &json!("7")));
    assert_eq!((&user["seats"], &user["extra"]), (&json!(3), &json!({"a": [1]})));
    assert_eq!(account.get("companies-by-id/g/").await["founded"], "2001-02-03");
    let log = String::from_utf8_lossy(&output.stderr);
    let told = log.lines().filter(|line| line.contains("another type at User.com"));
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("seats") && told[0].contains("integer"), "{}", told[0]);
    account.close().await;
}

#[test]
fn unknown_attribute_type_is_a_config_fault() {
    // An unknown type, a `fixed` one, a name that is too long and one given twice are reported with
    // their places.
    let place = TestDir::new();
    for (table, told) in [
        ("mrr = \"number\"", "number"),
        ("mrr = \"fixed\"", "fixed"),
        ("mrr = \"float\"\n\"MRR\" = \"float\"", "E0323"),
        ("abcdefghijabcdefghijabcdefghijabc = \"float\"", "E0323"),
    ] {
        let sink = format!("{PRESET}[sinks.crm.attributes]\n{table}\n");
        let config = place.pipeline("http://127.0.0.1:9/api/public/", &sink);
        let output =
            usercom_sink(&["validate", "-c", config.to_str().unwrap(), "--no-environment"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(78), "{table}: {text}");
        assert!(text.contains(told) && text.contains("pipeline.toml:"), "{table}: {text}");
    }
}

#[test]
fn value_that_cannot_be_truncated_is_dropped_and_reported() {
    // Field case 22: a too long e-mail is not sent as another domain's; `explain` says it is left
    // out.
    let mail = format!("{}@example.co.uk", "a".repeat(250));
    let explained = explain(&identify("u", &json!({"email": mail, "first_name": "Ann"})));
    let body = body_of(&explained);
    assert_eq!(*body, json!({"custom_id": "u", "first_name": "Ann"}));
    assert!(explained["notes"].to_string().contains("email: left out"), "{explained}");
}

#[test]
fn reserved_names_and_genders_are_shown_by_explain() {
    // Names of User.com's own fields make no attribute, Polish genders are known.
    let traits = json!({
        "attributes": {"vip": true}, "client": 7, "client_user": "k", "companies": [{"id": 1}],
        "chat_id": "c", "Page_Views": 3, "created_at": "2024-05-21", "gender": "Mężczyzna",
    });
    let explained = explain(&identify("u", &traits));
    assert_eq!(explained["requests"].as_array().unwrap().len(), 1, "{explained}");
    assert_eq!(*body_of(&explained), json!({"custom_id": "u", "gender": 2}));
    assert_eq!(explained["notes"].as_array().unwrap().len(), 7, "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn record_of_thousands_of_traits_creates_few_attributes() {
    // 3,000 new traits make as many attributes as an hour allows, also after a restart; it is said
    // once with its remedy, and other users are served.
    let account = account(&[("known", "string", "clientuser")]).await;
    let traits: serde_json::Map<String, Value> =
        (0..3_000).map(|n| (format!("trait{n}"), json!(n))).collect();
    let lines = [
        identify("big", &Value::Object(traits.clone())),
        identify("small", &json!({"known": "x"})),
    ];
    let place = TestDir::new();
    let sink = "[sinks.crm.users]\nmax_new_attributes_per_hour = 20\n";
    let output = run(&place, &account, sink, &lines);
    let summary = json_of(&output, 0);
    assert_eq!(account.all("attributes/").await.len(), 21, "{summary}");
    assert_eq!(account.get("users-by-id/small/").await["known"], "x");
    assert_eq!(account.get("users-by-id/big/").await["trait0"], "0");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(log.matches("max_new_attributes_per_hour").count(), 1, "{log}");

    place.write("records2.ndjson", &format!("{}\n", identify("next", &json!({"new": 1}))));
    let config = place.path().join("pipeline.toml");
    json_of(&place.run_once(&config, &[]), 0);
    assert_eq!(account.all("attributes/").await.len(), 21);
    account.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn value_that_no_server_accepts_does_not_reject_its_record() {
    // NULs, impossible numbers, a bad e-mail, a long path, an odd host: everything else of these
    // records arrives, nothing is a dead letter, and only the e-mail costs a second request.
    let account = account(&[]).await;
    let track = r#"{"type":"track","userId":"u1","event":"e\u0000v","properties":{"n":1e400,"t":"a\u0000b","ok":1}}"#;
    let path = "p".repeat(3_000);
    let pages = [format!("https://x.pl/{path}"), "https://xn--zz-.pl/a".into()];
    let page = |url: &String| {
        json!({"type": "page", "userId": "u1", "properties": {"url": url}}).to_string()
    };
    let mut lines = vec![
        identify("u1", &json!({"email": "a..b@x.pl", "first_name": "A\u{0}nn", "note": "\u{0}x"})),
        track.to_owned(),
    ];
    lines.extend(pages.iter().map(page));
    let summary = json_of(&run(&TestDir::new(), &account, "", &lines), 0);
    let user = account.get("users-by-id/u1/").await;
    assert_eq!((&user["first_name"], &user["note"]), (&json!("Ann"), &json!("x")));
    assert_eq!((&user["email"], &user["page_views"]), (&Value::Null, &json!(2)));
    let events = account.all("users-by-id/u1/events/").await;
    assert_eq!(
        (&events[0]["name"], &events[0]["data"]),
        (&json!("ev"), &json!({"ok": "1", "t": "ab"}))
    );
    assert_eq!(summary["sinks"]["crm"]["dead_letters"], json!({}));
    let requests = account.admin("requests").await;
    let refused = requests.as_array().unwrap().iter().filter(|request| request["status"] == 400);
    assert_eq!(refused.count(), 1);
    account.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_record_does_not_delay_others() {
    // A batch of thousands of messages of one user, thousands of traits and tags: the users of the
    // records after it are served before it is done. A batch without end is a dead letter.
    let account = account(&[]).await;
    let batch = |count: usize| {
        let messages: Vec<Value> = (0..count)
            .map(|n| json!({"type": "track", "userId": "big", "event": "e", "messageId": n.to_string()}))
            .collect();
        json!({"batch": messages}).to_string()
    };
    let tags: Vec<String> = (0..100_000).map(|n| format!("g{n}")).collect();
    let traits: serde_json::Map<String, Value> =
        (0..20_000).map(|n| (format!("t{n}"), json!(n))).collect();
    let mut lines = vec![
        batch(2_000),
        batch(6_000),
        identify("tagged", &json!({"tags": tags})),
        identify("wide", &Value::Object(traits)),
    ];
    lines.extend((0..20).map(|n| identify(&format!("s{n}"), &json!({"first_name": "A"}))));
    let sink = "[sinks.crm.users]\nunknown_attributes = \"drop\"\n";
    let output = run(&TestDir::new(), &account, sink, &lines);
    let summary = json_of(&output, 0);
    assert!(summary["sinks"]["crm"]["dead_letters"]["too_many_calls"] == 1, "{summary}");
    let requests = account.admin("requests").await;
    let requests = requests.as_array().unwrap();
    let last = |wanted: &dyn Fn(&Value) -> bool| requests.iter().rposition(wanted).unwrap();
    let big = last(&|request| request["path"].as_str().unwrap().contains("users-by-id/big/"));
    let small = last(&|request| request["body"].to_string().contains("\"s19\""));
    assert!(small < big, "{small} {big}");
    assert_eq!(account.all("users-by-id/big/events/").await.len(), 2_000);
    let tagged = account.get("users-by-id/tagged/").await;
    assert_eq!(tagged["tags"].as_array().unwrap().len(), 1_000);
    account.close().await;
}
