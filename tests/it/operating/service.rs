//! A pipeline that runs as a service of its own process.

use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::{KEY, TestDir, binary};

/// The most time a stop or a reload may take here; Kubernetes gives 30 s.
pub(super) const SECONDS: u64 = 15;

/// A pipeline that runs; it ends with the test.
pub(super) struct Service {
    child: Child,
    log: std::path::PathBuf,
}

impl Service {
    pub(super) fn start(place: &TestDir, config: &Path) -> Self {
        Self::start_with(place, config, &[])
    }

    /// Starts it; the variable `THE_KEY` of its environment is the API key.
    pub(super) fn start_with(place: &TestDir, config: &Path, more: &[&str]) -> Self {
        let log = place.path().join("log");
        let file = std::fs::File::create(&log).unwrap();
        let child = binary()
            .env("THE_KEY", KEY)
            .args(["run", "-c"])
            .arg(config)
            .args(more)
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(super) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = std::process::Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }

    pub(super) async fn wait_for_log(&self, text: &str) {
        let begun = Instant::now();
        while !self.log().contains(text) {
            assert!(begun.elapsed() < Duration::from_secs(SECONDS), "{text}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(SECONDS), "it runs on: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
