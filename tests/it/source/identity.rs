//! Files that are renamed, cut off, replaced or deleted while they are read.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use usercom_sink::ack::Verdict;
use usercom_sink::source::ReadMode;

use super::{Bench, eventually, place, shown};

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
    assert_eq!(bench.once().await, ["four", "five"]);
}

#[tokio::test]
async fn file_renamed_out_of_the_patterns_is_finished() {
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
async fn truncated_file_begins_a_new_generation() {
    // Rotation by copy and truncate: the file is read again from its first line, under another key.
    let bench = Bench::new("a.log");
    bench.append("a.log", "one\ntwo\nthree\n");
    let mut run = bench.start(ReadMode::Follow);
    let first = run.record().await;
    let old_key = first.origin.clone().unwrap().stream_id;
    first.ack.settle(Verdict::Delivered);
    run.take(2).await;
    File::create(bench.path("a.log")).unwrap();
    bench.append("a.log", "four\n");
    let record = run.record().await;
    let origin = record.origin.clone().unwrap();
    assert_eq!((shown(&record), place(&record)), ("four".into(), "a.log:1".into()));
    assert_ne!(origin.stream_id, old_key);
    record.ack.settle(Verdict::Delivered);
    run.stop().await;
    assert_eq!(bench.once().await, Vec::<String>::new());
}

#[tokio::test]
async fn rewritten_longer_file_is_noticed() {
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
async fn reused_inode_is_another_file() {
    // Between two runs the file with that inode was replaced by another, longer than the
    // checkpoint: it is read from its beginning, under a key that was never used before.
    let bench = Bench::new("a.log");
    bench.append("a.log", "old 1\nold 2\n");
    let mut run = bench.start(ReadMode::Once);
    let record = run.record().await;
    let old_key = record.origin.clone().unwrap().stream_id;
    record.ack.settle(Verdict::Delivered);
    assert_eq!(run.all().await, ["old 2"]);
    // Writing in place keeps the inode, as an unlucky reuse would.
    fs::write(bench.path("a.log"), "new 1\nnew 2\nnew 3\n").unwrap();
    let mut run = bench.start(ReadMode::Once);
    let record = run.record().await;
    assert_eq!(shown(&record), "new 1");
    assert_ne!(record.origin.clone().unwrap().stream_id, old_key);
    record.ack.settle(Verdict::Delivered);
    assert_eq!(run.all().await, ["new 2", "new 3"]);
}

#[tokio::test]
async fn deleted_file_is_finished_and_recognised_when_it_returns() {
    // What is written to a file after its deletion is read, with a last line that has no newline;
    // its checkpoint is kept, so that the file is not read again when a backup brings it back.
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
    let left = || bench.memory.rows.lock().unwrap().values().any(|row| row.contains("\"left\""));
    eventually("the file is closed", left).await;
    run.stop().await;
    fs::write(bench.path("a.log"), "one\ntwo\nrest").unwrap();
    assert_eq!(bench.once().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn missing_file_is_closed_and_recognised_when_it_returns() {
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

/// What arrives within a while, not settled.
async fn unsettled(run: &mut super::Run, wait: Duration) -> Vec<usercom_sink::record::Record> {
    let mut got = Vec::new();
    while let Ok(Some(record)) = tokio::time::timeout(wait, run.records.recv()).await {
        got.push(record);
    }
    got
}

/// Renames a copy of the file over the file itself: the same bytes, another inode.
fn replace_by_copy(bench: &Bench, name: &str) {
    fs::copy(bench.path(name), bench.path("other")).unwrap();
    fs::rename(bench.path("other"), bench.path(name)).unwrap();
}

#[tokio::test]
async fn replaced_and_rotated_file_is_read_before_the_next() {
    // A log replaced by a copy of itself, written on and rotated at once, while what was read of it
    // has no verdict: its new lines come before those of the file that follows it.
    let bench = Bench::new("app.log*");
    bench.append("app.log", "1\n2\n");
    let mut run = bench.start(ReadMode::Follow);
    let first = [run.record().await, run.record().await];
    replace_by_copy(&bench, "app.log");
    bench.append("app.log", "3\n");
    fs::rename(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    bench.append("app.log", "4\n");
    let next = unsettled(&mut run, Duration::from_secs(2)).await;
    assert_eq!(next.iter().map(shown).collect::<Vec<_>>(), ["3", "4"]);
    assert_eq!(place(&next[0]), "app.log.1:3");
    first.into_iter().chain(next).for_each(|record| record.ack.settle(Verdict::Delivered));
    run.stop().await;
    assert_eq!(bench.once().await, Vec::<String>::new());
}

#[tokio::test]
async fn line_stays_whole_when_its_file_is_replaced() {
    // A log replaced by a copy of itself amid a line: the line is completed in the copy.
    let bench = Bench::new("app.log*");
    bench.append("app.log", "one\ntw");
    let mut run = bench.start(ReadMode::Follow);
    assert_eq!(run.take(1).await, ["one"]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    replace_by_copy(&bench, "app.log");
    bench.append("app.log", "o\n");
    fs::rename(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    bench.append("app.log", "three\n");
    assert_eq!(run.take(2).await, ["two", "three"]);
    assert!(unsettled(&mut run, Duration::from_secs(3)).await.is_empty());
    run.stop().await;
}

#[tokio::test]
async fn newer_files_wait_for_a_waiting_copy() {
    // A copy that was written on while its original is still there is read once all of that has a
    // verdict; newer files of the log come after it, and what the original gets comes at once.
    let bench = Bench::new("app.log*");
    bench.append("app.log", "1\n");
    let mut run = bench.start(ReadMode::Follow);
    let first = run.record().await;
    fs::copy(bench.path("app.log"), bench.path("other")).unwrap();
    bench.append("other", "2\n");
    fs::rename(bench.path("app.log"), bench.path("app.log.2")).unwrap();
    fs::rename(bench.path("other"), bench.path("app.log.1")).unwrap();
    bench.append("app.log", "3\n");
    assert!(unsettled(&mut run, Duration::from_secs(2)).await.is_empty());
    first.ack.settle(Verdict::Delivered);
    assert_eq!(run.take(2).await, ["2", "3"]);
    run.stop().await;
}

#[tokio::test]
async fn file_is_read_while_an_older_copy_waits_for_it() {
    // A copy under an older name waits for the log it was made of; the log does not wait for it.
    let bench = Bench::new("app.log*");
    bench.append("app.log", "1\n");
    let mut run = bench.start(ReadMode::Follow);
    let first = run.record().await;
    fs::copy(bench.path("app.log"), bench.path("other")).unwrap();
    bench.append("other", "aside\n");
    fs::rename(bench.path("other"), bench.path("app.log.1")).unwrap();
    assert!(unsettled(&mut run, Duration::from_secs(2)).await.is_empty());
    bench.append("app.log", "2\n");
    let next = unsettled(&mut run, Duration::from_secs(2)).await;
    let mut texts: Vec<_> = next.iter().map(shown).collect();
    texts.sort();
    assert_eq!(texts, ["2", "aside"]);
    next.into_iter().chain([first]).for_each(|record| record.ack.settle(Verdict::Delivered));
    run.stop().await;
}

#[tokio::test]
async fn truncated_copy_is_read_from_its_beginning() {
    // A log replaced by a copy of itself, which is cut off and written again before the reader let
    // go of the replaced file: every new line is read, though they are fewer bytes than before.
    for pause in [Duration::ZERO, Duration::from_millis(700)] {
        let bench = Bench::new("app.log*");
        bench.append("app.log", "1\n2\n3\n");
        let mut run = bench.start(ReadMode::Follow);
        assert_eq!(run.take(3).await, ["1", "2", "3"]);
        tokio::time::sleep(Duration::from_millis(500)).await;
        replace_by_copy(&bench, "app.log");
        tokio::time::sleep(Duration::from_millis(1200)).await;
        File::create(bench.path("app.log")).unwrap();
        tokio::time::sleep(pause).await;
        bench.append("app.log", "4\n5\n");
        assert_eq!(run.take(2).await, ["4", "5"], "{pause:?}");
        run.stop().await;
    }
}

#[tokio::test]
async fn truncated_file_begun_at_its_end_is_read_whole() {
    // `read_from: end` is about what is there at the start: what is written to a file after it was
    // cut off is read from its first line.
    let mut bench = Bench::new("app.log*");
    bench.settings.read_from = usercom_sink::config::source::ReadFrom::End;
    bench.append("app.log", "1\n2\n3\n");
    let mut run = bench.start(ReadMode::Follow);
    tokio::time::sleep(Duration::from_millis(700)).await;
    bench.append("app.log", "4\n");
    assert_eq!(run.take(1).await, ["4"]);
    fs::write(bench.path("app.log"), "5\n6\n").unwrap();
    assert_eq!(run.take(2).await, ["5", "6"]);
    run.stop().await;
}
