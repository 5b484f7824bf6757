//! Dead letters: selection, counts, JSON output, export.

use super::*;

#[tokio::test]
async fn dead_letter_filters_select_count_and_delete() {
    // Every filter, and their combination, selects the right dead letters of the right sink.
    let store = Store::in_memory().unwrap();
    let time = |s: i64| Timestamp::from_second(s).unwrap();
    let dead =
        (0..6).map(|n| letter(b"{}", if n % 2 == 0 { "even" } else { "odd" }, time(n))).collect();
    let batch = vec![Settlement { dead, ..Settlement::default() }];
    store.settle(SINK, batch.clone()).await.unwrap();
    store.settle("other", batch).await.unwrap();

    let ids = async |filter, limit, offset| {
        let found = store.dead_letters(SINK, filter, limit, offset).await;
        found.unwrap().iter().map(|l| l.id).collect::<Vec<_>>()
    };
    let all = DeadLetterFilter::default;
    let odd = || DeadLetterFilter { reason: Some("odd".into()), ..all() };
    assert_eq!(ids(all(), 100, 0).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(ids(all(), 2, 3).await, [4, 5]);
    assert_eq!(ids(odd(), 100, 0).await, [2, 4, 6]);
    let late_odd = DeadLetterFilter { since: Some(time(3)), ..odd() };
    assert_eq!(ids(late_odd, 100, 0).await, [4, 6]);
    let some = DeadLetterFilter { ids: Some(vec![6, 1, 9]), ..all() };
    assert_eq!(ids(some.clone(), 100, 0).await, [1, 6]);
    let none = DeadLetterFilter { ids: Some(vec![]), ..all() };
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
async fn dead_letters_serialize_and_export() {
    // JSON output shows any record as received on one line; an export is a file whose lines are the
    // records.
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
    store.settle(SINK, vec![Settlement { dead, ..Settlement::default() }]).await.unwrap();
    let letters = store.dead_letters(SINK, DeadLetterFilter::default(), 10, 0).await.unwrap();
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
    assert_eq!(exported, Exported { written: 3, left_out: 1 });
    let expected = b"{\"big\":  12345678901234567890.10}\nnot js\xc3\xb6n {\n\xff\x00raw\n";
    assert_eq!(out, expected);
}
