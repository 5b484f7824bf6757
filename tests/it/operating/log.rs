//! Rows 3 and 4: what the log says of records that do not arrive.

use usercom_sink::emulator::Faults;

use super::pipeline;
use crate::support::{EmulatorAccount, TestDir};

const RULES: &str = r#"
[[sinks.crm.mapping]]
name = "order"
when = { ".kind" = "order", ".id" = { exists = true } }
call = "track"
[sinks.crm.mapping.fields]
user_id = ".id"
event = { value = "Order" }
[[sinks.crm.mapping]]
name = "signup"
when = { ".kind" = "sginup", ".id" = { exists = true } }
call = "identify"
[sinks.crm.mapping.fields]
user_id = ".id"
[[sinks.crm.mapping]]
name = "address"
when = { ".kind" = "address" }
call = "identify"
[sinks.crm.mapping.fields]
user_id = ".id"
"traits.email" = { path = ".email", required = true }
"#;

/// Runs once over these records; returns the exit code and the log.
async fn log_of(records: &str, more: &[&str]) -> (Option<i32>, String) {
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = pipeline(&place, &account, RULES);
    place.write("records.ndjson", records);
    let output = place.run_once(&config, more);
    account.close().await;
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_03_dead_letters_are_logged_once_with_rule_field_and_place() {
    // Guarantees that dead letters do not pass in silence, and do not flood the log: the first of
    // each kind in full, the others in one line, and their number at the end with the command that
    // shows them.
    let records: String =
        (0..70).map(|n| format!("{{\"kind\":\"address\",\"id\":\"u{n}\"}}\n")).collect();
    let (code, log) = log_of(&(records + "no json\nnor this\n"), &[]).await;
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("becomes a dead letter")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[1].contains("reason=\"undecodable\""), "{log}");
    let more: Vec<&str> =
        log.lines().filter(|line| line.contains("more records became dead letters")).collect();
    assert_eq!(more.len(), 1, "{log}");
    assert!(more[0].contains("records=70"), "{log}");
    let kind = "missing_required in rule address at traits.email: 69, undecodable: 1";
    assert!(more[0].contains(kind), "{log}");
    assert!(!log.contains("suppressed"), "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("72 records became dead letters in this run"), "{log}");
    let command = last.split_once(": usercom-sink ").unwrap().1;
    let words: Vec<&str> = command.split(' ').collect();
    assert!(words.starts_with(&["dead-letters", "list", "-c"]) && words[4] == "--summary");
    for part in [
        "reason=\"missing_required\"",
        "rule=\"address\"",
        "field=\"traits.email\"",
        "records.ndjson:1",
    ] {
        assert!(lines[0].contains(part), "{part}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_03_unmatched_records_are_logged_with_the_nearest_rule() {
    // Guarantees that a typo in a condition is seen at once: the rule that almost matched is named
    // with the condition that failed.
    let records: String =
        (0..300).map(|n| format!("{{\"kind\":\"signup\",\"id\":\"u{n}\"}}\n")).collect();
    let (code, log) = log_of(&records, &[]).await;
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("no rule")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[1].contains("more records") && lines[1].contains("records=299"), "{log}");
    for part in ["nearest_rule=\"signup\"", "must equal", "sginup", "records.ndjson:1"] {
        assert!(lines[0].contains(part), "{part}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_03_fail_on_unmatched_ends_with_65() {
    // Guarantees the exit code for scripts, only where the option is set and a record is unmatched.
    let unmatched = "{\"kind\":\"other\"}\n";
    let matched = "{\"kind\":\"order\",\"id\":\"u1\"}\n";
    assert_eq!(log_of(unmatched, &["--fail-on-unmatched"]).await.0, Some(65));
    assert_eq!(log_of(unmatched, &[]).await.0, Some(0));
    assert_eq!(log_of(matched, &["--fail-on-unmatched"]).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_04_every_created_attribute_is_named() {
    // Guarantees that no creation is suppressed as a repetition of another.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = pipeline(&place, &account, "preset = \"segment\"\n");
    let traits: Vec<String> = (0..11).map(|n| format!("\"new_{n}\":\"x\"")).collect();
    let traits = traits.join(",");
    place.write(
        "records.ndjson",
        &format!("{{\"type\":\"identify\",\"userId\":\"u1\",\"traits\":{{{traits}}}}}\n"),
    );
    let output = place.run_once(&config, &[]);
    let log = String::from_utf8(output.stderr).unwrap();
    for n in 0..11 {
        assert!(log.contains(&format!("attribute=\"new_{n}\"")), "{n}: {log}");
    }
    account.close().await;
}
