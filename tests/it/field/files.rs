//! Files that are rotated, copied, truncated, packed or half written.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use crate::support::{EmulatorAccount, KEY, TestDir, binary, usercom_sink};

/// Long enough for a machine that does much else.
const LONG: Duration = Duration::from_secs(60);

/// An account, a folder of files, and a pipeline between them.
pub(super) struct Case {
    pub(super) account: EmulatorAccount,
    place: TestDir,
    config: PathBuf,
}

impl Case {
    /// `source` is the rest of the source's table, `sink` of the sink's.
    pub(super) async fn new(include: &str, source: &str, sink: &str) -> Self {
        let account = EmulatorAccount::open(Faults::default()).await;
        let place = TestDir::new();
        let dir = place.path().display();
        let text = format!(
            r#"
data_dir = "{dir}/data"
[sources.in]
type = "file"
include = ["{dir}/{include}"]
{source}
[sinks.crm]
type = "usercom"
inputs = ["in"]
endpoint = "{}"
api_key = "{KEY}"
{sink}
"#,
            account.endpoint()
        );
        let config = place.write("pipeline.toml", &text);
        Self { account, place, config }
    }

    /// Events with `u`, `e` and `ts`.
    async fn of_events(include: &str) -> Self {
        let sink = r#"
[[sinks.crm.mapping]]
call = "track"
[sinks.crm.mapping.fields]
user_id = ".u"
event = ".e"
timestamp = ".ts"
"properties.file" = "%file"
"properties.line" = "%line"
"properties.offset" = "%offset"
"#;
        Self::new(include, "", sink).await
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub(super) fn append(&self, name: &str, text: &str) {
        let mut file = fs::File::options().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Appends events of these numbers.
    fn events(&self, name: &str, numbers: std::ops::RangeInclusive<u32>) {
        self.append(name, &numbers.map(event).collect::<String>());
    }

    pub(super) fn once(&self) {
        let output = self.place.run_once(&self.config, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
    }

    pub(super) fn letters(&self) -> String {
        let config = self.config.to_str().unwrap();
        let output = usercom_sink(&["dead-letters", "list", "-c", config, "--format", "json"]);
        String::from_utf8(output.stdout).unwrap()
    }

    pub(super) fn follow(&self) -> Following {
        let child = binary()
            .args(["run", "-c", self.config.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Following { child }
    }

    /// The user's events as they arrived, oldest first.
    pub(super) async fn arrived(&self, user: &str) -> Vec<Value> {
        let users = self.account.all("users/").await;
        let Some(user) = users.iter().find(|found| found["custom_id"] == user) else {
            return Vec::new();
        };
        let mut events = self.account.all(&format!("users/{}/events/", user["id"])).await;
        events.sort_by_key(|event| event["id"].as_u64());
        events
    }

    pub(super) async fn names(&self) -> Vec<String> {
        let events = self.arrived("u1").await;
        events.iter().map(|event| event["name"].as_str().unwrap().to_owned()).collect()
    }

    pub(super) async fn until_names(&self, expected: usize) {
        let end = tokio::time::Instant::now() + LONG;
        while self.names().await.len() < expected {
            assert!(tokio::time::Instant::now() < end, "not in time: {:?}", self.names().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub(super) struct Following {
    child: Child,
}

impl Following {
    pub(super) fn stop(mut self) {
        let id = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &id]).status();
        assert!(sent.unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn event(number: u32) -> String {
    format!("{}\n", json!({ "u": "u1", "e": format!("e{number}"), "ts": 1_700_000_000 + number }))
}

fn names(numbers: std::ops::RangeInclusive<u32>) -> Vec<String> {
    numbers.map(|number| format!("e{number}")).collect()
}

fn identify(plan: &str, day: u32) -> String {
    let record = json!({
        "type": "identify", "userId": "u1", "traits": { "plan": plan },
        "timestamp": format!("2026-01-0{day}T00:00:00Z"),
    });
    format!("{record}\n")
}

pub(super) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotated_file_is_read_before_the_live_one() {
    // Field case 05: the log was rotated while nothing ran; the profile ends with the newest value.
    let case = Case::new("app.log*", "", "preset = \"segment\"").await;
    case.append("app.log", &identify("free", 1));
    case.once();
    case.append("app.log", &identify("trial", 2));
    fs::rename(case.path("app.log"), case.path("app.log.1")).unwrap();
    case.append("app.log", &identify("pro", 3));
    case.once();
    let users = case.account.all("users/").await;
    assert_eq!(users[0]["plan"], "pro");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copied_and_truncated_log_is_sent_once() {
    // Field case 06: the copy matches the pattern too; it is known by its content while the program
    // runs and while it does not.
    let case = Case::of_events("app.log*").await;
    case.events("app.log", 1..=5);
    let running = case.follow();
    case.until_names(5).await;
    fs::copy(case.path("app.log"), case.path("app.log.1")).unwrap();
    fs::File::create(case.path("app.log")).unwrap();
    case.events("app.log", 6..=6);
    case.until_names(6).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    running.stop();
    // Once more, while nothing runs.
    case.events("app.log", 7..=7);
    fs::rename(case.path("app.log.1"), case.path("app.log.2")).unwrap();
    fs::copy(case.path("app.log"), case.path("app.log.1")).unwrap();
    fs::File::create(case.path("app.log")).unwrap();
    case.events("app.log", 8..=8);
    case.once();
    case.once();
    assert_eq!(case.names().await, names(1..=8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_written_csv_row_waits_for_its_end() {
    // Field case 09: with --once a last line without its newline is left to the next run.
    let sink = r#"
[[sinks.crm.mapping]]
call = "track"
[sinks.crm.mapping.fields]
user_id = ".id"
event = { value = "Paid" }
"properties.*" = { path = ".", except = ["id"] }
"#;
    let case = Case::new("orders.csv", "decoding.codec = \"csv\"", sink).await;
    case.append("orders.csv", "id,order,amount\nu1,o-1,250\nu2,o-2,10");
    case.once();
    assert!(case.arrived("u2").await.is_empty());
    case.append("orders.csv", "00\nu3,o-3,7\n");
    case.once();
    assert_eq!(case.arrived("u2").await[0]["data"]["amount"], "1000");
    assert_eq!(case.arrived("u3").await.len(), 1);
    assert_eq!(case.letters(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_json_value_without_newline_is_sent_if_it_is_whole() {
    // With --once a JSON object that ends is a record without its newline, half of one is not, and
    // neither comes twice or as a dead letter when the rest is there.
    let case = Case::of_events("app.log").await;
    case.append("app.log", event(1).trim_end());
    case.once();
    assert_eq!(case.names().await, names(1..=1));
    let (begin, rest) = (&event(2)[..20], &event(2)[20..]);
    case.append("app.log", &format!("\n{begin}"));
    case.once();
    assert_eq!(case.names().await, names(1..=1));
    case.append("app.log", rest);
    case.once();
    assert_eq!(case.names().await, names(1..=2));
    assert_eq!(case.letters(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_generations_are_read_as_text() {
    // Files of gzip (two members) and zstd are read as what is in them, oldest first, and are known
    // when they were read before they were packed.
    let case = Case::of_events("app.log*").await;
    let lines = |numbers| names_of(numbers).into_bytes();
    let members = [gzip(&lines(1..=2)), gzip(&lines(3..=3))].concat();
    fs::write(case.path("app.log.2.gz"), members).unwrap();
    fs::write(case.path("app.log.1.zst"), zstd::encode_all(&lines(4..=6)[..], 1).unwrap()).unwrap();
    case.events("app.log", 7..=8);
    case.once();
    assert_eq!(case.names().await, names(1..=8));
    // Rotated, packed and written on.
    let text = fs::read(case.path("app.log")).unwrap();
    fs::rename(case.path("app.log.2.gz"), case.path("app.log.3.gz")).unwrap();
    fs::rename(case.path("app.log.1.zst"), case.path("app.log.2.zst")).unwrap();
    fs::write(case.path("app.log.1.gz"), gzip(&[&text[..], &lines(9..=9)].concat())).unwrap();
    fs::remove_file(case.path("app.log")).unwrap();
    case.events("app.log", 10..=10);
    case.once();
    assert_eq!(case.names().await, names(1..=10));
    let events = case.arrived("u1").await;
    assert!(events[8]["data"]["file"].as_str().unwrap().ends_with("app.log.1.gz"));
}

fn names_of(numbers: std::ops::RangeInclusive<u32>) -> String {
    numbers.map(event).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_compressed_file_is_continued_later() {
    // Of a packed file whose end is missing the whole lines are sent; the rest comes once it is
    // there, and nothing twice. What is after the packed stream is ignored.
    let case = Case::of_events("app.log.gz").await;
    // Stored, not compressed, so that the first part of the file is a part of the text.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(names_of(1..=2000).as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    fs::write(case.path("app.log.gz"), &packed[..packed.len() / 2]).unwrap();
    case.once();
    let first = case.names().await;
    assert!(!first.is_empty() && first.len() < 2000);
    fs::write(case.path("app.log.gz"), [&packed[..], b"garbage"].concat()).unwrap();
    case.once();
    case.once();
    let mut arrived = case.names().await;
    arrived.sort_by_key(|name| name[1..].parse::<u32>().unwrap());
    assert_eq!(arrived, names(1..=2000));
    assert_eq!(case.letters(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_and_moved_files_continue_at_their_checkpoint() {
    // A file that was copied to another file system, restored from a backup, or edited at its end
    // in place is not read again, in the order of what was written.
    let case = Case::of_events("*/app.log").await;
    fs::create_dir(case.path("a")).unwrap();
    case.events("a/app.log", 1..=20);
    case.once();
    let backup = fs::read(case.path("a/app.log")).unwrap();
    fs::remove_file(case.path("a/app.log")).unwrap();
    case.once();
    fs::create_dir(case.path("b")).unwrap();
    fs::write(case.path("b/app.log"), &backup).unwrap();
    case.events("b/app.log", 21..=22);
    case.once();
    // As an editor writes it: a new file in the place of the old one.
    let mut edited = fs::read(case.path("b/app.log")).unwrap();
    edited.extend_from_slice(event(23).as_bytes());
    fs::write(case.path("b/new"), edited).unwrap();
    fs::rename(case.path("b/new"), case.path("b/app.log")).unwrap();
    case.once();
    // The old backup comes back next to it.
    fs::write(case.path("a/app.log"), &backup).unwrap();
    case.once();
    assert_eq!(case.names().await, names(1..=23));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_with_equal_beginnings_are_different_files() {
    // Files with the same header, and a file that begins as another one does, are read whole, also
    // where one takes the place and the inode of another.
    let sink = r#"
[[sinks.crm.mapping]]
call = "track"
[sinks.crm.mapping.fields]
user_id = ".id"
event = ".event"
"#;
    let case = Case::new("*.csv", "decoding.codec = \"csv\"", sink).await;
    let header = format!("id,event,{}\n", "x".repeat(300));
    case.append("a.csv", &format!("{header}u1,e1,\n"));
    case.append("b.csv", &format!("{header}u1,e2,\nu1,e3,\n"));
    case.append("c.csv", &header);
    case.once();
    // Written over in place, and longer than before.
    fs::write(case.path("a.csv"), format!("{header}u1,e4,\nu1,e5,\n")).unwrap();
    case.append("c.csv", "u1,e6,\n");
    case.once();
    let mut arrived = case.names().await;
    arrived.sort();
    assert_eq!(arrived, names(1..=6));
}

#[test]
fn unknown_fingerprint_is_a_config_fault() {
    // Another fingerprint than `inode` and `content` is a fault with its place.
    let place = TestDir::new();
    let config = place.pipeline("http://127.0.0.1:9/api/public/", "preset = \"segment\"");
    let text = fs::read_to_string(&config).unwrap();
    let check = |fingerprint: &str| {
        let key = format!("type = \"file\"\nfingerprint = \"{fingerprint}\"");
        fs::write(&config, text.replace("type = \"file\"", &key)).unwrap();
        let path: &Path = &config;
        usercom_sink(&["validate", "-c", path.to_str().unwrap(), "--no-environment"])
    };
    for good in ["inode", "content"] {
        let output = check(good);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let output = check("checksum");
    assert_eq!(output.status.code(), Some(78));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("fingerprint") && stderr.contains("content"), "{stderr}");
}
