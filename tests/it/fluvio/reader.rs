//! What the reader promises, one promise a test.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use usercom_sink::ack::Verdict;
use usercom_sink::config::source::{
    FluvioOffset, FluvioPartitions, FluvioSourceConfig as Settings, FluvioStart, FluvioStartPlace,
    FluvioStartWord, FluvioStrategy,
};
use usercom_sink::source::ReadMode;
use usercom_sink::source::fluvio::cluster::NewTopic;

use super::cluster::Fake;
use super::support::{How, Notes, Reader};

const SHORT: Duration = Duration::from_millis(300);

pub(super) fn fill(fake: &Fake, partition: u32, count: usize) {
    for n in 0..count {
        fake.produce(partition, format!("{{\"n\":{n}}}"));
    }
}

pub(super) fn settings(change: impl FnOnce(&mut Settings)) -> How {
    let mut how = How::default();
    change(&mut how.settings);
    how
}

fn starting(start: FluvioStart) -> How {
    settings(|settings| {
        settings.offset = FluvioOffset { start, strategy: FluvioStrategy::Manual };
    })
}

#[tokio::test(start_paused = true)]
async fn low_traffic_commits_each_offset_at_once() {
    // A single record is committed as soon as it is settled, although no other ever comes.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    let mut reader = Reader::start(&fake, &notes, How::default());
    for n in 0..3 {
        fake.produce(0, "{}");
        let taken = reader.take().await.unwrap();
        assert_eq!(taken.offset, n);
        reader.settle(taken, Verdict::Delivered);
        sleep(SHORT).await;
        assert_eq!(fake.state().kept.get(&0), Some(&n));
    }
    reader.stop().await.unwrap();
    assert_eq!(fake.state().wrong, []);
}

#[tokio::test(start_paused = true)]
async fn backlog_is_read_in_windows() {
    // Records are not delivered one by one: up to the limit they are in flight together, and one
    // offset is committed for all of them.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 250);
    let mut reader = Reader::start(&fake, &notes, settings(|s| s.max_in_flight = 100));
    let mut held = Vec::new();
    while let Some(taken) = reader.take_within(Duration::from_secs(20)).await {
        held.push(taken);
    }
    assert_eq!(held.len(), 100, "the limit is kept");
    for taken in held.into_iter().rev() {
        reader.settle(taken, Verdict::Delivered);
    }
    sleep(SHORT).await;
    assert_eq!(fake.state().kept.get(&0), Some(&99));
    assert_eq!(fake.state().keeps, 1);
    assert_eq!(reader.deliver_all(Duration::from_secs(5)).await.len(), 150);
    assert!(fake.is_finished());
    assert!(fake.state().keeps <= 10, "{}", fake.state().keeps);
    reader.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn slow_record_does_not_delay_others() {
    // While one record takes long, more are read up to the limit; nothing is committed before it.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 50);
    let mut reader = Reader::start(&fake, &notes, settings(|s| s.max_in_flight = 200));
    let slow = reader.take().await.unwrap();
    assert_eq!(reader.deliver_all(Duration::from_secs(10)).await.len(), 49);
    fill(&fake, 0, 50);
    assert_eq!(reader.deliver_all(Duration::from_secs(10)).await.len(), 50);
    assert!(fake.state().kept.is_empty());
    reader.settle(slow, Verdict::Rejected);
    sleep(Duration::from_secs(1)).await;
    assert!(fake.is_finished());
    reader.stop().await.unwrap();
    assert_eq!(fake.state().wrong, []);
}

#[tokio::test(start_paused = true)]
async fn unsettled_record_is_read_again() {
    // What was not settled comes again, with all after it, before anything is committed.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 3);
    let mut reader = Reader::start(&fake, &notes, How::default());
    for verdict in [Verdict::Delivered, Verdict::Errored, Verdict::Delivered] {
        let taken = reader.take().await.unwrap();
        reader.settle(taken, verdict);
    }
    let again = reader.deliver_all(Duration::from_secs(10)).await;
    assert_eq!(again, [(0, 1), (0, 2)]);
    assert!(fake.is_finished());
    reader.stop().await.unwrap();
    assert_eq!(fake.state().wrong, []);
}

#[tokio::test(start_paused = true)]
async fn broken_connection_loses_and_repeats_nothing() {
    // After a cut reading continues after what was forwarded, and what the old stream could not
    // commit is kept by the new one without waiting for another record.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 5);
    let mut reader = Reader::start(&fake, &notes, How::default());
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(reader.take().await.unwrap());
    }
    fake.cut();
    for taken in held {
        reader.settle(taken, Verdict::Delivered);
    }
    assert!(reader.deliver_all(Duration::from_secs(60)).await.is_empty(), "nothing is repeated");
    assert!(fake.is_finished());
    fake.state().down = true;
    fake.cut();
    sleep(Duration::from_secs(120)).await;
    fake.state().down = false;
    fill(&fake, 0, 2);
    assert_eq!(reader.deliver_all(Duration::from_secs(60)).await, [(0, 5), (0, 6)]);
    reader.stop().await.unwrap();
    assert!(fake.is_finished());
    assert_eq!(fake.state().wrong, []);
}

#[tokio::test(start_paused = true)]
async fn cluster_that_is_down_at_start_is_retried() {
    // A service waits; a run that is to end gives up with an error; a stop ends the waiting.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 1);
    fake.state().down = true;
    let once = Reader::start(&fake, &notes, How { mode: ReadMode::Once, ..How::default() });
    let error = once.end().await.unwrap_err().to_string();
    assert_eq!(error, "looking up topic `events`: the cluster is down");
    let stopped = Reader::start(&fake, &notes, How::default());
    sleep(Duration::from_secs(300)).await;
    stopped.stop().await.unwrap();
    let mut reader = Reader::start(&fake, &notes, How::default());
    sleep(Duration::from_secs(300)).await;
    fake.state().down = false;
    assert_eq!(reader.deliver_all(Duration::from_secs(60)).await, [(0, 0)]);
    reader.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn missing_topic_is_an_error_unless_creation_is_allowed() {
    // A pipeline's source names the missing topic; a connector's makes it, as its config says.
    let (fake, notes) = (Fake::default(), Arc::<Notes>::default());
    let error = Reader::start(&fake, &notes, How::default()).end().await.unwrap_err().to_string();
    assert!(error.contains("topic `events`") && error.contains("fluvio topic create"), "{error}");
    let wish = NewTopic { partitions: 3, ..NewTopic::default() };
    let how = How { wish: Some(wish.clone()), ..How::default() };
    let mut reader = Reader::start(&fake, &notes, how);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fake.state().made.as_ref(), Some(&wish));
    fill(&fake, 2, 1);
    assert_eq!(reader.take().await.unwrap().partition, 2);
    reader.crash().await;
    let wrong = settings(|s| s.partitions = FluvioPartitions::One(3));
    let error = Reader::start(&fake, &notes, wrong).end().await.unwrap_err().to_string();
    assert!(error.contains("there is no partition 3: the topic has 3"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn listed_partitions_are_read_and_new_ones_with_all() {
    // A static share of the topic is kept to; with `all` a topic that grows is read as a whole.
    let (fake, notes) = (Fake::topic(3), Arc::<Notes>::default());
    (0..3).for_each(|partition| fill(&fake, partition, 1));
    let how = settings(|s| s.partitions = FluvioPartitions::List(vec![0, 2]));
    let mut reader = Reader::start(&fake, &notes, how);
    let mut seen = reader.deliver_all(Duration::from_secs(20)).await;
    seen.sort_unstable();
    assert_eq!(seen, [(0, 0), (2, 0)]);
    reader.stop().await.unwrap();
    let mut reader = Reader::start(&fake, &notes, How::default());
    assert_eq!(reader.deliver_all(Duration::from_secs(20)).await, [(1, 0)]);
    fake.state().partitions.as_mut().unwrap().push(Vec::new());
    fill(&fake, 3, 1);
    assert_eq!(reader.deliver_all(Duration::from_secs(20)).await, [(3, 0)]);
    reader.stop().await.unwrap();
    assert!(fake.is_finished());
}

#[tokio::test(start_paused = true)]
async fn first_start_at_the_end_loses_nothing() {
    // Before a first offset is committed, the position at which reading began is stored on this
    // machine: a record taken and not settled is read by the next run, though that begins at the
    // end again.
    for word in [FluvioStartWord::End, FluvioStartWord::Beginning] {
        let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
        fill(&fake, 0, 10);
        let mut reader = Reader::start(&fake, &notes, starting(FluvioStart::Word(word)));
        sleep(Duration::from_secs(1)).await;
        let begin = if word == FluvioStartWord::End { 10 } else { 0 };
        fake.state().begins.insert(0, begin);
        fill(&fake, 0, 3);
        assert_eq!(reader.take().await.unwrap().offset, begin);
        reader.crash().await;
        let mut reader = Reader::start(&fake, &notes, starting(FluvioStart::Word(word)));
        let seen = reader.deliver_all(Duration::from_secs(20)).await;
        assert_eq!(seen.first(), Some(&(0, begin)));
        assert!(fake.is_finished());
        reader.stop().await.unwrap();
        let rows: Vec<_> = notes.rows().into_values().collect();
        assert_eq!(rows, ["ended 13"], "the beginning is gone once an offset is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn numeric_start_applies_only_once() {
    // Wherever the first run began, the next one begins after the committed offset, and nowhere
    // else: the client itself would begin at an absolute start again, and skip from a relative one.
    let place = FluvioStartPlace::default();
    for (start, begin) in [
        (FluvioStartPlace { absolute: Some(4), ..place.clone() }, 4),
        (FluvioStartPlace { from_beginning: Some(2), ..place.clone() }, 2),
        (FluvioStartPlace { from_end: Some(3), ..place }, 7),
    ] {
        let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
        fill(&fake, 0, 10);
        fake.state().begins.insert(0, begin);
        let how = || starting(FluvioStart::Place(start.clone()));
        let mut reader = Reader::start(&fake, &notes, how());
        let seen = reader.deliver_all(Duration::from_secs(20)).await;
        assert_eq!(seen, (begin..10).map(|offset| (0, offset)).collect::<Vec<_>>());
        reader.stop().await.unwrap();
        fill(&fake, 0, 2);
        let mut reader = Reader::start(&fake, &notes, how());
        assert_eq!(reader.deliver_all(Duration::from_secs(20)).await, [(0, 10), (0, 11)]);
        reader.stop().await.unwrap();
        assert_eq!(fake.state().wrong, []);
    }
}

#[tokio::test(start_paused = true)]
async fn strategy_none_commits_nothing() {
    // Every run begins at the start that is set, and the cluster hears of no offset.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 4);
    for _ in 0..2 {
        let how = settings(|s| s.offset.strategy = FluvioStrategy::None);
        let mut reader = Reader::start(&fake, &notes, how);
        assert_eq!(reader.deliver_all(Duration::from_secs(20)).await.len(), 4);
        reader.stop().await.unwrap();
    }
    assert!(fake.state().kept.is_empty() && notes.rows().is_empty());
}

#[tokio::test(start_paused = true)]
async fn once_run_reads_to_the_present_end() {
    // A run that is to end reads what is there when it starts, keeps it, and ends by itself; the
    // next one reads what is new.
    let (fake, notes) = (Fake::topic(3), Arc::<Notes>::default());
    fill(&fake, 0, 30);
    fill(&fake, 2, 5);
    for expected in [35, 0] {
        let mut once = How { mode: ReadMode::Once, ..How::default() };
        once.settings.max_in_flight = 8;
        let mut reader = Reader::start(&fake, &notes, once);
        assert_eq!(reader.deliver_all(Duration::from_secs(20)).await.len(), expected);
        reader.end().await.unwrap();
        assert!(fake.is_finished());
    }
    assert_eq!(fake.state().wrong, []);
}

#[tokio::test(start_paused = true)]
async fn removed_records_are_skipped_with_a_warning() {
    // What the topic's retention removed before it was read cannot be read: reading continues
    // after.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 5);
    let mut reader = Reader::start(&fake, &notes, How::default());
    assert_eq!(reader.deliver_all(Duration::from_secs(5)).await.len(), 5);
    reader.stop().await.unwrap();
    fill(&fake, 0, 10);
    fake.state().oldest.insert(0, 12);
    fake.state().begins.insert(0, 12);
    let mut reader = Reader::start(&fake, &notes, How::default());
    assert_eq!(reader.deliver_all(Duration::from_secs(5)).await.len(), 3);
    // While it reads: the record to begin again at is gone too.
    fill(&fake, 0, 1);
    let held = reader.take().await.unwrap();
    fill(&fake, 0, 4);
    fake.state().oldest.insert(0, 18);
    fake.state().begins.insert(0, 18);
    fake.cut();
    reader.settle(held, Verdict::Delivered);
    assert_eq!(reader.deliver_all(Duration::from_secs(60)).await, [(0, 18), (0, 19)]);
    reader.stop().await.unwrap();
    assert!(fake.is_finished());
}

#[tokio::test(start_paused = true)]
async fn late_end_offsets_delay_only_windows() {
    // The controller learns of new records after the fact: then windows are smaller, that is all.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fake.state().stale = 1000;
    fill(&fake, 0, 20);
    let mut reader = Reader::start(&fake, &notes, How::default());
    assert_eq!(reader.deliver_all(Duration::from_secs(5)).await.len(), 20);
    assert!(fake.is_finished());
    reader.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn missing_end_offsets_delay_only_a_start_at_the_end() {
    // A controller that knows nothing of a partition does not keep it from being read; only where
    // its end has to be known is it waited for.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fake.state().silent = true;
    fill(&fake, 0, 5);
    let mut reader = Reader::start(&fake, &notes, How::default());
    assert_eq!(reader.deliver_all(Duration::from_secs(20)).await.len(), 5);
    assert!(fake.is_finished());
    reader.stop().await.unwrap();
    fill(&fake, 0, 1);
    let mut reader =
        Reader::start(&fake, &notes, starting(FluvioStart::Word(FluvioStartWord::End)));
    assert_eq!(reader.deliver_all(Duration::from_secs(20)).await, [(0, 5)], "an offset is kept");
    reader.stop().await.unwrap();
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fake.state().silent = true;
    fill(&fake, 0, 5);
    let end = || starting(FluvioStart::Word(FluvioStartWord::End));
    let mut reader = Reader::start(&fake, &notes, end());
    assert!(reader.take().await.is_none());
    fake.state().silent = false;
    sleep(Duration::from_secs(20)).await;
    fill(&fake, 0, 1);
    assert_eq!(reader.take().await.unwrap().offset, 5);
    reader.crash().await;
}

#[tokio::test(start_paused = true)]
async fn failed_offset_commit_is_retried() {
    // An offset that could not be committed is committed by a later attempt; nothing is sent again.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fake.state().failing_keeps = 2;
    fill(&fake, 0, 3);
    let mut reader = Reader::start(&fake, &notes, How::default());
    assert_eq!(reader.deliver_all(Duration::from_secs(60)).await.len(), 3);
    assert!(fake.is_finished());
    reader.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_verdicts_and_commits_them() {
    // What was forwarded is settled within the stop, and its offset committed; nothing more is
    // read.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 100);
    let how = How { room: 4, ..How::default() };
    let mut reader = Reader::start(&fake, &notes, how);
    let first = reader.take().await.unwrap();
    sleep(SHORT).await;
    reader.stop.cancel();
    sleep(Duration::from_secs(5)).await;
    reader.settle(first, Verdict::Delivered);
    let rest = reader.deliver_all(Duration::from_secs(30)).await;
    assert!(rest.len() < 10, "it reads no more than it had room for: {}", rest.len());
    reader.end().await.unwrap();
    assert_eq!(fake.state().kept.get(&0), Some(&(rest.len() as i64)));
    assert_eq!(fake.state().wrong, []);
}

#[tokio::test(start_paused = true)]
async fn undecodable_message_is_a_dead_letter() {
    // Empty and broken payloads are forwarded with their place and fault, and do not end anything.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    for value in ["", "{", "{\"ok\":1}"] {
        fake.produce(0, value);
    }
    let mut reader = Reader::start(&fake, &notes, How::default());
    let mut faults = Vec::new();
    for _ in 0..3 {
        let taken = reader.take().await.unwrap();
        faults.push(taken.record.decode_error.as_deref().map(str::to_owned));
        let id = taken.record.transport_id.as_deref().unwrap().to_owned();
        assert!(id.starts_with(&format!("fluvio/events/0/{}/1767", taken.offset)), "{id}");
        reader.settle(taken, Verdict::Rejected);
    }
    assert_eq!(faults[0].as_deref(), Some("events/0:0: the record is empty"));
    assert!(faults[1].as_deref().unwrap().starts_with("events/0:1: "), "{faults:?}");
    assert_eq!(faults[2], None);
    reader.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn only_records_of_a_killed_reader_are_maybe_sent() {
    // After a crash the records of one window are to be looked up before they are sent again; after
    // an end in peace, and of records that are new, none.
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fill(&fake, 0, 20);
    let how = || settings(|s| s.max_in_flight = 5);
    let doubtful = async |reader: &mut Reader| {
        let mut doubtful = Vec::new();
        while let Some(taken) = reader.take_within(Duration::from_secs(5)).await {
            if taken.record.maybe_sent {
                doubtful.push(taken.offset);
            }
            assert!(taken.record.event_time.is_some());
            reader.settle(taken, Verdict::Delivered);
        }
        doubtful
    };
    let mut reader = Reader::start(&fake, &notes, how());
    assert!(!reader.take().await.unwrap().record.maybe_sent);
    reader.crash().await;
    let mut reader = Reader::start(&fake, &notes, how());
    assert_eq!(doubtful(&mut reader).await, [0, 1, 2, 3, 4], "nothing was kept");
    reader.stop().await.unwrap();
    fill(&fake, 0, 10);
    let mut reader = Reader::start(&fake, &notes, how());
    assert!(doubtful(&mut reader).await.is_empty(), "the last end was in peace");
    reader.crash().await;
    fill(&fake, 0, 10);
    let mut reader = Reader::start(&fake, &notes, how());
    assert_eq!(doubtful(&mut reader).await, [30, 31, 32, 33, 34], "that end was not");
    reader.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn how_fast_records_are_handed_on() {
    // A backlog of one partition over the cluster in memory, every record settled at once: what the
    // windows and their verdicts cost next to the network.
    const COUNT: usize = 200_000;
    let (fake, notes) = (Fake::topic(1), Arc::<Notes>::default());
    fake.state().batch = 200;
    fill(&fake, 0, COUNT);
    let mut reader = Reader::start(&fake, &notes, How::default());
    let begun = tokio::time::Instant::now();
    for _ in 0..COUNT {
        let taken = reader.take().await.unwrap();
        taken.record.ack.settle(Verdict::Delivered);
    }
    let took = begun.elapsed().as_secs_f64();
    let flushes = fake.state().keeps;
    println!("{COUNT} records in {took:.2} s, {:.0}/s, {flushes} flushes", COUNT as f64 / took);
    reader.crash().await;
}
