//! Helpers of the tests: the emulator, the built binary, records to send.

pub(crate) mod certificates;
pub(crate) mod chaos;
pub(crate) mod mix;
pub(crate) mod stub;
pub(crate) mod tally;
pub(crate) mod throttle;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use usercom_sink::emulator::{Assumptions, Emulator, EmulatorConfig, Faults, start};

pub(crate) const KEY: &str = "test-key-0123456789";

/// An emulator for one test.
pub(crate) struct EmulatorAccount {
    emulator: Emulator,
    http: reqwest::Client,
}

impl EmulatorAccount {
    pub(crate) async fn open(faults: Faults) -> Self {
        let config = EmulatorConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            api_key: KEY.to_owned(),
            data: None,
            seed: None,
            faults,
            assumptions: Assumptions::default(),
        };
        let emulator = start(config).await.expect("the emulator starts on a free port");
        Self { emulator, http: reqwest::Client::new() }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.emulator.base_url()
    }

    pub(crate) fn addr(&self) -> std::net::SocketAddr {
        self.emulator.addr()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask(self.http.get(format!("{}{path}", self.endpoint()))).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        self.ask(self.http.post(format!("{}{path}", self.endpoint())).json(body)).await
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Value {
        let request = request
            .header("Authorization", format!("Token {KEY}"))
            .header("Accept", "*/*; version=2");
        request.send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn admin(&self, path: &str) -> Value {
        let url = format!("http://{}/__admin/{path}", self.emulator.addr());
        self.http.get(url).send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn set_faults(&self, faults: &Value) {
        let url = format!("http://{}/__admin/faults", self.emulator.addr());
        let reply = self.http.post(url).json(faults).send().await.unwrap();
        assert!(reply.status().is_success(), "{reply:?}");
    }

    /// Changes what the account does where the documentation does not say.
    pub(crate) async fn assume(&self, facts: &Value) {
        let url = format!("http://{}/__admin/assume", self.emulator.addr());
        let reply = self.http.post(url).json(facts).send().await.unwrap();
        assert!(reply.status().is_success(), "{reply:?}");
    }

    /// How often histories of events and page views were read since the start, also by the test
    /// itself.
    pub(crate) async fn look_ups(&self) -> u64 {
        let stats = self.admin("stats").await;
        let routes = stats["routes"].as_object().unwrap();
        let of_history = |route: &str| {
            route.starts_with("GET users")
                && (route.ends_with("/events/") || route.ends_with("/ping_hits/"))
        };
        let counts = routes.iter().filter(|(route, _)| of_history(route));
        counts.map(|(_, count)| count.as_u64().unwrap()).sum()
    }

    /// All pages of a list.
    pub(crate) async fn all(&self, path: &str) -> Vec<Value> {
        let mut found = Vec::new();
        let mut next = Some(format!("{}{path}", self.endpoint()));
        while let Some(url) = next {
            let page = self.ask(self.http.get(url)).await;
            found.extend(page["results"].as_array().unwrap().iter().cloned());
            next = page["next"].as_str().map(str::to_owned);
        }
        found
    }

    pub(crate) async fn close(self) {
        self.emulator.stop().await;
    }
}

/// A temporary folder for one test's pipeline.
pub(crate) struct TestDir {
    dir: tempfile::TempDir,
}

impl TestDir {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A folder of this name, for pictures that show its path.
    pub(crate) fn named(name: &str) -> Self {
        Self { dir: tempfile::Builder::new().prefix(name).rand_bytes(0).tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Writes a pipeline from `records.ndjson` to an account; `sink` is the rest of the sink's
    /// table.
    pub(crate) fn pipeline(&self, endpoint: &str, sink: &str) -> PathBuf {
        let dir = self.dir.path().display();
        let text = format!(
            r#"
data_dir = "{dir}/data"

[sources.app]
type = "file"
include = ["{dir}/records*.ndjson"]

[sinks.crm]
type = "usercom"
inputs = ["app"]
endpoint = "{endpoint}"
api_key = "{KEY}"
{sink}
"#
        );
        self.write("pipeline.toml", &text)
    }

    pub(crate) fn run_once(&self, config: &Path, more: &[&str]) -> Output {
        let mut args = vec!["run", "-c", config.to_str().unwrap(), "--once", "--format", "json"];
        args.extend(more);
        usercom_sink(&args)
    }
}

/// Runs the built binary.
pub(crate) fn usercom_sink(args: &[&str]) -> Output {
    binary().args(args).output().unwrap()
}

/// The built binary, not yet started.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_usercom-sink"));
    command.env_remove("RUST_LOG");
    command
}

/// The JSON that a command printed, after a check of its exit code.
pub(crate) fn json_of(output: &Output, code: i32) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}
