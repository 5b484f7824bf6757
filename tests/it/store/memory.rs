//! The memory buffer.

use super::*;

#[tokio::test]
async fn memory_push_waits_when_full() {
    // A push into a full memory buffer waits until records are yielded; the order is kept.
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
async fn memory_push_rejects_newest_with_drop_newest() {
    // With `drop_newest` a push never waits; records that do not fit are settled as rejected and
    // counted.
    let (buffer, _store) = memory(2, WhenFull::DropNewest);
    let (records, told): (Vec<_>, Vec<_>) = ["a", "b", "c"].map(watched).into_iter().unzip();
    buffer.push(records).await.unwrap();
    assert_eq!(buffer.discarded(), 1);
    assert_eq!(verdicts(&told[2]), [Verdict::Rejected]);
    assert!(verdicts(&told[0]).is_empty());
    assert_eq!(bodies(&buffer.next(10).await.unwrap()), ["a", "b"]);
}

#[tokio::test]
async fn memory_notifies_after_dead_letter_is_stored() {
    // A memory buffer notifies "delivered" or "rejected" only in `settle`, when a rejected record
    // is already in the dead letters. A returned record is errored, so its source sends it again.
    let (buffer, store) = memory(10, WhenFull::Block);
    let (records, told): (Vec<_>, Vec<_>) = ["1", "2", "3"].map(watched).into_iter().unzip();
    buffer.push(records).await.unwrap();
    let mut items = buffer.next(10).await.unwrap().into_iter();
    assert!(told.iter().all(|told| verdicts(told).is_empty()));
    let mut good = done(items.next().unwrap());
    good.seen = vec!["m1".into()];
    let mut bad = done(items.next().unwrap());
    bad.dead = vec![letter(b"2", "status_400", Timestamp::UNIX_EPOCH)];
    buffer.settle(vec![good, bad]).await.unwrap();
    let back = items.next().unwrap();
    let back = UnsettledRecord { token: back.token, ack: back.record.ack, maybe_sent: false };
    buffer.return_unsettled(vec![back]).await;
    assert_eq!(verdicts(&told[0]), [Verdict::Delivered]);
    assert_eq!(verdicts(&told[1]), [Verdict::Rejected]);
    assert_eq!(verdicts(&told[2]), [Verdict::Errored]);
    assert_eq!(store.count_dead_letters(SINK).await.unwrap()[0].1, 1);
    assert_eq!(store.is_seen(SINK, vec!["m1".into()]).await.unwrap(), [true]);
}

#[tokio::test]
async fn dead_letter_waits_for_disk_space() {
    // A dead letter on a full disk is neither lost nor reported before it is stored; if the process
    // stops before, the record is not settled.
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
        buffer.settle(vec![item])
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
async fn close_wakes_waiting_push_and_next() {
    // Waiting calls of `push` and `next` return when the buffer is closed, for both kinds of
    // buffer; records that were not accepted are errored.
    let small = |kind| BufferConfig { kind, max_events: 1, max_size: 1, ..BufferConfig::default() };
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

#[tokio::test]
async fn memory_buffer_preserves_maybe_sent() {
    // A record that its source calls possibly sent is yielded as possibly sent.
    let (buffer, _store) = memory(10, WhenFull::Block);
    let mut maybe_sent_seqs = Record::new("1");
    maybe_sent_seqs.maybe_sent = true;
    buffer.push(vec![maybe_sent_seqs, Record::new("2")]).await.unwrap();
    let marks: Vec<_> = buffer.next(10).await.unwrap().iter().map(|b| b.maybe_sent).collect();
    assert_eq!(marks, [true, false]);
}
