//! No offset is committed over what was not seen: answers that are cut, records larger than an
//! answer, holes, retention, topics created again, SmartModules.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use usercom_sink::ack::Verdict;
use usercom_sink::config::source::{FluvioStrategy, FluvioTransform};
use usercom_sink::source::ReadMode;

use super::cluster::{Fake, Transform};
use super::reader::{fill, settings};
use super::support::{How, Notes, Reader};

const QUIET: Duration = Duration::from_secs(90);

fn offsets(range: std::ops::Range<i64>) -> Vec<(u32, i64)> {
    range.map(|offset| (0, offset)).collect()
}

fn large(fake: &Fake, count: usize, bytes: usize) {
    for n in 0..count {
        fake.produce(0, format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(bytes)));
    }
}

fn transformed(how: &mut How) {
    let with = indexmap::IndexMap::new();
    how.settings.transforms = vec![FluvioTransform { uses: "some".into(), with }];
}

#[tokio::test(start_paused = true)]
async fn response_cut_inside_a_batch_loses_nothing() {
    // 10,000 records of 1 KB in one partition, compressed or not, fetched with `max_bytes =
    // 100000`: every answer is cut amid a batch, and every record comes once and in order.
    for compressed in [false, true] {
        for mode in [ReadMode::Once, ReadMode::Follow] {
            let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
            fake.state().batch = 15;
            fake.state().compressed = compressed;
            large(&fake, 10_000, 1000);
            let mut how = settings(|s| s.max_bytes = Some(100_000));
            how.mode = mode;
            let mut reader = Reader::start(&fake, &notes, how);
            let seen = reader.deliver_all(Duration::from_secs(20)).await;
            assert_eq!(seen, offsets(0..10_000), "{mode:?}");
            match mode {
                ReadMode::Once => reader.end().await.unwrap(),
                ReadMode::Follow => reader.stop().await.unwrap(),
            }
            assert!(fake.is_finished());
            assert_eq!(fake.state().wrong, []);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn batch_larger_than_a_response_is_fetched_alone() {
    // A batch, or a single record, that no answer of `max_bytes` can hold is asked for with a
    // larger one, and only that one: what follows is fetched as before.
    for (batch, compressed) in [(1, false), (8, false), (8, true)] {
        let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
        fake.state().batch = batch;
        fake.state().compressed = compressed;
        fill(&fake, 0, 16);
        large(&fake, 8, 3_000);
        fill(&fake, 0, 16);
        let mut reader = Reader::start(&fake, &notes, settings(|s| s.max_bytes = Some(1_000)));
        assert_eq!(reader.deliver_all(QUIET).await, offsets(0..40));
        reader.stop().await.unwrap();
        assert!(fake.is_finished());
        let most = fake.state().most_bytes;
        assert!((3_000..40_000).contains(&most), "{most}");
    }
}

#[tokio::test(start_paused = true)]
async fn record_too_large_for_any_response_is_an_error() {
    // Beyond 64 MiB nothing is fetched unless it is asked for: the error names topic, partition,
    // offset and setting, and what came before is kept.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 3);
    large(&fake, 1, 65 * 1024 * 1024);
    fill(&fake, 0, 3);
    let mut reader = Reader::start(&fake, &notes, How::default());
    assert_eq!(reader.deliver_all(QUIET).await, offsets(0..3));
    let error = reader.end().await.unwrap_err().to_string();
    for told in ["topic `events`", "partition 0", "offset 3", "`max_bytes`"] {
        assert!(error.contains(told), "{error}");
    }
    assert_eq!(fake.state().kept.get(&0), Some(&2));
    let how = settings(|s| s.max_bytes = Some(70 * 1024 * 1024));
    let mut reader = Reader::start(&fake, &notes, how);
    assert_eq!(reader.deliver_all(QUIET).await, offsets(3..7));
    reader.stop().await.unwrap();
    assert!(fake.is_finished());
}

#[tokio::test(start_paused = true)]
async fn offset_gap_is_fetched_again() {
    // An answer that begins after what was asked for is not read: the stream is opened again, as
    // often as it takes; nothing is lost, repeated or kept over it.
    for mode in [ReadMode::Follow, ReadMode::Once] {
        let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
        fill(&fake, 0, 50);
        fake.state().batch = 5;
        fake.state().holes = 4;
        let mut reader = Reader::start(&fake, &notes, How { mode, ..How::default() });
        assert_eq!(reader.deliver_all(QUIET).await, offsets(0..50), "{mode:?}");
        match mode {
            ReadMode::Once => reader.end().await.unwrap(),
            ReadMode::Follow => reader.stop().await.unwrap(),
        }
        assert!(fake.is_finished());
        assert_eq!(fake.state().wrong, []);
    }
}

#[tokio::test(start_paused = true)]
async fn permanent_offset_gap_fails_a_once_run() {
    // `--once` does not end well while a record is missing: the error says which, and the offset
    // before it stays.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 20);
    fake.state().batch = 5;
    fake.state().holes = usize::MAX;
    let reader = Reader::start(&fake, &notes, How { mode: ReadMode::Once, ..How::default() });
    let error = reader.end().await.unwrap_err().to_string();
    assert!(error.contains("topic `events`, partition 0"), "{error}");
    assert!(error.contains("offset 0 was not received") && error.contains("max_bytes"), "{error}");
    assert!(fake.state().kept.is_empty());
}

#[tokio::test(start_paused = true)]
async fn recreated_topic_is_read_from_its_beginning() {
    // Deleted and created again while it is read, or while no process reads; shorter than before,
    // or empty at first: every record of the new topic comes once.
    for (at_once, running) in [(true, true), (false, true), (true, false)] {
        let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
        fill(&fake, 0, 30);
        let mut reader = Reader::start(&fake, &notes, How::default());
        assert_eq!(reader.deliver_all(Duration::from_secs(5)).await.len(), 30);
        if !running {
            reader.stop().await.unwrap();
            reader = {
                fake.make_anew();
                fill(&fake, 0, 12);
                Reader::start(&fake, &notes, How::default())
            };
        } else {
            fake.make_anew();
            if !at_once {
                sleep(Duration::from_secs(60)).await;
            }
            fill(&fake, 0, 12);
        }
        assert_eq!(reader.deliver_all(QUIET).await, offsets(0..12), "{at_once} {running}");
        assert!(fake.is_finished(), "{:?}", fake.state().kept);
        reader.stop().await.unwrap();
        fill(&fake, 0, 3);
        let mut reader = Reader::start(&fake, &notes, How::default());
        assert_eq!(reader.deliver_all(QUIET).await, offsets(12..15));
        reader.stop().await.unwrap();
        assert_eq!(fake.state().wrong, []);
    }
}

#[tokio::test(start_paused = true)]
async fn recreated_topic_with_records_in_flight_is_read_whole() {
    // What was fetched of the topic before is delivered, its verdicts keep no offset of the new
    // one, and a crash right after that is read does not begin after the old offset.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 30);
    let mut reader = Reader::start(&fake, &notes, settings(|s| s.max_in_flight = 10));
    let held = reader.take().await.unwrap();
    while let Some(taken) = reader.take_within(Duration::from_secs(1)).await {
        taken.record.ack.settle(Verdict::Delivered);
    }
    fake.make_anew();
    fill(&fake, 0, 40);
    sleep(Duration::from_millis(50)).await;
    held.record.ack.settle(Verdict::Delivered);
    for offset in 10..30 {
        let taken = reader.take().await.unwrap();
        assert_eq!(taken.offset, offset, "of the topic before");
        taken.record.ack.settle(Verdict::Delivered);
    }
    assert_eq!(reader.take().await.unwrap().offset, 0);
    reader.crash().await;
    let mut reader = Reader::start(&fake, &notes, settings(|s| s.max_in_flight = 10));
    assert_eq!(reader.deliver_all(QUIET).await, offsets(0..40));
    reader.stop().await.unwrap();
    assert_eq!(fake.state().wrong, []);
}

#[tokio::test(start_paused = true)]
async fn stale_end_offset_is_not_a_new_topic() {
    // Servers that change may tell an end before the place of reading: it is asked again, and
    // nothing is read twice.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 20);
    let mut reader = Reader::start(&fake, &notes, How::default());
    assert_eq!(reader.deliver_all(Duration::from_secs(5)).await.len(), 20);
    fake.state().lagging = 5;
    fake.cut();
    sleep(Duration::from_millis(700)).await;
    fake.state().lagging = 0;
    fill(&fake, 0, 1);
    assert_eq!(reader.deliver_all(QUIET).await, offsets(20..21));
    reader.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn filtering_smartmodule_neither_repeats_nor_loses() {
    // Offsets after a filter are only counted; what is committed are ends that the cluster reports.
    // Stops, crashes and cuts repeat at most what was not settled, and lose nothing.
    for mode in [ReadMode::Follow, ReadMode::Once] {
        let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
        fake.state().batch = 7;
        fake.state().transform = Some(Transform::Filter);
        fake.state().filtered.extend((0..400).filter(|n| n % 4 == 0).map(|n| (0, n)));
        let mut seen = Vec::new();
        for _ in 0..4 {
            fill(&fake, 0, 98);
            let mut how = How { mode, ..How::default() };
            how.settings.max_in_flight = 10;
            transformed(&mut how);
            let mut reader = Reader::start(&fake, &notes, how);
            seen.extend(reader.deliver_all(Duration::from_secs(20)).await);
            match mode {
                ReadMode::Follow => reader.stop().await.unwrap(),
                ReadMode::Once => reader.end().await.unwrap(),
            }
        }
        let all: Vec<_> = (0..392).filter(|n| n % 4 != 0).map(|n| (0, n)).collect();
        assert_eq!(seen, all, "{mode:?}");
        assert_eq!(fake.state().wrong, []);
        assert_eq!(fake.state().kept.get(&0), Some(&391));
    }
}

#[tokio::test(start_paused = true)]
async fn expanding_smartmodule_loses_nothing_after_a_crash() {
    // Of one record three are made: a crash amid them begins again before all three, and names of
    // records are distinguished though their counted offsets are not.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fake.state().batch = 4;
    fake.state().transform = Some(Transform::Multiply(3));
    let how = || {
        let mut how = settings(|s| s.max_in_flight = 5);
        transformed(&mut how);
        how
    };
    fill(&fake, 0, 8);
    let mut reader = Reader::start(&fake, &notes, how());
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..7 {
        let taken = reader.take().await.unwrap();
        names.insert(taken.record.transport_id.clone().unwrap());
        taken.record.ack.settle(Verdict::Delivered);
    }
    sleep(Duration::from_secs(5)).await;
    assert!(fake.state().kept.is_empty(), "no place within an answer is kept");
    reader.crash().await;
    let mut reader = Reader::start(&fake, &notes, how());
    let mut seen = Vec::new();
    while let Some(taken) = reader.take_within(Duration::from_secs(20)).await {
        assert!(taken.record.maybe_sent, "all of that answer may have been sent");
        names.insert(taken.record.transport_id.clone().unwrap());
        seen.push(taken.offset);
        reader.settle(taken, Verdict::Delivered);
    }
    let all: Vec<_> = (0..8).flat_map(|n| [n, n, n]).collect();
    assert_eq!(seen, all);
    assert_eq!(names.len(), 24, "each has a name of its own, the same in both runs");
    reader.stop().await.unwrap();
    assert_eq!(fake.state().kept.get(&0), Some(&7));
}

#[tokio::test(start_paused = true)]
async fn records_filtered_at_the_end_are_checked_again() {
    // Where nothing comes, the cluster reports no end: the offset stays after the last answer, and
    // a run that ends does end.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fake.state().transform = Some(Transform::Filter);
    fill(&fake, 0, 4);
    for expected in [4, 0] {
        let mut how = How { mode: ReadMode::Once, ..How::default() };
        transformed(&mut how);
        let mut reader = Reader::start(&fake, &notes, how);
        assert_eq!(reader.deliver_all(Duration::from_secs(20)).await.len(), expected);
        reader.end().await.unwrap();
        assert_eq!(fake.state().kept.get(&0), Some(&3));
        fake.state().filtered.extend((4..10).map(|offset| (0, offset)));
        fill(&fake, 0, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn offset_commit_does_not_delay_reading() {
    // While the cluster takes long to commit an offset, records are forwarded up to the limit.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 300);
    fake.state().failing_keeps = usize::MAX;
    let mut reader = Reader::start(&fake, &notes, settings(|s| s.max_in_flight = 100));
    assert_eq!(reader.deliver_all(Duration::from_secs(20)).await.len(), 100);
    fake.state().failing_keeps = 0;
    assert_eq!(reader.deliver_all(Duration::from_secs(20)).await.len(), 200);
    reader.stop().await.unwrap();
    let how = settings(|s| s.offset.strategy = FluvioStrategy::None);
    let mut reader = Reader::start(&fake, &notes, how);
    assert_eq!(reader.deliver_all(Duration::from_secs(20)).await.len(), 300);
    reader.stop().await.unwrap();
    assert!(fake.is_finished());
}
