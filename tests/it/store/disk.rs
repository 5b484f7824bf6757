//! The disk buffer.

use super::*;

#[tokio::test]
async fn disk_push_acknowledges_stored_records() {
    // A push into a disk buffer settles its records as delivered once they are stored, and so are
    // skipped ones.
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
async fn disk_push_waits_when_full() {
    // A disk buffer never holds more than `max_size`, also with several pushers. A settled record
    // frees space. A record larger than the buffer is accepted when it is empty.
    let store = Store::in_memory().unwrap();
    let one = 1 + RECORD_OVERHEAD;
    let config = BufferConfig { max_size: 3 * one, ..disk_config() };
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
            buffer.settle(items).await.unwrap();
        }
    };
    let ((a, b, c), ()) = tokio::join!(pushes, drain);
    for pushed in [a, b, c] {
        pushed.unwrap();
    }

    let large = || vec![Record::new("x".repeat(1000))];
    buffer.push(large()).await.unwrap();
    assert!(waits(buffer.push(large())).await);
}

#[tokio::test]
async fn disk_push_rejects_newest_with_drop_newest() {
    // With `drop_newest` a full disk buffer rejects records that do not fit, and counts them.
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
    assert_eq!(told, [Verdict::Delivered, Verdict::Delivered, Verdict::Rejected]);
    assert_eq!((buffer.size().events, buffer.discarded()), (2, 1));
}

#[tokio::test]
async fn disk_push_waits_for_disk_space() {
    // A push on a full disk waits and is stored once there is space; its source is not notified
    // before.
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

async fn maybe_sent_seqs(store: &Store) -> Vec<i64> {
    let (mut after, mut seqs) = (0, vec![]);
    loop {
        let page = store.read(SINK, after, 1000).await.unwrap();
        let Some(last) = page.last() else { return seqs };
        after = last.seq;
        seqs.extend(page.iter().filter(|s| s.maybe_sent).map(|s| s.seq));
    }
}

#[tokio::test]
async fn only_marked_records_are_maybe_sent_after_crash() {
    // Records that were marked and not settled when the process died are possibly sent, over any
    // number of restarts. Records that were only yielded, or unmarked, are not.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let buffer = disk(&store, &disk_config()).await;
    let records = (0..1500).map(|n| Record::new(n.to_string())).collect();
    buffer.push(records).await.unwrap();
    let mut out = buffer.next(10).await.unwrap();
    assert!(out.iter().all(|item| !item.maybe_sent));
    let tokens = |of: &[usize]| of.iter().map(|n| out[*n].token).collect::<Vec<_>>();
    buffer.mark_dispatched(tokens(&[1, 4, 5, 8]), vec![]).await.unwrap();
    buffer.mark_dispatched(tokens(&[9]), tokens(&[5])).await.unwrap();
    buffer.settle(vec![done(out.remove(4))]).await.unwrap();
    drop((buffer, store)); // Without `finish`: the same as a crash.

    let store = owner(&dir);
    assert_eq!(maybe_sent_seqs(&store).await, [2, 9, 10]);
    let buffer = disk(&store, &disk_config()).await;
    let again = buffer.next(9).await.unwrap();
    assert_eq!(bodies(&again)[..5], ["0", "1", "2", "3", "5"]);
    let marks: Vec<_> = again.iter().filter(|item| item.maybe_sent).collect();
    assert_eq!(marks.len(), 3);

    // Possibly sent records that are not settled stay so over a clean stop.
    let some = again.into_iter().take(2).map(done).collect();
    buffer.settle(some).await.unwrap();
    buffer.finish().await.unwrap();
    drop((buffer, store));
    let store = owner(&dir);
    assert_eq!(maybe_sent_seqs(&store).await, [9, 10]);
}

#[tokio::test]
async fn no_unsent_record_is_maybe_sent_after_clean_stop() {
    // After `finish` exactly the returned records that may have been sent are possibly sent,
    // whether or not others were marked ahead of time.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let buffer = disk(&store, &disk_config()).await;
    let records = (0..20).map(|n| Record::new(n.to_string())).collect();
    buffer.push(records).await.unwrap();
    let mut out = buffer.next(5).await.unwrap();
    let unsent = out.pop().unwrap();
    buffer.mark_dispatched(vec![out[0].token, unsent.token], vec![]).await.unwrap();
    let back = UnsettledRecord { token: unsent.token, ack: unsent.record.ack, maybe_sent: false };
    buffer.return_unsettled(vec![back]).await;
    let settled = out.into_iter().map(done).collect();
    buffer.settle(settled).await.unwrap();
    buffer.finish().await.unwrap();
    drop(buffer);
    store.close().await;

    let store = owner(&dir);
    assert!(maybe_sent_seqs(&store).await.is_empty());
    let buffer = disk(&store, &disk_config()).await;
    let mut out = buffer.next(2).await.unwrap();
    assert_eq!(bodies(&out), ["4", "5"]);
    let sent = out.pop().unwrap();
    let back = UnsettledRecord { token: sent.token, ack: sent.record.ack, maybe_sent: true };
    buffer.return_unsettled(vec![back]).await;
    buffer.finish().await.unwrap();
    // The same within one process, as after a reload.
    let buffer = disk(&store, &disk_config()).await;
    let out = buffer.next(10).await.unwrap();
    let marks: Vec<_> = out.iter().map(|item| item.maybe_sent).collect();
    assert_eq!(marks[..3], [false, true, false]);
}

#[tokio::test]
async fn returned_records_are_yielded_first() {
    // A record that is returned to a disk buffer is yielded again before newer ones, in order, with
    // the `maybe_sent` it was returned with.
    let store = Store::in_memory().unwrap();
    let buffer = disk(&store, &disk_config()).await;
    let records = (0..6).map(|n| Record::new(n.to_string())).collect();
    buffer.push(records).await.unwrap();
    let out = buffer.next(4).await.unwrap();
    let back = out.into_iter().rev().take(2).enumerate();
    let back = back.map(|(n, item)| UnsettledRecord {
        token: item.token,
        ack: item.record.ack,
        maybe_sent: n == 0,
    });
    buffer.return_unsettled(back.collect()).await;
    let again = buffer.next(10).await.unwrap();
    assert_eq!(bodies(&again), ["2", "3"]);
    let marks: Vec<_> = again.iter().map(|item| item.maybe_sent).collect();
    assert_eq!(marks, [false, true]);
    assert_eq!(bodies(&buffer.next(10).await.unwrap()), ["4", "5"]);
}

#[tokio::test]
async fn ack_on_finalized_is_notified_at_settlement() {
    // A record whose source asks for the final status is notified at its settlement and not before;
    // others are notified as soon as they are durable.
    let store = Store::in_memory().unwrap();
    let buffer = disk(&store, &disk_config()).await;
    let (plain, plain_told) = watched("0");
    let (mut first, first_told) = watched("1");
    let (mut second, second_told) = watched("2");
    (first.ack_on, second.ack_on) = (AckOn::Finalized, AckOn::Finalized);
    buffer.push(vec![plain, first, second]).await.unwrap();
    assert_eq!(verdicts(&plain_told), [Verdict::Delivered]);
    assert_eq!((verdicts(&first_told), verdicts(&second_told)), (vec![], vec![]));

    let mut items = buffer.next(10).await.unwrap();
    assert_eq!(bodies(&items), ["0", "1", "2"]);
    let refused = items.pop().unwrap();
    let dead = vec![letter(b"2", "status_400", "2026-01-01T00:00:00Z".parse().unwrap())];
    buffer.settle(items.into_iter().map(done).collect()).await.unwrap();
    assert_eq!(verdicts(&first_told), [Verdict::Delivered]);
    buffer.settle(vec![Completion { dead, ..done(refused) }]).await.unwrap();
    assert_eq!(verdicts(&second_told), [Verdict::Rejected]);

    // Records that are still stored when the program ends have no final status.
    let (mut last, last_told) = watched("3");
    last.ack_on = AckOn::Finalized;
    buffer.push(vec![last]).await.unwrap();
    drop(buffer);
    assert_eq!(verdicts(&last_told), [Verdict::Errored]);
}

#[tokio::test]
async fn disk_buffer_preserves_maybe_sent_and_time() {
    // A record that its source calls possibly sent is read as possibly sent, also after a clean
    // restart; and a record has the same time at each read.
    let dir = TempDir::new().unwrap();
    let mut maybe_sent_seqs = Record::new("1");
    maybe_sent_seqs.maybe_sent = true;
    maybe_sent_seqs.event_time = Some(Timestamp::UNIX_EPOCH);
    let store = owner(&dir);
    let buffer = disk(&store, &disk_config()).await;
    buffer.push(vec![maybe_sent_seqs, Record::new("2")]).await.unwrap();
    let mut known = Vec::new();
    let (mut store, mut buffer) = (store, buffer);
    for _ in 0..2 {
        let out = buffer.next(10).await.unwrap();
        let marks: Vec<_> = out.iter().map(|item| item.maybe_sent).collect();
        assert_eq!(marks, [true, false]);
        known.push(out.iter().map(|item| item.record.event_time.unwrap()).collect::<Vec<_>>());
        let back = out.into_iter().map(|item| UnsettledRecord {
            token: item.token,
            ack: item.record.ack,
            maybe_sent: item.maybe_sent,
        });
        buffer.return_unsettled(back.collect()).await;
        buffer.close();
        buffer.finish().await.unwrap();
        store.close().await;
        drop(buffer);
        store = owner(&dir);
        buffer = disk(&store, &disk_config()).await;
    }
    assert_eq!(known[0][0], Timestamp::UNIX_EPOCH);
    assert_eq!(known[0], known[1], "the second has the time it was stored at");
}

#[tokio::test]
async fn delivery_continues_when_buffer_fills_disk() {
    // If the file cannot grow, pushes wait before they use the space that delivery needs: every
    // mark, settlement with its message ids and dead letters, and checkpoint is written meanwhile,
    // and all pushes complete as settled records free space.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let buffer = disk(&store, &disk_config()).await;
    store.limit_file_size(4 << 20).await.unwrap();
    let body = "x".repeat(20_000);
    let pushes = async {
        for _ in 0..40 {
            let records = (0..10).map(|_| Record::new(body.clone())).collect();
            buffer.push(records).await.unwrap();
        }
        buffer.close();
    };
    let drain = async {
        // Until a push waits.
        while buffer.storage_errors() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut settled = 0;
        while let Some(items) = buffer.next(5).await {
            let tokens = items.iter().map(|item| item.token).collect();
            let before = buffer.storage_errors();
            buffer.mark_dispatched(tokens, vec![]).await.unwrap();
            let settle = items.into_iter().enumerate().map(|(n, item)| {
                let at = clock::now();
                let dead =
                    if n == 0 { vec![letter(&[b'd'; 2000], "status_400", at)] } else { vec![] };
                Completion { dead, seen: vec![format!("track:{settled}-{n}")], ..done(item) }
            });
            let settle: Vec<_> = settle.collect();
            settled += settle.len();
            buffer.settle(settle).await.unwrap();
            store.save("app", vec![("k".into(), Some(settled.to_string()))]).await.unwrap();
            assert!(buffer.storage_errors() - before < 10, "only intake waits");
        }
        settled
    };
    let ((), settled) = tokio::join!(pushes, drain);
    assert_eq!(settled, 400);
    assert_eq!(buffer.size(), BufferSize::default());
}
