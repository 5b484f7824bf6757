//! What is settled, what a restart reads again, and how a source stops.

use usercom_sink::ack::Verdict;
use usercom_sink::config::source::Codec;
use usercom_sink::source::{Checkpoints as _, ReadMode};

use super::{Bench, eventually, place, shown};

#[tokio::test]
async fn unsettled_file_records_are_read_again() {
    // Verdicts in any order: a restart begins at the first record without one, with the line
    // numbers and the key of before, so that a buffer knows what it has.
    let bench = Bench::new("a.log");
    bench.append("a.log", "1\n2\n3\n4\n5\n");
    let mut run = bench.start(ReadMode::Follow);
    let mut records = Vec::new();
    for _ in 0..5 {
        records.push(run.record().await);
    }
    let old_key = records[0].origin.clone().unwrap().stream_id;
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
    assert_eq!(record.origin.clone().unwrap().stream_id, old_key);
    record.ack.settle(Verdict::Delivered);
    assert_eq!(run.all().await, ["3", "4", "5"]);
}

#[tokio::test]
async fn errored_record_holds_the_checkpoint() {
    // Nothing passes an errored record, however much is delivered after it while it runs; what
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
async fn kill_before_any_checkpoint_keeps_the_stream_id() {
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
    bench.settings.decoding.first.codec = Codec::Csv;
    bench.append("a.csv", "id,name\n1,Ann\n");
    bench.append("b.csv", "key\nk1\n\"open\n");
    assert_eq!(
        bench.once().await,
        [
            r#"{"id":"1","name":"Ann"}"#,
            r#"{"key":"k1"}"#,
            "fault: a quoted value of the row is not closed"
        ]
    );
    bench.append("a.csv", "2,Bob\n3\n");
    assert_eq!(
        bench.once().await,
        [r#"{"id":"2","name":"Bob"}"#, "fault: the line has 1 values, there are 2 columns"]
    );
}

#[tokio::test]
async fn full_channel_does_not_delay_a_stop() {
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
async fn dropped_receiver_ends_the_source() {
    // Where records are not taken any more, the source ends by itself, without an error.
    let bench = Bench::new("a.log");
    bench.append("a.log", "1\n2\n");
    let mut run = bench.start(ReadMode::Follow);
    run.take(2).await;
    run.end().await.unwrap();
}

#[tokio::test]
async fn unreadable_checkpoint_is_an_error() {
    // A checkpoint that cannot be understood ends the source instead of reading from anywhere.
    let bench = Bench::new("a.log");
    let rows = vec![("1:2".to_owned(), Some("{}".to_owned()))];
    bench.memory.save("app", rows).await.unwrap();
    let why = bench.start(ReadMode::Once).end().await.unwrap_err().to_string();
    assert!(why.contains("source `app`") && why.contains("1:2"), "{why}");
}
