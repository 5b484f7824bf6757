//! `kill -9` at random moments.

use std::time::Duration;

use rand::Rng;
use usercom_sink::emulator::Faults;

use crate::support::load::{Load, Tally};
use crate::support::program::Program;
use crate::support::{Account, Place};

const IN_FLIGHT: usize = 10;

/// Runs a load with kills; what has become of it, and how many kills struck.
async fn run(load: Load, kills: usize, delivery: &str) -> (Tally, usize) {
    let account = Account::open(Faults { latency_ms: 5, ..Faults::default() }).await;
    let place = Place::new();
    place.write("records.ndjson", &load.lines());
    let sink = format!(
        "preset = \"segment\"\n\
         [sinks.crm.request]\nconcurrency = {IN_FLIGHT}\n\
         [sinks.crm.buffer]\ntype = \"disk\"\n\
         [sinks.crm.delivery]\nfold = false\n{delivery}\n"
    );
    let config = place.pipeline(&account.endpoint(), &sink);
    let log = place.path("log");
    let args = ["run", "-c", config.to_str().unwrap(), "--once"];
    let mut struck = 0;
    while struck < kills {
        let mut program = Program::start(&args, &log);
        let moment = rand::rng().random_range(50..700);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        if !program.runs() {
            break;
        }
        program.kill();
        struck += 1;
    }
    let mut program = Program::start(&args, &log);
    let status = program.end(Duration::from_secs(300)).await;
    assert_eq!(status.code(), Some(0), "{}", program.told());
    assert_eq!(place.dead_letters(&config), Vec::<serde_json::Value>::new());
    let tally = load.tally(&account).await;
    account.close().await;
    println!("{load:?}, {struck} kills, {delivery:?}: {tally}");
    (tally, struck)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_and_double_nothing() {
    // However often the program is killed, every record arrives once and in order.
    let (tally, struck) = run(Load { records: 1_500, users: 60 }, 6, "").await;
    assert!(struck > 2, "the run was over after {struck} kills");
    assert_eq!(tally, Tally::WHOLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak of minutes"]
async fn soak_25_kills() {
    // 25 kills in one run of 5,000 records lose and double nothing, and keep every user's order.
    let (tally, struck) = run(Load { records: 5_000, users: 200 }, 25, "").await;
    assert!(struck >= 25, "the run was over after {struck} kills");
    assert_eq!(tally, Tally::WHOLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak of minutes"]
async fn soak_25_kills_unverified() {
    // Without a look at the history, no more is doubled than was in flight at the kills.
    let load = Load { records: 5_000, users: 200 };
    let (tally, struck) = run(load, 25, "verify_ambiguous = false").await;
    assert_eq!((tally.lost, tally.out_of_order, tally.stale), (0, 0, 0));
    assert!(tally.doubled <= struck * IN_FLIGHT, "{tally}");
}
