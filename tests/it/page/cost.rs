//! What the page costs a running sink. Takes two minutes; the figures are in docs/status-page.md:
//!
//! ```text
//! cargo test --profile dist --test it page::cost -- --ignored --nocapture
//! ```

#![expect(clippy::print_stdout, reason = "the figures are half of what these tests are for")]

use std::time::Duration;

use futures::StreamExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::scene::Scene;
use crate::support::TestDir;

/// How long each part of the run is measured.
const PART: Duration = Duration::from_secs(30);

/// Processor time that a process has used, and its resident memory in kB.
fn used(pid: u32) -> (Duration, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name of the program is in brackets, and may hold spaces.
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = [11, 12].map(|n| fields[n].parse::<u64>().unwrap()).iter().sum();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let memory = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (Duration::from_millis(ticks * 10), memory)
}

/// The share of one processor in percent over [`PART`], and the memory at its end in kB.
async fn measured(scene: &mut Scene, what: &str, records_per_sec: u32) -> (f64, u64) {
    let pid = scene.service.program.0.id();
    let (begun, (before, _)) = (Instant::now(), used(pid));
    scene.pass(u32::try_from(PART.as_secs()).unwrap(), records_per_sec).await;
    let (after, memory) = used(pid);
    let share = (after - before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    println!("{what}: {share:.2} % of one processor, {memory} kB resident");
    (share, memory)
}

/// A viewer of the status view: reads every event.
async fn view(url: String) {
    let reply = reqwest::get(url).await.unwrap();
    let mut events = reply.bytes_stream();
    while events.next().await.is_some_and(|piece| piece.is_ok()) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of two minutes"]
async fn three_viewers_cost_little() {
    // Prints processor time and memory of one run, idle and busy, without and with three viewers of
    // the live status; and guarantees that viewers do not cost more than a tenth of a processor.
    let mut scene = Scene::start(TestDir::new(), "").await;
    scene.pass(15, 20).await;
    let mut viewers = JoinSet::new();
    for (what, records_per_sec) in [("idle", 0), ("20 records a second", 20)] {
        let alone = measured(&mut scene, &format!("{what}, no viewer"), records_per_sec).await;
        for _ in 0..3 {
            viewers.spawn(view(scene.service.url("/events")));
        }
        let viewed = measured(&mut scene, &format!("{what}, 3 viewers"), records_per_sec).await;
        assert_eq!(viewers.len(), 3, "a viewer was turned away");
        viewers.shutdown().await;
        sleep(Duration::from_secs(2)).await;
        assert!(viewed.0 - alone.0 < 10.0, "{alone:?} {viewed:?}");
        assert!(viewed.1 < alone.1 + 20_000, "{alone:?} {viewed:?}");
    }
}
