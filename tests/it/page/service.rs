//! The built program as a service with a status page.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::support::{TestDir, binary};

pub(super) const TOKEN: &str = "a-token-of-the-test";

/// A rule that wants an id, and one that takes it from elsewhere.
pub(super) const STRICT: &str = "[[sinks.crm.mapping]]\nname = \"signup\"\nwhen = { \".kind\" = \"signup\" }\n\
                      call = \"identify\"\nfields.user_id = { path = \".id\", required = true }\n";

/// The program; ends with the test.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub(super) struct Service {
    address: SocketAddr,
    pub(super) config: PathBuf,
    pub(super) program: Running,
    pub(super) http: Client,
}

impl Service {
    pub(super) async fn start(place: &TestDir, endpoint: &str, mapping: &str, api: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sink = format!("{mapping}\n[api]\nlisten = \"{address}\"\n{api}\n");
        let config = place.pipeline(endpoint, &sink);
        let mut command = binary();
        command.args(["run", "-c"]).arg(&config).stderr(Stdio::null());
        let program = Running(command.spawn().unwrap());
        let http = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let service = Self { address, config, program, http };
        service.until("/health", |status, _| status == StatusCode::OK).await;
        service
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) async fn get(&self, path: &str) -> Option<(StatusCode, String)> {
        let reply = self.http.get(self.url(path)).bearer_auth(TOKEN).send().await.ok()?;
        Some((reply.status(), reply.text().await.ok()?))
    }

    /// Asks until the answer is as expected.
    pub(super) async fn until(
        &self,
        path: &str,
        wanted: impl Fn(StatusCode, &str) -> bool,
    ) -> String {
        let mut last = None;
        for _ in 0..400 {
            if let Some((status, text)) = self.get(path).await {
                if wanted(status, &text) {
                    return text;
                }
                last = Some((status, text));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{path} never answered as expected; last: {last:?}");
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.http.post(self.url(path)).bearer_auth(TOKEN).json(body);
        let reply = request.send().await.unwrap();
        (reply.status(), reply.json().await.unwrap())
    }
}

pub(super) fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}
