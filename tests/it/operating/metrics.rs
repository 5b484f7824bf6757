//! Row 13: `/metrics` as strict parsers read it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use usercom_sink::emulator::Faults;

use crate::support::{EmulatorAccount, TestDir, binary};

struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn metrics(url: &str, accept: &str) -> Option<(String, String)> {
    let request = reqwest::Client::new().get(url).header("Accept", accept);
    let reply = request.send().await.ok()?;
    let kind = reply.headers()["content-type"].to_str().unwrap().to_owned();
    Some((kind, reply.text().await.ok()?))
}

/// Checks that every family has one head, before its samples, and that samples come together.
fn assert_families(text: &str) {
    let mut seen = BTreeSet::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split(' ').next().unwrap().to_owned();
            assert!(seen.insert(current.clone()), "{current} has two heads:\n{text}");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&current), "{line} is not under {current}:\n{text}");
        }
    }
    assert!(seen.len() > 15, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_13_metrics_have_each_family_once_in_both_formats() {
    // Guarantees what `promtool check metrics` and OpenMetrics parsers ask for, with several sources
    // and sinks. With `PROMTOOL_BIN` Prometheus' own tool reads the text too.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = account.endpoint();
    let more = format!(
        "preset = \"segment\"\n[sinks.second]\ntype = \"usercom\"\ninputs = [\"app\", \"more\"]\n\
         endpoint = \"{endpoint}\"\napi_key = \"{}\"\npreset = \"segment\"\n\
         [sources.more]\ntype = \"file\"\ninclude = [\"more.ndjson\"]\n[api]\nlisten = \"{free}\"\n",
        crate::support::KEY
    );
    let config = super::pipeline(&place, &account, &more);
    place.write("records.ndjson", "{\"type\":\"track\",\"userId\":\"u1\",\"event\":\"E\"}\n");
    let program = binary().args(["run", "-c"]).arg(&config).stderr(Stdio::null()).spawn().unwrap();
    let _running = Running(program);
    let url = format!("http://{free}/metrics");
    let open = "application/openmetrics-text; version=1.0.0";
    let sent = "component_sent_events_total{component_id=\"second\"";
    let mut found = None;
    for _ in 0..600 {
        found = metrics(&url, open).await.filter(|(_, text)| text.contains(sent));
        if found.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (kind, text) = found.expect("metrics of both sinks");
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(text.ends_with("# EOF\n"));
    assert_families(&text);

    let (kind, text) = metrics(&url, "text/plain").await.unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    assert!(!text.contains("# EOF"));
    assert_families(&text);
    assert!(text.contains("# TYPE component_sent_events_total counter"), "{text}");
    match std::env::var_os("PROMTOOL_BIN") {
        None => eprintln!("SKIPPED: promtool did not read the metrics; name it in PROMTOOL_BIN"),
        Some(promtool) => {
            let mut tool = Command::new(promtool)
                .args(["check", "metrics"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            let output = tool.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}\n{text}");
        }
    }
    account.close().await;
}
