//! A request to stop, with work left or without; and other owners of the same data.

use std::time::Duration;

use serde_json::json;
use usercom_sink::emulator::Faults;

use super::{Rig, until};
use crate::support::tally::records;

fn sink(buffer: &str, seconds: u64) -> String {
    format!(
        r#"preset = "segment"
[sinks.crm.request]
concurrency = 8
retry_max_duration_secs = 1
[sinks.crm.buffer]
type = "{buffer}"
[sinks.crm.delivery]
fold = false
shutdown_timeout_secs = {seconds}
"#
    )
}

async fn slow(buffer: &str, seconds: u64, latency_ms: u64) -> Rig {
    let faults = Faults { latency_ms, ..Faults::default() };
    Rig::new(records(400, 40), faults, &sink(buffer, seconds)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_and_ends_with_0() {
    // SIGTERM in mid-run: what was taken is finished, the exit code is 0, and the next run
    // delivers the rest, each once and in order.
    for buffer in ["memory", "disk"] {
        let rig = slow(buffer, 60, 10).await;
        let mut running = rig.start(&[]);
        until("some", Duration::from_secs(30), || rig.chaos.asked() > 60).await;
        running.signal("TERM");
        let ended = running.wait(Duration::from_secs(60)).await.expect("it drains");
        assert_eq!(ended.code(), Some(0), "{}", rig.stderr());
        rig.finish(Duration::from_secs(60)).await;
        let tally = rig.tally().await;
        println!("SIGTERM, {buffer} buffer: {tally}");
        tally.assert_exact();
        rig.account.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_with_empty_buffer_does_not_wait_for_the_server() {
    // User.com has been away since the start: SIGTERM ends the process at once, with 0, without a
    // record and with one in a disk buffer, which the next run delivers. With one in a memory
    // buffer it is held until the deadline.
    for (buffer, count, code) in [("disk", 0, 0), ("disk", 1, 0), ("memory", 1, 75)] {
        let rig = Rig::new(records(count, 1), Faults::default(), &sink(buffer, 2)).await;
        rig.chaos.set_dead(true);
        let mut running = rig.start(&[]);
        let tried = || rig.stderr().contains("cannot be reached");
        until("tries", Duration::from_secs(30), tried).await;
        running.signal("TERM");
        let ended = running.wait(Duration::from_secs(30)).await.expect("it ends");
        assert_eq!(ended.code(), Some(code), "{}", rig.stderr());
        rig.chaos.set_dead(false);
        rig.finish(Duration::from_secs(60)).await;
        rig.tally().await.assert_exact();
        rig.account.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_deadline_ends_with_75_and_keeps_the_rest() {
    // A server that has stopped answering does not hold the process beyond its deadline: it ends
    // with 75, or with 0 where the rest is in a disk buffer, and the next run delivers everything,
    // each once and in order.
    for (buffer, code) in [("memory", 75), ("disk", 0)] {
        let rig = slow(buffer, 1, 10).await;
        let mut running = rig.start(&[]);
        until("some", Duration::from_secs(30), || rig.chaos.asked() > 60).await;
        rig.chaos.set_dead(true);
        running.signal("TERM");
        let ended = running.wait(Duration::from_secs(30)).await.expect("the deadline holds");
        assert_eq!(ended.code(), Some(code), "{}", rig.stderr());
        rig.chaos.set_dead(false);
        rig.finish(Duration::from_secs(60)).await;
        let tally = rig.tally().await;
        println!("deadline, {buffer} buffer: {tally}");
        tally.assert_exact();
        rig.account.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_signal_ends_at_once() {
    // The second signal does not wait for the deadline; nothing is lost or doubled by it.
    let rig = slow("memory", 600, 10).await;
    let mut running = rig.start(&[]);
    until("some", Duration::from_secs(30), || rig.chaos.asked() > 60).await;
    rig.chaos.set_dead(true);
    running.signal("TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!running.has_ended(), "one signal waits for the deadline: {}", rig.stderr());
    running.signal("INT");
    let ended = running.wait(Duration::from_secs(10)).await.expect("the second ends it");
    assert_eq!(ended.code(), Some(75), "{}", rig.stderr());
    rig.chaos.set_dead(false);
    rig.finish(Duration::from_secs(60)).await;
    rig.tally().await.assert_exact();
    rig.account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_process_with_same_data_dir_is_rejected() {
    // A second process on the same data directory is refused by name and sends nothing; the first
    // continues.
    let rig = slow("disk", 60, 20).await;
    let mut first = rig.start(&[]);
    until("some", Duration::from_secs(30), || rig.chaos.asked() > 20).await;
    let output = rig.place.run_once(&rig.config, &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("data"), "{stderr}");
    assert!(!first.has_ended());
    first.signal("TERM");
    assert_eq!(first.wait(Duration::from_secs(60)).await.unwrap().code(), Some(0));
    rig.finish(Duration::from_secs(60)).await;
    rig.tally().await.assert_exact();
    rig.account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_data_is_rejected_and_unchanged() {
    // A store that is no store any more is refused by name, not one byte of it changes, and
    // nothing is sent.
    let rig = slow("disk", 60, 0).await;
    rig.finish(Duration::from_secs(60)).await;
    let asked = rig.chaos.asked();
    let data = rig.place.path().join("data");
    let file = std::fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3")))
        .expect("the store is one file");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[4096..middle.max(8192)].fill(0xa5);
    std::fs::write(&file, &bytes).unwrap();
    let output = rig.place.run_once(&rig.config, &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{stderr}");
    assert!(stderr.contains(file.file_name().unwrap().to_str().unwrap()), "{stderr}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    assert_eq!(rig.chaos.asked(), asked);
    rig.account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exhausted_retries_are_paced_and_lose_nothing() {
    // With `retry_attempts` used up a record is neither rejected nor tried without a pause.
    let sink = sink("disk", 60).replace("concurrency = 8", "concurrency = 8\nretry_attempts = 1");
    let rig = Rig::new(records(200, 4), Faults::default(), &sink).await;
    let mut running = rig.start(&["--once"]);
    // Some arrive first, so that it is not only the start that is tried again.
    until("some", Duration::from_secs(30), || rig.chaos.asked() > 20).await;
    rig.account.set_faults(&json!({ "error_rate": 1.0, "error_code": 500 })).await;
    let before = rig.chaos.asked();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!running.has_ended(), "{}", rig.stderr());
    let asked = rig.chaos.asked() - before;
    rig.account.set_faults(&json!({ "error_rate": 0.0 })).await;
    let ended = running.wait(Duration::from_secs(60)).await.expect("it goes on");
    assert_eq!(ended.code(), Some(0), "{}", rig.stderr());
    rig.tally().await.assert_exact();
    println!("used up retries: {asked} requests in 3 s");
    // Four users, two attempts each, and a second between one round and the next.
    assert!(asked <= 60, "{asked} requests to a server that fails");
    rig.account.close().await;
}
