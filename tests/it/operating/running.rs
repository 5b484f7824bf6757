//! Row 5: `dead-letters` while the pipeline runs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use usercom_sink::emulator::Faults;

use super::service::Service;
use super::{pipeline, run};
use crate::support::{EmulatorAccount, KEY, TestDir, binary};

const TOKEN: &str = "a-token-of-the-test";

/// A rule that wants an e-mail address, and one without that wish.
const STRICT: &str = r#"
[[sinks.crm.mapping]]
name = "signup"
when = { ".kind" = "signup" }
call = "identify"
fields.user_id = { path = ".id", required = true }
"#;

/// Starts the service and waits until this many dead letters are stored.
async fn start(place: &TestDir, config: &Path, dead_letters: usize) -> Service {
    let service = Service::start(place, config);
    for _ in 0..400 {
        if listed(config) == Some(dead_letters) {
            return service;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:?} dead letters", listed(config));
}

/// How many dead letters `list` shows.
fn listed(config: &Path) -> Option<usize> {
    let (code, stdout, _) = run(&["dead-letters", "list", "--format", "json"], config);
    (code == Some(0)).then(|| stdout.lines().count())
}

/// A pipeline whose first `bad` records have no id, and whose key is in the environment.
fn write(place: &TestDir, account: &EmulatorAccount, bad: usize, api: &str) -> PathBuf {
    place.write("records.ndjson", &"{\"kind\":\"signup\"}\n".repeat(bad));
    let config = pipeline(place, account, &format!("{STRICT}{api}"));
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(KEY, "${THE_KEY}")).unwrap();
    config
}

fn api(listen: &str) -> String {
    format!("[api]\nlisten = \"{listen}\"\ntoken = \"{TOKEN}\"\n")
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_05_running_pipeline_replays_and_purges_for_the_command() {
    // Guarantees that every command works while the service runs, without the API key in the
    // environment of the operator, and that results and mistakes read as they do without a service.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = write(&place, &account, 3, &api(&free_address()));
    let service = start(&place, &config, 3).await;
    let (code, stdout, stderr) = run(&["dead-letters", "show", "1", "--format", "json"], &config);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("missing_required"), "{stdout}");

    let (code, stdout, stderr) = run(&["dead-letters", "replay"], &config);
    assert_eq!((code, stdout.as_str()), (Some(0), "3 replayed: 0 settled, 3 kept\n"), "{stderr}");
    let replay = ["dead-letters", "replay", "--reason", "missing_required", "--format", "json"];
    let (code, stdout, _) = run(&replay, &config);
    let result: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(result, json!({ "replayed": 3, "delivered": 0, "kept": 3 }));
    for (args, code, words) in [
        (&["replay", "--reason", "mising_required"][..], 2, "did you mean `missing_required`?"),
        (&["replay", "--sink", "cmr"], 2, "did you mean `crm`?"),
        (&["replay", "1"], 1, "no dead letter 1"),
        (&["purge"], 2, "--all"),
        (&["purge", "4711"], 1, "no dead letter 4711"),
    ] {
        let args: Vec<&str> = ["dead-letters"].iter().chain(args).copied().collect();
        let (got, stdout, stderr) = run(&args, &config);
        assert_eq!((got, stdout.as_str()), (Some(code), ""), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
    let (_, ids, _) = run(&["dead-letters", "list", "--format", "json"], &config);
    let first: serde_json::Value = serde_json::from_str(ids.lines().next().unwrap()).unwrap();
    let (code, stdout, stderr) = run(&["dead-letters", "purge", &first["id"].to_string()], &config);
    assert_eq!((code, stdout.as_str()), (Some(0), "1 purged\n"), "{stderr}");
    let (_, stdout, _) = run(&["dead-letters", "purge", "--sink", "crm"], &config);
    assert_eq!((stdout.as_str(), listed(&config)), ("2 purged\n", Some(0)));
    drop(service);
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_05_mended_mapping_delivers_by_replay_in_the_running_pipeline() {
    // Guarantees that what was mended and reloaded is delivered by the running process.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = write(&place, &account, 2, &api(&free_address()));
    let service = start(&place, &config, 2).await;
    let text = std::fs::read_to_string(&config).unwrap();
    let mended = text.replace("{ path = \".id\", required = true }", "{ value = \"u1\" }");
    std::fs::write(&config, mended).unwrap();
    service.signal("-HUP");
    for _ in 0..200 {
        run(&["dead-letters", "replay"], &config);
        if listed(&config) == Some(0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(listed(&config), Some(0));
    assert_eq!(account.admin("stats").await["users"], 1);
    drop(service);
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_05_long_replay_is_waited_for() {
    // Guarantees that a replay that takes longer than one answer is waited for, and its result
    // printed.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = write(&place, &account, 1, &api(&free_address()));
    let service = start(&place, &config, 1).await;
    let text = std::fs::read_to_string(&config).unwrap();
    let mended = text.replace("{ path = \".id\", required = true }", "{ value = \"u1\" }");
    std::fs::write(&config, mended).unwrap();
    account.set_faults(&json!({ "error_rate": 1.0, "error_code": 503 })).await;
    service.signal("-HUP");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut command = binary();
    command.args(["dead-letters", "replay", "-c"]).arg(&config);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(Duration::from_secs(22)).await;
    account.set_faults(&json!({ "error_rate": 0.0 })).await;
    let output = tokio::task::spawn_blocking(|| command.wait_with_output()).await.unwrap().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 replayed: 1 settled, 0 kept\n");
    assert!(stderr.contains("0 of 1 replayed"), "{stderr}");
    drop(service);
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_05_unreachable_pipeline_is_an_error_that_says_what_to_write() {
    // Guarantees that without an API, with another address, token or pipeline nothing is changed
    // and the error says what to do; no error shows the token.
    let account = EmulatorAccount::open(Faults::default()).await;
    let (place, other) = (TestDir::new(), TestDir::new());
    let address = free_address();
    let config = write(&place, &account, 1, "");
    let other_config = write(&other, &account, 1, &api(&address));
    let service = start(&place, &config, 1).await;
    let other_service = start(&other, &other_config, 1).await;
    let text = std::fs::read_to_string(&config).unwrap();
    let wrong_token = "another-token-of-the-test";
    let other_text = std::fs::read_to_string(&other_config).unwrap();
    for (config, text, words) in [
        (&config, text.clone(), "listen = \"127.0.0.1:8686\""),
        (&config, text.clone() + &api("127.0.0.1:1"), "does not answer"),
        (&config, text + &api(&address), "belongs to process"),
        (&other_config, other_text.replace(TOKEN, wrong_token), "refuses `api.token`"),
    ] {
        std::fs::write(config, text).unwrap();
        for command in [&["replay"][..], &["purge", "--all"]] {
            let args: Vec<&str> = ["dead-letters"].iter().chain(command).copied().collect();
            let (code, stdout, stderr) = run(&args, config);
            assert_eq!((code, stdout.as_str()), (Some(1), ""), "{words}: {stderr}");
            assert!(stderr.contains(words), "{words}: {stderr}");
            assert!(!stderr.contains("token-of-the-test"), "{stderr}");
        }
        assert_eq!(listed(config), Some(1), "{words}");
    }
    drop((service, other_service));
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_06_replay_without_a_running_pipeline_needs_the_key() {
    // Guarantees that the missing key is an error where this process would send, and none where
    // the running one does.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = write(&place, &account, 1, &api(&free_address()));
    drop(start(&place, &config, 1).await);
    let (code, stdout, stderr) = run(&["dead-letters", "replay"], &config);
    assert_eq!((code, stdout.as_str()), (Some(78), ""), "{stderr}");
    assert!(stderr.contains("THE_KEY"), "{stderr}");
    account.close().await;
}
