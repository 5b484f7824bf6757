//! SIGKILL while the process reads a log to which everything happens that operators do with logs:
//! with both buffers nothing is lost, doubled or out of order. One line is printed for each scene.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;
use usercom_sink::emulator::Faults;

use super::{Rig, until};
use crate::support::tally::records;

const RECORDS: usize = 1600;
const USERS: usize = 40;
const KILLS: usize = 8;

/// What is done to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// A copy is put next to it, where the pattern matches it too.
    Copied,
    /// It is removed, and put back from a copy.
    Restored,
    /// It gets another name, and is written on under that.
    Renamed,
    /// It goes to another filesystem and back, and is written on there.
    Moved,
    /// It is rotated once or twice before the next run.
    RotatedWhileStopped,
    /// It is rotated at any moment, under a pattern that matches the old files.
    RotatedUnderGlob,
    /// It is copied and cut off at any moment, under a pattern that matches the copies.
    CopyTruncate,
}

impl Scene {
    fn title(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Restored => "restored from a copy",
            Self::Renamed => "renamed",
            Self::Moved => "moved to another mount",
            Self::RotatedWhileStopped => "rotated while stopped",
            Self::RotatedUnderGlob => "rotated under a glob",
            Self::CopyTruncate => "copytruncate under a glob",
        }
    }

    /// Whether it happens during a run as well.
    fn is_live(self) -> bool {
        !matches!(self, Self::Restored | Self::Moved | Self::RotatedWhileStopped)
    }
}

/// A log, the folder of its own and one on another filesystem.
struct Log {
    scene: Scene,
    home: PathBuf,
    abroad: Option<PathBuf>,
    path: PathBuf,
    times: usize,
}

impl Log {
    fn new(scene: Scene, home: &Path, abroad: Option<&Path>) -> Self {
        let path = home.join("records.ndjson");
        Self { scene, home: home.to_owned(), abroad: abroad.map(Path::to_owned), path, times: 0 }
    }

    fn append(&self, records: &[Value]) {
        let text: String = records.iter().map(|record| format!("{record}\n")).collect();
        let mut file = fs::File::options().create(true).append(true).open(&self.path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn old(&self, number: usize) -> PathBuf {
        self.home.join(format!("records.ndjson.{number}"))
    }

    /// Makes room for the newest of the old files, which is number 1.
    fn count_up(&self) {
        for number in (1..=self.times).rev() {
            fs::rename(self.old(number), self.old(number + 1)).unwrap();
        }
    }

    fn set_fault_rates(&mut self) {
        if !self.path.exists() {
            return;
        }
        match self.scene {
            Scene::Copied => {
                let copy = self.home.join(format!("records.ndjson.copy-{}", self.times));
                fs::copy(&self.path, copy).unwrap();
            }
            Scene::Restored => {
                let copy = self.home.join("backup");
                fs::copy(&self.path, &copy).unwrap();
                fs::remove_file(&self.path).unwrap();
                fs::copy(&copy, &self.path).unwrap();
                fs::remove_file(copy).unwrap();
            }
            Scene::Renamed => {
                let name = self.home.join(format!("records.ndjson.name-{}", self.times));
                fs::rename(&self.path, &name).unwrap();
                self.path = name;
            }
            Scene::Moved => {
                let away = self.abroad.as_ref().expect("this scene has another filesystem");
                let place = if self.path.starts_with(away) { &self.home } else { away };
                let place = place.join("records.ndjson");
                fs::copy(&self.path, &place).unwrap();
                fs::remove_file(&self.path).unwrap();
                self.path = place;
            }
            Scene::RotatedWhileStopped | Scene::RotatedUnderGlob => {
                self.count_up();
                fs::rename(&self.path, self.old(1)).unwrap();
            }
            Scene::CopyTruncate => {
                self.count_up();
                fs::copy(&self.path, self.old(1)).unwrap();
                fs::File::create(&self.path).unwrap();
            }
        }
        self.times += 1;
    }
}

/// A folder on another filesystem than `home`, if this machine has one that can be written.
fn abroad(home: &Path) -> Option<TempDir> {
    let here = fs::metadata(home).unwrap().dev();
    ["/dev/shm", "/tmp", env!("CARGO_TARGET_TMPDIR")].iter().find_map(|place| {
        let device = fs::metadata(place).ok()?.dev();
        (device != here).then(|| TempDir::new_in(place).ok()).flatten()
    })
}

/// What became of a scene's records.
#[derive(Debug)]
struct Outcome {
    line: String,
    exact: bool,
}

/// Writes, strikes, kills and runs again, and at last lets it run to the end; `None` where the
/// machine has no second filesystem.
async fn play(scene: Scene, buffer: &str) -> Option<Outcome> {
    let sink = format!(
        r#"preset = "segment"
[sinks.crm.request]
concurrency = 8
[sinks.crm.buffer]
type = "{buffer}"
[sinks.crm.delivery]
fold = false
max_in_flight = 64
"#
    );
    let faults = Faults { latency_ms: 10, ..Faults::default() };
    let rig = Rig::new(records(RECORDS, USERS), faults, &sink).await;
    let home = rig.place.path().to_owned();
    fs::remove_file(home.join("records.ndjson")).unwrap();
    let abroad = if scene == Scene::Moved { Some(abroad(&home)?) } else { None };
    let mut include = vec![home.join("records.ndjson*")];
    include.extend(abroad.iter().map(|place| place.path().join("records.ndjson*")));
    let config = fs::read_to_string(&rig.config).unwrap();
    let old = format!("[\"{}/records*.ndjson\"]", home.display());
    assert!(config.contains(&old), "{config}");
    fs::write(&rig.config, config.replace(&old, &format!("{include:?}"))).unwrap();

    let mut log = Log::new(scene, &home, abroad.as_ref().map(TempDir::path));
    let mut dice = StdRng::seed_from_u64(29);
    let mut pieces = rig.records.chunks(RECORDS.div_ceil(4 * (KILLS + 1)));
    for _ in 0..KILLS {
        let mut running = rig.start(&[]);
        for piece in pieces.by_ref().take(3) {
            log.append(piece);
            let goal = rig.chaos.asked() + piece.len() as u64 / 3;
            until("requests", Duration::from_secs(60), || rig.chaos.asked() >= goal).await;
            if scene.is_live() && dice.random_bool(0.4) {
                log.set_fault_rates();
            }
        }
        tokio::time::sleep(Duration::from_micros(dice.random_range(0..30_000))).await;
        running.kill();
        // Some is written while no reader runs, before what happens or after it.
        let piece = pieces.next().unwrap_or_default();
        let (before, after) = piece.split_at(dice.random_range(0..=piece.len()));
        log.append(before);
        log.set_fault_rates();
        log.append(after);
        if scene == Scene::RotatedWhileStopped && dice.random_bool(0.4) {
            log.set_fault_rates();
        }
    }
    pieces.for_each(|rest| log.append(rest));
    let look_ups = rig.account.look_ups().await;
    rig.finish(Duration::from_secs(180)).await;
    let look_ups = rig.account.look_ups().await - look_ups;
    let tally = rig.tally().await;
    let user = |number: &usize| rig.records[*number]["userId"].to_string();
    let disordered: BTreeSet<String> = tally.disordered.iter().map(user).collect();
    let lost = tally.lost.len() as u64 + tally.views_lost;
    let line = format!(
        "{}, {buffer} buffer, {KILLS} kills, {} times: {RECORDS} records, lost {lost}, doubled {}, \
         users out of order {}, stale profiles {}, dead letters {}; {look_ups} look-ups in the last \
         run",
        scene.title(),
        log.times,
        tally.doubled,
        disordered.len(),
        tally.stale.len(),
        tally.dead,
    );
    let failure_history = [lost, tally.doubled, disordered.len() as u64, tally.stale.len() as u64];
    let exact = failure_history == [0; 4] && tally.dead == 0;
    if !exact {
        println!("lost {:?}, out of order {:?}", tally.lost, tally.disordered);
        println!("{}", rig.stderr());
    }
    rig.account.close().await;
    Some(Outcome { line, exact })
}

/// Plays a scene with both buffers: each record arrives once, in each user's order.
async fn soak(scene: Scene) {
    for buffer in ["memory", "disk"] {
        let Some(outcome) = play(scene, buffer).await else {
            println!("{}: not shown, there is no second filesystem", scene.title());
            return;
        };
        println!("{}", outcome.line);
        assert!(outcome.exact, "{}", outcome.line);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute"]
async fn soak_a_copied_log() {
    // A copy next to a log is not read as well.
    soak(Scene::Copied).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute"]
async fn soak_a_restored_log() {
    // A log that was put back from a copy continues where it was.
    soak(Scene::Restored).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute"]
async fn soak_a_renamed_log() {
    // A log continues where it was under every name.
    soak(Scene::Renamed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute"]
async fn soak_a_moved_log() {
    // A log that goes to another filesystem and back continues where it was.
    soak(Scene::Moved).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute"]
async fn soak_a_log_rotated_while_stopped() {
    // What was written before and after an unseen rotation is read in order.
    soak(Scene::RotatedWhileStopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute"]
async fn soak_a_log_rotated_under_a_glob() {
    // Old files that the pattern matches are read to their end before the new one, and once.
    soak(Scene::RotatedUnderGlob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute"]
async fn soak_a_log_cut_off_under_a_glob() {
    // Copies that the pattern matches are read on where the log was cut off, and once.
    soak(Scene::CopyTruncate).await;
}
