//! A small disk that our own buffer fills.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use usercom_sink::emulator::Faults;

use crate::support::{EmulatorAccount, KEY, TestDir, binary};

/// A file system of its own; it goes when dropped.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// `None` where this user may not mount one.
    fn mount(at: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs", at.to_str().unwrap()])
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self { path: at.to_owned() })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.path).status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_buffer_is_emptied_by_delivery() {
    // A backlog larger than the disk of the buffer: intake waits and says why and what to do,
    // delivery continues and makes room, every record arrives once, and the run ends with 0.
    let place = TestDir::new();
    let Some(disk) = SmallDisk::mount(&place.path().join("small"), 20) else {
        println!("SKIPPED: this user may not mount a file system");
        return;
    };
    let account = EmulatorAccount::open(Faults { latency_ms: 60, ..Faults::default() }).await;
    let count = 1200;
    let filler = "x".repeat(20_000);
    let lines: String = (0..count)
        .map(|n| {
            let record = json!({
                "messageId": format!("m-{n}"), "type": "track", "userId": format!("u{}", n % 20),
                "event": "E", "timestamp": "2026-08-20T08:00:00Z", "properties": { "n": n },
                "unused": filler,
            });
            format!("{record}\n")
        })
        .collect();
    place.write("records.ndjson", &lines);
    let config = format!(
        r#"
data_dir = "{}"
[sources.app]
type = "file"
include = ["{}/records.ndjson"]
[sinks.crm]
type = "usercom"
inputs = ["app"]
endpoint = "{}"
api_key = "{KEY}"
preset = "segment"
[sinks.crm.buffer]
type = "disk"
"#,
        disk.path.join("data").display(),
        place.path().display(),
        account.endpoint(),
    );
    let config = place.write("pipeline.toml", &config);
    let run = binary().args(["run", "-c", config.to_str().unwrap(), "--once"]).output();
    let output =
        tokio::time::timeout(Duration::from_secs(120), async { run }).await.unwrap().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    for word in ["no room left", "until delivery has made room", "buffer.max_size"] {
        assert!(stderr.contains(word), "`{word}` is not in {stderr}");
    }
    let mut arrived = Vec::new();
    for user in account.all("users/").await {
        let events = account.all(&format!("users/{}/events/", user["id"])).await;
        arrived.extend(events.iter().map(|e| e["data"]["n"].as_str().unwrap().to_owned()));
    }
    assert_eq!(arrived.len(), count);
    arrived.sort();
    arrived.dedup();
    assert_eq!(arrived.len(), count);
    account.close().await;
}
