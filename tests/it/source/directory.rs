//! A folder whose files are appended to, renamed, copied, cut off, packed and replaced, while what
//! reads it is stopped and killed: against the list of lines that were written.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use usercom_sink::ack::{Ack, Verdict};
use usercom_sink::source::ReadMode;

use super::{Bench, Run};

/// Generations that are kept.
const KEPT: usize = 6;

#[derive(Debug, Clone)]
enum Step {
    /// So many lines.
    Append(u8),
    /// The live file becomes the first generation; the next line begins a new one.
    Rename,
    /// The live file is copied to the first generation and cut off.
    CopyTruncate,
    /// This generation is packed.
    Compress(usize, bool),
    /// The live file is replaced by a copy of itself.
    Replace,
    /// This generation is copied to a name of its own.
    PutAside(usize),
    /// Some records arrive; of these so many are settled.
    Read(u8, u8),
    Pause(u16),
    /// Everything is settled, and the next run begins.
    Restart,
    /// It ends without a word amid its work, and the next run begins.
    Kill,
    Stop,
}

/// What happens next to a rotation.
fn daily_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u8..8).prop_map(Step::Append),
        6 => (0u8..10, 0u8..10).prop_map(|(n, settled)| Step::Read(n, settled)),
        3 => (1u16..3000).prop_map(Step::Pause),
        1 => Just(Step::Restart),
        2 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

/// A log as one program rotates it: always in the same way, not again at once, and after its reader
/// has caught up.
fn rotated_log() -> impl Strategy<Value = Vec<Step>> {
    let rotation = |rotate: Step, packs: Option<bool>| {
        let pack = packs.map(|gzip| Step::Compress(2, gzip));
        [Step::Read(60, 60), rotate]
            .into_iter()
            .chain(pack)
            .chain([Step::Pause(2500)])
            .collect::<Vec<_>>()
    };
    let day = proptest::collection::vec(daily_step(), 1..8);
    let days = proptest::collection::vec(day, 1..6);
    (any::<bool>(), proptest::option::of(any::<bool>()), days).prop_map(
        move |(renames, packs, days)| {
            let rotate = if renames { Step::Rename } else { Step::CopyTruncate };
            let with_rotation =
                |day: Vec<Step>| day.into_iter().chain(rotation(rotate.clone(), packs));
            days.into_iter().flat_map(with_rotation).collect()
        },
    )
}

/// Anything at any moment: logs that are edited, rotated in two ways at once, copies put aside.
fn any_history() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => daily_step(),
        2 => Just(Step::Rename),
        2 => Just(Step::CopyTruncate),
        2 => (1usize..KEPT, any::<bool>()).prop_map(|(n, gzip)| Step::Compress(n, gzip)),
        1 => Just(Step::Replace),
        1 => (1usize..KEPT).prop_map(Step::PutAside),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A folder, who reads it, and what arrived.
struct Model {
    bench: Bench,
    run: Option<Run>,
    written: u32,
    /// What arrived at the far end, in order.
    arrived: Vec<u32>,
    seen: BTreeSet<u32>,
    unsettled: Vec<Ack>,
    asides: usize,
}

impl Model {
    fn new() -> Self {
        let mut bench = Bench::new("app.log*");
        bench.capacity = 4;
        Self {
            bench,
            run: None,
            written: 0,
            arrived: Vec::new(),
            seen: BTreeSet::new(),
            unsettled: Vec::new(),
            asides: 0,
        }
    }

    fn live(&self) -> PathBuf {
        self.bench.path("app.log")
    }

    /// The file of a generation, packed or not.
    fn generation(&self, number: usize) -> Option<PathBuf> {
        ["", ".gz", ".zst"]
            .iter()
            .map(|ending| self.bench.path(&format!("app.log.{number}{ending}")))
            .find(|path| path.exists())
    }

    fn shift(&self) {
        for number in (1..40).rev() {
            if let Some(path) = self.generation(number) {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let to = name.replacen(&number.to_string(), &(number + 1).to_string(), 1);
                fs::rename(&path, self.bench.path(&to)).unwrap();
            }
        }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Append(lines) => {
                for _ in 0..*lines {
                    self.bench.append("app.log", format!("line {}\n", self.written));
                    self.written += 1;
                }
            }
            Step::Rename if self.live().exists() => {
                self.shift();
                fs::rename(self.live(), self.bench.path("app.log.1")).unwrap();
            }
            Step::CopyTruncate if self.live().exists() => {
                self.shift();
                fs::copy(self.live(), self.bench.path("app.log.1")).unwrap();
                fs::File::create(self.live()).unwrap();
            }
            Step::Compress(number, gzip) => self.compress(*number, *gzip),
            Step::Replace if self.live().exists() => {
                // Its name is not one that is read.
                let other = self.bench.path("other");
                fs::copy(self.live(), &other).unwrap();
                fs::rename(other, self.live()).unwrap();
            }
            Step::PutAside(number) => {
                if let Some(path) = self.generation(*number) {
                    self.asides += 1;
                    let to = self.bench.path(&format!("app.log.aside{}", self.asides));
                    fs::copy(path, to).unwrap();
                }
            }
            Step::Rename | Step::CopyTruncate | Step::Replace => {}
            Step::Read(records, settled) => {
                self.read(usize::from(*records)).await;
                self.settle(usize::from(*settled));
            }
            Step::Pause(millis) => {
                tokio::time::sleep(Duration::from_millis(u64::from(*millis))).await;
            }
            Step::Restart => {
                self.stop().await;
                self.start();
            }
            Step::Kill => {
                self.kill().await;
                self.start();
            }
            Step::Stop => self.stop().await,
        }
    }

    fn compress(&self, number: usize, gzip: bool) {
        let Some(path) = self.generation(number) else {
            return;
        };
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with("gz") || name.ends_with("zst") {
            return;
        }
        let text = fs::read(&path).unwrap();
        let packed = match gzip {
            true => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(&text).unwrap();
                encoder.finish().unwrap()
            }
            false => zstd::encode_all(&text[..], 1).unwrap(),
        };
        let ending = if gzip { "gz" } else { "zst" };
        fs::write(self.bench.path(&format!("{name}.{ending}")), packed).unwrap();
        fs::remove_file(path).unwrap();
    }

    fn start(&mut self) {
        if self.run.is_none() {
            self.run = Some(self.bench.start(ReadMode::Follow));
        }
    }

    /// Takes records as the far end does: what may have been sent before is looked up.
    async fn read(&mut self, records: usize) {
        for _ in 0..records {
            let Some(run) = &mut self.run else {
                return;
            };
            let next = tokio::time::timeout(Duration::from_millis(20), run.records.recv()).await;
            let Ok(Some(record)) = next else {
                return;
            };
            let text = super::shown(&record);
            let number: u32 = text.strip_prefix("line ").expect(&text).parse().expect(&text);
            if !record.maybe_sent || !self.seen.contains(&number) {
                self.arrived.push(number);
                self.seen.insert(number);
            }
            self.unsettled.push(record.ack);
        }
    }

    fn settle(&mut self, records: usize) {
        for _ in 0..records.min(self.unsettled.len()) {
            // The newest of those that are open first: verdicts come in any order.
            let middle = self.unsettled.len() / 2;
            self.unsettled.remove(middle).settle(Verdict::Delivered);
        }
    }

    async fn stop(&mut self) {
        let Some(run) = self.run.take() else {
            return;
        };
        self.settle(usize::MAX);
        run.stop.cancel();
        // What was sent before the stop is taken and settled.
        self.run = Some(run);
        let stop = tokio::time::Instant::now();
        while self
            .run
            .as_ref()
            .is_some_and(|run| !run.records.is_closed() || !run.records.is_empty())
        {
            assert!(stop.elapsed() < Duration::from_secs(300), "it does not stop");
            self.read(8).await;
            self.settle(usize::MAX);
        }
        if let Some(run) = self.run.take() {
            run.end().await.unwrap();
        }
    }

    /// Nothing that is in flight is told.
    async fn kill(&mut self) {
        if let Some(mut run) = self.run.take() {
            run.task.shutdown().await;
        }
        self.unsettled.clear();
    }

    /// Reads until nothing comes any more.
    async fn finish(&mut self) {
        self.start();
        let mut quiet = 0;
        while quiet < 40 && self.seen.len() < self.written as usize {
            let before = self.arrived.len();
            self.read(16).await;
            self.settle(usize::MAX);
            tokio::time::sleep(Duration::from_millis(300)).await;
            quiet = if self.arrived.len() == before { quiet + 1 } else { 0 };
        }
        // What should not come again has time to come.
        for _ in 0..20 {
            self.read(16).await;
            self.settle(usize::MAX);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        self.stop().await;
    }
}

/// What went wrong: lost, doubled, out of order.
fn faults(arrived: &[u32], written: u32) -> (usize, usize, usize) {
    let different: BTreeSet<u32> = arrived.iter().copied().collect();
    let lost = written as usize - different.len();
    let doubled = arrived.len() - different.len();
    let disordered = arrived.windows(2).filter(|pair| pair[0] > pair[1]).count();
    (lost, doubled, disordered)
}

fn run(steps: &[Step]) -> (Vec<u32>, u32) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut model = Model::new();
        model.start();
        for step in steps {
            model.take(step).await;
        }
        model.finish().await;
        (model.arrived, model.written)
    })
}

fn check(cases: u32, history: impl Strategy<Value = Vec<Step>>) {
    let config = ProptestConfig {
        cases,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in history)| {
        let (arrived, written) = run(&steps);
        prop_assert_eq!(faults(&arrived, written), (0, 0, 0), "{:?}", arrived);
    });
}

#[test]
fn every_line_of_a_log_rotated_by_one_program_arrives_once_in_order() {
    // However a program rotates and packs a log, and whenever its reader is stopped or killed,
    // every line that was written arrives, once, in the order in which it was written.
    check(40, rotated_log());
}

#[test]
fn every_line_of_a_rotated_log_arrives_once_in_order() {
    // As above, whatever is done to the files and however quickly.
    check(60, any_history());
}

#[test]
#[ignore = "takes minutes"]
fn soak_every_line_of_a_log_rotated_by_one_program_arrives_once_in_order() {
    // As the test of that name, of many more logs.
    check(400, rotated_log());
}

#[test]
#[ignore = "takes minutes"]
fn soak_every_line_of_a_rotated_log_arrives_once_in_order() {
    // As the test of that name, of many more histories.
    check(3000, any_history());
}

/// Runs a history that is written down.
fn assert_exact(steps: &[Step]) {
    let (arrived, written) = run(steps);
    assert_eq!(faults(&arrived, written), (0, 0, 0), "{arrived:?}");
}

#[test]
fn copy_truncated_while_stopped_is_continued() {
    // A log that is copied and cut off while its reader is stopped: the copy continues where the
    // log was, then the log from its beginning.
    use Step::{Append, CopyTruncate, Read, Restart, Stop};
    assert_exact(&[Append(5), Read(9, 9), Stop, Append(2), CopyTruncate, Append(3), Restart]);
}

#[test]
fn replaced_log_that_is_rotated_at_once_stays_in_order() {
    // A log that is replaced by a copy of itself amid its reading, written on and rotated within a
    // moment: what the copy got comes before the first line of the file that follows.
    use Step::{Append, Pause, Read, Rename, Replace};
    for pause in [1, 88, 300, 1500] {
        let steps =
            [Append(7), Pause(pause), Replace, Append(1), Rename, Pause(88), Append(1), Read(9, 9)];
        assert_exact(&steps);
        assert_exact(&[&steps[..5], &[Rename, Append(2), Replace, Append(1)]].concat());
    }
    let cut_off = [Append(1), Pause(90), Replace, Append(1), Step::CopyTruncate, Append(1)];
    assert_exact(&cut_off);
}

#[test]
fn killed_reader_sends_nothing_twice() {
    // What was sent before a kill and not settled is marked as perhaps sent, and nothing else.
    use Step::{Append, Kill, Read};
    assert_exact(&[Append(7), Read(5, 2), Kill, Append(4), Read(9, 0), Kill, Read(3, 1), Kill]);
}

#[test]
fn compressed_generation_is_recognised_by_its_text() {
    // A generation that is packed while its reader is stopped continues where it was.
    use Step::{Append, Compress, Read, Rename, Restart, Stop};
    for gzip in [true, false] {
        let steps = [
            Append(7),
            Read(3, 3),
            Stop,
            Rename,
            Append(2),
            Rename,
            Append(1),
            Compress(2, gzip),
            Restart,
        ];
        assert_exact(&steps);
    }
}

#[test]
fn moved_folder_is_recognised_by_content() {
    // All files of a folder copied to another one, as to another mount or host: the checkpoints go
    // on there, and nothing is read twice.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut bench = Bench::new("*.log");
        for name in ["a.log", "b.log"] {
            bench.append(name, format!("{name} 1\n{name} 2\n"));
        }
        assert_eq!(bench.once().await.len(), 4);
        let moved = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        for name in ["a.log", "b.log"] {
            fs::copy(bench.path(name), moved.path().join(name)).unwrap();
            fs::remove_file(bench.path(name)).unwrap();
        }
        bench.settings.include = vec![moved.path().join("*.log").to_str().unwrap().to_owned()];
        assert_eq!(bench.once().await, Vec::<String>::new());
        let path = moved.path().join("b.log");
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"b.log 3\n").unwrap();
        assert_eq!(bench.once().await, ["b.log 3"]);
    });
}

#[test]
fn copy_with_the_inode_of_a_removed_file_is_not_read_again() {
    // A log that was begun and not read when its reader stopped is replaced; the copy of the next
    // one may have its inode. What was read of the next one is not read again in the copy.
    use Step::{Append, CopyTruncate, Read, Replace, Restart, Stop};
    assert_exact(&[Append(1), Stop, Replace, Restart, Read(1, 0), CopyTruncate]);
    let steps = [
        Append(2),
        Restart,
        Restart,
        CopyTruncate,
        Read(1, 0),
        Replace,
        Restart,
        Step::PutAside(1),
    ];
    assert_exact(&steps);
}

#[test]
fn backlog_of_a_repeatedly_truncated_log_stays_in_order() {
    // Lines that wait in memory while their file is copied and cut off come before what is written
    // to the file later, also where that is copied and cut off before anything of it was read.
    use Step::{Append, Compress, CopyTruncate, Pause};
    let rotation = [CopyTruncate, Compress(2, true), Pause(2500)];
    let mut steps = vec![Append(5); 5];
    for _ in 0..3 {
        steps.extend_from_slice(&rotation);
        steps.push(Append(1));
    }
    assert_exact(&steps);
    assert_exact(&steps[..steps.len() - 1]);
}

#[test]
fn log_rotated_twice_between_two_polls_stays_in_order() {
    // What was written, rotated and packed while nothing looked comes after what was read before.
    use Step::{Append, Compress, CopyTruncate, Pause, Read, Rename};
    let cut = [Append(1), CopyTruncate, Append(1), Rename, Compress(1, true)];
    assert_exact(&[&[Append(1), Read(1, 0)][..], &cut].concat());
    let mut steps = vec![Append(5), Pause(2325), Append(1), CopyTruncate, Compress(4, true)];
    steps.extend([Read(5, 4), Append(4), Rename, Rename, Rename, CopyTruncate]);
    steps.extend([Compress(2, true), Read(3, 6)]);
    assert_exact(&steps);
}

#[test]
fn files_that_pass_on_their_content_stay_in_order() {
    // A file that was cut off has the place of its new name, not that of what it held before; one
    // without a name has the place of the file that holds the same.
    use Step::{Append, Compress, CopyTruncate, Pause, Read, Rename, Replace};
    let cut = [Append(1), Append(1), Read(0, 0), Pause(100), CopyTruncate, Append(1), Rename];
    assert_exact(&[&cut[..], &[Append(1), Rename]].concat());
    let mut replaced = vec![Append(5), Rename, Append(1), CopyTruncate, Pause(1499), Append(1)];
    replaced.extend([Replace, Rename, Pause(591), Compress(2, false)]);
    assert_exact(&replaced);
    let mut copied = vec![Append(1), Read(1, 0), Replace, Append(1), Pause(607), Append(1)];
    copied.push(CopyTruncate);
    assert_exact(&copied);
}

#[test]
fn old_checkpoint_of_copied_content_is_not_used() {
    // A content that went through several files continues where it was read furthest, whichever of
    // their checkpoints are left.
    use Step::{Append, Compress, CopyTruncate, Kill, Pause, Read, Rename, Replace, Restart, Stop};
    let mut steps = vec![Append(9), Read(3, 3), Replace, Pause(1645), CopyTruncate, Append(3)];
    steps.extend([Stop, Kill, Append(6), Read(3, 8), Rename, Kill, Append(1), CopyTruncate]);
    steps.extend([Pause(2001), Read(1, 9), Compress(2, false), Pause(1590), Restart]);
    steps.extend([Compress(3, false), Pause(2591), Read(1, 4)]);
    assert_exact(&steps);
}

#[test]
fn copy_with_the_identity_of_the_original_is_part_of_its_log() {
    // A copy that was put aside, and has the inode of the generation that was packed and removed,
    // comes before the newer generations of the log.
    use Step::{Append, Compress, Pause, PutAside, Read, Rename, Restart};
    let mut steps = vec![Append(9), Rename, Append(1), Rename, Read(1, 0), Restart];
    steps.extend([Compress(2, false), PutAside(2), Pause(2001), Append(1)]);
    assert_exact(&steps);
}

#[test]
fn compressed_generation_of_a_stopped_reader_is_sent_once() {
    // Days of rotation and packing, and a stop amid the last one: no line comes again.
    use Step::{Append, Compress, Kill, Pause, Read, Rename, Restart, Stop};
    for end in [vec![Stop], vec![Kill, Stop], vec![Restart, Stop], vec![Kill, Restart, Stop]] {
        let mut steps = Vec::new();
        for lines in [3, 4, 2] {
            let day = [Append(lines), Read(60, 60), Rename, Compress(2, false), Pause(2500)];
            steps.extend(day);
        }
        steps.extend([Append(7), Read(1, 7)]);
        steps.extend(end);
        steps.extend([Read(60, 60), Rename, Compress(2, false), Pause(2500)]);
        assert_exact(&steps);
    }
}

#[test]
fn copy_of_a_waiting_generation_is_not_read_before_it() {
    // A copy of a rotated file under a name that is no rotation's does not overtake the log.
    use Step::{Append, Compress, PutAside, Rename, Restart};
    let mut steps = vec![Append(1), Append(1), Rename, Append(1), Rename, Compress(2, true)];
    steps.extend([Restart, PutAside(1)]);
    assert_exact(&steps);
}

#[test]
fn replaced_log_of_a_killed_reader_is_sent_once() {
    // A log that is replaced by a copy of itself, read, killed, cut off and renamed.
    use Step::{Append, CopyTruncate, Kill, Pause, Read, Rename, Replace, Stop};
    let mut steps = vec![Append(1), Pause(237), Replace, Read(2, 0), Stop, Append(1), Kill];
    steps.extend([Read(4, 1), Stop, CopyTruncate, Rename, Append(3), CopyTruncate, Stop]);
    steps.push(Read(6, 9));
    assert_exact(&steps);
}
