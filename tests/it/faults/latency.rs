//! A server that is far away: how near adaptive concurrency comes to the best fixed one.

use std::time::Duration;

use usercom_sink::emulator::Faults;

use super::Rig;
use crate::support::tally::records;

/// Requests a second with this concurrency, once it runs. There is no proxy in between: it would
/// take part of the machine and be measured with the rest.
async fn throughput(concurrency: &str, span: Duration) -> f64 {
    let sink = format!(
        "preset = \"segment\"\n[sinks.crm.request]\nconcurrency = {concurrency}\n\
         [sinks.crm.delivery]\nfold = false\n"
    );
    let faults = Faults { latency_ms: 50, ..Faults::default() };
    let rig = Rig::new(records(100_000, 200), faults, &sink).await;
    let config = std::fs::read_to_string(&rig.config).unwrap();
    let direct = config.replace(&rig.chaos.endpoint(), &rig.account.endpoint());
    std::fs::write(&rig.config, direct).unwrap();
    let mut running = rig.start(&[]);
    // The first seconds make the users and find the limit.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = total(&rig).await;
    let started = tokio::time::Instant::now();
    tokio::time::sleep(span).await;
    let requests = total(&rig).await - before;
    let rate = requests / started.elapsed().as_secs_f64();
    assert!(!running.has_ended(), "{}", rig.stderr());
    println!("latency 50 ms, concurrency {concurrency}: {rate:.0} requests/s");
    running.kill();
    rig.account.close().await;
    rate
}

async fn total(rig: &Rig) -> f64 {
    rig.account.admin("stats").await["total"].as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute, and needs a quiet machine"]
async fn soak_latency() {
    // At 50 ms and with 200 users, adaptive reaches 85 % of the best fixed concurrency.
    let span = Duration::from_secs(8);
    let mut best = 0.0_f64;
    for fixed in ["32", "64", "128", "200"] {
        best = best.max(throughput(fixed, span).await);
    }
    let adaptive = throughput("\"adaptive\"", span).await;
    println!("adaptive: {:.0} % of the best fixed", adaptive / best * 100.0);
    assert!(adaptive >= 0.85 * best, "{adaptive} against {best}");
}
