//! Row 8: SIGTERM and SIGHUP with a backlog in a disk buffer.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use usercom_sink::emulator::Faults;

use super::pipeline;
use super::service::{SECONDS, Service};
use crate::support::{EmulatorAccount, TestDir};

const COUNT: usize = 300;

fn records() -> String {
    let record =
        |n| format!("{{\"type\":\"track\",\"userId\":\"u{}\",\"event\":\"E{n}\"}}\n", n % 50);
    (0..COUNT).map(record).collect()
}

/// A pipeline whose backlog takes minutes at its rate, with a long shutdown timeout.
fn slow(place: &TestDir, account: &EmulatorAccount) -> std::path::PathBuf {
    let sink = "preset = \"segment\"\nbuffer.type = \"disk\"\nrequest.rate_limit_num = 4\n\
                delivery.shutdown_timeout_secs = 60\n";
    let config = pipeline(place, account, sink);
    place.write("records.ndjson", &records());
    config
}

async fn wait_for_backlog(account: &EmulatorAccount) {
    let begun = Instant::now();
    while account.admin("stats").await["events"].as_u64().unwrap() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn assert_all_arrive_once(account: &EmulatorAccount, place: &TestDir, config: &Path) {
    let text = std::fs::read_to_string(config).unwrap();
    std::fs::write(config, text.replace("request.rate_limit_num = 4\n", "")).unwrap();
    let output = place.run_once(config, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(account.admin("stats").await["events"], COUNT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_08_sigterm_with_a_backlog_on_disk_ends_within_seconds_with_0() {
    // Guarantees that a backlog does not hold up the end, that its size is said, and that the next
    // run delivers it, each record once.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = slow(&place, &account);
    let mut running = Service::start(&place, &config);
    wait_for_backlog(&account).await;
    running.signal("-TERM");
    assert_eq!(running.ended().await.code(), Some(0), "{}", running.log());
    let log = running.log();
    assert!(log.contains("records wait in the disk buffer") && log.contains("records="), "{log}");
    assert!(account.admin("stats").await["events"].as_u64().unwrap() < 100);
    assert_all_arrive_once(&account, &place, &config).await;
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_08_sigterm_while_the_server_hangs_ends_within_seconds_with_0() {
    // Guarantees the same where open requests are never answered: they are cut off, and looked for
    // before they are sent again.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = slow(&place, &account);
    let mut running = Service::start(&place, &config);
    wait_for_backlog(&account).await;
    account.set_faults(&serde_json::json!({ "hang_rate": 1.0 })).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.signal("-TERM");
    assert_eq!(running.ended().await.code(), Some(0), "{}", running.log());
    account.set_faults(&serde_json::json!({ "hang_rate": 0.0 })).await;
    assert_all_arrive_once(&account, &place, &config).await;
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_08_sighup_with_a_backlog_on_disk_exchanges_within_seconds() {
    // Guarantees that new settings of a sink count at once, and that its backlog is delivered with
    // them, each record once.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = slow(&place, &account);
    let running = Service::start(&place, &config);
    wait_for_backlog(&account).await;
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("rate_limit_num = 4\n", "rate_limit_num = 1000\n"))
        .unwrap();
    running.signal("-HUP");
    running.wait_for_log("reloaded: sink `crm` changed").await;
    let begun = Instant::now();
    while account.admin("stats").await["events"] != COUNT {
        assert!(begun.elapsed() < Duration::from_secs(SECONDS), "{}", running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    account.close().await;
}
