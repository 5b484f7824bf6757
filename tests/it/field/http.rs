//! Webhooks and other HTTP senders.

use std::process::{Child, Stdio};

use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use crate::http::{await_port, free_port};
use crate::support::{EmulatorAccount, KEY, TestDir, binary};

/// A running pipeline with one http source, its log and the account it delivers to.
struct Webhooks {
    account: EmulatorAccount,
    place: TestDir,
    port: u16,
    child: Child,
}

impl Webhooks {
    /// `source` and `fields` are the rest of the source's table and of the mapping's.
    async fn start(source: &str, fields: &str) -> Self {
        let account = EmulatorAccount::open(Faults::default()).await;
        let place = TestDir::new();
        let port = free_port();
        let dir = place.path().display();
        let text = format!(
            r#"
data_dir = "{dir}/data"
[sources.wh]
type = "http"
address = "127.0.0.1:{port}"
{source}
[sinks.crm]
type = "usercom"
inputs = ["wh"]
endpoint = "{}"
api_key = "{KEY}"
unmatched = "dead_letter"
[[sinks.crm.mapping]]
name = "any"
call = "track"
[sinks.crm.mapping.fields]
{fields}
"#,
            account.endpoint()
        );
        let config = place.write("pipeline.toml", &text);
        let log = std::fs::File::create(place.path().join("log")).unwrap();
        let child = binary()
            .args(["run", "-c", config.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        await_port(port);
        Self { account, place, port, child }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Ends the program and gives the events of a user, newest last, and the log.
    async fn end(mut self, user: &str) -> (Vec<Value>, String) {
        let mut events = self.account.all(&format!("users-by-id/{user}/events/")).await;
        events.sort_by_key(|event| event["id"].as_u64());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let log = std::fs::read_to_string(self.place.path().join("log")).unwrap();
        self.account.close().await;
        (events, log)
    }
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn query_and_headers_of_a_webhook_reach_the_mapping() {
    // Guarantees that the topic of a webhook is found in its query and in a listed header, in the
    // default list or in one's own, and that no credentials are in the metadata.
    let fields = r#"
user_id = ".id"
event = { path = ["%header.x-shopify-topic", "%query.topic", "%path"], default = "?" }
"properties.ip" = "%ip"
"properties.agent" = "%user_agent"
"properties.type" = "%content_type"
"properties.all" = { path = "%", then = ["to_json"] }
"#;
    let webhooks = Webhooks::start("path = \"/shopify\"", fields).await;
    let client = reqwest::Client::new();
    let post = |path: &str| {
        client
            .post(webhooks.url(path))
            .header("authorization", "Bearer hush")
            .header("cookie", "session=hush")
            .header("user-agent", "Shopify-Captain-Hook")
            .json(&json!({ "id": 7 }))
    };
    let with_header = post("/shopify").header("X-Shopify-Topic", "customers/create");
    for request in
        [with_header, post("/shopify/?topic=orders%2Fpaid&tag=a&tag=b"), post("/shopify")]
    {
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let requests = webhooks.account.admin("requests").await.to_string();
    let (events, log) = webhooks.end("7").await;
    assert_eq!(names(&events), ["customers/create", "orders/paid", "/shopify"]);
    assert!(
        requests.contains("127.0.0.1") && requests.contains("Shopify-Captain-Hook"),
        "{requests}"
    );
    assert!(requests.contains("application/json"), "{requests}");
    assert!(!requests.contains("hush") && !log.contains("hush"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn form_bodies_are_records_and_multipart_gets_an_explanation() {
    // Guarantees that a form is one record with nested names, that JSON which calls itself a form
    // (as curl does) is still JSON, and that a refused body has an answer and a log line.
    let fields = r#"
user_id = { path = [".data.id", ".id"] }
event = ".type"
"properties.email" = ".data.email"
"#;
    let webhooks = Webhooks::start("", fields).await;
    let client = reqwest::Client::new();
    let post = |kind: &str, body: &str| {
        let request = client.post(webhooks.url("/v1/records/")).header("content-type", kind);
        request.body(body.to_owned()).send()
    };
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    let body = "type=subscribe&data%5Bid%5D=7&data[email]=ann%40example.com";
    assert_eq!(post(form, body).await.unwrap().status(), 200);
    assert_eq!(post(form, "{\"type\":\"json\",\"id\":7}\n").await.unwrap().status(), 200);
    let multipart = post("multipart/form-data; boundary=x", "--x--").await.unwrap();
    assert_eq!(multipart.status(), 415);
    let words = multipart.text().await.unwrap();
    assert!(words.contains("multipart"), "{words}");
    let requests = webhooks.account.admin("requests").await.to_string();
    let (events, log) = webhooks.end("7").await;
    assert_eq!(names(&events), ["subscribe", "json"]);
    assert!(requests.contains("ann@example.com"), "{requests}");
    assert!(log.contains("multipart"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decoding_results_and_request_metadata_are_both_present() {
    // Guarantees that the records of one request have what the steps before the last one read, each
    // its own, and what is known of the request as well.
    let fields = r#"
user_id = ".id"
event = "%decoded.cri.stream"
"properties.path" = "%path"
"properties.topic" = "%query.topic"
"#;
    let source = "decoding = [{ codec = \"cri\" }, { codec = \"json\", from = \".message\" }]";
    let webhooks = Webhooks::start(source, fields).await;
    let line = |stream: &str| format!("2026-08-20T08:00:00Z {stream} F {{\"id\":7}}\n");
    let url = webhooks.url("/v1/records?topic=logs");
    let body = line("stdout") + &line("stderr");
    let reply = reqwest::Client::new().post(url).body(body).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let (events, log) = webhooks.end("7").await;
    assert_eq!(names(&events), ["stdout", "stderr"], "{log}");
    for event in events {
        assert_eq!(event["data"], json!({ "path": "/v1/records", "topic": "logs" }));
    }
}
