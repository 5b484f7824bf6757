//! SIGKILL at any moment of a run, again and again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use usercom_sink::emulator::Faults;

use super::{Rig, until};
use crate::support::tally::{Tally, records};

/// Requests in flight at most.
const CONCURRENCY: u64 = 8;

/// Records between the buffer and User.com at most.
const IN_FLIGHT: usize = 64;

struct Crash {
    records: usize,
    users: usize,
    kills: u64,
    buffer: &'static str,
    verify: bool,
}

/// Runs, kills, runs again, and at last lets it run to the end.
async fn crash(plan: Crash) -> Tally {
    let sink = format!(
        r#"preset = "segment"
[sinks.crm.request]
concurrency = {CONCURRENCY}
[sinks.crm.buffer]
type = "{}"
[sinks.crm.delivery]
fold = false
verify_ambiguous = {}
max_in_flight = {IN_FLIGHT}
"#,
        plan.buffer, plan.verify
    );
    let faults = Faults { latency_ms: 10, ..Faults::default() };
    let rig = Rig::new(records(plan.records, plan.users), faults, &sink).await;
    let mut dice = StdRng::seed_from_u64(11);
    let (mut in_flight, mut look_ups) = (Vec::new(), vec![0]);
    // Far enough apart that the last comes while there is work left.
    let stride = plan.records as u64 * 3 / 4 / plan.kills;
    for _ in 0..plan.kills {
        let mut running = rig.start(&["--once"]);
        if dice.random_bool(0.25) {
            // While it starts, reads its file and fills its buffer.
            tokio::time::sleep(Duration::from_millis(dice.random_range(5..300))).await;
        } else {
            let goal = rig.chaos.asked() + dice.random_range(1..=stride);
            until("requests", Duration::from_secs(60), || rig.chaos.asked() >= goal).await;
            tokio::time::sleep(Duration::from_micros(dice.random_range(0..15_000))).await;
        }
        look_ups.push(rig.account.look_ups().await);
        assert!(!running.has_ended(), "it was over before all kills: {}", rig.stderr());
        in_flight.push(rig.chaos.in_flight());
        running.kill();
    }
    rig.finish(Duration::from_secs(120)).await;
    look_ups.push(rig.account.look_ups().await);
    // The first number is that of the first run, which is killed last of all.
    let look_ups: Vec<u64> = look_ups.windows(2).skip(1).map(|pair| pair[1] - pair[0]).collect();
    let tally = rig.tally().await;
    println!(
        "crash, {} buffer, verify_ambiguous = {}: {} kills with {in_flight:?} requests in flight, {look_ups:?} \
         look-ups after them; {tally}; \
         {} requests",
        plan.buffer,
        plan.verify,
        plan.kills,
        rig.chaos.asked(),
    );
    for (look_ups, in_flight) in look_ups.iter().zip(&in_flight) {
        // Of a user, events and page views have a history each. The store marks what is in doubt; a
        // source claims ahead, so that with a memory buffer every user may be in doubt with both.
        let histories = if plan.buffer == "memory" { 2 } else { 1 };
        let most = in_flight + histories * plan.users;
        assert!(*look_ups <= most as u64, "{look_ups} look-ups, {in_flight} requests in flight");
    }
    tally.assert_whole();
    assert_eq!(tally.dead, 0, "{:?}", rig.letters());
    rig.account.close().await;
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_loses_and_duplicates_nothing() {
    // Killed again and again: every record arrives, once, in each user's order.
    let plan = Crash { records: 1500, users: 40, kills: 8, buffer: "disk", verify: true };
    crash(plan).await.assert_exact();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn soak_kill_with_verification() {
    // As above, at full size.
    let plan = Crash { records: 5000, users: 100, kills: 25, buffer: "disk", verify: true };
    crash(plan).await.assert_exact();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn soak_kill_with_a_memory_buffer() {
    // As above; the source knows which records may have been sent.
    let plan = Crash { records: 5000, users: 100, kills: 25, buffer: "memory", verify: true };
    crash(plan).await.assert_exact();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn soak_kill_without_verification() {
    // Without looking into histories nothing is lost either, and no more is doubled than was
    // between the buffer and User.com when it was killed.
    let kills = 25;
    let tally =
        crash(Crash { records: 5000, users: 100, kills, buffer: "disk", verify: false }).await;
    assert!(tally.doubled <= kills * IN_FLIGHT as u64, "{tally}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsent_backlog_is_not_maybe_sent_after_a_kill() {
    // Killed amid a backlog of many users: only records whose requests left, or were next in line
    // to leave, are looked for, not all that were read out of the buffer.
    let sink = format!(
        "preset = \"segment\"\n[sinks.crm.request]\nconcurrency = {CONCURRENCY}\n\
         [sinks.crm.buffer]\ntype = \"disk\"\n[sinks.crm.delivery]\nfold = false\n"
    );
    let faults = Faults { latency_ms: 10, ..Faults::default() };
    let rig = Rig::new(records(3000, 1500), faults, &sink).await;
    let mut running = rig.start(&["--once"]);
    until("requests", Duration::from_secs(60), || rig.chaos.asked() >= 2000).await;
    let in_flight = rig.chaos.in_flight() as u64;
    running.kill();
    let before = rig.account.look_ups().await;
    rig.finish(Duration::from_secs(120)).await;
    let look_ups = rig.account.look_ups().await - before;
    println!("a backlog of 3,000 records: {in_flight} requests in flight, {look_ups} look-ups");
    // What was delivered within the last moments, and not written down yet, is looked for as well.
    assert!(look_ups <= in_flight + 12 * CONCURRENCY, "{look_ups} look-ups");
    rig.tally().await.assert_exact();
    rig.account.close().await;
}
