//! Row 4: an outage is one line at its begin and one at its end.

use std::time::Duration;

use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use super::service::Service;
use crate::support::chaos::{Chaos, Fault};
use crate::support::{EmulatorAccount, TestDir};

/// Records of twenty users each; one group is there from the start.
fn records(groups: usize) -> String {
    let record = |n: usize| {
        format!("{{\"type\":\"track\",\"userId\":\"u{}\",\"event\":\"E{n}\"}}\n", n % 20)
    };
    (0..groups * 20).map(record).collect()
}

async fn events(account: &EmulatorAccount) -> u64 {
    account.admin("stats").await["events"].as_u64().unwrap()
}

async fn wait_for_events(account: &EmulatorAccount, count: u64, service: &Service) {
    for _ in 0..600 {
        if events(account).await == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} events: {}", events(account).await, service.log());
}

/// Lines of the log that warn, or tell that something is over.
fn notable(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_notable = |line: &Value| {
        let message = line["fields"]["message"].as_str().unwrap_or_default();
        line["level"] != "INFO" || message.contains("again") || message.contains("suppressed")
    };
    lines.filter(is_notable).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_04_outage_is_one_line_at_its_begin_and_one_at_its_end() {
    // Guarantees that however User.com fails and however many users wait, the log has one line with
    // the reason when it begins and one with its length and counts when it is over, and nothing in
    // between; and that every event arrives once.
    for kind in ["status", "dead", "portal", "cut"] {
        let account = EmulatorAccount::open(Faults::default()).await;
        let chaos = Chaos::start(account.addr(), 1).await;
        let place = TestDir::new();
        let config = place.pipeline(&chaos.endpoint(), "preset = \"segment\"\n");
        place.write("records.ndjson", &records(1));
        let service = Service::start_with(&place, &config, &["--log-format", "json"]);
        wait_for_events(&account, 20, &service).await;
        match kind {
            "status" => chaos.set_fault_rates(&[(Fault::Status(503), 1.0)]),
            "portal" => chaos.set_fault_rates(&[(Fault::Portal, 1.0)]),
            "cut" => chaos.set_fault_rates(&[(Fault::CutBefore, 1.0)]),
            _ => chaos.set_dead(true),
        }
        place.write("records.ndjson", &records(4));
        service.wait_for_log("cannot be reached").await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        chaos.set_fault_rates(&[]);
        chaos.set_dead(false);
        wait_for_events(&account, 80, &service).await;
        let lines = notable(&service.log());
        assert_eq!(lines.len(), 2, "{kind}: {lines:#?}");
        let [begin, end] = [&lines[0]["fields"], &lines[1]["fields"]];
        let reason = match kind {
            "status" => "status 503",
            "portal" => "web page or redirect with status 200",
            "cut" => "answer cut off",
            // A proxy that resets what it accepts.
            _ => "",
        };
        for fields in [begin, end] {
            assert_eq!(fields["sink"], "crm", "{kind}: {fields}");
            assert!(fields["why"].as_str().unwrap().contains(reason), "{kind}: {fields}");
            assert!(fields["failed_attempts"].as_u64().unwrap() >= 2, "{kind}: {fields}");
        }
        assert!(begin["message"].as_str().unwrap().contains("nothing is lost"), "{begin}");
        assert!(end["secs"].as_f64().unwrap() >= 6.0, "{kind}: {end}");
        assert!(end["waiting"].as_u64().unwrap() > 0, "{kind}: {end}");
        drop(service);
        account.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_04_refused_key_is_one_line_and_its_end_has_a_length() {
    // Guarantees the same for a key that is refused for a while, and that a stop during an outage
    // says that it lasts.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = place.pipeline(&account.endpoint(), "preset = \"segment\"\n");
    place.write("records.ndjson", &records(1));
    let mut service = Service::start_with(&place, &config, &["--log-format", "json"]);
    wait_for_events(&account, 20, &service).await;
    account.set_faults(&json!({ "revoked": true })).await;
    place.write("records.ndjson", &records(2));
    service.wait_for_log("sending stops").await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    account.set_faults(&json!({ "revoked": false })).await;
    wait_for_events(&account, 40, &service).await;
    let lines = notable(&service.log());
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let end = &lines[1]["fields"];
    assert!(end["secs"].as_f64().unwrap() >= 7.0, "{end}");
    assert!(end["refusals"].as_u64().unwrap() >= 2, "{end}");

    account.set_faults(&json!({ "error_rate": 1.0, "error_code": 500 })).await;
    place.write("records.ndjson", &records(3));
    service.wait_for_log("cannot be reached").await;
    service.signal("-TERM");
    service.signal("-TERM");
    service.ended().await;
    account.close().await;
}
