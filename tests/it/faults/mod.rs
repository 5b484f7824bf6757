//! Delivery proved by faults: the built binary against a local User.com, through a proxy that
//! spoils exchanges. The small versions run by default; the full ones are `soak_…` and ignored.

#![expect(clippy::print_stdout, reason = "the figures are half of what these tests are for")]

mod crash;
mod disk_full;
mod files;
mod files_soak;
mod latency;
mod memory;
mod mixed;
mod poison;
mod quota;
mod revoked;
mod shutdown;
mod store_removed;
mod throttle;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use usercom_sink::emulator::Faults;

use crate::support::chaos::Chaos;
use crate::support::tally::Tally;
use crate::support::{EmulatorAccount, TestDir, binary, mix, usercom_sink};

/// An account, a proxy before it, and a pipeline that goes through the proxy.
pub(crate) struct Rig {
    account: EmulatorAccount,
    chaos: Chaos,
    place: TestDir,
    config: PathBuf,
    records: Vec<Value>,
}

impl Rig {
    /// `sink` is the sink's table after its key.
    async fn new(records: Vec<Value>, faults: Faults, sink: &str) -> Self {
        let account = EmulatorAccount::open(faults).await;
        let chaos = Chaos::start(account.addr(), 7).await;
        let place = TestDir::new();
        place.write("records.ndjson", &mix::lines(&records));
        let config = place.pipeline(&chaos.endpoint(), sink);
        Self { account, chaos, place, config, records }
    }

    /// Gives the pipeline a status page; its port.
    fn with_status_page(&self) -> u16 {
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        let api = format!("[api]\nlisten = \"127.0.0.1:{port}\"\n\n[sources");
        let config = std::fs::read_to_string(&self.config).unwrap();
        std::fs::write(&self.config, config.replacen("[sources", &api, 1)).unwrap();
        port
    }

    /// Starts `run` with more arguments; stderr goes to `stderr.log`.
    fn start(&self, more: &[&str]) -> Running {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.place.path().join("stderr.log"))
            .unwrap();
        let child = binary()
            .args(["run", "-c", self.config.to_str().unwrap()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Running { child }
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.place.path().join("stderr.log")).unwrap_or_default()
    }

    /// Runs to the end of the sources.
    async fn finish(&self, within: Duration) {
        let mut running = self.start(&["--once"]);
        let status = running.wait(within).await;
        let status = status.unwrap_or_else(|| panic!("it does not end: {}", self.stderr()));
        assert_eq!(status.code(), Some(0), "{}", self.stderr());
    }

    /// The dead letters.
    fn letters(&self) -> Vec<Value> {
        let config = self.config.to_str().unwrap();
        let output = usercom_sink(&["dead-letters", "show", "-c", config, "--format", "json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The numbers of the records in the dead letters.
    fn dead(&self) -> BTreeSet<usize> {
        let number = |letter: &Value| {
            let record = match &letter["record"] {
                Value::String(text) => serde_json::from_str(text).unwrap(),
                record => record.clone(),
            };
            let id = record["messageId"].as_str().unwrap_or_else(|| panic!("{letter:#}"));
            id.strip_prefix("m-").unwrap().parse().unwrap()
        };
        self.letters().iter().map(number).collect()
    }

    async fn tally(&self) -> Tally {
        Tally::take(&self.account, &self.records, &self.dead()).await
    }
}

/// A started binary; killed when dropped.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Waits for its end; `None` if that does not come in time.
    async fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let end = tokio::time::Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if tokio::time::Instant::now() > end {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name.
    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until something holds.
async fn until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + within;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
