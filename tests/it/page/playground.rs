//! The playground as programs and as the command `playground` open it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use super::service::{Running, STRICT, Service, TOKEN};
use crate::support::{EmulatorAccount, KEY, TestDir, binary, usercom_sink};

/// What the playground makes of a file and records.
async fn tried(http: &Client, url: &str, file: &str, records: &str) -> Value {
    let files = json!([{ "name": "pipeline.toml", "text": file }]);
    let body = json!({ "files": files, "records": records });
    let reply = http.post(url).bearer_auth(TOKEN).json(&body).send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    reply.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn playground_shows_calls_requests_faults_and_tests_without_sending_or_reading_secrets() {
    // Guarantees the result for a good file, the faults of a broken one as the command line shows
    // them, the records as tests that hold, escaped texts, bounds, and that nothing is sent.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let api = format!("token = \"{TOKEN}\"");
    let service = Service::start(&place, &account.endpoint(), STRICT, &api).await;
    let (http, url) = (&service.http, service.url("/api/v1/playground"));
    let page = service.get("/playground").await.unwrap().1;
    assert!(page.contains("[[sinks.crm.mapping]]") && !page.contains(KEY), "{page}");
    assert!(!page.contains(TOKEN), "the token is in the page");

    let text = std::fs::read_to_string(&service.config).unwrap();
    let with_variable = text.replace(KEY, "${HOME}");
    let records =
        "{\"kind\":\"signup\",\"id\":\"<b>u1</b>\"}\n{\"kind\":\"signup\"}\n{\"kind\":\"other\"}\n";
    let before = account.admin("stats").await;
    let answer = tried(http, &url, &with_variable, records).await;
    let html = answer["html"].as_str().unwrap();
    assert_eq!((&answer["ok"], &answer["sinks"]), (&json!(true), &json!(["crm"])));
    for wanted in
        ["users/update_or_create/", "&lt;b&gt;u1&lt;/b&gt;", "missing_required", "no rule wants it"]
    {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    assert!(!html.contains("<b>u1") && !html.contains(&std::env::var("HOME").unwrap()), "{html}");
    assert_eq!(account.admin("stats").await, before, "something was sent");

    let tests = answer["tests"].as_str().unwrap();
    let tested = place.write("tested.toml", &format!("{text}\n{tests}"));
    let output = usercom_sink(&["test", "-c", tested.to_str().unwrap()]);
    assert!(output.status.success(), "{tests}\n{}", String::from_utf8_lossy(&output.stdout));

    let broken = text.replace("call = \"identify\"", "call = \"identfy\"");
    let answer = tried(http, &url, &broken, records).await;
    let html = answer["html"].as_str().unwrap();
    assert_eq!(answer["ok"], false);
    let on_disk = place.write("broken.toml", &broken);
    let output = usercom_sink(&["validate", "--no-environment", "-c", on_disk.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap();
    assert!(
        first.starts_with("error[E") && html.contains(first.split(':').next().unwrap()),
        "{first}\n{html}"
    );

    let many = "{\"kind\":\"signup\",\"id\":\"u1\"}\n".repeat(60);
    let answer = tried(http, &url, &text, &many).await;
    assert!(answer["html"].as_str().unwrap().contains("10 more records are not shown"));
    for body in ["", "{", "[]", "{\"files\":[],\"records\":\"\",\"other\":1}"] {
        let request = http.post(&url).bearer_auth(TOKEN).header("Content-Type", "application/json");
        let reply = request.body(body).send().await.unwrap();
        assert!(reply.status().is_client_error(), "{body}: {}", reply.status());
    }
    account.close().await;
}

/// The command `playground`, and the address that it prints.
fn open(config: Option<&Path>) -> (Running, String) {
    let mut command = binary();
    command.arg("playground");
    if let Some(config) = config {
        command.arg("-c").arg(config);
    }
    let mut program = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let url = lines.next().unwrap().unwrap();
    (Running(program), url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn playground_command_opens_a_loopback_page_also_with_a_broken_file() {
    // Guarantees that the command needs no pipeline that runs, prints where it is, begins with an
    // example or with the file, shows no secret, takes no foreign name, and ends with SIGTERM.
    let place = TestDir::new();
    let broken = place.pipeline("http://127.0.0.1:9/api/public/", "prset = \"segment\"\n");
    let http = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    for config in [None, Some(broken.as_path())] {
        let (mut program, url) = open(config);
        assert!(url.starts_with("http://127.0.0.1:") && url.ends_with("/playground"), "{url}");
        let page = http.get(&url).send().await.unwrap().text().await.unwrap();
        let shown = if config.is_some() { "prset = &quot;segment&quot;" } else { "[[sinks." };
        assert!(page.contains(shown) && !page.contains(KEY), "{page}");
        let root = url.trim_end_matches("/playground");
        let home = http.get(root).send().await.unwrap();
        assert_eq!(home.headers()["location"], "/playground");
        for path in ["/metrics", "/api/v1/status", "/api/v1/dead-letters"] {
            let reply = http.get(format!("{root}{path}")).send().await.unwrap();
            assert_eq!(reply.status(), StatusCode::NOT_FOUND, "{path}");
        }
        let foreign = http.get(&url).header("Host", "evil.example").send().await.unwrap();
        assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
        let text = std::fs::read_to_string(&broken).unwrap();
        let answer = tried(&http, &format!("{root}/api/v1/playground"), &text, "{}").await;
        assert_eq!(answer["ok"], false);
        let html = answer["html"].as_str().unwrap();
        assert!(html.contains("prset") && html.contains("preset"), "{html}");
        let pid = program.0.id().to_string();
        std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        let ended = tokio::task::spawn_blocking(move || program.0.wait().unwrap()).await.unwrap();
        assert_eq!(ended.code(), Some(0));
    }
}
