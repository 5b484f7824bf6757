//! Being told to stop.

use std::time::Duration;

use serde_json::json;
use usercom_sink::emulator::Faults;

use crate::support::load::{Load, Tally};
use crate::support::program::Program;
use crate::support::{Account, Place, json_of};

const LOAD: Load = Load { records: 400, users: 20 };

/// A pipeline under way: a quarter has arrived.
async fn under_way(
    buffer: &str,
    timeout_secs: u32,
) -> (Account, Place, std::path::PathBuf, Program) {
    let account = Account::open(Faults { latency_ms: 20, ..Faults::default() }).await;
    let place = Place::new();
    place.write("records.ndjson", &LOAD.lines());
    let sink = format!(
        "preset = \"segment\"\n[sinks.crm.buffer]\ntype = \"{buffer}\"\n\
         [sinks.crm.request]\nconcurrency = 4\n\
         [sinks.crm.delivery]\nshutdown_timeout_secs = {timeout_secs}\n"
    );
    let config = place.pipeline(&account.endpoint(), &sink);
    let program = Program::start(&["run", "-c", config.to_str().unwrap()], &place.path("log"));
    account.until_events(LOAD.records / 4).await;
    (account, place, config, program)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_settles_what_was_taken() {
    // After SIGTERM what was taken is delivered, the program ends with 0, and a next run delivers
    // the rest and nothing twice.
    for buffer in ["memory", "disk"] {
        let (account, place, config, mut program) = under_way(buffer, 60).await;
        program.signal("TERM");
        let status = program.end(Duration::from_secs(60)).await;
        assert_eq!(status.code(), Some(0), "{}", program.told());
        json_of(&place.run_once(&config, &[]), 0);
        assert_eq!(LOAD.tally(&account).await, Tally::WHOLE, "{buffer}");
        account.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_leaves_the_rest_for_the_next_run() {
    // Where User.com hangs, the program ends at its deadline with 75, and the next run delivers
    // what was left, once.
    for buffer in ["memory", "disk"] {
        let (account, place, config, mut program) = under_way(buffer, 1).await;
        account.set_faults(&json!({ "hang_rate": 1.0 })).await;
        program.signal("TERM");
        let status = program.end(Duration::from_secs(30)).await;
        assert_eq!(status.code(), Some(75), "{}", program.told());
        account.set_faults(&json!({ "hang_rate": 0.0 })).await;
        json_of(&place.run_once(&config, &[]), 0);
        let tally = LOAD.tally(&account).await;
        // A memory buffer forgets which records are in doubt.
        let doubled = if buffer == "disk" { 0 } else { tally.doubled.min(4) };
        assert_eq!(tally, Tally { doubled, ..Tally::WHOLE }, "{buffer}");
        account.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    // Whoever does not want to wait sends a second signal; nothing is lost by it.
    let (account, place, config, mut program) = under_way("disk", 60).await;
    account.set_faults(&json!({ "hang_rate": 1.0 })).await;
    program.signal("TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(program.runs(), "{}", program.told());
    program.signal("INT");
    assert_eq!(program.end(Duration::from_secs(5)).await.code(), Some(75));
    account.set_faults(&json!({ "hang_rate": 0.0 })).await;
    json_of(&place.run_once(&config, &[]), 0);
    assert_eq!(LOAD.tally(&account).await, Tally::WHOLE);
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_owner_a_data_dir() {
    // A second program on the same `data_dir` is refused by name, and the first goes on.
    let (account, place, config, mut program) = under_way("disk", 60).await;
    let second = place.run_once(&config, &[]);
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && told.contains("data"), "{told}");
    program.signal("TERM");
    assert_eq!(program.end(Duration::from_secs(60)).await.code(), Some(0));
    account.close().await;
}
