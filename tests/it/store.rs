//! What the store and the buffers promise: durability, order, limits, and hands off other people's
//! files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use usercom_sink::ack::{Ack, Verdict};
use usercom_sink::buffer::{
    self, Access, Buffer, BufferError, BufferSize, Buffered, DeadLetter, DeadLetterFilter,
    DiskBuffer, Exported, GivenBack, MemoryBuffer, NewRecord, PAGE_BYTES, RECORD_OVERHEAD, Settled,
    Settlement, Store, StoreError, Token, export,
};
use usercom_sink::clock;
use usercom_sink::config::sink::{BufferConfig, BufferKind, WhenFull};
use usercom_sink::record::{Origin, Record};
use usercom_sink::source::Checkpoints;

const SINK: &str = "crm";

fn owner(dir: &TempDir) -> Store {
    Store::open(dir.path(), Access::Owner).unwrap()
}

fn plain(body: impl Into<bytes::Bytes>) -> NewRecord {
    NewRecord::from(&Record::new(body))
}

fn at_position(key: &str, position: u64) -> NewRecord {
    let mut record = plain(format!("{{\"n\":{position}}}"));
    record.origin = Some(Origin {
        key: key.into(),
        position,
        place: format!("{key}:{position}").into(),
    });
    record
}

fn full_record() -> Record {
    Record {
        body: "{\"id\":\"ü\"}".into(),
        meta: Some("{\"topic\":\"t\"}".into()),
        origin: Some(Origin {
            key: "file-1".into(),
            position: u64::MAX,
            place: "logs/app.ndjson:17".into(),
        }),
        transport_id: Some("id-1".into()),
        fault: Some("not JSON".into()),
        ack: Ack::ignored(),
    }
}

type Told = Arc<Mutex<Vec<Verdict>>>;

fn watched(body: &str) -> (Record, Told) {
    let told = Told::default();
    let ack = {
        let told = Arc::clone(&told);
        Ack::new(move |verdict| told.lock().unwrap().push(verdict))
    };
    (Record::new(body.to_owned()).with_ack(ack), told)
}

fn verdicts(told: &Told) -> Vec<Verdict> {
    told.lock().unwrap().clone()
}

fn bodies(records: &[Buffered]) -> Vec<String> {
    let text = |b: &Buffered| String::from_utf8(b.record.body.to_vec()).unwrap();
    records.iter().map(text).collect()
}

fn done(item: Buffered) -> Settled {
    Settled {
        token: item.token,
        ack: item.record.ack,
        dead: vec![],
        seen: vec![],
    }
}

fn letter(body: &[u8], reason: &str, at: Timestamp) -> DeadLetter {
    let record = Record::new(body.to_vec());
    DeadLetter::new(&record, reason, "a sentence", at)
}

fn disk_config() -> BufferConfig {
    BufferConfig {
        kind: BufferKind::Disk,
        ..BufferConfig::default()
    }
}

async fn disk(store: &Store, config: &BufferConfig) -> DiskBuffer {
    DiskBuffer::open(config, SINK, store.clone(), CancellationToken::new())
        .await
        .unwrap()
}

fn memory(max_events: usize, when_full: WhenFull) -> (MemoryBuffer, Store) {
    let store = Store::in_memory().unwrap();
    let config = BufferConfig {
        max_events,
        when_full,
        ..BufferConfig::default()
    };
    let buffer = MemoryBuffer::new(&config, SINK, store.clone(), CancellationToken::new());
    (buffer, store)
}

/// Whether the future is still waiting after a while.
async fn waits<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_millis(150), future)
        .await
        .is_err()
}

// ---- the store ----

#[tokio::test]
async fn everything_is_back_after_reopening() {
    // Whatever a method of the store wrote is there for the next process, every field of it.
    let dir = TempDir::new().unwrap();
    let at = Timestamp::from_microsecond(1_767_225_600_123_456).unwrap();
    let mut dead = letter(b"{\"a\":1}", "status_400", at);
    dead.meta = Some("{\"m\":1}".into());
    dead.place = Some("app.ndjson:3".into());
    dead.transport_id = Some("t".into());
    dead.rule = Some("signup".into());
    dead.field = Some("traits.email".into());
    dead.status = Some(400);
    dead.response = Some("{\"detail\":\"no\"}".into());
    dead.attempts = 3;
    dead.call = Some("{\"type\":\"identify\"}".into());
    {
        let store = owner(&dir);
        let records = vec![NewRecord::from(&full_record()), plain("{}")];
        let appended = store.append(SINK, records).await.unwrap();
        assert_eq!(appended.seqs, 1..3);
        store
            .save("app", vec![("k".into(), Some("v".into()))])
            .await
            .unwrap();
        let settlement = Settlement {
            seq: Some(2),
            dead: vec![dead.clone()],
            seen: vec!["m1".into()],
        };
        store.settle(SINK, vec![settlement]).await.unwrap();
        store
            .save_cache(SINK, vec![("u1".into(), Some("7".into()))], 10)
            .await
            .unwrap();
        // No close: dropping the last handle frees the directory as well.
    }
    let store = owner(&dir);
    let stored = store.read(SINK, 0, 10).await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].seq, 1);
    assert_eq!(stored[0].record, NewRecord::from(&full_record()));
    assert!(!stored[0].maybe_sent);
    assert!(clock::now().duration_since(stored[0].received_at) < SignedDuration::from_mins(1));
    assert_eq!(store.load("app").await.unwrap(), [("k".into(), "v".into())]);
    let letters = store
        .dead_letters(SINK, DeadLetterFilter::default(), 10, 0)
        .await
        .unwrap();
    assert_eq!(letters[0].letter, dead);
    let seen = store
        .is_seen(SINK, vec!["m0".into(), "m1".into()])
        .await
        .unwrap();
    assert_eq!(seen, [false, true]);
    assert_eq!(
        store.load_cache(SINK, 10).await.unwrap(),
        [("u1".into(), "7".into())]
    );
    let size = stored[0].record.size();
    assert_eq!(
        store.buffer_size(SINK),
        BufferSize {
            events: 1,
            bytes: size
        }
    );
    // A number that was given once is never given again.
    assert_eq!(
        store.append(SINK, vec![plain("{}")]).await.unwrap().seqs,
        3..4
    );
    store.close().await;
}

#[tokio::test]
async fn answered_means_committed() {
    // An append that returned is visible to another connection at once, however many run at a time.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let other = rusqlite::Connection::open_with_flags(
        dir.path().join("usercom-sink.db"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
    )
    .unwrap();
    let appends = (0..100).map(|n| {
        let (store, other) = (&store, &other);
        async move {
            let seqs = store
                .append(SINK, vec![plain(format!("{n}"))])
                .await
                .unwrap()
                .seqs;
            let sql = "SELECT CAST(body AS TEXT) FROM buffer WHERE seq = ?1";
            let body: String = other
                .query_row(sql, [seqs.start], |row| row.get(0))
                .unwrap();
            assert_eq!(body, n.to_string());
        }
    });
    futures::future::join_all(appends).await;
    assert_eq!(store.buffer_size(SINK).events, 100);
}

#[tokio::test]
async fn positions_are_taken_once() {
    // A record whose position was taken before is skipped: in one batch, in the next, after a
    // restart; each sink and each origin key counts for itself.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let batch = [10, 20, 20, 15, 30].map(|n| at_position("f", n)).to_vec();
    let appended = store.append(SINK, batch.clone()).await.unwrap();
    assert_eq!((appended.seqs, appended.skipped), (1..4, 2));
    store.close().await;

    let store = owner(&dir);
    let appended = store.append(SINK, batch.clone()).await.unwrap();
    assert_eq!((appended.seqs.is_empty(), appended.skipped), (true, 5));
    let mixed = vec![at_position("f", 31), at_position("g", 1), plain("{}")];
    assert_eq!(store.append(SINK, mixed).await.unwrap().skipped, 0);
    assert_eq!(store.append("other", batch).await.unwrap().skipped, 2);
    assert_eq!(store.buffer_size(SINK).events, 6);
}

#[tokio::test]
async fn checkpoints_are_replaced_and_removed() {
    // Saving a checkpoint replaces it, `None` removes it, and sources do not see each other's.
    let store = Store::in_memory().unwrap();
    let row = |k: &str, v: Option<&str>| (k.to_owned(), v.map(str::to_owned));
    store
        .save("a", vec![row("x", Some("1")), row("y", Some("2"))])
        .await
        .unwrap();
    store.save("b", vec![row("x", Some("9"))]).await.unwrap();
    store
        .save("a", vec![row("x", Some("3")), row("y", None)])
        .await
        .unwrap();
    assert_eq!(store.load("a").await.unwrap(), [("x".into(), "3".into())]);
    assert_eq!(store.load("b").await.unwrap(), [("x".into(), "9".into())]);
}

#[tokio::test]
async fn seen_keys_live_for_their_window() {
    // A key is seen until it is expired; one that is delivered again counts from then; expiry takes
    // more keys than fit in one transaction.
    let store = Store::in_memory().unwrap();
    let seen = |keys: Vec<String>| {
        vec![Settlement {
            seen: keys,
            ..Settlement::default()
        }]
    };
    let many: Vec<String> = (0..2500).map(|n| format!("old-{n}")).collect();
    store.settle(SINK, seen(many)).await.unwrap();
    store
        .settle(SINK, seen(vec!["again".into()]))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let middle = clock::now();
    store
        .settle(SINK, seen(vec!["again".into(), "new".into()]))
        .await
        .unwrap();
    store.settle("other", seen(vec!["o".into()])).await.unwrap();

    let loaded = store.load_seen(SINK, middle, 10).await.unwrap();
    let names: BTreeSet<_> = loaded.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["again", "new"]));
    assert_eq!(store.load_seen(SINK, middle, 1).await.unwrap().len(), 1);
    assert_eq!(store.expire_seen(SINK, middle).await.unwrap(), 2500);
    let asked = ["old-7", "again", "new", "o"].map(str::to_owned).to_vec();
    assert_eq!(
        store.is_seen(SINK, asked).await.unwrap(),
        [false, true, true, false]
    );
    assert_eq!(
        store.is_seen("other", vec!["o".into()]).await.unwrap(),
        [true]
    );
}

#[tokio::test]
async fn cache_keeps_the_newest() {
    // Cached look-ups are replaced, forgotten by `None`, and the oldest go when there are too many.
    let store = Store::in_memory().unwrap();
    let row = |k: &str, v: Option<&str>| (k.to_owned(), v.map(str::to_owned));
    for rows in [
        vec![row("a", Some("1")), row("b", Some("1"))],
        vec![row("c", Some("1"))],
        vec![row("a", Some("2"))],
        vec![row("d", Some("1")), row("c", None)],
    ] {
        store.save_cache(SINK, rows, 2).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(
        store.load_cache(SINK, 10).await.unwrap(),
        [("d".into(), "1".into()), ("a".into(), "2".into())]
    );
}

#[tokio::test]
async fn a_page_is_bounded() {
    // However large the backlog, one read yields at most a page's bytes, and a single larger
    // record.
    let store = Store::in_memory().unwrap();
    let large = vec![b'x'; usize::try_from(PAGE_BYTES).unwrap() / 3];
    let huge = vec![b'y'; usize::try_from(PAGE_BYTES).unwrap() * 2];
    let mut records: Vec<_> = (0..4).map(|_| plain(large.clone())).collect();
    records.push(plain(huge));
    store.append(SINK, records).await.unwrap();
    let (mut after, mut pages) = (0, vec![]);
    loop {
        let page = store.read(SINK, after, usize::MAX).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.seq;
        pages.push(page.len());
    }
    assert_eq!(pages, [2, 2, 1]);
}

#[tokio::test]
async fn two_owners_are_refused() {
    // The second owner of a directory is told the directory and the first one's process; a reader
    // is let in and cannot write; when the owner is gone the directory is free.
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("not/yet/there");
    let missing = Store::open(&path, Access::ReadOnly).unwrap_err();
    assert!(matches!(missing, StoreError::Missing { .. }), "{missing}");
    let store = Store::open(&path, Access::Owner).unwrap();
    store.append(SINK, vec![plain("{}")]).await.unwrap();

    let refused = Store::open(&path, Access::Owner).unwrap_err().to_string();
    assert!(refused.contains(path.to_str().unwrap()), "{refused}");
    let pid = format!("pid {}", std::process::id());
    assert!(refused.contains(&pid), "{refused}");

    let reader = Store::open(&path, Access::ReadOnly).unwrap();
    assert_eq!(reader.read(SINK, 0, 9).await.unwrap().len(), 1);
    assert_eq!(reader.buffer_size(SINK).events, 1);
    store.append(SINK, vec![plain("{}")]).await.unwrap();
    assert_eq!(reader.read(SINK, 0, 9).await.unwrap().len(), 2);
    let write = reader.append(SINK, vec![plain("{}")]).await;
    assert!(matches!(write, Err(StoreError::ReadOnly)));

    let clone = store.clone();
    store.close().await;
    let late = clone.append(SINK, vec![plain("{}")]).await;
    assert!(matches!(late, Err(StoreError::Closed)));
    Store::open(&path, Access::Owner).unwrap();
}

fn refused(dir: &TempDir, what: &str) -> StoreError {
    let before = fs::read(dir.path().join("usercom-sink.db")).unwrap();
    for access in [Access::Owner, Access::ReadOnly] {
        if what == "damaged" && access == Access::ReadOnly {
            continue; // A reader looks for damage only where it reads.
        }
        let error = Store::open(dir.path(), access).unwrap_err().to_string();
        assert!(error.contains("usercom-sink.db"), "{error}");
        assert!(error.contains(what), "{error}");
    }
    let error = Store::open(dir.path(), Access::Owner).unwrap_err();
    assert_eq!(
        fs::read(dir.path().join("usercom-sink.db")).unwrap(),
        before
    );
    let names: BTreeSet<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = ["usercom-sink.db", "usercom-sink.lock"].map(str::to_owned);
    assert_eq!(names, BTreeSet::from(expected));
    error
}

#[test]
fn foreign_files_are_left_alone() {
    // A file that is not ours is refused by name and not a byte of it changes, nor does a file
    // appear beside it.
    for (content, what) in [
        (&b"dear diary"[..], "not an SQLite database"),
        (b"", "not an SQLite database"),
        (&[b'x'; 5000], "not an SQLite database"),
        (b"SQLite format 3\0 and no more", "not an SQLite database"),
    ] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("usercom-sink.db"), content).unwrap();
        let error = refused(&dir, what);
        assert!(matches!(error, StoreError::Foreign { .. }));
    }
    for sql in [
        "CREATE TABLE t (x); INSERT INTO t VALUES (1);",
        "PRAGMA journal_mode = wal; PRAGMA application_id = 77; CREATE TABLE t (x);",
    ] {
        let dir = TempDir::new().unwrap();
        let other = rusqlite::Connection::open(dir.path().join("usercom-sink.db")).unwrap();
        other.execute_batch(sql).unwrap();
        other.close().unwrap();
        let error = refused(&dir, "database of another program");
        assert!(matches!(error, StoreError::Foreign { .. }));
    }
}

#[tokio::test]
async fn newer_files_are_left_alone() {
    // A file of a later version of the program is refused and not touched.
    let dir = TempDir::new().unwrap();
    owner(&dir).close().await;
    let other = rusqlite::Connection::open(dir.path().join("usercom-sink.db")).unwrap();
    other.pragma_update(None, "user_version", 99).unwrap();
    other.close().unwrap();
    let error = refused(&dir, "has format 99");
    assert!(matches!(error, StoreError::Version { found: 99, .. }));
}

#[tokio::test]
async fn damaged_files_are_left_alone() {
    // A file of ours with a broken page, or cut off, is refused and not touched.
    type Harm = fn(&mut Vec<u8>);
    let harms: [Harm; 2] = [
        |file| file[4096..].iter_mut().for_each(|byte| *byte ^= 0x5A),
        |file| file.truncate(file.len() / 2),
    ];
    for harm in harms {
        let dir = TempDir::new().unwrap();
        let store = owner(&dir);
        let records = (0..500).map(|n| plain(format!("{{\"n\":{n}}}"))).collect();
        store.append(SINK, records).await.unwrap();
        store.close().await;
        let path = dir.path().join("usercom-sink.db");
        let mut file = fs::read(&path).unwrap();
        harm(&mut file);
        fs::write(&path, &file).unwrap();
        let error = refused(&dir, "damaged");
        assert!(matches!(error, StoreError::Corrupt { .. }));
    }
}

#[tokio::test]
async fn a_log_without_its_file_is_refused() {
    // A write-ahead log whose database is gone is not silently mixed into a new one.
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("usercom-sink.db-wal"), b"frames").unwrap();
    let error = Store::open(dir.path(), Access::Owner).unwrap_err();
    assert!(error.to_string().contains("usercom-sink.db-wal"), "{error}");
    assert!(!dir.path().join("usercom-sink.db").exists());
}

#[tokio::test]
async fn an_unfinished_creation_is_begun_anew() {
    // What a crash left of a file that was being made does not stand in the way.
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("usercom-sink.db.new"), b"half").unwrap();
    fs::write(dir.path().join("usercom-sink.db.new-journal"), b"half").unwrap();
    let store = owner(&dir);
    store.append(SINK, vec![plain("{}")]).await.unwrap();
    assert!(!dir.path().join("usercom-sink.db.new").exists());
}

#[tokio::test]
async fn a_full_disk_fails_only_who_needs_room() {
    // When the file cannot grow, an append answers "full" and stores nothing of its batch; other
    // commands of the same moment still work, and appends do again once there is room.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let first = store
        .append(SINK, vec![plain("{\"n\":1}"), plain("{\"n\":2}")])
        .await
        .unwrap();
    store.limit_file_size(1).await.unwrap();
    let big = || plain(vec![b'x'; 1 << 20]);
    let (failed, settled, saved) = tokio::join!(
        store.append(SINK, vec![plain("{\"n\":3}"), big()]),
        store.settle(
            SINK,
            vec![Settlement {
                seq: Some(first.seqs.start),
                ..Settlement::default()
            }]
        ),
        store.save("app", vec![("k".into(), Some("v".into()))]),
    );
    assert!(matches!(failed, Err(StoreError::Full { .. })));
    settled.unwrap();
    saved.unwrap();
    assert_eq!(store.buffer_size(SINK).events, 1);
    assert_eq!(store.read(SINK, 0, 10).await.unwrap().len(), 1);
    store.limit_file_size(1 << 30).await.unwrap();
    store.append(SINK, vec![big()]).await.unwrap();
    assert_eq!(store.buffer_size(SINK).events, 2);
    store.close().await;
    assert_eq!(owner(&dir).read(SINK, 0, 10).await.unwrap().len(), 2);
}

// ---- dead letters ----

#[tokio::test]
async fn dead_letters_are_found_counted_and_deleted() {
    // Every filter, and their combination, means the right dead letters of the right sink.
    let store = Store::in_memory().unwrap();
    let time = |s: i64| Timestamp::from_second(s).unwrap();
    let dead = (0..6)
        .map(|n| letter(b"{}", if n % 2 == 0 { "even" } else { "odd" }, time(n)))
        .collect();
    let batch = vec![Settlement {
        dead,
        ..Settlement::default()
    }];
    store.settle(SINK, batch.clone()).await.unwrap();
    store.settle("other", batch).await.unwrap();

    let ids = async |filter, limit, offset| {
        let found = store.dead_letters(SINK, filter, limit, offset).await;
        found.unwrap().iter().map(|l| l.id).collect::<Vec<_>>()
    };
    let all = DeadLetterFilter::default;
    let odd = || DeadLetterFilter {
        reason: Some("odd".into()),
        ..all()
    };
    assert_eq!(ids(all(), 100, 0).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(ids(all(), 2, 3).await, [4, 5]);
    assert_eq!(ids(odd(), 100, 0).await, [2, 4, 6]);
    let late_odd = DeadLetterFilter {
        since: Some(time(3)),
        ..odd()
    };
    assert_eq!(ids(late_odd, 100, 0).await, [4, 6]);
    let some = DeadLetterFilter {
        ids: Some(vec![6, 1, 9]),
        ..all()
    };
    assert_eq!(ids(some.clone(), 100, 0).await, [1, 6]);
    let none = DeadLetterFilter {
        ids: Some(vec![]),
        ..all()
    };
    assert!(ids(none, 100, 0).await.is_empty());
    assert_eq!(
        store.count_dead_letters(SINK).await.unwrap(),
        [("even".into(), 3), ("odd".into(), 3)]
    );

    store.note_replay(&[2, 4]).await.unwrap();
    store.note_replay(&[4]).await.unwrap();
    assert_eq!(store.dead_letter(4).await.unwrap().unwrap().replays, 2);
    assert_eq!(store.dead_letter(6).await.unwrap().unwrap().replays, 0);
    assert_eq!(store.purge_dead_letters(SINK, some).await.unwrap(), 2);
    assert_eq!(store.delete_dead_letters(&[2, 3, 99]).await.unwrap(), 2);
    assert_eq!(store.dead_letter(2).await.unwrap(), None);
    assert_eq!(ids(all(), 100, 0).await, [4, 5]);
    assert_eq!(store.purge_dead_letters(SINK, all()).await.unwrap(), 2);
    let others = store.dead_letters("other", all(), 100, 0).await.unwrap();
    assert_eq!(others.len(), 6);
}

#[tokio::test]
async fn dead_letters_are_shown_and_fed_again() {
    // JSON output shows the record as it came in, whatever it is, on one line; an export is a file
    // whose lines are the records.
    let store = Store::in_memory().unwrap();
    let at = Timestamp::UNIX_EPOCH;
    let mut first = letter(b"{\"big\":\n 12345678901234567890.10}", "status_400", at);
    first.status = Some(400);
    first.call = Some("{\"type\":\"track\"}".into());
    let dead = vec![
        first,
        letter("not jsön {".as_bytes(), "not_json", at),
        letter(b"\xff\x00raw", "not_json", at),
        letter(b"two\nlines", "not_json", at),
    ];
    store
        .settle(
            SINK,
            vec![Settlement {
                dead,
                ..Settlement::default()
            }],
        )
        .await
        .unwrap();
    let letters = store
        .dead_letters(SINK, DeadLetterFilter::default(), 10, 0)
        .await
        .unwrap();
    let shown = serde_json::to_string(&letters[0]).unwrap();
    assert_eq!(
        shown,
        "{\"id\":1,\"sink\":\"crm\",\"at\":\"1970-01-01T00:00:00Z\",\"reason\":\"status_400\",\
         \"detail\":\"a sentence\",\"status\":400,\"attempts\":0,\"replays\":0,\
         \"call\":{\"type\":\"track\"},\"record\":{\"big\":  12345678901234567890.10}}"
    );
    let value = |n: usize| serde_json::to_value(&letters[n]).unwrap();
    assert_eq!(value(1)["record_text"], "not jsön {");
    assert_eq!(value(2)["record_escaped"], "\\xff\\x00raw");
    assert_eq!(value(3)["record_text"], "two\nlines");
    assert!(value(2).get("record").is_none() && value(2).get("record_text").is_none());

    let mut out = vec![];
    let exported = export(&letters, &mut out).unwrap();
    assert_eq!(
        exported,
        Exported {
            written: 3,
            left_out: 1
        }
    );
    let expected = b"{\"big\":  12345678901234567890.10}\nnot js\xc3\xb6n {\n\xff\x00raw\n";
    assert_eq!(out, expected);
}

// ---- the memory buffer ----

#[tokio::test]
async fn memory_blocks_when_full() {
    // A full memory buffer holds its pusher back until records are handed out, and keeps the order.
    let (buffer, _store) = memory(3, WhenFull::Block);
    let records = (0..5).map(|n| Record::new(n.to_string())).collect();
    let push = buffer.push(records);
    tokio::pin!(push);
    assert!(waits(&mut push).await);
    assert_eq!(buffer.size().events, 3);
    assert_eq!(buffer.size().bytes, 3 * (1 + RECORD_OVERHEAD));
    assert_eq!(bodies(&buffer.next(2).await.unwrap()), ["0", "1"]);
    push.await.unwrap();
    buffer.close();
    assert_eq!(bodies(&buffer.next(10).await.unwrap()), ["2", "3", "4"]);
    assert!(buffer.next(10).await.is_none());
    assert_eq!(buffer.size(), BufferSize::default());
}

#[tokio::test]
async fn memory_drops_the_newest() {
    // With `drop_newest` a push never waits; what finds no room is settled as rejected and counted.
    let (buffer, _store) = memory(2, WhenFull::DropNewest);
    let (records, told): (Vec<_>, Vec<_>) = ["a", "b", "c"].map(watched).into_iter().unzip();
    buffer.push(records).await.unwrap();
    assert_eq!(buffer.discarded(), 1);
    assert_eq!(verdicts(&told[2]), [Verdict::Rejected]);
    assert!(verdicts(&told[0]).is_empty());
    assert_eq!(bodies(&buffer.next(10).await.unwrap()), ["a", "b"]);
}

#[tokio::test]
async fn memory_tells_the_verdict_after_the_dead_letter() {
    // In memory mode the source hears "delivered" or "rejected" only from `settled`, and a rejected
    // record is in the dead letters by then; what is given back is offered again by its source.
    let (buffer, store) = memory(10, WhenFull::Block);
    let (records, told): (Vec<_>, Vec<_>) = ["1", "2", "3"].map(watched).into_iter().unzip();
    buffer.push(records).await.unwrap();
    let mut items = buffer.next(10).await.unwrap().into_iter();
    assert!(told.iter().all(|told| verdicts(told).is_empty()));
    let mut good = done(items.next().unwrap());
    good.seen = vec!["m1".into()];
    let mut bad = done(items.next().unwrap());
    bad.dead = vec![letter(b"2", "status_400", Timestamp::UNIX_EPOCH)];
    buffer.settled(vec![good, bad]).await.unwrap();
    let back = items.next().unwrap();
    let back = GivenBack {
        token: back.token,
        ack: back.record.ack,
        maybe_sent: false,
    };
    buffer.give_back(vec![back]).await;
    assert_eq!(verdicts(&told[0]), [Verdict::Delivered]);
    assert_eq!(verdicts(&told[1]), [Verdict::Rejected]);
    assert_eq!(verdicts(&told[2]), [Verdict::Errored]);
    assert_eq!(store.count_dead_letters(SINK).await.unwrap()[0].1, 1);
    assert_eq!(
        store.is_seen(SINK, vec!["m1".into()]).await.unwrap(),
        [true]
    );
}

#[tokio::test]
async fn dead_letters_wait_for_room() {
    // A dead letter that finds no room on the disk is neither lost nor reported before it is stored;
    // if the process must stop before, the record counts as unsettled.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let stop = CancellationToken::new();
    let config = BufferConfig::default();
    let buffer = MemoryBuffer::new(&config, SINK, store.clone(), stop.clone());
    store.limit_file_size(1).await.unwrap();
    let (records, told): (Vec<_>, Vec<_>) = ["1", "2"].map(watched).into_iter().unzip();
    buffer.push(records).await.unwrap();
    let mut items = buffer.next(10).await.unwrap().into_iter();
    let mut rejected = || {
        let mut item = done(items.next().unwrap());
        item.dead = vec![letter(&[b'x'; 1 << 20], "too_big", Timestamp::UNIX_EPOCH)];
        buffer.settled(vec![item])
    };
    let first = rejected();
    tokio::pin!(first);
    assert!(waits(&mut first).await);
    assert!(verdicts(&told[0]).is_empty());
    store.limit_file_size(1 << 30).await.unwrap();
    first.await.unwrap();
    assert_eq!(verdicts(&told[0]), [Verdict::Rejected]);
    assert_eq!(store.count_dead_letters(SINK).await.unwrap()[0].1, 1);

    store.limit_file_size(1).await.unwrap();
    stop.cancel();
    let stopped = rejected().await;
    assert!(matches!(stopped, Err(BufferError::Stopped(_))));
    assert_eq!(verdicts(&told[1]), [Verdict::Errored]);
}

#[tokio::test]
async fn closing_wakes_everybody() {
    // Whoever waits in `push` or `next` when the buffer is closed returns, for both kinds of buffer;
    // records not taken are told to their sources as errored.
    let small = |kind| BufferConfig {
        kind,
        max_events: 1,
        max_size: 1,
        ..BufferConfig::default()
    };
    for kind in [BufferKind::Memory, BufferKind::Disk] {
        let store = Store::in_memory().unwrap();
        let stop = CancellationToken::new();
        let buffer = buffer::open(&small(kind), SINK, store, stop).await.unwrap();
        buffer.push(vec![Record::new("1")]).await.unwrap();
        let (record, told) = watched("2");
        let (pushed, ()) = tokio::join!(buffer.push(vec![record]), async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            buffer.close();
        });
        assert!(matches!(pushed, Err(BufferError::Closed)));
        assert_eq!(verdicts(&told), [Verdict::Errored]);
        let late = buffer.push(vec![Record::new("3")]).await;
        assert!(matches!(late, Err(BufferError::Closed)));
        assert_eq!(bodies(&buffer.next(10).await.unwrap()), ["1"]);
        assert!(buffer.next(10).await.is_none());

        let store = Store::in_memory().unwrap();
        let stop = CancellationToken::new();
        let buffer = buffer::open(&small(kind), SINK, store, stop).await.unwrap();
        let (nothing, ()) = tokio::join!(buffer.next(10), async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            buffer.close();
        });
        assert!(nothing.is_none());
    }
}

// ---- the disk buffer ----

#[tokio::test]
async fn disk_acknowledges_what_is_durable() {
    // A push into a disk buffer settles its records as delivered once they are stored, those it
    // skips as well.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let buffer = disk(&store, &disk_config()).await;
    for _ in 0..2 {
        let (mut record, told) = watched("{}");
        record.origin = at_position("f", 5).origin;
        buffer.push(vec![record]).await.unwrap();
        assert_eq!(verdicts(&told), [Verdict::Delivered]);
    }
    assert_eq!(buffer.size().events, 1);
}

#[tokio::test]
async fn disk_blocks_when_full() {
    // A disk buffer never holds more than `max_size`, also with several pushers; a settled record
    // makes room; a record larger than the buffer passes when it is empty.
    let store = Store::in_memory().unwrap();
    let one = 1 + RECORD_OVERHEAD;
    let config = BufferConfig {
        max_size: 3 * one,
        ..disk_config()
    };
    let buffer = disk(&store, &config).await;
    let push = |n: u8| buffer.push((0..n).map(|_| Record::new("1")).collect());
    let pushes = futures::future::join3(push(2), push(2), push(2));
    tokio::pin!(pushes);
    assert!(waits(&mut pushes).await);
    assert_eq!(buffer.size().bytes, 3 * one);
    let drain = async {
        let mut settled = 0;
        while settled < 6 {
            assert!(buffer.size().bytes <= 3 * one);
            let items = buffer.next(1).await.unwrap();
            settled += items.len();
            let items = items.into_iter().map(done).collect();
            buffer.settled(items).await.unwrap();
        }
    };
    let ((a, b, c), ()) = tokio::join!(pushes, drain);
    (a.unwrap(), b.unwrap(), c.unwrap());

    let large = || vec![Record::new("x".repeat(1000))];
    buffer.push(large()).await.unwrap();
    assert!(waits(buffer.push(large())).await);
}

#[tokio::test]
async fn disk_drops_the_newest() {
    // With `drop_newest` a full disk buffer rejects what it has no room for, and counts it.
    let store = Store::in_memory().unwrap();
    let config = BufferConfig {
        max_size: 2 * (1 + RECORD_OVERHEAD),
        when_full: WhenFull::DropNewest,
        ..disk_config()
    };
    let buffer = disk(&store, &config).await;
    let (records, told): (Vec<_>, Vec<_>) = ["1", "2", "3"].map(watched).into_iter().unzip();
    buffer.push(records).await.unwrap();
    let told: Vec<_> = told.iter().flat_map(verdicts).collect();
    assert_eq!(
        told,
        [Verdict::Delivered, Verdict::Delivered, Verdict::Rejected]
    );
    assert_eq!((buffer.size().events, buffer.discarded()), (2, 1));
}

#[tokio::test]
async fn a_full_disk_holds_the_source_back() {
    // A push that finds the disk full waits and is stored once there is room; its source is told
    // nothing before.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let buffer = disk(&store, &disk_config()).await;
    store.limit_file_size(1).await.unwrap();
    let (record, told) = watched(&"x".repeat(1 << 20));
    let push = buffer.push(vec![record]);
    tokio::pin!(push);
    assert!(waits(&mut push).await);
    assert!(verdicts(&told).is_empty());
    store.limit_file_size(1 << 30).await.unwrap();
    push.await.unwrap();
    assert_eq!(verdicts(&told), [Verdict::Delivered]);
    assert_eq!(buffer.next(1).await.unwrap().len(), 1);
}

async fn doubtful(store: &Store) -> Vec<i64> {
    let (mut after, mut seqs) = (0, vec![]);
    loop {
        let page = store.read(SINK, after, 1000).await.unwrap();
        let Some(last) = page.last() else { return seqs };
        after = last.seq;
        seqs.extend(page.iter().filter(|s| s.maybe_sent).map(|s| s.seq));
    }
}

#[tokio::test]
async fn after_a_crash_handed_records_are_in_doubt() {
    // What was handed out and not settled when the process died is marked; what came later, or was
    // never near its turn, is not.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let buffer = disk(&store, &disk_config()).await;
    let records = (0..1500).map(|n| Record::new(n.to_string())).collect();
    buffer.push(records).await.unwrap();
    let mut out = buffer.next(10).await.unwrap();
    assert!(out.iter().all(|item| !item.maybe_sent));
    buffer.settled(vec![done(out.remove(4))]).await.unwrap();
    drop((buffer, store)); // Without `finish`: the same as a crash.

    let store = owner(&dir);
    let in_doubt = doubtful(&store).await;
    assert!(in_doubt.starts_with(&[1, 2, 3, 4, 6, 7, 8, 9, 10]));
    assert!(in_doubt.len() < 1100, "{} in doubt", in_doubt.len());
    let buffer = disk(&store, &disk_config()).await;
    let newest = store.append(SINK, vec![plain("{}")]).await.unwrap().seqs;
    let again = buffer.next(9).await.unwrap();
    assert_eq!(bodies(&again)[..5], ["0", "1", "2", "3", "5"]);
    assert!(again.iter().all(|item| item.maybe_sent));
    assert!(!doubtful(&store).await.contains(&newest.start));

    // What was in doubt and not read again stays so over a clean stop.
    let all = again.into_iter().map(done).collect();
    buffer.settled(all).await.unwrap();
    buffer.finish().await.unwrap();
    drop((buffer, store));
    let store = owner(&dir);
    assert_eq!(doubtful(&store).await[..2], [11, 12]);
}

#[tokio::test]
async fn after_a_clean_stop_nothing_is_in_doubt() {
    // `finish` leaves no record in doubt if all that were handed out are settled or given back
    // unsent; else exactly the ones that are open.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let buffer = disk(&store, &disk_config()).await;
    let records = (0..20).map(|n| Record::new(n.to_string())).collect();
    buffer.push(records).await.unwrap();
    let mut out = buffer.next(5).await.unwrap();
    let unsent = out.pop().unwrap();
    let back = GivenBack {
        token: unsent.token,
        ack: unsent.record.ack,
        maybe_sent: false,
    };
    buffer.give_back(vec![back]).await;
    let settled = out.into_iter().map(done).collect();
    buffer.settled(settled).await.unwrap();
    buffer.finish().await.unwrap();
    drop(buffer);
    store.close().await;

    let store = owner(&dir);
    assert!(doubtful(&store).await.is_empty());
    let buffer = disk(&store, &disk_config()).await;
    let out = buffer.next(2).await.unwrap();
    assert_eq!(bodies(&out), ["4", "5"]);
    buffer.finish().await.unwrap();
    // The same within one process: a reload opens the buffer anew.
    let buffer = disk(&store, &disk_config()).await;
    let out = buffer.next(10).await.unwrap();
    let marks: Vec<_> = out.iter().map(|item| item.maybe_sent).collect();
    assert_eq!(marks[..3], [true, true, false]);
}

#[tokio::test]
async fn given_back_records_come_again_first() {
    // A record that is given back to a disk buffer is yielded again before newer ones, in order, and
    // with the doubt it was given back with.
    let store = Store::in_memory().unwrap();
    let buffer = disk(&store, &disk_config()).await;
    let records = (0..6).map(|n| Record::new(n.to_string())).collect();
    buffer.push(records).await.unwrap();
    let out = buffer.next(4).await.unwrap();
    let back = out.into_iter().rev().take(2).enumerate();
    let back = back.map(|(n, item)| GivenBack {
        token: item.token,
        ack: item.record.ack,
        maybe_sent: n == 0,
    });
    buffer.give_back(back.collect()).await;
    let again = buffer.next(10).await.unwrap();
    assert_eq!(bodies(&again), ["2", "3"]);
    let marks: Vec<_> = again.iter().map(|item| item.maybe_sent).collect();
    assert_eq!(marks, [false, true]);
    assert_eq!(bodies(&buffer.next(10).await.unwrap()), ["4", "5"]);
}

// ---- the disk buffer against a model ----

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    PushAgain(usize),
    Next(usize),
    Settle(usize),
    GiveBack(usize, bool),
    CleanRestart,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..8).prop_map(Step::Push),
        1 => (1usize..8).prop_map(Step::PushAgain),
        4 => (1usize..10).prop_map(Step::Next),
        4 => (0usize..100).prop_map(Step::Settle),
        2 => (0usize..100, any::<bool>()).prop_map(|(n, maybe)| Step::GiveBack(n, maybe)),
        1 => Just(Step::CleanRestart),
        1 => Just(Step::Crash),
    ]
}

/// What a disk buffer should hold, by the numbers of records.
#[derive(Default)]
struct Model {
    pushed: u64,
    waiting: VecDeque<u64>,
    back: BTreeMap<u64, bool>,
    away: BTreeMap<u64, Token>,
    /// Must be marked when they come again.
    sent: BTreeSet<u64>,
    /// Were waiting at the last restart: may be marked.
    old: BTreeSet<u64>,
}

impl Model {
    fn expected(&self, max: usize) -> Vec<u64> {
        if self.back.is_empty() {
            self.waiting.iter().take(max).copied().collect()
        } else {
            self.back.keys().take(max).copied().collect()
        }
    }

    fn held(&self) -> usize {
        self.waiting.len() + self.back.len() + self.away.len()
    }

    fn restart(&mut self, clean: bool) {
        if clean {
            let open: BTreeSet<u64> = self.away.keys().copied().collect();
            let back = self.back.iter().filter(|(_, maybe)| **maybe);
            let back: BTreeSet<u64> = back.map(|(n, _)| *n).collect();
            let unread = self.waiting.iter().filter(|n| self.sent.contains(n));
            self.sent = unread.copied().chain(open).chain(back).collect();
        }
        let mut all: BTreeSet<u64> = self.waiting.drain(..).collect();
        all.extend(self.back.keys());
        all.extend(self.away.keys());
        // With nothing open, nothing old may be marked after a clean stop.
        self.old = if clean && self.sent.is_empty() && self.old.is_empty() {
            BTreeSet::new()
        } else {
            all.clone()
        };
        self.waiting = all.into_iter().collect();
        self.back.clear();
        self.away.clear();
    }
}

fn numbered(n: u64) -> Record {
    at_position("f", n + 1).into_record()
}

struct Run {
    dir: TempDir,
    open: Option<(Store, DiskBuffer)>,
    model: Model,
}

impl Run {
    fn buffer(&self) -> &DiskBuffer {
        &self.open.as_ref().unwrap().1
    }

    async fn reopen(&mut self) {
        drop(self.open.take());
        let store = owner(&self.dir);
        let buffer = disk(&store, &disk_config()).await;
        self.open = Some((store, buffer));
    }

    async fn push(&self, numbers: impl Iterator<Item = u64>) {
        let told = Told::default();
        let records: Vec<_> = numbers
            .map(|n| {
                let told = Arc::clone(&told);
                numbered(n).with_ack(Ack::new(move |verdict| told.lock().unwrap().push(verdict)))
            })
            .collect();
        let pushed = records.len();
        self.buffer().push(records).await.unwrap();
        assert_eq!(verdicts(&told), vec![Verdict::Delivered; pushed]);
    }

    async fn next(&mut self, max: usize) {
        let expected = self.model.expected(max);
        if expected.is_empty() {
            return;
        }
        let from_back = !self.model.back.is_empty();
        let items = self.buffer().next(max).await.unwrap();
        let numbers: Vec<u64> = items
            .iter()
            .map(|item| item.record.origin.as_ref().unwrap().position - 1)
            .collect();
        assert_eq!(numbers, expected);
        for (n, item) in numbers.into_iter().zip(items) {
            let model = &mut self.model;
            assert_eq!(item.record.body, numbered(n).body);
            if from_back {
                assert_eq!(model.back.remove(&n), Some(item.maybe_sent));
            } else {
                assert_eq!(model.waiting.pop_front(), Some(n));
                assert!(item.maybe_sent || !model.sent.contains(&n), "{n} was sent");
                assert!(!item.maybe_sent || model.old.contains(&n), "{n} is new");
            }
            model.sent.insert(n);
            model.away.insert(n, item.token);
        }
    }

    fn pick_away(&mut self, n: usize) -> Option<Token> {
        let keys: Vec<u64> = self.model.away.keys().copied().collect();
        let key = *keys.get(n.checked_rem(keys.len())?)?;
        self.model.away.remove(&key)
    }

    async fn settle(&self, tokens: impl IntoIterator<Item = Token>) {
        let settled = tokens.into_iter().map(|token| Settled {
            token,
            ack: Ack::ignored(),
            dead: vec![],
            seen: vec![],
        });
        self.buffer().settled(settled.collect()).await.unwrap();
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Push(n) => {
                let from = self.model.pushed;
                self.model.pushed += n as u64;
                self.model.waiting.extend(from..self.model.pushed);
                self.push(from..self.model.pushed).await;
            }
            Step::PushAgain(n) => {
                let from = self.model.pushed.saturating_sub(n as u64);
                self.push(from..self.model.pushed).await;
            }
            Step::Next(max) => self.next(max).await,
            Step::Settle(n) => {
                if let Some(token) = self.pick_away(n) {
                    self.settle([token]).await;
                }
            }
            Step::GiveBack(n, maybe_sent) => {
                let before: Vec<u64> = self.model.away.keys().copied().collect();
                let Some(token) = self.pick_away(n) else {
                    return;
                };
                let key = before.iter().find(|k| !self.model.away.contains_key(k));
                self.model.back.insert(*key.unwrap(), maybe_sent);
                let ack = Ack::ignored();
                let back = GivenBack {
                    token,
                    ack,
                    maybe_sent,
                };
                self.buffer().give_back(vec![back]).await;
            }
            Step::CleanRestart => {
                self.buffer().close();
                self.buffer().finish().await.unwrap();
                self.model.restart(true);
                self.reopen().await;
            }
            Step::Crash => {
                self.model.restart(false);
                self.reopen().await;
            }
        }
        let held = self.buffer().size().events;
        assert_eq!(usize::try_from(held).unwrap(), self.model.held());
    }

    async fn drain(&mut self) {
        self.buffer().close();
        while self.model.held() > self.model.away.len() {
            self.next(7).await;
        }
        assert!(self.buffer().next(7).await.is_none());
        let away = std::mem::take(&mut self.model.away);
        self.settle(away.into_values()).await;
        assert_eq!(self.buffer().size(), BufferSize::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn disk_buffer_is_a_queue(steps in proptest::collection::vec(step(), 1..40)) {
        // Whatever is pushed, handed out, settled, given back, and however often the process stops
        // or dies between, the disk buffer behaves like a plain queue that forgets nothing.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = TempDir::new().unwrap();
            let mut run = Run { dir, open: None, model: Model::default() };
            run.reopen().await;
            for step in steps {
                run.take(step).await;
            }
            run.drain().await;
        });
    }
}

#[test]
fn the_directory_name_may_be_odd() {
    // Characters that mean something in a URI do not lead to another file.
    let dir = TempDir::new().unwrap();
    let odd = dir.path().join("a b?mode=memory#%41ü");
    for _ in 0..2 {
        drop(Store::open(&odd, Access::Owner).unwrap());
        assert!(Path::new(&odd).join("usercom-sink.db").exists());
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
