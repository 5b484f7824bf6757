//! Ownership of the file: owners, readers, foreign files, damage.

use super::*;

#[tokio::test]
async fn second_owner_is_rejected() {
    // The error of a second owner names the directory and the first owner's process. A reader can
    // open the directory and cannot write. It is free once the owner is gone.
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
    assert_eq!(fs::read(dir.path().join("usercom-sink.db")).unwrap(), before);
    let mut names: BTreeSet<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // A cleanly closed file has its checksum next to it.
    names.remove("usercom-sink.db.sum");
    let expected = ["usercom-sink.db", "usercom-sink.lock"].map(str::to_owned);
    assert_eq!(names, BTreeSet::from(expected));
    error
}

#[test]
fn foreign_file_is_rejected_unchanged() {
    // A file of another program is rejected by name; no byte of it changes, and no file appears
    // next to it.
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
async fn newer_format_is_rejected_unchanged() {
    // A file of a later version of the program is rejected and not changed.
    let dir = TempDir::new().unwrap();
    owner(&dir).close().await;
    let other = rusqlite::Connection::open(dir.path().join("usercom-sink.db")).unwrap();
    other.pragma_update(None, "user_version", 99).unwrap();
    other.close().unwrap();
    let error = refused(&dir, "has format 99");
    assert!(matches!(error, StoreError::Version { found: 99, .. }));
}

#[tokio::test]
async fn damaged_file_is_rejected_unchanged() {
    // A store with a broken page, or a truncated one, is rejected and not changed.
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

/// A closed store with rows in each table; returns its file.
async fn something(dir: &TempDir) -> Vec<u8> {
    let store = owner(dir);
    store.append(SINK, (1..=60).map(|n| at_position("f", n)).collect()).await.unwrap();
    store.mark_dispatched(SINK, vec![31, 40]).await.unwrap();
    let settled = |seq: i64| Settlement {
        seq: Some(seq),
        dead: vec![letter(b"{}", "status_400", clock::now())],
        seen: vec![format!("track:m-{seq}"), format!("track:{}-{seq}", "x".repeat(80))],
    };
    store.settle(SINK, (1..=30).map(settled).collect()).await.unwrap();
    let row = |n: u32| (format!("u:user-{n}"), Some(format!("{{\"id\":{n}}}")));
    store.save_cache(SINK, (0..30).map(row).collect(), None).await.unwrap();
    let row = |n: u32| (format!("file-{n}"), Some(format!("{{\"position\":{n}}}")));
    store.save("app", (0..10).map(row).collect()).await.unwrap();
    store.close().await;
    fs::read(dir.path().join("usercom-sink.db")).unwrap()
}

#[tokio::test]
async fn any_bit_flip_of_closed_file_is_rejected() {
    // If any bit of a cleanly closed file changes, it is rejected with an explanation and not
    // changed; the same file in its old state is accepted.
    let dir = TempDir::new().unwrap();
    let whole = something(&dir).await;
    let seal = fs::read(dir.path().join("usercom-sink.db.sum")).unwrap();
    let path = dir.path().join("usercom-sink.db");
    let mut rng = rand::rng();
    for n in 0..120 {
        // Counters that every SQLite writer changes cannot be distinguished from a restored backup.
        let at = match n {
            0..40 => rand::Rng::random_range(&mut rng, 100..4096),
            _ => rand::Rng::random_range(&mut rng, 100..whole.len()),
        };
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (n % 8);
        fs::write(&path, &damaged).unwrap();
        let error = Store::open(dir.path(), Access::Owner).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{at}: {error}");
        for word in ["is damaged", "restore it from a backup", "usercom-sink.db.sum"] {
            assert!(error.to_string().contains(word), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(fs::read(dir.path().join("usercom-sink.db.sum")).unwrap(), seal);
    let store = owner(&dir);
    assert!(!dir.path().join("usercom-sink.db.sum").exists(), "no seal while it is written");
    assert_eq!(store.buffer_size(SINK).events, 30);
}

#[tokio::test]
async fn bit_flip_after_kill_loses_no_message_id() {
    // A file without a checksum, as after a kill, is rejected or still has each delivered message
    // id, whichever bit has changed.
    let dir = TempDir::new().unwrap();
    let whole = something(&dir).await;
    let keys: Vec<String> = (1..=30)
        .flat_map(|seq| [format!("track:m-{seq}"), format!("track:{}-{seq}", "x".repeat(80))])
        .collect();
    let mut rng = rand::rng();
    for n in 0..100 {
        let damaged_dir = TempDir::new().unwrap();
        let mut damaged = whole.clone();
        let at = rand::Rng::random_range(&mut rng, 100..whole.len());
        damaged[at] ^= 1 << (n % 8);
        fs::write(damaged_dir.path().join("usercom-sink.db"), &damaged).unwrap();
        let Ok(store) = Store::open(damaged_dir.path(), Access::Owner) else { continue };
        if let Ok(seen) = store.is_seen(SINK, keys.clone()).await {
            assert!(seen.iter().all(|seen| *seen), "bit {} of byte {at}", n % 8);
        }
    }
}

#[tokio::test]
async fn restored_backup_is_accepted() {
    // An older, undamaged copy of the file is accepted next to a newer checksum.
    let dir = TempDir::new().unwrap();
    let old = something(&dir).await;
    let store = owner(&dir);
    let records = (100..400).map(|n| at_position("f", n)).collect();
    store.append(SINK, records).await.unwrap();
    store.close().await;
    fs::write(dir.path().join("usercom-sink.db"), &old).unwrap();
    assert_eq!(owner(&dir).buffer_size(SINK).events, 30);
}

#[tokio::test]
async fn read_only_file_system_error_names_cure() {
    // A killed process' file on a read-only file system: owner and reader get an error that says
    // what to do.
    let dir = TempDir::new().unwrap();
    let mount = |options: &str| {
        std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs", dir.path().to_str().unwrap()])
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !mount("size=8m") {
        return; // This user may not mount a file system.
    }
    let store = owner(&dir);
    store.append(SINK, vec![plain("{}")]).await.unwrap();
    let copy: Vec<_> = ["usercom-sink.db", "usercom-sink.db-wal"]
        .map(|file| (file, fs::read(dir.path().join(file)).unwrap()))
        .to_vec();
    store.close().await;
    for (file, content) in copy {
        fs::write(dir.path().join(file), content).unwrap();
    }
    let read_only = mount("remount,ro");
    let refused = [Access::Owner, Access::ReadOnly].map(|access| Store::open(dir.path(), access));
    let unmount = std::process::Command::new("umount").arg("-l").arg(dir.path()).status();
    assert!(read_only && unmount.unwrap().success());
    for error in refused.map(Result::unwrap_err) {
        let text = error.to_string();
        assert!(!text.contains("reading only"), "{text}");
        assert!(text.contains("usercom-sink.lock") || text.contains("right to write"), "{text}");
    }
}

#[tokio::test]
async fn log_without_database_is_rejected() {
    // A write-ahead log whose database is gone is not applied to a new one.
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("usercom-sink.db-wal"), b"frames").unwrap();
    let error = Store::open(dir.path(), Access::Owner).unwrap_err();
    assert!(error.to_string().contains("usercom-sink.db-wal"), "{error}");
    assert!(!dir.path().join("usercom-sink.db").exists());
}

#[tokio::test]
async fn unfinished_creation_is_restarted() {
    // The rest of a creation that a crash interrupted does not prevent the next one.
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("usercom-sink.db.new"), b"half").unwrap();
    fs::write(dir.path().join("usercom-sink.db.new-journal"), b"half").unwrap();
    let store = owner(&dir);
    store.append(SINK, vec![plain("{}")]).await.unwrap();
    assert!(!dir.path().join("usercom-sink.db.new").exists());
}

#[tokio::test]
async fn interrupted_transaction_with_a_journal_is_rolled_back() {
    // A file that was not in WAL mode when its process was killed amid a transaction is opened, with
    // what it held before the transaction.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    store.append(SINK, vec![plain("{}")]).await.unwrap();
    store.close().await;
    let killed = TempDir::new().unwrap();
    let file = "usercom-sink.db";
    let conn = rusqlite::Connection::open(dir.path().join(file)).unwrap();
    conn.pragma_update(None, "journal_mode", "delete").unwrap();
    // A cache this small writes pages before the transaction ends.
    conn.pragma_update(None, "cache_size", 2).unwrap();
    conn.execute_batch(
        "BEGIN IMMEDIATE; CREATE TABLE half (content BLOB); INSERT INTO half VALUES (zeroblob(200000));",
    )
    .unwrap();
    for part in [file, "usercom-sink.db-journal"] {
        fs::copy(dir.path().join(part), killed.path().join(part)).unwrap();
    }
    let store = owner(&killed);
    assert_eq!(store.buffer_size(SINK).events, 1);
    assert!(!killed.path().join("usercom-sink.db-journal").exists());
}

#[test]
fn directory_name_with_uri_characters_works() {
    // Characters with a meaning in URIs do not lead to another file.
    let dir = TempDir::new().unwrap();
    let odd = dir.path().join("a b?mode=memory#%41ü");
    for _ in 0..2 {
        drop(Store::open(&odd, Access::Owner).unwrap());
        assert!(Path::new(&odd).join("usercom-sink.db").exists());
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A file as programs of format 2 left it: `handed` says that records up to number 2 of three may
/// have been sent. Of format 1 it has no columns for what sources say of a record; of format 3 the
/// same records are marked one by one.
fn file_of_format(dir: &TempDir, format: u32) {
    let conn = rusqlite::Connection::open(dir.path().join("usercom-sink.db")).unwrap();
    conn.execute_batch(include_str!("format_1.sql")).unwrap();
    if format >= 2 {
        conn.execute_batch(
            "ALTER TABLE buffer ADD COLUMN happened_at INTEGER;
             ALTER TABLE buffer ADD COLUMN maybe_sent INTEGER NOT NULL DEFAULT 0;",
        )
        .unwrap();
    }
    if format >= 3 {
        conn.execute_batch(
            "CREATE TABLE dispatched (
                 sink TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (sink, seq)
             ) STRICT, WITHOUT ROWID;
             INSERT INTO dispatched SELECT sink, seq FROM buffer WHERE seq <= 2;
             DELETE FROM handed;",
        )
        .unwrap();
    }
    conn.pragma_update(None, "user_version", format).unwrap();
    conn.close().unwrap();
}

#[tokio::test]
async fn earlier_formats_are_migrated() {
    // The content of an earlier format is read after its owner opened it, with the same records
    // possibly sent. A reader alone changes nothing and says what to do.
    for format in [1, 2, 3] {
        let dir = TempDir::new().unwrap();
        file_of_format(&dir, format);
        let error = Store::open(dir.path(), Access::ReadOnly).unwrap_err();
        assert!(matches!(error, StoreError::Version { found, .. } if found == format));
        assert!(error.to_string().contains("start the pipeline once"), "{error}");
        let store = owner(&dir);
        let stored = store.read(SINK, 0, 9).await.unwrap();
        let expected: Vec<_> = [1, 2, 3].map(|n| (n, n <= 2)).to_vec();
        assert_eq!(stored.iter().map(|s| (s.seq, s.maybe_sent)).collect::<Vec<_>>(), expected);
        assert_eq!(stored[2].record, at_position("f", 3));
        assert_eq!(store.append(SINK, vec![at_position("f", 3)]).await.unwrap().skipped, 1);
        assert_eq!(store.load("app").await.unwrap(), [("k".into(), "v".into())]);
        assert_eq!(store.is_seen(SINK, vec!["track:m-1".into()]).await.unwrap(), [true]);
        let letters = store.dead_letters(SINK, DeadLetterFilter::default(), 9, 0).await.unwrap();
        assert_eq!(letters[0].letter.reason, "status_400");
        store.save_quota(SINK, "a", "{}".into()).await.unwrap();
        store.close().await;
        Store::open(dir.path(), Access::ReadOnly).unwrap();
    }
}
