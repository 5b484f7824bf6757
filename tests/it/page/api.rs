//! What programs ask of a running pipeline: status, dead letters, sessions.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use usercom_sink::emulator::Faults;
use usercom_sink::telemetry::status_schema_text;

use super::service::{STRICT, Service, TOKEN, parsed};
use crate::support::{EmulatorAccount, KEY, TestDir, json_of, usercom_sink};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_gives_the_records_that_match_and_a_source_reads_them_again() {
    // Guarantees that an export holds each record as it came, one a line, of the chosen reason
    // alone, under a name, for signed-in readers only; and that records of several pages are there.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let bad = |n: u32| format!("{{\"kind\":\"signup\",\"n\":{n}}}\n");
    let records: String = (0..450).map(bad).collect();
    place.write("records.ndjson", &(records.clone() + "not JSON\n"));
    let api = format!("token = \"{TOKEN}\"");
    let service = Service::start(&place, &account.endpoint(), STRICT, &api).await;
    service.until("/api/v1/dead-letters", |_, text| parsed(text)["matching"] == 451).await;
    let path = "/api/v1/dead-letters/export";
    let reply = service.http.get(service.url(path)).send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
    let all = service.http.get(service.url(path)).bearer_auth(TOKEN).send().await.unwrap();
    let named = all.headers()["content-disposition"].to_str().unwrap();
    assert_eq!(named, "attachment; filename=\"dead-letters.ndjson\"");
    assert_eq!(all.text().await.unwrap().lines().count(), 451);
    let (status, some) = service.get(&format!("{path}?reason=missing_required")).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let mut lines: Vec<_> = some.lines().map(parsed).collect();
    lines.sort_by_key(|line| line["n"].as_u64());
    let wanted: Vec<_> = records.lines().map(parsed).collect();
    assert_eq!(lines, wanted);
    for (query, status) in [("sink=none", 400), ("since=yesterday", 400), ("other=1", 400)] {
        let (found, text) = service.get(&format!("{path}?{query}")).await.unwrap();
        assert_eq!(found.as_u16(), status, "{query}: {text}");
    }
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_command_and_documentation_say_the_same_words() {
    // Guarantees one word for one thing: what the page calls `settled`, the command `status`, its
    // documentation and the API call so too.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let records =
        "{\"kind\":\"signup\",\"id\":\"u1\"}\n{\"kind\":\"signup\"}\n{\"kind\":\"other\"}\n";
    place.write("records.ndjson", records);
    let service = Service::start(&place, &account.endpoint(), STRICT, "").await;
    let settled = |text: &str| parsed(text)["sinks"][0]["records"]["settled"] == 3;
    let json = service.until("/api/v1/status", |_, text| settled(text)).await;
    let page = service.get("/").await.unwrap().1 + &service.get("/dead-letters").await.unwrap().1;
    let shown = usercom_sink(&["status", "-c", service.config.to_str().unwrap()]);
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status-page.md");
    let texts = [
        ("page", page),
        ("command", String::from_utf8(shown.stdout).unwrap()),
        ("API", json),
        ("documentation", std::fs::read_to_string(docs).unwrap()),
    ];
    for word in [
        "running",
        "settled",
        "waiting",
        "requests",
        "in flight",
        "quota",
        "latency",
        "unmatched",
        "dead letters",
        "behind",
    ] {
        for (which, text) in &texts {
            let text = text.to_lowercase().replace('_', " ");
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(word), "{which} does not say {word:?}: {text}");
        }
    }
    for word in ["replay", "purge", "export"] {
        let help = usercom_sink(&["dead-letters", "--help"]);
        let help = String::from_utf8(help.stdout).unwrap().to_lowercase();
        let page = texts[0].1.to_lowercase();
        assert!(help.contains(word) && page.contains(word), "{word}");
    }
    account.close().await;
}
