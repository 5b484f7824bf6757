//! `run --dry-run`: what a run would send, and how long it would take.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use super::{pipeline, run};
use crate::support::{EmulatorAccount, KEY, TestDir, binary, json_of, mix};

/// What a folder holds: paths with the bytes of files.
fn contents(folder: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

fn dry(config: &Path, more: &[&str]) -> Value {
    let mut args = vec!["run", "--dry-run", "--format", "json"];
    args.extend(more);
    let output = binary().args(args).arg("-c").arg(config).output().unwrap();
    json_of(&output, 0)
}

/// Asserts that two counts are within 10 % of each other, or no more than `few` apart.
fn assert_close(estimate: &Value, sent: &Value, few: u64, what: &str) {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let (estimate, sent) = (number(estimate), number(sent));
    let off = estimate.abs_diff(sent);
    assert!(off <= few.max(sent / 10), "{what}: estimated {estimate}, sent {sent}");
}

/// Runs dry and then for good, and compares.
fn assert_estimate(place: &TestDir, config: &Path, what: &str) -> Value {
    let estimate = dry(config, &[]);
    let sent = json_of(&place.run_once(config, &[]), 0);
    let (estimated, sent) = (&estimate["sinks"]["crm"], &sent["sinks"]["crm"]);
    for equal in ["records", "delivered", "unmatched", "calls", "dead_letters"] {
        assert_eq!(estimated[equal], sent[equal], "{what}: {equal}");
    }
    let routes = (&estimated["requests_by_route"], &sent["requests_by_route"]);
    let named = format!("{what}, by kind {} and {}", routes.0, routes.1);
    assert_close(&estimated["requests"], &sent["requests"], 1, &named);
    // What is folded depends on the moment; of few requests it is a large share. So a kind may be off
    // by 10 % of all requests.
    let few = sent["requests"].as_u64().unwrap() / 10;
    for (route, count) in sent["requests_by_route"].as_object().unwrap() {
        let named = format!("{what}: {route}");
        assert_close(&estimated["requests_by_route"][route], count, few, &named);
    }
    estimate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_run_estimates_what_a_run_sends_within_10_percent() {
    // Guarantees the estimate by kind of request, for the mix, for records of few users that fold,
    // and for a second run that continues at the checkpoint and knows its users; with either buffer.
    for buffer in ["memory", "disk"] {
        // Every real server is slower than reading a file.
        let slow = Faults { latency_ms: 10, ..Faults::default() };
        let account = EmulatorAccount::open(slow).await;
        let place = TestDir::new();
        let sink = format!("preset = \"segment\"\nbuffer.type = \"{buffer}\"\n");
        let config = pipeline(&place, &account, &sink);
        place.write("records.ndjson", &mix::lines(&mix::records(1_000, "dry")));
        assert_estimate(&place, &config, &format!("{buffer}, mix"));

        let record = |n: usize| {
            let user = (n * n + n * 7_919) % 97;
            let rest = match n % 4 {
                0 => json!({ "type": "track", "event": format!("E{}", n % 7) }),
                1 => json!({ "type": "group", "groupId": format!("g{}", user % 5) }),
                _ => json!({ "type": "identify", "traits": { "score": n % 9, "name": "x" } }),
            };
            let mut record = rest;
            record["userId"] = json!(format!("user-{user}"));
            record["messageId"] = json!(format!("folded-{n}"));
            format!("{record}\n")
        };
        place.write("records2.ndjson", &(0..1_500).map(record).collect::<String>());
        assert_estimate(&place, &config, &format!("{buffer}, folded"));
        place.write("records3.ndjson", &(1_000..1_800).map(record).collect::<String>());
        let estimate = assert_estimate(&place, &config, &format!("{buffer}, known users"));
        assert_eq!(estimate["sinks"]["crm"]["records"], 800, "only what is not read yet");
        assert_eq!(dry(&config, &[])["sinks"]["crm"]["records"], 0);
        account.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_run_sends_nothing_and_leaves_no_trace() {
    // Guarantees that no request leaves, that no file is made or changed, before the first run and
    // after it, also while the pipeline runs; that no key is needed; and that unsent records stay
    // unsent.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = pipeline(&place, &account, "preset = \"segment\"\n");
    let text = std::fs::read_to_string(&config).unwrap();
    let config = place.write("pipeline.toml", &text.replace(KEY, "${A_KEY_THAT_IS_NOT_SET}"));
    let records =
        "{\"type\":\"identify\",\"userId\":\"u1\",\"traits\":{\"fit\":\"x\"}}\n".repeat(3);
    place.write("records.ndjson", &(records.clone() + "no json\n"));
    let before = contents(place.path());
    let (code, stdout, stderr) = run(&["run", "--dry-run"], &config);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("Nothing was sent"), "{stdout}");
    assert!(stdout.contains("at 10/s: ") && stdout.contains("assumed"), "{stdout}");
    assert!(stderr.contains("attribute would be created"), "{stderr}");
    assert!(stderr.contains("1 record would become a dead letter"), "{stderr}");
    assert_eq!(contents(place.path()), before);
    let requests = account.admin("requests").await;
    assert_eq!(requests.as_array().map(Vec::len), Some(0), "{requests}");

    let config = place.write("pipeline.toml", &text);
    json_of(&place.run_once(&config, &[]), 0);
    let before = contents(place.path());
    assert_eq!(dry(&config, &[])["sinks"]["crm"]["records"], 0);
    assert_eq!(
        contents(place.path()).keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    assert_eq!(contents(place.path()), before);
    place.write("records.ndjson", &(records + "no json\n" + "nor this\n"));
    let service = super::service::Service::start(&place, &config);
    service.wait_for_log("health check passed").await;
    let estimate = dry(&config, &["--quota", "600/min", "--quota", "2"]);
    let crm = &estimate["dry_run"]["crm"];
    let requests = crm["requests"].as_f64().unwrap();
    assert_eq!(crm["times"][0]["seconds"].as_f64().unwrap(), requests / 10.0);
    assert_eq!(crm["times"][1]["seconds"].as_f64().unwrap(), requests / 2.0);
    drop(service);
    account.close().await;
}

#[test]
fn dry_run_reads_files_and_standard_input_only() {
    // Guarantees that a source that a reading would change is left out with its name, and that
    // nothing is opened for it; and that records of standard input are counted.
    let place = TestDir::new();
    let sink = |inputs: &str| {
        format!(
            "[sinks.crm]\ntype = \"usercom\"\ninputs = [{inputs}]\napp = \"acme\"\n\
             api_key = \"{KEY}\"\npreset = \"segment\"\n"
        )
    };
    let hook = "[sources.hook]\ntype = \"http\"\naddress = \"127.0.0.1:1\"\n";
    let input = "[sources.input]\ntype = \"stdin\"\n";
    let config = place.write("one.toml", &format!("{hook}{}", sink("\"hook\"")));
    let (code, stdout, stderr) = run(&["run", "--dry-run"], &config);
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    assert!(stderr.contains("source `hook` (http) is left out"), "{stderr}");

    let both = format!("{hook}{input}{}", sink("\"hook\", \"input\""));
    let config = place.write("two.toml", &both);
    let records = place.write("in", "{\"type\":\"identify\",\"userId\":\"u1\"}\n");
    let output = binary()
        .args(["run", "--dry-run", "--format", "json", "-c"])
        .arg(&config)
        .stdin(std::fs::File::open(records).unwrap())
        .output()
        .unwrap();
    assert_eq!(json_of(&output, 0)["sinks"]["crm"]["records"], 1);
}
