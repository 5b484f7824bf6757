//! Limits of tables that would grow without end: dead letters and message ids.

use super::*;

async fn dead(store: &Store, sink: &str, bodies: impl Iterator<Item = usize>) {
    for length in bodies {
        let mut dead = letter(&vec![b'x'; length], "status_400", clock::now());
        dead.call = Some("c".repeat(length));
        let settled = Settlement { dead: vec![dead], ..Settlement::default() };
        store.settle(sink, vec![settled]).await.unwrap();
    }
}

async fn lengths(store: &Store, sink: &str) -> Vec<usize> {
    let letters = store.dead_letters(sink, DeadLetterFilter::default(), 10_000, 0).await.unwrap();
    letters.iter().map(|stored| stored.letter.record.len()).collect()
}

#[tokio::test]
async fn dead_letters_over_limit_are_trimmed_oldest_first() {
    // Beyond the limit the oldest dead letters of a sink are deleted until a tenth of it is free;
    // those of other sinks stay. A reopened store and one with running totals agree.
    let dir = TempDir::new().unwrap();
    let mut store = owner(&dir);
    dead(&store, "other", 0..10).await;
    assert_eq!(store.trim_dead_letters(SINK, 100_000).await.unwrap(), 0);
    // Each counts twice its length, its detail and 256 bytes.
    let size = |length: usize| 2 * length as u64 + "a sentence".len() as u64 + 256;
    let sizes: u64 = (1000..1020).map(size).sum();
    dead(&store, SINK, 1000..1020).await;
    for reopened in [false, true] {
        if reopened {
            store.close().await;
            store = owner(&dir);
        }
        assert_eq!(store.trim_dead_letters(SINK, sizes).await.unwrap(), 0);
    }
    assert_eq!(store.trim_dead_letters(SINK, sizes - 1).await.unwrap(), 3);
    assert_eq!(lengths(&store, SINK).await, (1003..1020).collect::<Vec<_>>());
    assert_eq!(lengths(&store, "other").await.len(), 10);

    // Purged rows are not counted; more rows than fit in one transaction are trimmed too.
    store.purge_dead_letters(SINK, DeadLetterFilter::default()).await.unwrap();
    let many = (0..1500).map(|_| letter(b"1", "status_400", clock::now())).collect();
    store.settle(SINK, vec![Settlement { dead: many, ..Settlement::default() }]).await.unwrap();
    assert_eq!(store.trim_dead_letters(SINK, 267 * 1500).await.unwrap(), 0);
    assert_eq!(store.trim_dead_letters(SINK, 267 * 100).await.unwrap(), 1410);
    assert_eq!(lengths(&store, SINK).await.len(), 90);
}

#[tokio::test]
async fn message_keys_over_limit_are_trimmed_oldest_first() {
    // Beyond the limit the oldest keys are deleted until a twentieth of it is free; repeated keys
    // count once; each sink has its own limit.
    let store = Store::in_memory().unwrap();
    let seen = |keys: std::ops::Range<usize>| {
        let seen = keys.map(|n| format!("track:m-{n}")).collect();
        vec![Settlement { seen, ..Settlement::default() }]
    };
    store.settle("other", seen(0..50)).await.unwrap();
    for (n, keys) in [0..3000, 3000..4000, 3500..4000].into_iter().enumerate() {
        store.settle(SINK, seen(keys)).await.unwrap();
        let trimmed = store.trim_seen(SINK, 4000).await.unwrap();
        assert_eq!(trimmed, 0, "{n}");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    store.settle(SINK, seen(4000..4001)).await.unwrap();
    assert_eq!(store.trim_seen(SINK, 4000).await.unwrap(), 201);
    let all = (0..4001).map(|n| format!("track:m-{n}")).collect();
    let known = store.is_seen(SINK, all).await.unwrap();
    assert_eq!(known[..3000].iter().filter(|seen| **seen).count(), 2799);
    assert!(known[3000..].iter().all(|seen| *seen), "the newest are known");
    assert_eq!(store.is_seen("other", vec!["track:m-1".into()]).await.unwrap(), [true]);
}

#[tokio::test]
async fn long_message_keys_are_recognised() {
    // Keys of any length are distinguished, and a long one that an earlier version stored unhashed
    // is still recognised.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let long = |n: usize| format!("track:{}-{n}", "ü".repeat(500));
    let seen = (0..20).step_by(2).map(long).collect();
    store.settle(SINK, vec![Settlement { seen, ..Settlement::default() }]).await.unwrap();
    store.close().await;
    let path = dir.path().join("usercom-sink.db");
    fs::remove_file(dir.path().join("usercom-sink.db.sum")).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    let longest: i64 =
        other.query_row("SELECT max(length(message_key)) FROM seen", [], |r| r.get(0)).unwrap();
    assert!(longest <= 34, "{longest}");
    other.execute("INSERT INTO seen VALUES (?1, ?2, 1)", [SINK, &long(1)]).unwrap();
    other.close().unwrap();
    let store = owner(&dir);
    let known = store.is_seen(SINK, (0..20).map(long).collect()).await.unwrap();
    let expected: Vec<bool> = (0..20).map(|n| n % 2 == 0 || n == 1).collect();
    assert_eq!(known, expected);
}
