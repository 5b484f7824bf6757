//! A server that is far away: how near adaptive concurrency comes to the best fixed one.

use std::time::Duration;

use usercom_sink::emulator::Faults;

use super::{Rig, until};
use crate::support::tally::records;

/// Requests a second with this concurrency.
async fn throughput(concurrency: &str, count: usize) -> f64 {
    let sink = format!(
        "preset = \"segment\"\n[sinks.crm.request]\nconcurrency = {concurrency}\n\
         [sinks.crm.delivery]\nfold = false\n"
    );
    let faults = Faults { latency_ms: 50, ..Faults::default() };
    let rig = Rig::new(records(count, 200), faults, &sink).await;
    let mut running = rig.start(&["--once"]);
    // From the first request on, so that the start of the process does not count.
    until("a request", Duration::from_secs(30), || rig.chaos.asked() > 0).await;
    let started = tokio::time::Instant::now();
    let status = running.wait(Duration::from_secs(300)).await.expect("it ends");
    assert!(status.success(), "{}", rig.stderr());
    let seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = rig.chaos.asked() as f64 / seconds;
    println!("latency 50 ms, concurrency {concurrency}: {rate:.0} requests/s over {seconds:.1} s");
    rig.tally().await.assert_exact();
    rig.account.close().await;
    rate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute, and needs a quiet machine"]
async fn soak_latency() {
    // At 50 ms and with 200 users, adaptive reaches 85 % of the best fixed concurrency.
    let count = 10_000;
    let mut best = 0.0_f64;
    for fixed in ["32", "64", "128", "200"] {
        best = best.max(throughput(fixed, count).await);
    }
    let adaptive = throughput("\"adaptive\"", count).await;
    println!("adaptive: {:.0} % of the best fixed", adaptive / best * 100.0);
    assert!(adaptive >= 0.85 * best, "{adaptive} against {best}");
}
