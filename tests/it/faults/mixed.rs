//! Statuses, resets, hangs and spoilt answers, mixed.

use std::time::Duration;

use usercom_sink::emulator::Faults;

use super::Rig;
use crate::support::chaos::Fault;
use crate::support::tally::records;

const SINK: &str = r#"preset = "segment"
[sinks.crm.request]
concurrency = 32
timeout_secs = 1
retry_max_duration_secs = 2
[sinks.crm.buffer]
type = "disk"
[sinks.crm.delivery]
fold = false
"#;

/// One exchange in ten.
const STATUSES: [(Fault, f64); 8] = [
    (Fault::Status(429), 0.0125),
    (Fault::Status(500), 0.0125),
    (Fault::Status(502), 0.0125),
    (Fault::Status(503), 0.0125),
    (Fault::Status(504), 0.0125),
    (Fault::CutBefore, 0.0125),
    (Fault::CutAfter, 0.0125),
    (Fault::HalfClose, 0.0125),
];

/// One exchange in ten.
const SPOILT: [(Fault, f64); 8] = [
    // Beyond the timeout, and well within.
    (Fault::Delay(1300), 0.005),
    (Fault::Delay(200), 0.005),
    (Fault::CutAfter, 0.01),
    (Fault::HalfClose, 0.01),
    (Fault::Truncated, 0.02),
    (Fault::Garbage, 0.01),
    (Fault::Html, 0.02),
    (Fault::Portal, 0.02),
];

async fn mixed(count: usize, users: usize, odds: &[(Fault, f64)], emulator: Faults) {
    let limit = Duration::from_secs(400);
    mixed_within(limit, count, users, odds, emulator).await;
}

async fn mixed_within(
    limit: Duration,
    count: usize,
    users: usize,
    odds: &[(Fault, f64)],
    emulator: Faults,
) {
    let rig = Rig::new(records(count, users), emulator, SINK).await;
    rig.chaos.set_fault_rates(odds);
    rig.finish(limit).await;
    rig.chaos.set_fault_rates(&[]);
    rig.account
        .set_faults(&serde_json::json!({ "error_rate": 0, "hang_rate": 0, "reset_rate": 0 }))
        .await;
    let tally = rig.tally().await;
    println!("faults {:?}: {tally}; {} requests", rig.chaos.struck(), rig.chaos.asked());
    tally.assert_exact();
    assert_eq!(tally.dead, 0, "{:?}", rig.letters());
    rig.account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_statuses_and_cut_connections_lose_and_duplicate_nothing() {
    // Every tenth exchange fails: every record arrives, once, in each user's order.
    mixed(300, 40, &STATUSES, Faults::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupted_responses_lose_and_duplicate_nothing() {
    // Answers that are cut, senseless, or a web page of somebody between: nothing that was not
    // taken passes for delivered, nothing that was is sent twice.
    mixed(300, 40, &SPOILT, Faults::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn soak_statuses_resets_and_hangs() {
    // 10,000 records, one in ten attempts fails in one of six ways, hangs among them, which may
    // have taken effect or not.
    mixed(10_000, 300, &[], failing(&[500, 502, 503, 504])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: every 429 asks for a pause"]
async fn soak_statuses_resets_hangs_and_429() {
    // As above with 429 in the mixture.
    let emulator = failing(&[429, 500, 502, 503, 504]);
    mixed_within(Duration::from_secs(5400), 10_000, 300, &[], emulator).await;
}

/// One attempt in ten fails.
fn failing(statuses: &[u16]) -> Faults {
    Faults {
        error_rate: 0.07,
        error_codes: statuses.to_vec(),
        reset_rate: 0.02,
        hang_rate: 0.01,
        ..Faults::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn soak_spoilt_answers() {
    // 10,000 records, one in ten answers spoilt.
    mixed(10_000, 300, &SPOILT, Faults::default()).await;
}
