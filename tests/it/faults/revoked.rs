//! A key that is revoked while records are on their way, and given back.

use std::time::Duration;

use serde_json::json;
use usercom_sink::emulator::Faults;

use super::{Rig, until};
use crate::support::tally::records;

async fn status(url: &str) -> u16 {
    match reqwest::get(url).await {
        Ok(reply) => reply.status().as_u16(),
        Err(_) => 0,
    }
}

async fn until_status(url: &str, wanted: u16) {
    let end = tokio::time::Instant::now() + Duration::from_secs(40);
    while status(url).await != wanted {
        assert!(tokio::time::Instant::now() < end, "{url} never says {wanted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn revoked(count: usize, away: Duration) {
    let sink = r#"preset = "segment"
[sinks.crm.request]
concurrency = 8
[sinks.crm.delivery]
fold = false
"#;
    let faults = Faults { latency_ms: 10, ..Faults::default() };
    let rig = Rig::new(records(count, 40), faults, sink).await;
    let port = rig.with_status_page();
    let ready = format!("http://127.0.0.1:{port}/ready");

    let mut running = rig.start(&[]);
    let third = count as u64 / 3;
    until("a third", Duration::from_secs(60), || rig.chaos.asked() > third).await;
    rig.account.set_faults(&json!({ "revoked": true })).await;
    until_status(&ready, 503).await;
    let before = rig.chaos.asked();
    tokio::time::sleep(away).await;
    let probes = rig.chaos.asked() - before;
    assert!(!running.has_ended(), "{}", rig.stderr());
    rig.account.set_faults(&json!({ "revoked": false })).await;
    until_status(&ready, 200).await;
    // Everything counts as there once no request has come for a while.
    let mut last = 0;
    while last != rig.chaos.asked() || rig.chaos.in_flight() > 0 {
        last = rig.chaos.asked();
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    running.signal("TERM");
    let ended = running.wait(Duration::from_secs(30)).await.expect("it ends when told to");
    assert_eq!(ended.code(), Some(0), "{}", rig.stderr());
    let tally = rig.tally().await;
    println!("revoked for {away:?}: {tally}; {probes} requests meanwhile");
    tally.assert_exact();
    assert_eq!(tally.dead, 0);
    assert!(rig.stderr().contains("App settings > Advanced"), "{}", rig.stderr());
    assert!(!rig.stderr().contains(crate::support::KEY));
    // One request in eight at a time was on its way, then one prober after a growing wait.
    assert!(probes <= 16, "{probes} requests with a revoked key");
    rig.account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_accepted_again_loses_nothing() {
    // While the key is revoked `/ready` says 503 and hardly anything is sent; when it is back
    // everything arrives, once, in order, and nothing is in the dead letters.
    revoked(400, Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn soak_revoked_key() {
    // As above: 5,000 records, 20 s without a key.
    revoked(5000, Duration::from_secs(20)).await;
}
