//! Guarantees of the store and the buffers: durability, order, limits, and care with foreign files.

mod bounds;
mod disk;
mod files;
mod former;
mod letters;
mod memory;
mod model;
mod quotas;
mod removed;

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
    self, Access, Buffer, BufferError, BufferSize, Buffered, Completion, DeadLetter,
    DeadLetterFilter, DiskBuffer, Exported, MemoryBuffer, NewRecord, PAGE_BYTES, RECORD_OVERHEAD,
    Settlement, Store, StoreError, Token, UnsettledRecord, export,
};
use usercom_sink::clock;
use usercom_sink::config::sink::{BufferConfig, BufferKind, WhenFull};
use usercom_sink::record::{AckOn, Record, SourcePosition};
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
    record.origin = Some(SourcePosition {
        stream_id: key.into(),
        end_offset: position,
        location: format!("{key}:{position}").into(),
    });
    record
}

fn full_record() -> Record {
    Record {
        body: "{\"id\":\"ü\"}".into(),
        meta: Some("{\"topic\":\"t\"}".into()),
        origin: Some(SourcePosition {
            stream_id: "file-1".into(),
            end_offset: u64::MAX,
            location: "logs/app.ndjson:17".into(),
        }),
        transport_id: Some("id-1".into()),
        event_time: Some(Timestamp::from_microsecond(1_767_225_600_000_001).unwrap()),
        maybe_sent: false,
        decode_error: Some("not JSON".into()),
        ack: Ack::noop(),
        ack_on: AckOn::Persisted,
    }
}

type RecordedVerdicts = Arc<Mutex<Vec<Verdict>>>;

fn watched(body: &str) -> (Record, RecordedVerdicts) {
    let told = RecordedVerdicts::default();
    let ack = {
        let told = Arc::clone(&told);
        Ack::new(move |verdict| told.lock().unwrap().push(verdict))
    };
    (Record::new(body.to_owned()).with_ack(ack), told)
}

fn verdicts(told: &RecordedVerdicts) -> Vec<Verdict> {
    told.lock().unwrap().clone()
}

fn bodies(records: &[Buffered]) -> Vec<String> {
    let text = |b: &Buffered| String::from_utf8(b.record.body.to_vec()).unwrap();
    records.iter().map(text).collect()
}

fn done(item: Buffered) -> Completion {
    Completion { token: item.token, ack: item.record.ack, dead: vec![], seen: vec![] }
}

fn letter(body: &[u8], reason: &str, at: Timestamp) -> DeadLetter {
    let record = Record::new(body.to_vec());
    DeadLetter::new(&record, reason, "a sentence", at)
}

fn disk_config() -> BufferConfig {
    BufferConfig { kind: BufferKind::Disk, ..BufferConfig::default() }
}

async fn disk(store: &Store, config: &BufferConfig) -> DiskBuffer {
    DiskBuffer::open(config, SINK, store.clone(), CancellationToken::new()).await.unwrap()
}

fn memory(max_events: usize, when_full: WhenFull) -> (MemoryBuffer, Store) {
    let store = Store::in_memory().unwrap();
    let config = BufferConfig { max_events, when_full, ..BufferConfig::default() };
    let buffer = MemoryBuffer::new(&config, SINK, store.clone(), CancellationToken::new());
    (buffer, store)
}

/// Whether the future is still waiting after a while.
async fn waits<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_millis(150), future).await.is_err()
}

#[tokio::test]
async fn store_content_survives_reopen() {
    // The next process finds everything that the store wrote, with every field.
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
        store.save("app", vec![("k".into(), Some("v".into()))]).await.unwrap();
        let settlement =
            Settlement { seq: Some(2), dead: vec![dead.clone()], seen: vec!["m1".into()] };
        store.settle(SINK, vec![settlement]).await.unwrap();
        store.save_cache(SINK, vec![("u1".into(), Some("7".into()))], Some(10)).await.unwrap();
        // No close: dropping the last handle also frees the directory.
    }
    let store = owner(&dir);
    let stored = store.read(SINK, 0, 10).await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].seq, 1);
    assert_eq!(stored[0].record, NewRecord::from(&full_record()));
    assert!(!stored[0].maybe_sent);
    assert!(clock::now().duration_since(stored[0].received_at) < SignedDuration::from_mins(1));
    assert_eq!(store.load("app").await.unwrap(), [("k".into(), "v".into())]);
    let letters = store.dead_letters(SINK, DeadLetterFilter::default(), 10, 0).await.unwrap();
    assert_eq!(letters[0].letter, dead);
    let seen = store.is_seen(SINK, vec!["m0".into(), "m1".into()]).await.unwrap();
    assert_eq!(seen, [false, true]);
    assert_eq!(store.load_cache(SINK, 10).await.unwrap(), [("u1".into(), "7".into())]);
    let size = stored[0].record.size();
    assert_eq!(store.buffer_size(SINK), BufferSize { events: 1, bytes: size });
    // A sequence number is never reused.
    assert_eq!(store.append(SINK, vec![plain("{}")]).await.unwrap().seqs, 3..4);
    store.close().await;
}

#[tokio::test]
async fn returned_append_is_committed() {
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
            let seqs = store.append(SINK, vec![plain(format!("{n}"))]).await.unwrap().seqs;
            let sql = "SELECT CAST(body AS TEXT) FROM buffer WHERE seq = ?1";
            let body: String = other.query_row(sql, [seqs.start], |row| row.get(0)).unwrap();
            assert_eq!(body, n.to_string());
        }
    });
    futures::future::join_all(appends).await;
    assert_eq!(store.buffer_size(SINK).events, 100);
}

#[tokio::test]
async fn source_position_is_stored_once() {
    // A record whose position was stored before is skipped: in one batch, in the next, after a
    // restart; each sink and each stream has its own positions.
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
    store.save("a", vec![row("x", Some("1")), row("y", Some("2"))]).await.unwrap();
    store.save("b", vec![row("x", Some("9"))]).await.unwrap();
    store.save("a", vec![row("x", Some("3")), row("y", None)]).await.unwrap();
    assert_eq!(store.load("a").await.unwrap(), [("x".into(), "3".into())]);
    assert_eq!(store.load("b").await.unwrap(), [("x".into(), "9".into())]);
}

#[tokio::test]
async fn seen_keys_expire_after_their_window() {
    // A key is seen until it expires; one that is delivered again counts from then; more keys than
    // fit in one transaction expire too.
    let store = Store::in_memory().unwrap();
    let seen = |keys: Vec<String>| vec![Settlement { seen: keys, ..Settlement::default() }];
    let many: Vec<String> = (0..2500).map(|n| format!("old-{n}")).collect();
    store.settle(SINK, seen(many)).await.unwrap();
    store.settle(SINK, seen(vec!["again".into()])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let middle = clock::now();
    store.settle(SINK, seen(vec!["again".into(), "new".into()])).await.unwrap();
    store.settle("other", seen(vec!["o".into()])).await.unwrap();

    let loaded = store.load_seen(SINK, middle, 10).await.unwrap();
    let names: BTreeSet<_> = loaded.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["again", "new"]));
    assert_eq!(store.load_seen(SINK, middle, 1).await.unwrap().len(), 1);
    assert_eq!(store.expire_seen(SINK, middle).await.unwrap(), 2500);
    let asked = ["old-7", "again", "new", "o"].map(str::to_owned).to_vec();
    assert_eq!(store.is_seen(SINK, asked).await.unwrap(), [false, true, true, false]);
    assert_eq!(store.is_seen("other", vec!["o".into()]).await.unwrap(), [true]);
}

#[tokio::test]
async fn cache_trims_oldest() {
    // Cached look-ups are replaced, deleted by `None`, and trimmed oldest first.
    let store = Store::in_memory().unwrap();
    let row = |k: &str, v: Option<&str>| (k.to_owned(), v.map(str::to_owned));
    for rows in [
        vec![row("a", Some("1")), row("b", Some("1"))],
        vec![row("c", Some("1"))],
        vec![row("a", Some("2"))],
        vec![row("d", Some("1")), row("c", None)],
    ] {
        store.save_cache(SINK, rows, Some(2)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(
        store.load_cache(SINK, 10).await.unwrap(),
        [("d".into(), "1".into()), ("a".into(), "2".into())]
    );
}

#[tokio::test]
async fn read_page_is_bounded() {
    // With any backlog one read yields at most a page of bytes, or a single larger record.
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
async fn full_disk_fails_only_appends() {
    // If the file cannot grow, an append fails with "full" and stores no record of its batch; other
    // commands of the same group work, and appends work again once there is space.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let first = store.append(SINK, vec![plain("{\"n\":1}"), plain("{\"n\":2}")]).await.unwrap();
    store.limit_file_size(1).await.unwrap();
    let big = || plain(vec![b'x'; 1 << 20]);
    let (failed, settled, saved) = tokio::join!(
        store.append(SINK, vec![plain("{\"n\":3}"), big()]),
        store.settle(
            SINK,
            vec![Settlement { seq: Some(first.seqs.start), ..Settlement::default() }]
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
