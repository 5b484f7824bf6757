//! A server and a connection at their worst, for a while.

use std::time::Duration;

use usercom_sink::emulator::Faults;

use crate::support::chaos::{Chaos, Proxy};
use crate::support::load::{Load, Tally};
use crate::support::{Account, Place, json_of};

const SINK: &str = "preset = \"segment\"\n\
                    [sinks.crm.request]\ntimeout_secs = 1\nretry_max_duration_secs = 2\n";

/// One request in ten goes wrong.
fn one_in_ten() -> Faults {
    Faults {
        error_rate: 0.06,
        error_codes: vec![429, 500, 502, 503, 504],
        reset_rate: 0.03,
        hang_rate: 0.01,
        ..Faults::default()
    }
}

async fn run(load: Load, faults: Faults, chaos: Option<Chaos>) -> Tally {
    let account = Account::open(faults.clone()).await;
    let place = Place::new();
    place.write("records.ndjson", &load.lines());
    let proxy = match chaos {
        Some(chaos) => Some(Proxy::open(account.addr(), chaos).await),
        None => None,
    };
    let endpoint = match &proxy {
        Some(proxy) => format!("http://{}/api/public/", proxy.addr()),
        None => account.endpoint(),
    };
    let config = place.pipeline(&endpoint, SINK);
    let summary = json_of(&place.run_once(&config, &[]), 0);
    assert_eq!(place.dead_letters(&config), Vec::<serde_json::Value>::new());
    if faults != Faults::default() {
        account
            .set_faults(&serde_json::json!({"error_rate": 0, "reset_rate": 0, "hang_rate": 0}))
            .await;
    }
    let tally = load.tally(&account).await;
    println!("{load:?}: {tally}; {} requests", summary["sinks"]["crm"]["requests"]);
    if let Some(proxy) = proxy {
        println!("struck: {:?}", proxy.close().await);
    }
    account.close().await;
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_resets_and_hangs() {
    // One request in ten fails in one way or another; every record arrives once, in order.
    let tally = tokio::time::timeout(
        Duration::from_secs(200),
        run(Load { records: 300, users: 60 }, one_in_ten(), None),
    );
    assert_eq!(tally.await.unwrap(), Tally::WHOLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections() {
    // Connections are cut before and after the request, delayed, half closed; answers are cut
    // short, garbled or replaced by somebody's HTML. Every record arrives once, in order.
    let load = Load { records: 600, users: 60 };
    let tally = run(load, Faults::default(), Some(Chaos { chance: 0.1, seed: 7 })).await;
    assert_eq!(tally, Tally::WHOLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak of minutes"]
async fn soak_errors_resets_and_hangs() {
    // The same over 10,000 records.
    let tally = run(Load { records: 10_000, users: 500 }, one_in_ten(), None).await;
    assert_eq!(tally, Tally::WHOLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak of minutes"]
async fn soak_broken_connections() {
    // The same over 10,000 records.
    let load = Load { records: 10_000, users: 500 };
    let tally = run(load, Faults::default(), Some(Chaos { chance: 0.1, seed: 11 })).await;
    assert_eq!(tally, Tally::WHOLE);
}
