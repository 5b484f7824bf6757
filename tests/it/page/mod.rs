//! The status of a running pipeline and the HTTP API that serves it, against the built program.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use usercom_sink::emulator::Faults;
use usercom_sink::telemetry::status_schema_text;

use crate::support::{EmulatorAccount, KEY, TestDir, binary, json_of, usercom_sink};

const TOKEN: &str = "a-token-of-the-test";

/// A rule that wants an id, and one that takes it from elsewhere.
const STRICT: &str = "[[sinks.crm.mapping]]\nname = \"signup\"\nwhen = { \".kind\" = \"signup\" }\n\
                      call = \"identify\"\nfields.user_id = { path = \".id\", required = true }\n";

/// The program; ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

struct Service {
    address: SocketAddr,
    config: PathBuf,
    program: Running,
    http: Client,
}

impl Service {
    async fn start(place: &TestDir, endpoint: &str, mapping: &str, api: &str) -> Self {
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

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get(&self, path: &str) -> Option<(StatusCode, String)> {
        let reply = self.http.get(self.url(path)).bearer_auth(TOKEN).send().await.ok()?;
        Some((reply.status(), reply.text().await.ok()?))
    }

    /// Asks until the answer is as expected.
    async fn until(&self, path: &str, wanted: impl Fn(StatusCode, &str) -> bool) -> String {
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

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.http.post(self.url(path)).bearer_auth(TOKEN).json(body);
        let reply = request.send().await.unwrap();
        (reply.status(), reply.json().await.unwrap())
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

#[test]
fn status_schema_file_is_current() {
    // The committed schema is the one that the program prints.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/status.schema.json");
    let committed = std::fs::read_to_string(path).unwrap();
    assert_eq!(committed, status_schema_text(), "write it anew with `schema --status`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_follows_an_outage_and_its_answers_fit_the_schema() {
    // State and readiness say what happens while User.com fails and heals, in words; every answer is
    // valid by the schema; the command `status` shows the same; no key is shown.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let line = |n: u32| format!("{{\"kind\":\"signup\",\"id\":\"u{n}\"}}\n");
    let odd = "{\"kind\":\"sign-up\",\"id\":\"u1\"}\n";
    let records = place.write("records.ndjson", &(line(1) + odd));
    let api = "unready_after_secs = 1";
    let service = Service::start(&place, &account.endpoint(), STRICT, api).await;
    let schema = parsed(&status_schema_text());
    let validator = jsonschema::validator_for(&schema).unwrap();
    let path = "/api/v1/status";
    let settled = |text: &str| parsed(text)["sinks"][0]["records"]["settled"] == 2;
    let text = service.until(path, |_, text| settled(text)).await;
    let status = parsed(&text);
    assert!(validator.is_valid(&status), "{text}");
    assert_eq!((&status["state"], &status["ready"]), (&json!("running"), &json!(true)));
    let unmatched = &status["sinks"][0]["unmatched"];
    assert_eq!(unmatched["by_nearest_rule"], json!([{ "rule": "signup", "count": 1 }]));
    assert_eq!(status["sources"][0]["lag"]["bytes_behind"], 0);

    account.set_faults(&json!({ "error_rate": 1.0, "error_code": 503 })).await;
    std::fs::write(&records, line(1) + odd + &line(2)).unwrap();
    let failing = service.until(path, |_, text| parsed(text)["state"] == "waiting").await;
    let failing = parsed(&failing);
    assert!(validator.is_valid(&failing), "{failing}");
    let reason = failing["reason"].as_str().unwrap();
    assert!(reason.contains("sink `crm`: waiting for User.com since 20"), "{reason}");
    assert!(failing["sinks"][0]["oldest_secs"].as_f64().is_some(), "{failing}");
    let error = &failing["sinks"][0]["errors"][0];
    assert_eq!(error["kind"], "status_503");
    let ready = service.until("/ready", |status, _| status == 503).await;
    assert!(ready.contains("can deliver nothing since"), "{ready}");
    let metrics = service.get("/metrics").await.unwrap().1;
    let gauge = metrics.lines().find(|line| line.starts_with("usercom_reachable{")).unwrap();
    assert!(gauge.ends_with(" 0"), "{gauge}");

    account.set_faults(&json!({ "error_rate": 0.0 })).await;
    service.until("/ready", |status, _| status == 200).await;
    let config = service.config.clone();
    let config = config.to_str().unwrap();
    let shown = usercom_sink(&["status", "-c", config, "--format", "json"]);
    let shown = json_of(&shown, 0);
    assert!(validator.is_valid(&shown), "{shown}");
    let page = service.get("/").await.unwrap().1;
    for text in [&metrics, &page, &text] {
        assert!(!text.contains(KEY));
    }
    drop(service);
    assert_eq!(usercom_sink(&["status", "-c", config]).status.code(), Some(1));
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_replayed_and_purged_in_the_running_process() {
    // A dead letter whose mapping is mended by a reload is delivered by a replay and leaves the
    // list; a replay or purge must say which; a purge of another number than expected deletes
    // nothing; hostile text stays text.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let hostile = "{\"kind\":\"signup\",\"other\":\"<script>alert(1)</script>\"}\n";
    place.write("records.ndjson", hostile);
    let api = format!("token = \"{TOKEN}\"");
    let service = Service::start(&place, &account.endpoint(), STRICT, &api).await;
    let list = "/api/v1/dead-letters";
    let listed = service.until(list, |_, text| parsed(text)["matching"] == 1).await;
    let id = parsed(&listed)["dead_letters"][0]["id"].as_i64().unwrap();
    let page = service.get(&format!("/dead-letters/{id}")).await.unwrap().1;
    assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert"), "{page}");

    let (status, answer) = service.post(&format!("{list}/replay"), &json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let (_, answer) = service.post(&format!("{list}/replay"), &json!({ "all": true })).await;
    assert_eq!(answer, json!({ "replayed": 1, "delivered": 0, "kept": 1 }));

    let text = std::fs::read_to_string(&service.config).unwrap();
    std::fs::write(&service.config, text.replace("path = \".id\"", "value = \"u9\"")).unwrap();
    let pid = service.program.0.id().to_string();
    std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    let mended = async {
        for _ in 0..100 {
            let all = json!({ "all": true, "reason": "missing_required" });
            let (_, answer) = service.post(&format!("{list}/replay"), &all).await;
            if answer["delivered"] == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the mended mapping was never used");
    };
    mended.await;
    service.until(list, |_, text| parsed(text)["matching"] == 0).await;
    assert_eq!(account.get("users-by-id/u9/").await["custom_id"], "u9");

    let (status, answer) =
        service.post(&format!("{list}/purge"), &json!({ "all": true, "expect": 5 })).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    let (_, answer) =
        service.post(&format!("{list}/purge"), &json!({ "all": true, "expect": 0 })).await;
    assert_eq!(answer, json!({ "purged": 0 }));
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_the_token_opens_a_session() {
    // Foreign names and origins reach nothing; records and changes need the token, by header or by
    // a cookie that scripts cannot read; every page has a strict policy.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let api = format!("token = \"{TOKEN}\"");
    let service = Service::start(&place, &account.endpoint(), STRICT, &api).await;
    let (http, url) = (&service.http, |path: &str| service.url(path));
    for path in ["/", "/metrics", "/api/v1/status"] {
        let foreign = http.get(url(path)).header("Host", "evil.example").send().await.unwrap();
        assert_eq!(foreign.status(), StatusCode::FORBIDDEN, "{path}");
        let open = http.get(url(path)).send().await.unwrap();
        assert_eq!(open.status(), StatusCode::OK, "{path}");
        let policy = open.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    let purge = || http.post(url("/api/v1/dead-letters/purge")).json(&json!({ "all": true }));
    let foreign = purge().bearer_auth(TOKEN).header("Origin", "http://evil.example");
    assert_eq!(foreign.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(purge().send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let wrong = purge().bearer_auth("not-the-token").send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    for path in ["/dead-letters", "/tap", "/playground"] {
        let sent = http.get(url(path)).send().await.unwrap();
        assert_eq!(sent.status(), StatusCode::SEE_OTHER, "{path}");
        assert!(sent.headers()["location"].to_str().unwrap().starts_with("/login?to="));
    }
    let form = |token: &str| {
        let body = format!("token={token}&to=%2Fdead-letters");
        let post = http.post(url("/login"));
        post.header("Content-Type", "application/x-www-form-urlencoded").body(body).send()
    };
    assert_eq!(form("wrong").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let signed = form(TOKEN).await.unwrap();
    assert_eq!(signed.headers()["location"], "/dead-letters");
    let cookie = signed.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let session = cookie.split(';').next().unwrap().to_owned();
    let with = |path: &str| http.get(url(path)).header("Cookie", &session).send();
    assert_eq!(with("/dead-letters").await.unwrap().status(), StatusCode::OK);
    http.post(url("/logout")).header("Cookie", &session).send().await.unwrap();
    assert_eq!(with("/dead-letters").await.unwrap().status(), StatusCode::SEE_OTHER);
    let large = http.post(url("/api/v1/playground")).bearer_auth(TOKEN).body(vec![b' '; 3 << 20]);
    assert!(large.send().await.is_ok_and(|reply| reply.status() == StatusCode::PAYLOAD_TOO_LARGE));
    account.close().await;
}

#[test]
fn address_beyond_loopback_needs_a_token() {
    // A page that others reach without a token is a fault of the file, with its code.
    let place = TestDir::new();
    for (api, code) in [
        ("listen = \"0.0.0.0:8686\"", "E0380"),
        ("listen = \"[::]:8686\"", "E0380"),
        ("listen = \"127.0.0.1:8686\"\ntoken = \"short\"", "E0381"),
        ("listen = \"127.0.0.1:8686\"\nhosts = [\"http://a.example\"]", "E0382"),
    ] {
        let sink = format!("preset = \"segment\"\n[api]\n{api}\n");
        let config = place.pipeline("http://127.0.0.1:9/api/public/", &sink);
        let output =
            usercom_sink(&["validate", "--no-environment", "-c", config.to_str().unwrap()]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{stderr}");
        assert!(stderr.contains(code), "{api}: {stderr}");
    }
}
