//! Files: which are read, in which order, and what their lines are.

use std::fs;
use std::io::Write as _;

use usercom_sink::ack::Verdict;
use usercom_sink::config::source::{
    Codec, FileSourceConfig as FileSettings, ReadFrom, SourceConfig,
};
use usercom_sink::source::{ReadMode, build};

use super::{Bench, Run, eventually, place, shown};

#[tokio::test]
async fn once_run_reads_files_in_order_of_paths() {
    // Once: every line of every file, by path, with positions and places; then nothing again. A
    // last line that has no newline yet is the next run's.
    let bench = Bench::new("*.log");
    bench.append("b.log", "b1\r\nb2");
    bench.append("a.log", "a1\n\na3\n");
    bench.append("c.txt", "no\n");
    let mut run = bench.start(ReadMode::Once);
    let mut got = Vec::new();
    while let Some(record) = run.next().await {
        let origin = record.origin.clone().unwrap();
        assert!(origin.stream_id.starts_with("app:"), "{origin:?}");
        got.push((shown(&record), place(&record), origin.end_offset));
        record.ack.settle(Verdict::Rejected);
    }
    run.end().await.unwrap();
    let expected =
        [("a1", "a.log:1", 3), ("", "a.log:2", 4), ("a3", "a.log:3", 7), ("b1", "b.log:1", 4)];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(text, place, position)| (text.to_owned(), place.to_owned(), position))
        .collect();
    assert_eq!(got, expected);
    assert_eq!(bench.once().await, Vec::<String>::new());
    bench.append("a.log", "a4\n");
    bench.append("b.log", "2\n");
    assert_eq!(bench.once().await, ["a4", "b22"]);
}

#[tokio::test]
async fn pattern_without_files_ends_at_once() {
    // Once, with nothing to read: no records and no error.
    let bench = Bench::new("none-*.log");
    assert_eq!(bench.once().await, Vec::<String>::new());
}

#[tokio::test]
async fn excluded_files_are_not_read() {
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
async fn file_with_two_names_is_read_once() {
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
async fn growing_file_is_followed() {
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
async fn read_from_end_skips_existing_lines() {
    // With `read_from = "end"` a file present at start is read after its last newline, a line
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
    // A restart continues at the checkpoint, not at the end.
    bench.append("a.log", "missed\n");
    assert_eq!(bench.once().await, ["missed"]);
}

#[tokio::test]
async fn once_run_ends_with_the_line_at_the_end() {
    // Once, a file that grows while it is read is read to the end it had, but no line is cut.
    let mut bench = Bench::new("a.log");
    bench.capacity = 1;
    bench.append("a.log", "1\n2\n3\npart");
    let mut run = bench.start(ReadMode::Once);
    assert_eq!(run.take(1).await, ["1"]);
    bench.append("a.log", "ly\nlater\n");
    let rest = run.all().await;
    // The block may have been read before the line was finished; then the line is the next run's.
    let whole = ["2", "3", "partly"].map(str::to_owned);
    assert!(rest == whole || rest == whole[..2], "{rest:?}");
    let mut all = rest;
    all.extend(bench.once().await);
    assert_eq!(all, ["2", "3", "partly", "later"]);
}

#[tokio::test]
async fn undecodable_lines_are_faults_with_location() {
    // Bad JSON, bad UTF-8 and too long lines are records with a fault, the raw bytes and a place;
    // white lines are nothing, and the lines around are read.
    let mut bench = Bench::new("a.log");
    bench.settings.decoding.first.codec = Codec::Json;
    bench.settings.max_line_bytes = 10;
    bench.append("a.log", b"{\"a\":1}\n\n{oops\n\"\xff\"\n");
    bench.append("a.log", format!("\"{}\"\n2\r\n", "x".repeat(600_000)));
    let mut run = bench.start(ReadMode::Once);
    let mut got = Vec::new();
    while let Some(record) = run.next().await {
        got.push((record.decode_error.clone(), record.body.clone(), place(&record)));
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
async fn line_longer_than_a_block_is_whole() {
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

#[test]
fn invalid_file_settings_are_named() {
    // Settings that cannot work are refused with the source's name and the key.
    let bench = Bench::new("a.log");
    type Spoil = fn(&mut FileSettings);
    let broken: [(&str, Spoil); 4] = [
        ("`include`", |s| s.include = vec!["a[".into()]),
        ("`include` is empty", |s| s.include.clear()),
        ("`exclude`", |s| s.exclude = vec!["x/***".into()]),
        ("decoding.pattern", |s| s.decoding.first.codec = Codec::Regex),
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

#[tokio::test]
async fn last_line_of_a_compressed_file_without_newline_is_a_record() {
    // A compressed file is finished when its stream ends: its last line is a record, once. Where
    // the stream is cut, the last line waits for the rest.
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    };
    let packed = [gzip(b"one\ntwo"), zstd::encode_all(&b"one\ntwo"[..], 1).unwrap()];
    for (name, bytes) in ["a.log.gz", "a.log.zst"].into_iter().zip(packed) {
        let bench = Bench::new("a.log*");
        fs::write(bench.path(name), bytes).unwrap();
        assert_eq!(bench.once().await, ["one", "two"], "{name}");
        assert_eq!(bench.once().await, Vec::<String>::new(), "{name}");
    }
    let bench = Bench::new("a.log*");
    let members = [gzip(b"one\ntw"), gzip(b"o")].concat();
    fs::write(bench.path("a.log.gz"), &members[..members.len() - 8]).unwrap();
    assert_eq!(bench.once().await, ["one"]);
    fs::write(bench.path("a.log.gz"), &members).unwrap();
    assert_eq!(bench.once().await, ["two"]);
}
