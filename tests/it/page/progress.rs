//! Rows 1 and 2 of the table of operating faults: what a run says of itself while it runs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use regex::Regex;
use serde_json::json;
use tokio::time::{Instant, sleep};
use usercom_sink::emulator::Faults;

use super::service::Running;
use crate::support::{EmulatorAccount, TestDir, binary};

const SEGMENT: &str = "preset = \"segment\"\n";

fn records(count: usize) -> String {
    let record = |n| {
        format!(
            "{{\"type\":\"track\",\"userId\":\"u{n}\",\"event\":\"E\",\"messageId\":\"m{n}\"}}\n"
        )
    };
    (0..count).map(record).collect()
}

/// Starts a run whose log goes to a file.
fn start(config: &Path, log: &Path, more: &[&str]) -> Running {
    let mut command = binary();
    command.args(["run", "-c"]).arg(config).args(more).stdout(Stdio::null());
    Running(command.stderr(std::fs::File::create(log).unwrap()).spawn().unwrap())
}

async fn until(log: &Path, secs: u64, wanted: impl Fn(&str) -> bool) -> String {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).unwrap();
        if wanted(&text) {
            return text;
        }
        assert!(begun.elapsed() < Duration::from_secs(secs), "{text}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_01_terminal_shows_settled_records_and_the_log_above_them() {
    // Guarantees that the bar of `--once` counts records that are settled, not bytes that are read,
    // with pace, time left and dead letters, and that no line of the log shares a line with it.
    let terminal = Command::new("script").arg("--version").stdout(Stdio::null()).status();
    if !terminal.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: `script` of util-linux is not installed, which makes a terminal");
        return;
    }
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let broken = "{\"type\":\"track\",\"event\":\"E\"}\n";
    place.write("records.ndjson", &(records(60) + broken));
    let sink = format!("{SEGMENT}request.rate_limit_num = 20\n");
    let config = place.pipeline(&account.endpoint(), &sink);
    let run = format!("{} run -c {} --once", binary().get_program().display(), config.display());
    let mut command = Command::new("script");
    command.args(["-qec", &run, "/dev/null"]).env("TERM", "xterm").env("COLUMNS", "140");
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");

    let line = Regex::new(r"(\d+)(?: of (?:about )?(\d+))? records settled, ([\d.]+)/s").unwrap();
    let number =
        |found: &regex::Captures<'_>, n| found.get(n).map(|n| n.as_str().parse::<u64>().unwrap());
    let shown: Vec<_> = line.captures_iter(&text).map(|f| (number(&f, 1), number(&f, 2))).collect();
    let between = shown.iter().any(|(settled, _)| (5..60).contains(&settled.unwrap()));
    assert!(between, "it counts while it runs: {shown:?}");
    let honest =
        shown.iter().all(|(settled, total)| total.is_none_or(|total| settled.unwrap() <= total));
    assert!(honest && shown.iter().any(|(_, total)| total.is_some_and(|n| n > 50)), "{shown:?}");
    assert!(text.contains("dead letters 1"), "{text}");
    let escapes = Regex::new(r"\x1b\[[0-9;?]*[A-Za-z]").unwrap();
    let text = escapes.replace_all(&text, "\u{1}");
    let mixed = text.split(['\n', '\r', '\u{1}']).find(|line| {
        line.contains("records settled") && (line.contains(" INFO ") || line.contains(" WARN "))
    });
    assert_eq!(mixed, None, "a line of the log shares a line with the bar");
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_01_without_a_terminal_a_line_comes_every_30_seconds() {
    // Guarantees the same line in the log of a run without a terminal, also while nothing moves.
    let account = EmulatorAccount::open(Faults::default()).await;
    account.set_faults(&json!({ "error_rate": 1.0, "error_code": 503 })).await;
    let place = TestDir::new();
    place.write("records.ndjson", &records(5));
    let config = place.pipeline(&account.endpoint(), SEGMENT);
    let log = place.path().join("log");
    let begun = Instant::now();
    let _program = start(&config, &log, &["--once"]);
    let line = |text: &str| text.contains("0 of 5 records settled, 0.0/s, time left not known yet");
    let text = until(&log, 60, line).await;
    assert!(begun.elapsed() > Duration::from_secs(29), "{text}");
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_02_run_logs_its_status_at_the_interval() {
    // Guarantees the regular line of a service: rates, waiting, oldest, dead letters, last error;
    // each is shown although it repeats, and 0 turns it off.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    place.write("records.ndjson", &(records(3) + "{\"type\":\"track\",\"event\":\"E\"}\n"));
    let api = |secs: u32| format!("{SEGMENT}[api]\nlog_interval_secs = {secs}\n");
    let config = place.pipeline(&account.endpoint(), &api(1));
    let log = place.path().join("log");
    let program = start(&config, &log, &[]);
    let count =
        |text: &str| text.lines().filter(|line| line.contains(" requests/s, waiting ")).count();
    until(&log, 30, |text| count(text) >= 3 && text.contains("dead letters 1")).await;
    account.set_faults(&json!({ "error_rate": 1.0, "error_code": 503 })).await;
    std::fs::write(place.path().join("records-2.ndjson"), records(9)).unwrap();
    let waits = |line: &&str| {
        line.contains("waiting: ")
            && line.contains("the oldest for")
            && line.contains("last error status_503")
    };
    let text = until(&log, 30, |text| text.lines().rev().find(waits).is_some()).await;
    let runs = |line: &str| line.contains("running: ") && line.contains("/s settled");
    assert!(text.lines().any(runs), "{text}");
    drop(program);

    let config = place.pipeline(&account.endpoint(), &api(0));
    let log = place.path().join("silent");
    let _program = start(&config, &log, &[]);
    sleep(Duration::from_secs(4)).await;
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.is_empty() && count(&text) == 0, "{text}");
    account.close().await;
}
