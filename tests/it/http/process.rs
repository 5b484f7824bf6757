//! The whole program: posted records at a local User.com, through kills and outages.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use super::{await_port, free_port};
use crate::support::{EmulatorAccount, KEY, TestDir, binary};

/// A running pipeline from an http source; killed when it goes out of sight.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn start(config: &Path, port: u16) -> Self {
        let child = binary()
            .args(["run", "-c", config.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let running = Self { child };
        await_port(port);
        running
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A pipeline file with an http source; `sink` is the rest of the sink's table.
pub(crate) fn pipeline(
    place: &TestDir,
    endpoint: &str,
    port: u16,
    sink: &str,
) -> std::path::PathBuf {
    let data = place.write("marker", "");
    let dir = data.parent().unwrap().display();
    let text = format!(
        r#"
data_dir = "{dir}/data"

[sources.web]
type = "http"
address = "127.0.0.1:{port}"
write_key = "wk"

[sinks.crm]
type = "usercom"
inputs = ["web"]
endpoint = "{endpoint}"
api_key = "{KEY}"
preset = "segment"
request.retry_initial_backoff_secs = 1
{sink}
"#
    );
    place.write("pipeline.toml", &text)
}

/// Asks until it is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    for _ in 0..300 {
        if ask().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}: it did not come to that");
}

async fn post(port: u16, path: &str, body: &Value) -> reqwest::Result<u16> {
    let request = reqwest::Client::new().post(format!("http://127.0.0.1:{port}{path}"));
    let reply = request.basic_auth("wk", Some("")).json(body).send().await?;
    Ok(reply.status().as_u16())
}

/// Names of a user's events.
async fn events(account: &EmulatorAccount, user: &str) -> Vec<String> {
    let found = account.all(&format!("users-by-id/{user}/events/")).await;
    found.iter().map(|event| event["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_loses_no_acknowledged_batch() {
    // Killed amid posting, with a buffer on disk: all that was answered arrives, once each, and each
    // life reads the history of the one user once, of two pages in the end.
    let account = EmulatorAccount::open(Faults::default()).await;
    account.set_faults(&json!({"latency_ms": 20})).await;
    let place = TestDir::new();
    let port = free_port();
    let config = pipeline(&place, &account.endpoint(), port, "buffer.type = \"disk\"");
    let mut look_ups = vec![0];
    let mut answered: Vec<String> = Vec::new();
    let mut n = 0;
    for round in 0..3 {
        let running = Running::start(&config, port);
        for _ in 0..8 {
            let names: Vec<String> = (0..5).map(|k| format!("event {n}-{k}")).collect();
            let batch: Vec<Value> = names
                .iter()
                .map(|name| json!({"type": "track", "userId": "u1", "event": name, "messageId": name}))
                .collect();
            n += 1;
            if post(port, "/v1/batch", &json!({"batch": batch})).await.is_ok_and(|s| s == 200) {
                answered.extend(names);
            }
        }
        let killed_amid = tokio::time::sleep(Duration::from_millis(40 * round));
        killed_amid.await;
        running.kill();
        look_ups.push(account.look_ups().await);
    }
    let look_ups: Vec<u64> = look_ups.windows(2).map(|pair| pair[1] - pair[0]).collect();
    eprintln!("http: {look_ups:?} look-ups in the lives of a process killed again and again");
    assert!(look_ups[0] == 0 && look_ups.iter().all(|n| *n <= 2), "{look_ups:?}");
    assert!(answered.len() >= 100, "{} answered", answered.len());
    let running = Running::start(&config, port);
    eventually("all answered events are delivered", || async {
        let found = events(&account, "u1").await;
        answered.iter().all(|name| found.contains(name))
    })
    .await;
    let mut found = events(&account, "u1").await;
    found.sort();
    let all = found.len();
    found.dedup();
    assert_eq!(found.len(), all, "no event is listed twice");
    drop(running);
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_http_formats_reach_user_com() {
    // Calls of an SDK and lines of a pipeline on one port; a batch sent twice counts once.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let port = free_port();
    let config = pipeline(&place, &account.endpoint(), port, "");
    let running = Running::start(&config, port);
    let batch = json!({"batch": [
        {"type": "identify", "userId": "u1", "traits": {"email": "a@b.c"}, "messageId": "m1"},
        {"type": "track", "userId": "u1", "event": "Signed Up", "messageId": "m2"},
        {"type": "screen", "userId": "u1", "name": "Home", "messageId": "m3",
         "context": {"app": {"namespace": "com.acme.shop"}}},
    ]});
    for _ in 0..2 {
        assert_eq!(post(port, "/v1/batch", &batch).await.unwrap(), 200);
    }
    let line = json!({"type": "track", "userId": "u1", "event": "Line"});
    assert_eq!(post(port, "/v1/records", &line).await.unwrap(), 200);
    // In memory a record is settled once it is delivered, so it is there by now.
    assert_eq!(events(&account, "u1").await.len(), 2);
    let user = account.get("users-by-id/u1/").await;
    assert_eq!((&user["email"], &user["page_views"]), (&json!("a@b.c"), &json!(1)), "{user}");
    let requests = account.admin("requests").await;
    let view =
        requests.as_array().unwrap().iter().find(|r| r["path"].to_string().contains("site-views"));
    let view = view.expect("a page view was sent").to_string();
    assert!(view.contains("com.acme.shop") && view.contains("/Home"), "{view}");
    drop(running);
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aliases_merge() {
    // What was known under the previous id goes to the new one; unknown ids merge into nothing.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let port = free_port();
    let config = pipeline(&place, &account.endpoint(), port, "");
    let running = Running::start(&config, port);
    let batch = json!({"batch": [
        {"type": "track", "userId": "guest", "event": "Looked"},
        {"type": "identify", "userId": "u1", "traits": {"email": "a@b.c"}},
        {"type": "alias", "previousId": "guest", "userId": "u1"},
        {"type": "track", "userId": "u1", "event": "Bought"},
        {"type": "alias", "previousId": "unknown-user", "userId": "u2"},
    ]});
    assert_eq!(post(port, "/v1/batch", &batch).await.unwrap(), 200);
    let mut names = events(&account, "u1").await;
    names.sort();
    assert_eq!(names, ["Bought", "Looked"]);
    assert_eq!(account.get("users-by-id/guest/").await.get("id"), None);
    assert!(account.get("users-by-id/u2/").await["id"].is_u64(), "who stays exists");
    drop(running);
    account.close().await;
}
