//! The status page of the running program, with the metric names of the interface.

use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::Duration;

use usercom_sink::emulator::Faults;

use crate::support::{EmulatorAccount, TestDir, binary};

/// Every metric the interface names.
const NAMES: &[&str] = &[
    "component_received_events_total",
    "component_sent_events_total",
    "component_errors_total",
    "component_discarded_events_total",
    "http_client_requests_sent_total",
    "http_client_responses_total",
    "http_client_response_rtt_seconds",
    "buffer_size_events",
    "buffer_size_bytes",
    "adaptive_concurrency_limit",
    "adaptive_concurrency_in_flight",
    "usercom_calls_total",
    "usercom_requests_per_call",
    "usercom_requests_saved_total",
    "usercom_attributes_created_total",
    "usercom_conversions_failed_total",
    "usercom_dead_letters_total",
    "usercom_retries_total",
    "usercom_halted",
];

/// The program; ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn ask(url: &str) -> Option<(u16, String)> {
    let reply = reqwest::get(url).await.ok()?;
    Some((reply.status().as_u16(), reply.text().await.ok()?))
}

/// Asks until the response is as expected.
async fn until(url: &str, wanted: impl Fn(u16, &str) -> bool) -> String {
    let mut last = None;
    for _ in 0..600 {
        if let Some((status, text)) = ask(url).await {
            if wanted(status, &text) {
                return text;
            }
            last = Some((status, text));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{url} never answered as wanted; last: {last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_page_shows_every_metric_and_no_secret() {
    // Every metric of the interface is there from the start and counts, readiness follows the key,
    // and the key is shown nowhere.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sink = format!("preset = \"segment\"\n[api]\nlisten = \"{free}\"\n");
    let config = place.pipeline(&account.endpoint(), &sink);
    let record = |n: u32| {
        format!(
            "{{\"type\":\"track\",\"userId\":\"u1\",\"event\":\"E{n}\",\"messageId\":\"m{n}\"}}\n"
        )
    };
    let records = place.write("records.ndjson", &record(1));
    let program = binary().args(["run", "-c"]).arg(&config).stderr(Stdio::piped()).spawn().unwrap();
    let mut program = Running(program);

    let at = |path: &str| format!("http://{free}/{path}");
    until(&at("health"), |status, _| status == 200).await;
    let sent = "component_sent_events_total{component_id=\"crm\",component_kind=\"sink\",component_type=\"usercom\"} 1\n";
    let metrics = until(&at("metrics"), |_, text| text.contains(sent)).await;
    for name in NAMES {
        let shown = metrics.lines().any(|line| line.starts_with(name));
        assert!(shown, "{name} is missing from:\n{metrics}");
    }
    until(&at("ready"), |status, _| status == 200).await;

    account.set_faults(&serde_json::json!({ "revoked": true })).await;
    std::fs::write(&records, record(1) + &record(2)).unwrap();
    until(&at("ready"), |status, text| status == 503 && text.contains("crm")).await;
    until(&at("metrics"), |_, text| {
        text.contains("usercom_halted{") && text.contains("component_type=\"usercom\"} 1\n")
    })
    .await;
    account.set_faults(&serde_json::json!({ "revoked": false })).await;
    until(&at("ready"), |status, _| status == 200).await;
    until(&at("metrics"), |_, text| text.contains(&sent.replace("} 1\n", "} 2\n"))).await;
    assert_eq!(account.admin("stats").await["events"], 2);

    program.0.kill().unwrap();
    let mut told = String::new();
    std::io::Read::read_to_string(program.0.stderr.as_mut().unwrap(), &mut told).unwrap();
    assert!(told.contains("App settings"), "the log names the cure: {told}");
    assert!(!told.contains(crate::support::KEY) && !metrics.contains(crate::support::KEY));
    account.close().await;
}
