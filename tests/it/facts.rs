//! Facts of the account: the built program finds each side of each, and works with all of them.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use crate::pipeline::{held, load};
use crate::support::mix;
use crate::support::{EmulatorAccount, TestDir, json_of, usercom_sink};

fn probe(config: &Path, more: &[&str]) -> Output {
    let mut args = vec!["probe", "-c", config.to_str().unwrap(), "--yes"];
    args.extend(more);
    usercom_sink(&args)
}

/// What the probe found of a setting, or else its words for a question.
fn found(report: &Value, wanted: &str) -> Value {
    let findings = report["findings"].as_array().unwrap();
    let setting = findings.iter().find(|finding| finding["setting"]["key"] == wanted);
    let question = findings.iter().find(|finding| finding["question"] == wanted);
    match (setting, question) {
        (Some(finding), _) => finding["setting"]["value"].clone(),
        (None, Some(finding)) => finding["answered"].clone(),
        (None, None) => panic!("nothing about {wanted}: {report:#}"),
    }
}

/// A fact of the emulator, its side, and what the probe is to find.
fn sides() -> Vec<(&'static str, Value, &'static str, Value)> {
    let again = "add_member for a member";
    let nulls = "a null in an upsert";
    let key = "user_key in an upsert";
    let wrong = "\"12\" for an integer attribute";
    let mut rows = vec![
        ("read_after_write_secs", json!(0), "read_after_write_secs", json!(30)),
        ("read_after_write_secs", json!(4), "read_after_write_secs", json!(40)),
        ("id_max_length", json!(255), "id_max_length", json!(255)),
        ("id_max_length", json!(90), "id_max_length", json!(90)),
        ("member_again", json!("accepted"), again, json!("taken")),
        (
            "member_again",
            json!("refused"),
            again,
            json!("400 {\"user_id\":[\"The user is a member already.\"]}"),
        ),
        ("null_values", json!("refused"), nulls, json!("refused")),
        ("null_values", json!("ignored"), nulls, json!("the field keeps its value")),
        ("null_values", json!("cleared"), nulls, json!("the field is emptied")),
        ("user_key_in_upsert", json!("written"), key, json!("a new user")),
        ("user_key_in_upsert", json!("adopts"), key, json!("the visitor becomes this user")),
        ("wrong_type", json!("refused"), wrong, json!("refused")),
        ("wrong_type", json!("converted"), wrong, json!("converted to 12")),
        ("wrong_type", json!("dropped"), wrong, json!("ignored")),
    ];
    let words: [(&str, &[&str]); 8] = [
        ("company_in_upsert", &["ignored", "joins", "creates", "moves"]),
        ("page_view_user", &["user_key", "client_user", "user_custom_id", "custom_id", "user_id"]),
        ("member_user", &["user_id", "user_custom_id"]),
        ("member_company", &["id", "custom_id"]),
        ("upsert_answer", &["id", "user_key"]),
        ("unknown_attribute", &["ignored", "created", "refused"]),
        ("id_case", &["distinguished", "ignored"]),
        ("page_domain", &["host", "url"]),
    ];
    for (fact, sides) in words {
        rows.extend(sides.iter().map(|side| (fact, json!(side), fact, json!(side))));
    }
    let times = ["refused", "clamped", "kept"];
    rows.extend(times.map(|side| ("future_times", json!(side), "future_times", json!(side))));
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probe_finds_each_side_of_each_fact() {
    // Guarantees that the probe finds what the account assumes, with at most 200 requests, and leaves
    // nothing behind but the definition of an event.
    for (fact, side, wanted, expected) in sides() {
        let account = EmulatorAccount::open(Faults::default()).await;
        account.assume(&json!({ fact: side })).await;
        let place = TestDir::new();
        let config = place.pipeline(&account.endpoint(), r#"preset = "segment""#);
        let report = json_of(&probe(&config, &["--attributes", "--format", "json"]), 0);
        println!("{fact} = {side}: {wanted}: {}", found(&report, wanted));
        assert_eq!(found(&report, wanted), expected, "{fact} = {side}: {report:#}");
        let stats = account.admin("stats").await;
        assert_eq!(stats["total"], report["requests"], "{fact}");
        assert!(stats["total"].as_u64().unwrap() <= 200, "{fact}: {stats}");
        for made in ["users", "companies", "attributes"] {
            assert_eq!(stats[made], 0, "{fact} = {side}: {made}");
        }
        account.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probe_stops_early_and_says_why() {
    // Guarantees the exit codes: 77 for a refused key, 1 for an answer the sink cannot work with and
    // for a 429; that nothing is sent without --yes; and that the key is in no output.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = place.pipeline(&account.endpoint(), r#"preset = "segment""#);
    let facts = place.path().join("facts.toml");
    let told = |output: &Output| {
        let all = [&output.stdout[..], &output.stderr[..]].concat();
        String::from_utf8(all).unwrap()
    };

    let output = usercom_sink(&["probe", "-c", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("--yes"), "{}", told(&output));
    assert_eq!(account.admin("stats").await["total"], 0);

    account.set_faults(&json!({ "revoked": true })).await;
    let output = probe(&config, &["--write", facts.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(77), "{}", told(&output));
    assert!(!facts.exists() && !told(&output).contains(crate::support::KEY));
    assert_eq!(account.admin("stats").await["total"], 1);

    account.set_faults(&json!({ "revoked": false, "rate_limit": 5 })).await;
    let output = probe(&config, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("rate_limit_num"), "{}", told(&output));

    account.set_faults(&json!({ "rate_limit": 0 })).await;
    account.assume(&json!({ "past_times": "clamped" })).await;
    let output = probe(&config, &[]);
    assert_eq!(output.status.code(), Some(1));
    let words = "another time in place of one in the past";
    assert!(told(&output).contains(words), "{}", told(&output));
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probe_obeys_the_configured_rate() {
    // Guarantees that a configured limit holds: an account that allows just that never answers 429.
    let account = EmulatorAccount::open(Faults::default()).await;
    account.set_faults(&json!({ "rate_limit": 20 })).await;
    let place = TestDir::new();
    let sink = "preset = \"segment\"\nrequest = { rate_limit_num = 15 }";
    let config = place.pipeline(&account.endpoint(), sink);
    let report = json_of(&probe(&config, &["--format", "json"]), 0);
    assert_eq!(report["end"], "complete", "{report:#}");
    account.close().await;
}

/// Sides that cost no request more than needed.
fn cheapest() -> Value {
    json!({
        "page_view_user": "custom_id", "member_user": "user_custom_id",
        "member_company": "custom_id", "upsert_answer": "user_key",
        "unknown_attribute": "created", "company_in_upsert": "joins", "future_times": "kept",
    })
}

/// The strict sides.
fn dearest() -> Value {
    json!({ "company_in_upsert": "ignored" })
}

/// Delivers records to an account with facts; returns the requests it took. Answers take a while, as
/// on a network.
async fn deliver(records: &[Value], facts: &Value, written: Written) -> u64 {
    let account = EmulatorAccount::open(Faults::default()).await;
    account.assume(facts).await;
    account.set_faults(&json!({ "latency_ms": 10 })).await;
    let place = TestDir::new();
    place.write("records.ndjson", &mix::lines(records));
    let config = place.pipeline(&account.endpoint(), r#"preset = "segment""#);
    let path = place.path().join("facts.toml");
    let mut more = vec!["--fail-on-dead-letter"];
    if written == Written::ByTheProbe {
        let output = probe(&config, &["--attributes", "--write", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        more.extend(["-c", path.to_str().unwrap()]);
    }
    let summary = json_of(&place.run_once(&config, &more), 0);
    let sink = &summary["sinks"]["crm"];
    assert_eq!(sink["delivered"], records.len(), "{summary:#}");
    assert_eq!(held(&account).await, mix::expected(records), "{facts}");
    account.close().await;
    sink["requests"].as_u64().unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    ByTheProbe,
    /// The defaults hold.
    Nowhere,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_arrives_whole_on_either_side_of_the_facts() {
    // Guarantees that 1,000 records arrive complete on the cheapest and the dearest account, with the
    // facts written and with the defaults, and how many requests each takes.
    let (mut requests, records) = (Vec::new(), load());
    for (name, facts) in [("cheapest", cheapest()), ("dearest", dearest())] {
        for written in [Written::ByTheProbe, Written::Nowhere] {
            let sent = deliver(&records, &facts, written).await;
            println!("{name} account, facts {written:?}: {sent} requests for 1,000 records");
            requests.push(sent);
        }
    }
    assert!(requests[0] <= 1_050, "{requests:?}");
    assert!(requests[0] + 60 < requests[2], "{requests:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_cheaper_way_delivers_everything() {
    // Guarantees that each fact alone, with its setting, loses nothing; prints the requests it takes,
    // of which up to one in twenty depends on what waits at the same time.
    let records = mix::records(200, "a");
    let dear = deliver(&records, &dearest(), Written::Nowhere).await;
    println!("defaults: {dear} requests");
    for (fact, sides) in [
        ("page_view_user", &["client_user", "user_custom_id", "custom_id", "user_id"][..]),
        ("member_user", &["user_custom_id"]),
        ("member_company", &["custom_id"]),
        ("upsert_answer", &["user_key"]),
        ("unknown_attribute", &["created", "refused"]),
        ("company_in_upsert", &["joins"]),
        ("page_domain", &["url"]),
        ("future_times", &["kept"]),
    ] {
        for side in sides {
            let mut facts = dearest();
            facts[fact] = json!(side);
            let sent = deliver(&records, &facts, Written::ByTheProbe).await;
            println!("{fact} = {side}: {sent} requests");
            assert!(sent <= dear + dear / 20, "{fact} = {side}: {sent}, without {dear}");
        }
    }
}

/// A run of records in Segment's format with facts in the pipeline file.
async fn run(place: &TestDir, account: &EmulatorAccount, name: &str, records: &[Value]) -> Value {
    let facts = "preset = \"segment\"\n[sinks.crm.account]\npage_view_user = \"custom_id\"\n\
                 company_in_upsert = \"joins\"\nid_case = \"ignored\"\nid_max_length = 20\n";
    place.write(&format!("records-{name}.ndjson"), &mix::lines(records));
    json_of(&place.run_once(&place.pipeline(&account.endpoint(), facts), &[]), 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_and_membership_of_a_deleted_user_create_it_again() {
    // Guarantees that a user who is deleted between two runs is created again, by a page view that
    // names it by its own id and by a membership in an upsert; and that ids are one user without case.
    let account = EmulatorAccount::open(Faults::default()).await;
    account.assume(&json!({ "page_view_user": "custom_id", "id_case": "ignored" })).await;
    let place = TestDir::new();
    let page = |id: &str, n: u32| {
        json!({ "type": "page", "userId": id, "messageId": format!("p{n}"),
            "timestamp": format!("2026-01-02T03:04:{n:02}Z"),
            "properties": { "url": format!("https://shop.example/{n}") } })
    };
    let group = |id: &str, n: u32| {
        json!({ "type": "group", "userId": id, "groupId": "G", "messageId": format!("g{n}"),
            "traits": { "name": "Acme" } })
    };
    run(&place, &account, "a", &[page("Ann", 1), page("ANN", 2), group("ann", 1)]).await;
    let users = account.all("users/").await;
    assert_eq!((users.len(), &users[0]["page_views"]), (1, &json!(2)));
    assert_eq!(users[0]["companies"][0]["name"], "Acme");

    let delete = format!("{}users/1/", account.endpoint());
    let deleted = reqwest::Client::new()
        .delete(delete)
        .header("Authorization", format!("Token {}", crate::support::KEY))
        .header("Accept", "*/*; version=2");
    assert!(deleted.send().await.unwrap().status().is_success());
    let long = "x".repeat(21);
    let more = [page("aNN", 3), group("Bob", 2), page(&long, 4)];
    let summary = run(&place, &account, "b", &more).await;
    let users = account.all("users/").await;
    let ann = users.iter().find(|user| user["custom_id"] == "ann").unwrap();
    let bob = users.iter().find(|user| user["custom_id"] == "bob").unwrap();
    assert_eq!(ann["page_views"], 1);
    assert_eq!(bob["companies"][0]["name"], "Acme");
    let dead = &summary["sinks"]["crm"]["dead_letters"];
    assert!(dead.to_string().contains("id_too_long"), "{summary:#}");
    account.close().await;
}

#[test]
fn facts_file_replaces_the_account_of_the_pipeline_file() {
    // Guarantees that a later file may set a sink's account, key by key, and nothing else of a sink
    // that is in an earlier file.
    let place = TestDir::new();
    let sink = "preset = \"segment\"\n[sinks.crm.account]\nread_after_write_secs = 7\nid_case = \"ignored\"\n";
    let config = place.pipeline("http://127.0.0.1:1/api/public/", sink);
    let check = |facts: &str| {
        let facts = place.write("facts.toml", facts);
        let (config, facts) = (config.to_str().unwrap(), facts.to_str().unwrap());
        usercom_sink(&["validate", "--no-environment", "-c", config, "-c", facts])
    };
    let good = check("[sinks.crm.account]\nread_after_write_secs = 9\nmember_company = \"id\"\n");
    assert_eq!(good.status.code(), Some(0), "{}", String::from_utf8_lossy(&good.stderr));
    let bad = check("[sinks.crm.account]\nid_case = \"none\"\n");
    assert_eq!(bad.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("facts.toml:2"));
    let more =
        check("[sinks.crm]\npreset = \"segment\"\n[sinks.crm.account]\nid_case = \"ignored\"\n");
    assert_eq!(more.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&more.stderr).contains("E0003"));
}
