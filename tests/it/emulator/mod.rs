//! The emulator over plain HTTP: the contract of the API, the faults, the admin API. The tests
//! share no code with the sink's client.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod admin;
mod assume;
mod companies;
mod events;
mod faults;
mod gate;
mod users;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use usercom_sink::emulator::{Assumptions, Emulator, EmulatorConfig, EmulatorError, Faults, start};

const KEY: &str = "k3y-that-must-stay-secret";

fn config() -> EmulatorConfig {
    EmulatorConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        api_key: KEY.into(),
        data: None,
        seed: None,
        faults: Faults::default(),
        assumptions: Assumptions::default(),
    }
}

/// An emulator and a client of it.
struct Server {
    emulator: Emulator,
    http: reqwest::Client,
}

impl Server {
    async fn new() -> Self {
        Self::with(config()).await.unwrap()
    }

    async fn with(config: EmulatorConfig) -> Result<Self, EmulatorError> {
        let emulator = start(config).await?;
        let http =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
        Ok(Self { emulator, http })
    }

    async fn faulty(faults: Faults) -> Self {
        Self::with(EmulatorConfig { faults, ..config() }).await.unwrap()
    }

    fn request(&self, method: &str, url: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method.parse().unwrap(), url)
            .header("Authorization", format!("Token {KEY}"))
            .header("Accept", "*/*; version=2")
    }

    fn api(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.request(method, &format!("{}{path}", self.emulator.base_url()))
    }

    /// Sends one request. Returns the status and the JSON body, null if there is none.
    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let mut request = self.api(method, path);
        if !body.is_null() {
            request = request.json(&body);
        }
        read(request).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("POST", path, body).await
    }

    async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("PUT", path, body).await
    }

    async fn delete(&self, path: &str) -> (u16, Value) {
        self.call("DELETE", path, Value::Null).await
    }

    /// A request to the admin API, without token.
    async fn admin(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let url = format!("http://{}/__admin/{path}", self.emulator.addr());
        let mut request = self.http.request(method.parse().unwrap(), url);
        if !body.is_null() {
            request = request.json(&body);
        }
        read(request).await
    }

    /// Creates a user. Returns its remote id.
    async fn user(&self, custom_id: &str) -> i64 {
        let (status, user) = self.post("users/", json!({ "custom_id": custom_id })).await;
        assert_eq!(status, 201, "{user}");
        user["id"].as_i64().unwrap()
    }

    /// Defines a custom attribute.
    async fn attribute(&self, name: &str, value_type: &str, content_type: &str) {
        let body = json!({ "name": name, "value_type": value_type, "content_type": content_type });
        let (status, answer) = self.post("attributes/", body).await;
        assert_eq!(status, 201, "{answer}");
    }

    /// Sends raw bytes and reads until the server closes the connection.
    async fn raw(&self, text: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.emulator.addr()).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(5), read).await.expect("the server to close")?;
        Ok(answer)
    }
}

async fn read(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    (status, body)
}
