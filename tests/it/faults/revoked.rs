//! The key is revoked in mid-run and given back.

use std::time::Duration;

use serde_json::json;
use usercom_sink::emulator::Faults;

use crate::support::load::{Load, Tally};
use crate::support::program::Program;
use crate::support::{Account, Place};

async fn run(load: Load, away: Duration, buffer: &str) {
    let account = Account::open(Faults { latency_ms: 5, ..Faults::default() }).await;
    let place = Place::new();
    place.write("records.ndjson", &load.lines());
    let sink = format!("preset = \"segment\"\n[sinks.crm.buffer]\ntype = \"{buffer}\"\n");
    let config = place.pipeline(&account.endpoint(), &sink);
    let program = Program::start(&["run", "-c", config.to_str().unwrap()], &place.path("log"));
    account.until_events(load.records / 4).await;
    account.set_faults(&json!({ "revoked": true })).await;
    tokio::time::sleep(away).await;
    account.set_faults(&json!({ "revoked": false })).await;
    account.until_events(load.records * 8 / 10).await;
    // The rest are page views and profiles.
    account.until_quiet().await;
    assert!(program.told().contains("App settings"), "{}", program.told());
    program.signal("TERM");
    let mut program = program;
    assert_eq!(program.end(Duration::from_secs(60)).await.code(), Some(0), "{}", program.told());
    let letters = place.dead_letters(&config);
    assert!(letters.is_empty(), "{letters:?}");
    assert_eq!(load.tally(&account).await, Tally::WHOLE);
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_loses_nothing() {
    // A key that is refused for a while costs time and nothing else, whatever the buffer.
    let load = Load { records: 600, users: 30 };
    for buffer in ["memory", "disk"] {
        run(load, Duration::from_secs(1), buffer).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak of half a minute"]
async fn soak_revoked_for_20_seconds() {
    // A key that is refused for 20 s in mid-run loses nothing and makes no dead letter.
    run(Load { records: 5_000, users: 200 }, Duration::from_secs(20), "disk").await;
}
