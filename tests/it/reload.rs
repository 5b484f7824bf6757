//! Reload with SIGHUP of the built binary, and the delivery of records meanwhile.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::json;
use usercom_sink::emulator::Faults;

use crate::support::{EmulatorAccount, KEY, TestDir, binary};

const PATIENCE: Duration = Duration::from_secs(60);

/// A running pipeline, with its log in a file and its status page on a free port.
struct Running {
    child: Child,
    log: PathBuf,
    api: String,
}

impl Running {
    fn start(place: &TestDir, config: &Path, api: String) -> Self {
        let log = place.write("log", "");
        let stderr = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
        let child = binary()
            .args(["run", "-c", config.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { child, log, api }
    }

    fn log(&self) -> String {
        let mut text = String::new();
        std::fs::File::open(&self.log).unwrap().read_to_string(&mut text).unwrap();
        assert!(!text.contains(KEY), "a key is in the log");
        text
    }

    fn logged(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    async fn ready(&self) -> Option<u16> {
        let reply = reqwest::get(format!("http://{}/ready", self.api)).await.ok()?;
        Some(reply.status().as_u16())
    }

    /// Waits until the log has `text` at least `times` times.
    async fn wait_for_log(&self, text: &str, times: usize) {
        until(async || self.logged(text) >= times, || format!("{text}: {}", self.log())).await;
    }

    async fn wait_for_ready(&self, status: u16) {
        until(async || self.ready().await == Some(status), || self.log()).await;
    }

    /// Waits until so many records left the sources.
    async fn wait_for_sent(&self, count: u64) {
        let sent = async || {
            let url = format!("http://{}/metrics", self.api);
            let text = reqwest::get(url).await.ok()?.text().await.ok()?;
            let of_sources = text
                .lines()
                .filter(|line| line.starts_with("component_sent_events_total"))
                .filter(|line| line.contains("component_kind=\"source\""))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            Some(of_sources.sum::<u64>())
        };
        until(async || sent().await >= Some(count), || self.log()).await;
    }

    async fn stop(mut self) {
        self.signal("-TERM");
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        let log = self.log.clone();
        until(
            async || {
                status = self.child.try_wait().unwrap();
                status.is_some()
            },
            || std::fs::read_to_string(&log).unwrap(),
        )
        .await;
        status.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended if the test passed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn until(mut holds: impl AsyncFnMut() -> bool, tell: impl Fn() -> String) {
    let limit = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < limit, "waited too long: {}", tell());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A pipeline with one source a file, and a sink.
fn pipeline(
    place: &TestDir,
    account: &EmulatorAccount,
    api: &str,
    sources: &[&str],
    sink: &str,
) -> PathBuf {
    let dir = place.write("key", KEY).parent().unwrap().display().to_string();
    let mut text = format!("data_dir = \"{dir}/data\"\napi.listen = \"{api}\"\n");
    for name in sources {
        text +=
            &format!("[sources.{name}]\ntype = \"file\"\ninclude = [\"{dir}/{name}.ndjson\"]\n");
    }
    let (inputs, endpoint) = (json!(sources), account.endpoint());
    text += &format!(
        "[sinks.crm]\ntype = \"usercom\"\ninputs = {inputs}\nendpoint = \"{endpoint}\"\n\
         api_key = \"${{file:{dir}/key}}\"\n{sink}\n"
    );
    place.write("pipeline.toml", &text)
}

fn tracks(range: std::ops::Range<usize>, event: &str) -> String {
    let line = |n| {
        let record = json!({
            "type": "track", "userId": format!("u{}", n % 3), "event": event,
            "messageId": format!("{event}-{n}"), "timestamp": "2026-01-01T00:00:00Z",
            "properties": { "n": n },
        });
        format!("{record}\n")
    };
    range.map(line).collect()
}

fn append(place: &TestDir, name: &str, text: &str) {
    use std::io::Write;
    let path = place.write("touch", "").with_file_name(name);
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// The names of all users' events, in order of arrival.
async fn events(account: &EmulatorAccount) -> Vec<String> {
    let mut found = Vec::new();
    for user in account.all("users/").await {
        let id = user["id"].as_u64().unwrap();
        for event in account.all(&format!("users/{id}/events/")).await {
            let name = event["name"].as_str().unwrap().to_owned();
            found.push((event["id"].as_u64(), name));
        }
    }
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

async fn wait_for_events(account: &EmulatorAccount, running: &Running, count: usize) {
    until(async || events(account).await.len() >= count, || running.log()).await;
    assert_eq!(events(account).await.len(), count, "none is doubled");
}

const PRESET: &str = "preset = \"segment\"";

async fn a_key_is_exchanged(buffer: &str) {
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let api = free_address();
    let sink = format!("{PRESET}\n[sinks.crm.buffer]\ntype = \"{buffer}\"");
    let config = pipeline(&place, &account, &api, &["app"], &sink);
    place.write("key", "a-key-that-was-revoked");
    // More than the channels from source to buffer hold.
    place.write("app.ndjson", &tracks(0..2500, "E"));
    let running = Running::start(&place, &config, api);
    running.wait_for_ready(503).await;
    assert_eq!(events(&account).await.len(), 0);
    place.write("key", KEY);
    running.signal("-HUP");
    running.wait_for_log("reloaded: sink `crm` changed", 1).await;
    running.wait_for_ready(200).await;
    wait_for_events(&account, &running, 2500).await;
    append(&place, "app.ndjson", &tracks(2500..2510, "E"));
    wait_for_events(&account, &running, 2510).await;
    running.stop().await;
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_replaces_revoked_key_with_memory_buffer() {
    // A halted sink with a memory buffer continues with the new key after SIGHUP: `/ready` is 200
    // again, and every record arrives once, also the waiting ones.
    a_key_is_exchanged("memory").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_replaces_revoked_key_with_disk_buffer() {
    // The same with a disk buffer, which the new sink continues.
    a_key_is_exchanged("disk").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_reload_is_rejected_and_old_pipeline_continues() {
    // A file with faults is rejected with all of them, a change that needs a restart is rejected
    // too, an unchanged file changes nothing, and records are delivered meanwhile.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let api = free_address();
    place.write("app.ndjson", &tracks(0..3, "E"));
    let config = pipeline(&place, &account, &api, &["app"], PRESET);
    let good = std::fs::read_to_string(&config).unwrap();
    let running = Running::start(&place, &config, api);
    wait_for_events(&account, &running, 3).await;

    place.write("pipeline.toml", &format!("{good}\nretries = 3\ncolour = true\n"));
    running.signal("-HUP");
    running.wait_for_log("the new pipeline file is rejected, the old one stays in use", 1).await;
    let log = running.log();
    assert!(log.contains("retries") && log.contains("colour"), "{log}");
    append(&place, "app.ndjson", &tracks(3..6, "E"));
    wait_for_events(&account, &running, 6).await;

    place.write("pipeline.toml", &good.replace("/data\"", "/elsewhere\""));
    running.signal("-HUP");
    running.wait_for_log("`data_dir` cannot change while the program runs; restart it", 1).await;

    place.write("pipeline.toml", &good);
    running.signal("-HUP");
    running.wait_for_log("reloaded: nothing changed", 1).await;
    append(&place, "app.ndjson", &tracks(6..9, "E"));
    wait_for_events(&account, &running, 9).await;
    assert_eq!(running.logged("health check passed"), 1, "the sink was never built again");
    running.stop().await;
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_changes_mappings_and_sources_during_delivery() {
    // A new mapping applies to records that are read after it, an added source is read, a changed
    // source does not affect the sinks, and after several SIGHUPs the last file is used.
    let rule = |event: &str| {
        format!(
            "[[sinks.crm.mapping]]\nname = \"r\"\ncall = \"track\"\n[sinks.crm.mapping.fields]\n\
             user_id = \".userId\"\nmessage_id = \".messageId\"\ntimestamp = \".timestamp\"\n\
             event = {{ value = \"{event}\" }}\n"
        )
    };
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let api = free_address();
    place.write("app.ndjson", &tracks(0..5, "A"));
    place.write("web.ndjson", &tracks(0..5, "W"));
    let config = pipeline(&place, &account, &api, &["app"], &rule("Old"));
    let running = Running::start(&place, &config, api.clone());
    wait_for_events(&account, &running, 5).await;

    pipeline(&place, &account, &api, &["app"], &rule("Between"));
    running.signal("-HUP");
    pipeline(&place, &account, &api, &["app", "web"], &rule("New"));
    running.signal("-HUP");
    running.wait_for_log("source `web` added", 1).await;
    wait_for_events(&account, &running, 10).await;
    append(&place, "app.ndjson", &tracks(5..10, "A"));
    wait_for_events(&account, &running, 15).await;
    let names = events(&account).await;
    let count = |name| names.iter().filter(|event| *event == name).count();
    assert_eq!((count("Old"), count("New")), (5, 10), "{names:?}");

    let text = std::fs::read_to_string(&config).unwrap();
    let built = running.logged("health check passed");
    place.write("pipeline.toml", &text.replace("web.ndjson", "w?b.ndjson"));
    running.signal("-HUP");
    running.wait_for_log("reloaded: source `web` changed", 1).await;
    append(&place, "web.ndjson", &tracks(5..8, "W"));
    wait_for_events(&account, &running, 18).await;
    assert_eq!(running.logged("health check passed"), built, "the sink was not touched");
    running.stop().await;
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_key_halts_and_second_signal_ends_with_75() {
    // Without `--once` a refused key does not end the run. A first SIGTERM waits for records that
    // cannot be delivered; a second signal ends it at once with 75.
    let account = EmulatorAccount::open(Faults { revoked: true, ..Faults::default() }).await;
    let place = TestDir::new();
    let api = free_address();
    place.write("app.ndjson", &tracks(0..3, "E"));
    let config = pipeline(&place, &account, &api, &["app"], PRESET);
    let mut running = Running::start(&place, &config, api);
    running.wait_for_ready(503).await;
    // Without a record from the source there would be nothing to wait for.
    running.wait_for_sent(3).await;
    running.signal("-TERM");
    running.wait_for_log("a second signal ends the process at once", 1).await;
    assert!(running.child.try_wait().unwrap().is_none());
    running.signal("-INT");
    assert_eq!(running.ended().await.code(), Some(75), "{}", running.log());
    account.close().await;
}
