//! `sources`, and row 9: what is read, and reading a file again.

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
