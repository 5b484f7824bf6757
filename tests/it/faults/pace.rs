//! How fast it goes under a quota and under latency. Ratios taken in one run, so these are soaks.

use std::time::Duration;

use usercom_sink::emulator::Faults;

use crate::support::load::{Load, Tally};
use crate::support::{Account, Place, json_of};

/// A run's requests that were carried out, those answered 429, and its seconds.
struct Pace {
    done: f64,
    throttled: f64,
    seconds: f64,
}

impl Pace {
    fn rate(&self) -> f64 {
        self.done / self.seconds
    }
}

async fn run(load: Load, faults: Faults, request: &str) -> Pace {
    let account = Account::open(faults).await;
    let place = Place::new();
    place.write("records.ndjson", &load.lines());
    let sink = format!("preset = \"segment\"\n[sinks.crm.request]\n{request}\n");
    let config = place.pipeline(&account.endpoint(), &sink);
    let summary = json_of(&place.run_once(&config, &[]), 0);
    account.set_faults(&serde_json::json!({ "rate_limit": null, "latency_ms": 0 })).await;
    assert_eq!(load.tally(&account).await, Tally::WHOLE);
    account.close().await;
    let statuses = &summary["sinks"]["crm"]["responses_by_status"];
    let of = |status: &str| statuses[status].as_f64().unwrap_or_default();
    let pace = Pace {
        done: of("200") + of("201"),
        throttled: of("429"),
        seconds: summary["seconds"].as_f64().unwrap(),
    };
    println!(
        "{request}: {:.1} requests/s, {:.2} % answered 429, {:.1} s",
        pace.rate(),
        100.0 * pace.throttled / (pace.done + pace.throttled),
        pace.seconds,
    );
    pace
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak of minutes"]
async fn soak_quota() {
    // Against a quota of 50 requests a second: without a limit of its own it reaches 95 % of it
    // with at most 5 % answered 429; with `rate_limit_num` there is no 429 at all.
    let load = Load { records: 3_200, users: 200 };
    let quota = || Faults { rate_limit: Some(50), ..Faults::default() };
    let free = run(load, quota(), "concurrency = \"adaptive\"").await;
    assert!(free.rate() >= 0.95 * 50.0, "{:.1} requests/s", free.rate());
    assert!(free.throttled <= 0.05 * (free.done + free.throttled), "{} times 429", free.throttled);
    let limited = run(load, quota(), "rate_limit_num = 50").await;
    assert!(limited.throttled < 1.0, "{} times 429", limited.throttled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak of minutes"]
async fn soak_latency() {
    // With 50 ms of latency and 200 users, adaptive concurrency reaches 85 % of the best number.
    let load = Load { records: 8_000, users: 200 };
    let slow = || Faults { latency_ms: 50, ..Faults::default() };
    let mut best: f64 = 0.0;
    for concurrency in [5, 20, 50, 100, 200] {
        let pace = run(load, slow(), &format!("concurrency = {concurrency}")).await;
        best = best.max(pace.rate());
    }
    let adaptive = run(load, slow(), "concurrency = \"adaptive\"").await.rate();
    println!("adaptive: {:.0} % of the best fixed concurrency", 100.0 * adaptive / best);
    assert!(adaptive >= 0.85 * best, "{adaptive:.0} of {best:.0} requests/s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_of_ones_own_is_never_answered_429() {
    // Whoever sets `rate_limit_num` to the server's quota never meets a 429.
    let load = Load { records: 150, users: 10 };
    let quota = Faults { rate_limit: Some(50), ..Faults::default() };
    let pace =
        tokio::time::timeout(Duration::from_secs(60), run(load, quota, "rate_limit_num = 50"));
    assert!(pace.await.unwrap().throttled < 1.0);
}
