//! SIGKILL while the process reads a file that is rotated meanwhile: nothing is lost, doubled or
//! out of order.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use usercom_sink::emulator::Faults;

use super::{Rig, until};
use crate::support::tally::{Tally, records};

/// What is done to the log while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rotation {
    None,
    Rename,
    /// Copied and cut off, under a pattern that matches the copy.
    CopyTruncate,
}

struct Plan {
    records: usize,
    users: usize,
    kills: u64,
    buffer: &'static str,
    rotation: Rotation,
}

/// A log that is written and rotated.
struct Log {
    dir: PathBuf,
    rotation: Rotation,
    rotated: usize,
}

impl Log {
    fn path(&self, number: usize) -> PathBuf {
        match number {
            0 => self.dir.join("records.ndjson"),
            number => self.dir.join(format!("records.ndjson.{number}")),
        }
    }

    fn append(&self, records: &[Value]) {
        let text: String = records.iter().map(|record| format!("{record}\n")).collect();
        let mut file = fs::File::options().create(true).append(true).open(self.path(0)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rotate(&mut self) {
        if self.rotation == Rotation::None || !self.path(0).exists() {
            return;
        }
        for number in (1..=self.rotated).rev() {
            fs::rename(self.path(number), self.path(number + 1)).unwrap();
        }
        match self.rotation {
            Rotation::CopyTruncate => {
                fs::copy(self.path(0), self.path(1)).unwrap();
                fs::File::create(self.path(0)).unwrap();
            }
            _ => fs::rename(self.path(0), self.path(1)).unwrap(),
        }
        self.rotated += 1;
    }
}

/// Writes, rotates, runs, kills, runs again, and at last lets it run to the end.
async fn killed(plan: &Plan) -> Tally {
    let sink = format!(
        r#"preset = "segment"
[sinks.crm.request]
concurrency = 8
[sinks.crm.buffer]
type = "{}"
[sinks.crm.delivery]
fold = false
max_in_flight = 64
"#,
        plan.buffer
    );
    let faults = Faults { latency_ms: 10, ..Faults::default() };
    let rig = Rig::new(records(plan.records, plan.users), faults, &sink).await;
    let dir = rig.place.path().to_owned();
    let config = fs::read_to_string(&rig.config).unwrap();
    fs::write(&rig.config, config.replace("records*.ndjson", "records.ndjson*")).unwrap();
    fs::remove_file(dir.join("records.ndjson")).unwrap();
    let mut log = Log { dir, rotation: plan.rotation, rotated: 0 };
    let mut dice = StdRng::seed_from_u64(23);
    let parts = usize::try_from(plan.kills).unwrap() + 1;
    let mut chunks = rig.records.chunks(plan.records.div_ceil(parts));
    for _ in 0..plan.kills {
        let mut running = rig.start(&[]);
        let part = chunks.next().unwrap_or_default();
        for some in part.chunks(part.len().div_ceil(3).max(1)) {
            log.append(some);
            let goal = rig.chaos.asked() + some.len() as u64 / 3;
            until("requests", Duration::from_secs(60), || rig.chaos.asked() >= goal).await;
            if dice.random_bool(0.5) {
                log.rotate();
            }
        }
        tokio::time::sleep(Duration::from_micros(dice.random_range(0..30_000))).await;
        running.kill();
        if dice.random_bool(0.4) {
            log.rotate();
        }
    }
    chunks.for_each(|rest| log.append(rest));
    rig.finish(Duration::from_secs(180)).await;
    let tally = rig.tally().await;
    println!(
        "{} buffer, {:?}, {} kills, {} files: {tally}; {} requests",
        plan.buffer,
        plan.rotation,
        plan.kills,
        log.rotated + 1,
        rig.chaos.asked(),
    );
    assert_eq!(tally.dead, 0, "{:?}", rig.letters());
    rig.account.close().await;
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_of_file_source_with_memory_buffer_duplicates_nothing() {
    // Killed repeatedly while it reads a file, with the default buffer: every record arrives, once,
    // in each user's order.
    let (buffer, rotation) = ("memory", Rotation::None);
    let plan = Plan { records: 600, users: 20, kills: 5, buffer, rotation };
    killed(&plan).await.assert_exact();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_during_rotations_loses_and_duplicates_nothing() {
    // As above, while the log is renamed, or copied and cut off.
    for rotation in [Rotation::Rename, Rotation::CopyTruncate] {
        let plan = Plan { records: 400, users: 20, kills: 3, buffer: "memory", rotation };
        killed(&plan).await.assert_exact();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_during_rotations_with_disk_buffer_loses_and_duplicates_nothing() {
    // As above, with records that wait on disk.
    for rotation in [Rotation::Rename, Rotation::CopyTruncate] {
        let plan = Plan { records: 400, users: 20, kills: 3, buffer: "disk", rotation };
        killed(&plan).await.assert_exact();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn soak_kill_amid_rotations() {
    // As above, at full size, with both buffers.
    for buffer in ["memory", "disk"] {
        for rotation in [Rotation::None, Rotation::Rename, Rotation::CopyTruncate] {
            let plan = Plan { records: 4000, users: 40, kills: 20, buffer, rotation };
            killed(&plan).await.assert_exact();
        }
    }
}
