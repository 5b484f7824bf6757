//! Sources: what is read, in which order, and what a restart reads again.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use usercom_sink::ack::Verdict;
use usercom_sink::config::source::{
    Codec, Decoding, FileSource as FileSettings, ReadFrom, SourceConfig,
    StdinSource as StdinSettings,
};
use usercom_sink::record::Record;
use usercom_sink::source::file::FileSource;
use usercom_sink::source::stdin::StdinSource;
use usercom_sink::source::{Checkpoints, ReadMode, SharedCheckpoints, Source, SourceError, build};

/// Long enough for a machine that does much else; nothing waits for it in vain.
const PATIENCE: Duration = Duration::from_secs(60);

/// Checkpoints that live as long as the test.
#[derive(Default)]
struct Memory {
    rows: Mutex<BTreeMap<String, String>>,
}

#[async_trait]
impl Checkpoints for Memory {
    async fn load(&self, _: &str) -> Result<Vec<(String, String)>, SourceError> {
        let rows = self.rows.lock().unwrap();
        Ok(rows.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    async fn save(&self, _: &str, rows: Vec<(String, Option<String>)>) -> Result<(), SourceError> {
        let mut saved = self.rows.lock().unwrap();
        for (key, value) in rows {
            match value {
                Some(value) => saved.insert(key, value),
                None => saved.remove(&key),
            };
        }
        Ok(())
    }
}

impl Memory {
    /// The saved rows of files; the row without a colon is the generation's.
    fn files(&self) -> Vec<String> {
        let rows = self.rows.lock().unwrap();
        rows.keys().filter(|k| k.contains(':')).cloned().collect()
    }

    fn position(&self, key: &str) -> u64 {
        let rows = self.rows.lock().unwrap();
        let row: serde_json::Value = serde_json::from_str(&rows[key]).unwrap();
        row["position"].as_u64().unwrap()
    }
}

/// A folder with files, and what is remembered of them from one run to the next.
struct Bench {
    dir: TempDir,
    memory: Arc<Memory>,
    settings: FileSettings,
    capacity: usize,
}

impl Bench {
    fn new(include: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let settings = FileSettings {
            include: vec![dir.path().join(include).to_str().unwrap().to_owned()],
            exclude: Vec::new(),
            read_from: ReadFrom::Beginning,
            decoding: Decoding { codec: Codec::Text, ..Decoding::default() },
            max_line_bytes: 1 << 20,
        };
        Self { dir, memory: Arc::default(), settings, capacity: 16 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    fn checkpoints(&self) -> SharedCheckpoints {
        Arc::clone(&self.memory) as SharedCheckpoints
    }

    fn start(&self, mode: ReadMode) -> Run {
        let checkpoints = self.checkpoints();
        let source = FileSource::new("app", self.settings.clone(), mode, checkpoints).unwrap();
        Run::start(Box::new(source), self.capacity)
    }

    /// Reads once, settles everything, and returns what was read.
    async fn once(&self) -> Vec<String> {
        self.start(ReadMode::Once).all().await
    }
}

/// A source that runs.
struct Run {
    records: mpsc::Receiver<Record>,
    stop: CancellationToken,
    task: JoinSet<Result<(), SourceError>>,
}

impl Run {
    fn start(source: Box<dyn Source>, capacity: usize) -> Self {
        let (out, records) = mpsc::channel(capacity);
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(source.run(out, stop.clone()));
        Self { records, stop, task }
    }

    async fn next(&mut self) -> Option<Record> {
        let next = tokio::time::timeout(PATIENCE, self.records.recv());
        next.await.expect("a record, or the end")
    }

    async fn record(&mut self) -> Record {
        self.next().await.expect("a record before the end")
    }

    /// The next records, settled.
    async fn take(&mut self, count: usize) -> Vec<String> {
        let mut got = Vec::new();
        for _ in 0..count {
            let record = self.record().await;
            got.push(shown(&record));
            record.ack.settle(Verdict::Delivered);
        }
        got
    }

    /// Takes and settles what comes until the source is done.
    async fn all(mut self) -> Vec<String> {
        let mut got = Vec::new();
        while let Some(record) = self.next().await {
            got.push(shown(&record));
            record.ack.settle(Verdict::Delivered);
        }
        self.end().await.unwrap();
        got
    }

    /// Waits for the source; whatever it still sent is dropped.
    async fn end(mut self) -> Result<(), SourceError> {
        drop(self.records);
        let ended = tokio::time::timeout(PATIENCE, self.task.join_next());
        ended.await.expect("the source ends").unwrap().unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.end().await.unwrap();
    }
}

/// The text of a message, or the fault.
fn shown(record: &Record) -> String {
    if let Some(fault) = &record.fault {
        return format!("fault: {fault}");
    }
    let value: serde_json::Value = serde_json::from_slice(&record.body).unwrap();
    match value.get("message").and_then(|m| m.as_str()) {
        Some(message) => message.to_owned(),
        None => value.to_string(),
    }
}

fn place(record: &Record) -> String {
    let origin = record.origin.as_ref().unwrap();
    let name = Path::new(&*origin.place).file_name().unwrap();
    name.to_str().unwrap().to_owned()
}

/// Waits until something holds that nobody tells us.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = tokio::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn once_reads_all_files_in_order_of_their_paths() {
    // Once: every line of every file, by path, with positions and places; then nothing again.
    let bench = Bench::new("*.log");
    bench.append("b.log", "b1\r\nb2");
    bench.append("a.log", "a1\n\na3\n");
    bench.append("c.txt", "no\n");
    let mut run = bench.start(ReadMode::Once);
    let mut got = Vec::new();
    while let Some(record) = run.next().await {
        let origin = record.origin.clone().unwrap();
        assert!(origin.key.starts_with("app:"), "{origin:?}");
        got.push((shown(&record), place(&record), origin.position));
        record.ack.settle(Verdict::Rejected);
    }
    run.end().await.unwrap();
    let expected = [
        ("a1", "a.log:1", 3),
        ("", "a.log:2", 4),
        ("a3", "a.log:3", 7),
        ("b1", "b.log:1", 4),
        ("b2", "b.log:2", 6),
    ];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(text, place, position)| (text.to_owned(), place.to_owned(), position))
        .collect();
    assert_eq!(got, expected);
    assert_eq!(bench.once().await, Vec::<String>::new());
    bench.append("a.log", "a4\n");
    assert_eq!(bench.once().await, ["a4"]);
}

#[tokio::test]
async fn a_pattern_without_files_ends_at_once() {
    // Once, with nothing to read: no records and no error.
    let bench = Bench::new("none-*.log");
    assert_eq!(bench.once().await, Vec::<String>::new());
}

#[tokio::test]
async fn excluded_files_are_left_out() {
    // `exclude` by name and by path; what is left is read, a folder that matches is not.
    let mut bench = Bench::new("**/*");
    fs::create_dir(bench.path("sub")).unwrap();
    for name in ["a.log", "a.log.gz", "sub/b.log", "sub/c.log", "sub/c.log.gz"] {
        bench.append(name, format!("{name}\n"));
    }
    let by_path = bench.path("sub/b*").to_str().unwrap().to_owned();
    bench.settings.exclude = vec!["*.gz".into(), by_path];
    assert_eq!(bench.once().await, ["a.log", "sub/c.log"]);
}

#[tokio::test]
async fn a_file_with_two_names_is_read_once() {
    // A hard link, a symbolic link and two patterns that lead to one file: its lines come once.
    let mut bench = Bench::new("*.log");
    bench.append("b.log", "1\n");
    fs::hard_link(bench.path("b.log"), bench.path("c.log")).unwrap();
    std::os::unix::fs::symlink(bench.path("b.log"), bench.path("a.log")).unwrap();
    let again = bench.settings.include[0].clone();
    bench.settings.include.push(again);
    assert_eq!(bench.once().await, ["1"]);
}

#[tokio::test]
async fn many_files_are_all_read() {
    // More files than are opened at a time: each line of each is read, and each file has its row.
    let bench = Bench::new("*.log");
    for n in 0..150 {
        bench.append(&format!("{n:03}.log"), format!("{n}-1\n{n}-2\n"));
    }
    let expected: Vec<_> = (0..150).flat_map(|n| [format!("{n}-1"), format!("{n}-2")]).collect();
    assert_eq!(bench.once().await, expected);
    assert_eq!(bench.memory.files().len(), 150);
}

#[tokio::test]
async fn growth_is_followed() {
    // Following: lines come as they are finished, partial ones wait, new files are found.
    let bench = Bench::new("*.log");
    bench.append("a.log", "one\ntw");
    let mut run = bench.start(ReadMode::Follow);
    assert_eq!(run.take(1).await, ["one"]);
    bench.append("a.log", "o\nthree\n");
    assert_eq!(run.take(2).await, ["two", "three"]);
    bench.append("b.log", "new\n");
    assert_eq!(run.take(1).await, ["new"]);
    bench.append("a.log", "four\n");
    assert_eq!(run.take(1).await, ["four"]);
    run.stop().await;
    assert_eq!(bench.once().await, Vec::<String>::new());
}

#[tokio::test]
async fn read_from_end_skips_what_was_there() {
    // With `read_from = "end"` a file present at start is read behind its last newline, a line
    // begun there is read whole, and files that appear later are read from their beginning.
    let mut bench = Bench::new("*.log");
    bench.settings.read_from = ReadFrom::End;
    bench.append("a.log", "old\nbeg");
    let mut run = bench.start(ReadMode::Follow);
    eventually("the file is enrolled", || bench.memory.files().len() == 1).await;
    bench.append("a.log", "un\n");
    let record = run.record().await;
    assert_eq!((shown(&record), place(&record)), ("begun".into(), "a.log@4".into()));
    record.ack.settle(Verdict::Delivered);
    bench.append("b.log", "whole\n");
    assert_eq!(run.take(1).await, ["whole"]);
    run.stop().await;
    // A restart goes on at the checkpoint, not at the end.
    bench.append("a.log", "missed\n");
    assert_eq!(bench.once().await, ["missed"]);
}

#[tokio::test]
async fn renamed_files_are_finished_and_not_read_twice() {
    // Rotation by rename: the old file is finished under its new name, which matches too, and the
    // new file is read; no line twice, none missing, also across a restart.
    let bench = Bench::new("app.log*");
    bench.append("app.log", "one\n");
    let mut run = bench.start(ReadMode::Follow);
    assert_eq!(run.take(1).await, ["one"]);
    fs::rename(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    bench.append("app.log.1", "two\n");
    assert_eq!(run.take(1).await, ["two"]);
    bench.append("app.log", "three\n");
    assert_eq!(run.take(1).await, ["three"]);
    run.stop().await;
    fs::rename(bench.path("app.log.1"), bench.path("app.log.2")).unwrap();
    fs::rename(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    bench.append("app.log.1", "four\n");
    bench.append("app.log", "five\n");
    assert_eq!(bench.once().await, ["five", "four"]);
}

#[tokio::test]
async fn a_file_renamed_out_of_the_patterns_is_finished() {
    // What is written to a file after its name left the patterns is still read.
    let bench = Bench::new("app.log");
    bench.append("app.log", "one\n");
    let mut run = bench.start(ReadMode::Follow);
    assert_eq!(run.take(1).await, ["one"]);
    fs::rename(bench.path("app.log"), bench.path("old")).unwrap();
    bench.append("app.log", "three\n");
    assert_eq!(run.take(1).await, ["three"]);
    bench.append("old", "two\n");
    assert_eq!(run.take(1).await, ["two"]);
    run.stop().await;
}

#[tokio::test]
async fn a_cut_off_file_begins_a_new_generation() {
    // Rotation by copy and truncate: the file is read anew from its first line, under another key.
    let bench = Bench::new("a.log");
    bench.append("a.log", "one\ntwo\nthree\n");
    let mut run = bench.start(ReadMode::Follow);
    let first = run.record().await;
    let old_key = first.origin.clone().unwrap().key;
    first.ack.settle(Verdict::Delivered);
    run.take(2).await;
    File::create(bench.path("a.log")).unwrap();
    bench.append("a.log", "four\n");
    let record = run.record().await;
    let origin = record.origin.clone().unwrap();
    assert_eq!((shown(&record), place(&record)), ("four".into(), "a.log:1".into()));
    assert_ne!(origin.key, old_key);
    record.ack.settle(Verdict::Delivered);
    run.stop().await;
    assert_eq!(bench.once().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_file_written_anew_and_longer_is_noticed() {
    // A file that was overwritten with more than there was before is known by its beginning.
    let bench = Bench::new("a.log");
    bench.append("a.log", "one\n");
    let mut run = bench.start(ReadMode::Follow);
    assert_eq!(run.take(1).await, ["one"]);
    fs::write(bench.path("a.log"), "anew\nand\nlonger\n").unwrap();
    // Between the cut and the write the source may see an empty file; the lines are the same.
    assert_eq!(run.take(3).await, ["anew", "and", "longer"]);
    run.stop().await;
}

#[tokio::test]
async fn a_reused_inode_is_another_file() {
    // Between two runs the file with that inode was replaced by another, longer than the
    // checkpoint: it is read from its beginning, under a key that was never used before.
    let bench = Bench::new("a.log");
    bench.append("a.log", "old 1\nold 2\n");
    let mut run = bench.start(ReadMode::Once);
    let record = run.record().await;
    let old_key = record.origin.clone().unwrap().key;
    record.ack.settle(Verdict::Delivered);
    assert_eq!(run.all().await, ["old 2"]);
    // Writing in place keeps the inode, as an unlucky reuse would.
    fs::write(bench.path("a.log"), "new 1\nnew 2\nnew 3\n").unwrap();
    let mut run = bench.start(ReadMode::Once);
    let record = run.record().await;
    assert_eq!(shown(&record), "new 1");
    assert_ne!(record.origin.clone().unwrap().key, old_key);
    record.ack.settle(Verdict::Delivered);
    assert_eq!(run.all().await, ["new 2", "new 3"]);
}

#[tokio::test]
async fn deleted_files_are_finished_and_forgotten() {
    // What is written to a file after its deletion is read, with a last line that has no newline,
    // and once that is settled the checkpoint is dropped.
    let bench = Bench::new("*.log");
    let mut file = File::create(bench.path("a.log")).unwrap();
    file.write_all(b"one\n").unwrap();
    let mut run = bench.start(ReadMode::Follow);
    assert_eq!(run.take(1).await, ["one"]);
    fs::remove_file(bench.path("a.log")).unwrap();
    file.write_all(b"two\nrest").unwrap();
    assert_eq!(run.take(1).await, ["two"]);
    let rest = run.record().await;
    assert_eq!(shown(&rest), "rest");
    assert_eq!(bench.memory.files().len(), 1);
    rest.ack.settle(Verdict::Delivered);
    eventually("the row is dropped", || bench.memory.files().is_empty()).await;
    run.stop().await;
}

#[tokio::test]
async fn what_was_not_settled_is_read_again() {
    // Verdicts in any order: a restart begins at the first record without one, with the line
    // numbers and the key of before, so that a buffer knows what it has.
    let bench = Bench::new("a.log");
    bench.append("a.log", "1\n2\n3\n4\n5\n");
    let mut run = bench.start(ReadMode::Follow);
    let mut records = Vec::new();
    for _ in 0..5 {
        records.push(run.record().await);
    }
    let old_key = records[0].origin.clone().unwrap().key;
    for n in [4, 3, 0, 1] {
        records.remove(n.min(records.len() - 1)).ack.settle(Verdict::Delivered);
    }
    // 5, 4, 1 and 3 are delivered; 2 is dropped without a verdict.
    assert_eq!(shown(&records[0]), "2");
    drop(records);
    run.stop().await;
    let mut run = bench.start(ReadMode::Once);
    let record = run.record().await;
    assert_eq!((shown(&record), place(&record)), ("2".into(), "a.log:2".into()));
    assert_eq!(record.origin.clone().unwrap().key, old_key);
    record.ack.settle(Verdict::Delivered);
    assert_eq!(run.all().await, ["3", "4", "5"]);
}

#[tokio::test]
async fn an_errored_record_holds_the_checkpoint() {
    // Nothing passes an errored record, however much is delivered behind it while it runs; what
    // is rejected does pass.
    let bench = Bench::new("a.log");
    bench.append("a.log", "1\n2\n3\n");
    let mut run = bench.start(ReadMode::Follow);
    run.record().await.ack.settle(Verdict::Rejected);
    run.record().await.ack.settle(Verdict::Errored);
    run.record().await.ack.settle(Verdict::Delivered);
    bench.append("a.log", "4\n");
    assert_eq!(run.take(1).await, ["4"]);
    let key = bench.memory.files().remove(0);
    eventually("a checkpoint is saved while it runs", || bench.memory.position(&key) == 2).await;
    run.stop().await;
    assert_eq!(bench.memory.position(&key), 2);
    assert_eq!(bench.once().await, ["2", "3", "4"]);
}

#[tokio::test]
async fn a_kill_without_a_word_keeps_the_key() {
    // A process that dies before any checkpoint of a position reads the file again under the key
    // of before, so that a buffer can tell what it stored.
    let bench = Bench::new("a.log");
    bench.append("a.log", "1\n");
    let mut run = bench.start(ReadMode::Follow);
    let before = run.record().await;
    run.task.shutdown().await;
    let mut run = bench.start(ReadMode::Once);
    let after = run.record().await;
    assert_eq!(before.origin, after.origin);
    after.ack.settle(Verdict::Delivered);
    run.all().await;
}

#[tokio::test]
async fn csv_columns_survive_a_restart() {
    // A restart amid a CSV file still knows its columns, and each file has its own.
    let mut bench = Bench::new("*.csv");
    bench.settings.decoding.codec = Codec::Csv;
    bench.append("a.csv", "id,name\n1,Ann\n");
    bench.append("b.csv", "key\nk1\n\"open\n");
    assert_eq!(
        bench.once().await,
        [
            r#"{"id":"1","name":"Ann"}"#,
            r#"{"key":"k1"}"#,
            "fault: a quoted value is not closed on its line"
        ]
    );
    bench.append("a.csv", "2,Bob\n3\n");
    assert_eq!(
        bench.once().await,
        [r#"{"id":"2","name":"Bob"}"#, "fault: the line has 1 values, there are 2 columns"]
    );
}

#[tokio::test]
async fn undecodable_lines_are_faults_in_their_place() {
    // Bad JSON, bad UTF-8 and too long lines are records with a fault, the raw bytes and a place;
    // white lines are nothing, and the lines around are read.
    let mut bench = Bench::new("a.log");
    bench.settings.decoding.codec = Codec::Json;
    bench.settings.max_line_bytes = 10;
    bench.append("a.log", b"{\"a\":1}\n\n{oops\n\"\xff\"\n");
    bench.append("a.log", format!("\"{}\"\n2\r\n", "x".repeat(600_000)));
    let mut run = bench.start(ReadMode::Once);
    let mut got = Vec::new();
    while let Some(record) = run.next().await {
        got.push((record.fault.clone(), record.body.clone(), place(&record)));
        record.ack.settle(Verdict::Rejected);
    }
    run.end().await.unwrap();
    let bodies: Vec<&[u8]> = got.iter().map(|(_, body, _)| &body[..]).collect();
    assert_eq!(bodies, [&b"{\"a\":1}"[..], b"{oops", b"\"\xff\"", b"\"xxxxxxxxx", b"2"]);
    let places: Vec<&str> = got.iter().map(|(_, _, place)| place.as_str()).collect();
    assert_eq!(places, ["a.log:1", "a.log:3", "a.log:4", "a.log:5", "a.log:6"]);
    let faults: Vec<_> = got.iter().map(|(fault, _, _)| fault.as_deref()).collect();
    assert_eq!((faults[0], faults[4]), (None, None));
    assert!(faults[1].unwrap().starts_with("not valid JSON at column 2"));
    assert_eq!(faults[2], Some("not valid UTF-8 at column 2"));
    assert_eq!(faults[3], Some("the line is 600002 bytes long, `max_line_bytes` is 10"));
}

#[tokio::test]
async fn a_full_channel_does_not_hold_up_a_stop() {
    // Stopped while the channel is full, the source sends nothing more, closes the channel and
    // ends as soon as what it sent is settled; the next run reads the rest.
    let mut bench = Bench::new("a.log");
    bench.capacity = 2;
    let lines: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    bench.append("a.log", lines.join("\n") + "\n");
    for mode in [ReadMode::Follow, ReadMode::Once] {
        let run = bench.start(mode);
        eventually("the channel is full", || run.records.len() == 2).await;
        run.stop.cancel();
        let got = run.all().await;
        assert_eq!(got.len(), 2, "{mode:?}");
    }
    assert_eq!(bench.once().await, lines[4..]);
}

#[tokio::test]
async fn checkpoints_are_saved_while_the_channel_is_full() {
    // What is settled is saved while the source waits for room, in either mode; and while one
    // file waits, records of another still come.
    for mode in [ReadMode::Once, ReadMode::Follow] {
        let mut bench = Bench::new("*.log");
        bench.capacity = 1;
        bench.append("a.log", "1\n2\n3\n4\n");
        let mut run = bench.start(mode);
        assert_eq!(run.take(2).await, ["1", "2"]);
        let key = bench.memory.files().remove(0);
        eventually("the checkpoint is saved", || bench.memory.position(&key) == 4).await;
        bench.append("b.log", "b\n");
        let mut got = run.take(2).await;
        if mode == ReadMode::Follow {
            got.extend(run.take(1).await);
            got.sort();
            assert_eq!(got, ["3", "4", "b"]);
        }
        run.stop().await;
    }
}

#[tokio::test]
async fn reading_once_ends_with_the_line_that_was_there() {
    // Once, a file that grows while it is read is read to the end it had, but no line is cut.
    let mut bench = Bench::new("a.log");
    bench.capacity = 1;
    bench.append("a.log", "1\n2\n3\npart");
    let mut run = bench.start(ReadMode::Once);
    assert_eq!(run.take(1).await, ["1"]);
    bench.append("a.log", "ly\nlater\n");
    let rest = run.all().await;
    // The block may have been read before the line was finished; then its end is the next run's.
    let whole = ["2", "3", "partly"].map(str::to_owned);
    let cut = ["2", "3", "part"].map(str::to_owned);
    assert!(rest == whole || rest == cut, "{rest:?}");
    let last = bench.once().await;
    assert_eq!(last.last().map(String::as_str), Some("later"));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_left_is_let_go_and_known_when_it_returns() {
    // A file that no pattern finds for long is closed, its checkpoint kept: what was written
    // meanwhile is read when it returns, and nothing twice.
    let bench = Bench::new("a.log");
    bench.append("a.log", "1\n");
    let mut run = bench.start(ReadMode::Follow);
    assert_eq!(run.take(1).await, ["1"]);
    fs::rename(bench.path("a.log"), bench.path("away")).unwrap();
    let left = || {
        let rows = bench.memory.rows.lock().unwrap();
        rows.values().any(|row| row.contains("\"left\""))
    };
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        if left() {
            break;
        }
    }
    assert!(left(), "the file is closed");
    bench.append("away", "2\n");
    fs::rename(bench.path("away"), bench.path("a.log")).unwrap();
    let mut got = None;
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        got = run.records.try_recv().ok();
        if got.is_some() {
            break;
        }
    }
    let record = got.unwrap();
    assert_eq!((shown(&record), place(&record)), ("2".into(), "a.log:2".into()));
    record.ack.settle(Verdict::Delivered);
    assert!(!left());
    run.stop().await;
}

#[tokio::test]
async fn a_lost_receiver_ends_the_source() {
    // Where nobody takes records any more, the source ends by itself, without an error.
    let bench = Bench::new("a.log");
    bench.append("a.log", "1\n2\n");
    let mut run = bench.start(ReadMode::Follow);
    run.take(2).await;
    run.end().await.unwrap();
}

#[tokio::test]
async fn a_line_longer_than_a_block_is_whole() {
    // Lines are put together across the blocks they are read in, and all bytes are counted.
    let bench = Bench::new("a.log");
    let long = "y".repeat(700_000);
    bench.append("a.log", format!("a\n{long}\nb\n"));
    let checkpoints = bench.checkpoints();
    let config = SourceConfig::File(bench.settings.clone());
    let source = build("app", &config, ReadMode::Once, checkpoints).unwrap();
    let progress = source.progress().unwrap();
    let got = Run::start(source, 1).all().await;
    assert_eq!(got, ["a", &long, "b"]);
    assert_eq!((progress.bytes_read(), progress.bytes_total()), (700_005, 700_005));
}

#[tokio::test]
async fn an_unreadable_row_is_an_error() {
    // A checkpoint that cannot be understood ends the source instead of reading from anywhere.
    let bench = Bench::new("a.log");
    let rows = vec![("1:2".to_owned(), Some("{}".to_owned()))];
    bench.memory.save("app", rows).await.unwrap();
    let why = bench.start(ReadMode::Once).end().await.unwrap_err().to_string();
    assert!(why.contains("source `app`") && why.contains("1:2"), "{why}");
}

#[test]
fn bad_settings_are_named() {
    // Settings that cannot work are refused with the source's name and the key.
    let bench = Bench::new("a.log");
    type Spoil = fn(&mut FileSettings);
    let broken: [(&str, Spoil); 4] = [
        ("`include`", |s| s.include = vec!["a[".into()]),
        ("`include` is empty", |s| s.include.clear()),
        ("`exclude`", |s| s.exclude = vec!["x/***".into()]),
        ("decoding.pattern", |s| s.decoding.codec = Codec::Regex),
    ];
    for (key, spoil) in broken {
        let mut settings = bench.settings.clone();
        spoil(&mut settings);
        let config = SourceConfig::File(settings);
        let checkpoints = bench.checkpoints();
        let Err(why) = build("app", &config, ReadMode::Once, checkpoints) else {
            panic!("{key} is accepted");
        };
        let why = why.to_string();
        assert!(why.starts_with("source `app`: ") && why.contains(key), "{why}");
    }
}

fn stdin_settings() -> StdinSettings {
    StdinSettings { decoding: Decoding::default(), max_line_bytes: 100 }
}

#[tokio::test]
async fn standard_input_is_read_to_its_end() {
    // Every line is a record without an origin, faults name their line, a last line without a
    // newline counts, and the source ends after the last verdict.
    let input: &[u8] = b"{\"a\":1}\r\n\nnope\n[2]";
    let source = StdinSource::of(input, &stdin_settings()).unwrap();
    let mut run = Run::start(Box::new(source), 10);
    let mut records = Vec::new();
    while let Some(record) = run.next().await {
        assert!(record.origin.is_none());
        records.push(record);
    }
    let got: Vec<_> = records.iter().map(shown).collect();
    assert_eq!((got[0].as_str(), got[2].as_str()), (r#"{"a":1}"#, "[2]"));
    assert!(got[1].starts_with("fault: stdin:3: not valid JSON"), "{}", got[1]);
    let last = records.pop();
    drop(records);
    assert!(run.task.try_join_next().is_none(), "a verdict is missing");
    drop(last);
    run.end().await.unwrap();
}

#[tokio::test]
async fn standard_input_can_be_stopped() {
    // A stop ends the source though the input stays open and silent.
    let (_writer, input) = tokio::io::duplex(64);
    let source = StdinSource::of(input, &stdin_settings()).unwrap();
    let run = Run::start(Box::new(source), 1);
    run.stop().await;
}
