//! `sources`, and row 9: what is read, and reading a file again.

use std::io::Write as _;

use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use super::{pipeline, run};
use crate::support::{EmulatorAccount, TestDir, binary, json_of};

fn track(n: usize) -> String {
    format!("{{\"type\":\"track\",\"userId\":\"u1\",\"event\":\"E{n}\"}}\n")
}

fn listed(config: &std::path::Path) -> Vec<Value> {
    let (code, stdout, stderr) = run(&["sources", "list", "--format", "json"], config);
    assert_eq!(code, Some(0), "{stderr}");
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_list_set_and_reset_change_what_the_next_run_reads() {
    // Guarantees that positions are shown as they are, that `reset` reads a file again from its
    // beginning and `set` from a line, with either buffer, and that other files are not touched.
    for buffer in ["memory", "disk"] {
        let account = EmulatorAccount::open(Faults::default()).await;
        let place = TestDir::new();
        let sink = format!("preset = \"segment\"\nbuffer.type = \"{buffer}\"\n");
        let config = pipeline(&place, &account, &sink);
        let text: String = (0..10).map(track).collect();
        let records = place.write("records.ndjson", &text);
        place.write("records2.ndjson", &track(99));
        let records = records.to_str().unwrap();
        let sent = |output| json_of(&output, 0)["sinks"]["crm"]["records"].clone();
        assert_eq!(sent(place.run_once(&config, &[])), 11);
        assert_eq!(sent(place.run_once(&config, &[])), 0);

        let files = listed(&config);
        assert_eq!(files.len(), 2, "{files:?}");
        let first = files.iter().find(|file| file["file"] == records).expect("the file");
        assert_eq!((&first["offset"], &first["lines"]), (&json!(text.len()), &json!(10)));
        let (_, shown, _) = run(&["sources", "list"], &config);
        assert!(shown.contains("100 %") && shown.starts_with("SOURCE"), "{shown}");

        let (code, stdout, stderr) = run(&["sources", "reset", records], &config);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains("from its beginning"), "{stdout}");
        assert_eq!(sent(place.run_once(&config, &[])), 10, "{buffer}");
        let (code, ..) = run(&["sources", "set", records, "--line", "8"], &config);
        assert_eq!(code, Some(0));
        assert_eq!(sent(place.run_once(&config, &[])), 3, "{buffer}");
        let (code, ..) = run(&["sources", "reset", "--all"], &config);
        assert_eq!(code, Some(0));
        assert_eq!(sent(place.run_once(&config, &[])), 11, "{buffer}");
        assert_eq!(sent(place.run_once(&config, &[])), 0, "{buffer}");
        account.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_set_refuses_positions_that_are_no_line() {
    // Guarantees that a wrong name, line or offset changes nothing and says what is right.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = pipeline(&place, &account, "preset = \"segment\"\n");
    let records = place.write("records.ndjson", &(0..3).map(track).collect::<String>());
    let records = records.to_str().unwrap();
    place.run_once(&config, &[]);
    let before = listed(&config);
    for (args, code, words) in [
        (&["set", records, "--offset", "3"][..], 1, "no line begins at offset 3"),
        (&["set", records, "--line", "9"], 1, "it has only 3 lines"),
        (&["set", "nowhere.ndjson", "--line", "1"], 1, "no checkpoint of nowhere.ndjson"),
        (&["reset", records, "--source", "ap"], 2, "did you mean `app`?"),
        (&["reset"], 2, "<FILE>"),
        (&["set", records], 2, "--line"),
    ] {
        let args: Vec<&str> = ["sources"].iter().chain(args).copied().collect();
        let (got, stdout, stderr) = run(&args, &config);
        assert_eq!((got, stdout.as_str()), (Some(code), ""), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
    assert_eq!(listed(&config), before);
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_09_state_is_beside_the_pipeline_file() {
    // Guarantees that relative paths do not follow the working directory, and that the folder of
    // state is named.
    let account = EmulatorAccount::open(Faults::default()).await;
    let (place, elsewhere) = (TestDir::new(), TestDir::new());
    let text = std::fs::read_to_string(pipeline(&place, &account, "preset = \"segment\"\n"));
    let text = text.unwrap().replace(&format!("{}/", place.path().display()), "");
    let config = place.write("relative.toml", &text);
    place.write("records.ndjson", &track(1));
    let output = binary()
        .args(["run", "--once", "--format", "json", "-c"])
        .arg(&config)
        .current_dir(elsewhere.path())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(json_of(&output, 0)["sinks"]["crm"]["records"], 1, "{log}");
    let data = place.path().join("data");
    assert!(log.contains(data.to_str().unwrap()), "{log}");
    assert!(data.join("usercom-sink.db").is_file());
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    account.close().await;
}

/// Writes a compressed file.
fn write_packed(place: &TestDir, name: &str, text: &str) -> std::path::PathBuf {
    let path = place.path().join(name);
    let bytes = if name.ends_with(".gz") {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    } else {
        zstd::encode_all(text.as_bytes(), 1).unwrap()
    };
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The names of the events in the order in which they were sent.
async fn sent_events(account: &EmulatorAccount) -> Vec<String> {
    let requests = account.admin("requests").await;
    let events = requests.as_array().unwrap().iter().filter(|request| {
        request["method"] == "POST" && request["path"].as_str().unwrap().ends_with("/events/")
    });
    events.map(|request| request["body"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_list_and_reset_work_for_compressed_files() {
    // Guarantees that the offset of a compressed file is that of its content, that `set` refuses it
    // without a change, and that `reset` reads it again, for both formats and both buffers.
    for (name, buffer) in [("records.gz.ndjson.gz", "memory"), ("records.ndjson.zst", "disk")] {
        let account = EmulatorAccount::open(Faults::default()).await;
        let place = TestDir::new();
        let config = pipeline(
            &place,
            &account,
            &format!("preset = \"segment\"\nbuffer.type = \"{buffer}\"\n"),
        );
        let text = std::fs::read_to_string(&config).unwrap().replace("*.ndjson", "*");
        let config = place.write("pipeline.toml", &text);
        let text: String = (0..10).map(track).collect();
        let records = write_packed(&place, name, &text);
        let records = records.to_str().unwrap();
        let sent = |output| json_of(&output, 0)["sinks"]["crm"]["records"].clone();
        assert_eq!(sent(place.run_once(&config, &[])), 10);
        let files = listed(&config);
        assert_eq!(files.len(), 1, "{files:?}");
        let file = &files[0];
        assert_eq!((&file["offset"], &file["size"]), (&json!(text.len()), &json!(text.len())));
        assert_eq!((&file["compressed"], &file["file"]), (&json!(true), &json!(records)));
        let (_, shown, _) = run(&["sources", "list"], &config);
        assert!(shown.contains("100 %") && shown.contains("compressed"), "{shown}");

        let (code, stdout, stderr) = run(&["sources", "set", records, "--line", "8"], &config);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains("is compressed") && stderr.contains("sources reset"), "{stderr}");
        assert_eq!(sent(place.run_once(&config, &[])), 0, "{name}");
        let (code, _, stderr) = run(&["sources", "reset", records], &config);
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(sent(place.run_once(&config, &[])), 10, "{name}");
        assert_eq!(sent(place.run_once(&config, &[])), 0, "{name}");
        account.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_follow_rotated_files_by_what_they_are() {
    // Guarantees that after a rotation a path means the file that is there now: `list` shows each
    // file under its present name, `reset` of the old content does not touch the new file, and the
    // name of a file that was not read yet is an error that says so.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = pipeline(&place, &account, "preset = \"segment\"\n");
    let text = std::fs::read_to_string(&config).unwrap().replace("*.ndjson", "*");
    let config = place.write("pipeline.toml", &text);
    let live = place.write("records.log", &(0..4).map(track).collect::<String>());
    let old = place.path().join("records.log.1");
    let sent = |output| json_of(&output, 0)["sinks"]["crm"]["records"].clone();
    assert_eq!(sent(place.run_once(&config, &[])), 4);
    std::fs::rename(&live, &old).unwrap();
    std::fs::write(&live, (10..12).map(track).collect::<String>()).unwrap();
    let (live, old) = (live.to_str().unwrap(), old.to_str().unwrap());
    let files = listed(&config);
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!((&files[0]["file"], &files[0]["lines"]), (&json!(old), &json!(4)));
    let (code, stdout, stderr) = run(&["sources", "reset", live], &config);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("nothing of it was read yet"), "{stderr}");
    assert!(stderr.contains(old), "{stderr}");

    assert_eq!(sent(place.run_once(&config, &[])), 2);
    let (code, stdout, stderr) = run(&["sources", "set", old, "--line", "3"], &config);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains(old), "{stdout}");
    let before = sent_events(&account).await.len();
    assert_eq!(sent(place.run_once(&config, &[])), 2);
    assert_eq!(sent_events(&account).await[before..], ["E2", "E3"]);
    let (code, ..) = run(&["sources", "reset", live], &config);
    assert_eq!(code, Some(0));
    let before = sent_events(&account).await.len();
    assert_eq!(sent(place.run_once(&config, &[])), 2);
    assert_eq!(sent_events(&account).await[before..], ["E10", "E11"]);

    // A file that is gone is still named by its last path, and cannot be set to a line.
    std::fs::remove_file(old).unwrap();
    let (_, shown, _) = run(&["sources", "list"], &config);
    let line = shown.lines().find(|line| line.contains(old)).expect("its row");
    assert!(line.contains("not found any more"), "{shown}");
    let (code, _, stderr) = run(&["sources", "set", old, "--line", "1"], &config);
    assert_eq!(code, Some(1), "{stderr}");
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_reads_every_log_of_a_pattern_oldest_first() {
    // Guarantees the order of records within each log where one pattern finds several: rotated by
    // number, by date in the name and after it, compressed with a new modification time, and a log
    // whose live file is gone; whatever the names of the others sort between them.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let config = pipeline(&place, &account, "preset = \"segment\"\n");
    let text = std::fs::read_to_string(&config).unwrap().replace("records*.ndjson", "logs/*");
    let config = place.write("pipeline.toml", &text);
    std::fs::create_dir(place.path().join("logs")).unwrap();
    // Each log, oldest file first; the files of all logs are written in turn.
    let logs = [
        ("number", vec!["app.log.3", "app.log.2", "app.log.1", "app.log"]),
        ("dated", vec!["app-web.log-20260101", "app-web.log-20260102", "app-web.log"]),
        ("inside", vec!["app2-2026-01-01.log", "app2-2026-01-02.log", "app2.log"]),
        ("packed", vec!["web.log.11.gz", "web.log.2.gz", "web.log.1", "web.log"]),
        ("gone", vec!["zeta.log.2", "zeta.log.1"]),
    ];
    let line = |log: &str, n: usize| {
        format!("{{\"type\":\"track\",\"userId\":\"{log}\",\"event\":\"{log}-{n:03}\"}}\n")
    };
    for turn in 0..4 {
        for (log, files) in &logs {
            if let Some(name) = files.get(turn).filter(|name| !name.ends_with(".gz")) {
                let text: String = (0..5).map(|n| line(log, turn * 5 + n)).collect();
                place.write(&format!("logs/{name}"), &text);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
    // Compressed last, the newer one before the older one: their times say nothing.
    for (turn, name) in [(1, "web.log.2.gz"), (0, "web.log.11.gz")] {
        let text: String = (0..5).map(|n| line("packed", turn * 5 + n)).collect();
        write_packed(&place, &format!("logs/{name}"), &text);
    }
    let summary = json_of(&place.run_once(&config, &[]), 0);
    assert_eq!(summary["sinks"]["crm"]["records"], 80, "{summary}");
    let sent = sent_events(&account).await;
    for (log, files) in &logs {
        let own: Vec<_> = sent.iter().filter(|name| name.starts_with(&format!("{log}-"))).collect();
        assert_eq!(own.len(), files.len() * 5, "{log}");
        assert!(own.is_sorted(), "{log}: {own:?}");
    }
    account.close().await;
}
