//! Files that are removed or replaced while they are in use.

use super::*;

const FILES: [&str; 3] = ["usercom-sink.db", "usercom-sink.db-wal", "usercom-sink.db-shm"];

async fn filled(dir: &TempDir) -> Store {
    let store = owner(dir);
    store.append(SINK, (0..500).map(|n| at_position("f", n + 1)).collect()).await.unwrap();
    let settled = |seq| Settlement { seq: Some(seq), seen: vec![format!("m{seq}")], dead: vec![] };
    store.settle(SINK, (1..=100).map(settled).collect()).await.unwrap();
    store.mark_dispatched(SINK, vec![101, 102]).await.unwrap();
    store
}

async fn check_all(store: &Store, appended: u64) {
    let rows = store.read(SINK, 0, 1000).await.unwrap();
    assert_eq!(rows.len() as u64, 400 + appended);
    assert_eq!(store.buffer_size(SINK).events, 400 + appended);
    let marked: Vec<i64> = rows.iter().filter(|row| row.maybe_sent).map(|row| row.seq).collect();
    assert_eq!(marked, [101, 102]);
    let seen = store.is_seen(SINK, vec!["m100".into(), "m101".into()]).await.unwrap();
    assert_eq!(seen, [true, false]);
    assert_eq!(store.append(SINK, vec![at_position("f", 500)]).await.unwrap().skipped, 1);
}

#[tokio::test]
async fn removed_file_is_written_again() {
    // If any of its files are removed while it is in use, the store continues, and within seconds
    // its content is under its name again, for this process and the next.
    for removed in [&FILES[..], &FILES[..1], &FILES[1..2], &FILES[1..]] {
        let dir = TempDir::new().unwrap();
        let store = filled(&dir).await;
        for file in removed {
            fs::remove_file(dir.path().join(file)).unwrap();
        }
        store.append(SINK, vec![plain("{}")]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1100)).await;
        store.check_file().await.unwrap();
        check_all(&store, 1).await;
        store.append(SINK, vec![plain("{}")]).await.unwrap();
        // A copy made now is the state after a kill.
        let copy = TempDir::new().unwrap();
        for file in &FILES[..2] {
            fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
        }
        check_all(&owner(&copy), 2).await;
        store.close().await;
        let store = owner(&dir);
        check_all(&store, 2).await;
    }
}

#[tokio::test]
async fn replaced_file_stops_store_without_loss() {
    // If another store replaces the file, nothing more is written, the error says what to do, the
    // other file is not changed, and a copy of the content is next to it.
    let dir = TempDir::new().unwrap();
    let store = filled(&dir).await;
    let other = TempDir::new().unwrap();
    owner(&other).close().await;
    let path = dir.path().join(FILES[0]);
    let foreign = fs::read(other.path().join(FILES[0])).unwrap();
    fs::rename(other.path().join(FILES[0]), &path).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let error = store.append(SINK, vec![plain("{}")]).await.unwrap_err();
    assert!(matches!(error, StoreError::Removed { .. }), "{error}");
    for word in ["usercom-sink.db.rescued", "start again", path.to_str().unwrap()] {
        assert!(error.to_string().contains(word), "{error}");
    }
    let buffer = disk(&store, &disk_config()).await;
    let refused = buffer.push(vec![Record::new("{}")]).await;
    assert!(matches!(refused, Err(BufferError::Store(StoreError::Removed { .. }))));
    drop((buffer, store));
    assert_eq!(fs::read(&path).unwrap(), foreign);
    for file in FILES {
        fs::remove_file(dir.path().join(file)).unwrap_or(());
    }
    fs::rename(dir.path().join("usercom-sink.db.rescued"), &path).unwrap();
    check_all(&owner(&dir), 0).await;
}

#[tokio::test]
async fn removed_folder_stops_store() {
    // If the folder is gone too, commands fail with an explanation.
    let dir = TempDir::new().unwrap();
    let store = filled(&dir).await;
    fs::remove_dir_all(dir.path()).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let error = store.append(SINK, vec![plain("{}")]).await.unwrap_err();
    assert!(error.to_string().contains("sent a second time"), "{error}");
}
