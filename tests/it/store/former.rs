//! A state directory of a former program is read by this one, with the built program.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::*;
use crate::support::{EmulatorAccount, TestDir, json_of, usercom_sink};
use usercom_sink::emulator::Faults;

/// The file that the former program read to its end: its last two records were not delivered when
/// it was killed, and the first of them was possibly sent.
const READ_BEFORE: &str = r#"{"type":"identify","messageId":"m-1","userId":"u1","traits":{"email":"ann@example.com","plan":"pro"}}
{"type":"track","messageId":"m-2","userId":"u1","event":"Signed up"}
{"type":"group","messageId":"m-3","userId":"u1","groupId":"g1","traits":{"name":"Acme"}}
{"type":"track","messageId":"m-4","userId":"u1"}
not JSON
{"type":"track","messageId":"m-5","userId":"u1","event":"Paid"}
{"type":"track","messageId":"m-6","userId":"u1","event":"Left"}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn state_of_former_program_goes_on_without_loss_or_double() {
    // The buffered records are delivered once, the file is not read again from its beginning, a
    // message id that was delivered before is known, and the dead letters are listed.
    let account = EmulatorAccount::open(Faults::default()).await;
    account.post("users/update_or_create/", &json!({ "user_id": "u1" })).await;
    let dir = TestDir::new();
    let repeated = r#"{"type":"track","messageId":"m-2","userId":"u1","event":"Signed up"}"#;
    let file = dir.write("records.ndjson", &format!("{READ_BEFORE}{repeated}\n"));
    let id = fs::metadata(&file).map(|file| format!("{}:{}", file.dev(), file.ino())).unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    let store = rusqlite::Connection::open(dir.path().join("data/usercom-sink.db")).unwrap();
    let dump = include_str!("format_3.sql")
        .replace("@FILE@", file.to_str().unwrap())
        .replace("@ID@", &id)
        .replace("@NOW@", &clock::now().as_second().to_string());
    store.execute_batch(&dump).unwrap();
    store.close().unwrap();

    let config = dir.pipeline(&account.endpoint(), "preset = \"segment\"\nbuffer.type = \"disk\"");
    let run = json_of(&dir.run_once(&config, &[]), 0);
    assert_eq!(run["sinks"]["crm"]["delivered"], 3, "{run}");
    assert_eq!(run["sinks"]["crm"]["requests_saved"]["deduplicated"], 1, "{run}");
    let events = account.all("events/").await;
    let names: Vec<_> = events.iter().map(|event| event["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Paid", "Left"]);

    let config = config.to_str().unwrap();
    let listed = usercom_sink(&["dead-letters", "list", "-c", config, "--format", "json"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    for reason in ["no_event", "undecodable"] {
        assert!(listed.contains(reason), "{listed}");
    }
    assert_eq!(listed.lines().count(), 2, "{listed}");
    account.close().await;
}
