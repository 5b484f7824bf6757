//! Events and page views of unknown fate.

use std::time::Duration;

use serde_json::json;
use usercom_sink::config::sink::{DeliveryConfig, UsersConfig};
use usercom_sink::schedule::{ExternalUserId, Op, PackedFields, UserKeys};
use usercom_sink::usercom::OpSuccess;

use super::fake::*;

/// User `u1` is there, and the sink has seen it.
async fn known(bench: &Bench) {
    bench.run(&identify("u1", vec![])).await.unwrap();
    bench.fake.log();
}

const EVENT: &str = "POST users-by-id/:id/events/";

#[tokio::test(start_paused = true)]
async fn delivered_event_is_not_sent_again() {
    // After a lost reply the history shows the event: one occurrence, and the probe hears of it.
    let bench = bench();
    known(&bench).await;
    bench.fake.fault(EVENT, Fault::LostReply);
    assert_eq!(bench.run(&track("u1", "e")).await, Ok(OpSuccess::AlreadyThere));
    assert_eq!(bench.fake.log(), [EVENT, "GET users-by-id/:id/events/"]);
    assert_eq!(bench.fake.with(|account| account.events.len()), 1);
    assert_eq!(bench.ears.heard(), ["duplicate"]);
}

#[tokio::test(start_paused = true)]
async fn undelivered_event_is_sent_again() {
    // After a lost request the history does not show the event, so it is sent until it arrives.
    let bench = bench();
    known(&bench).await;
    bench.fake.fault(EVENT, Fault::LostRequest);
    bench.fake.fault(EVENT, Fault::LostRequest);
    assert_eq!(bench.run(&track("u1", "e")).await, Ok(OpSuccess::Sent));
    assert_eq!(bench.fake.with(|account| account.events.len()), 1);
    let log = bench.fake.log();
    assert_eq!(log.iter().filter(|line| *line == EVENT).count(), 3);
    assert!(log.len() <= 11, "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn maybe_sent_page_view_is_looked_up() {
    // Page views are looked for among the page hits.
    for (fault, outcome, requests) in
        [(Fault::LostReply, OpSuccess::AlreadyThere, 3), (Fault::LostRequest, OpSuccess::Sent, 7)]
    {
        let bench = bench();
        known(&bench).await;
        bench.fake.fault("POST site-views/", fault);
        assert_eq!(bench.run(&page("u1")).await, Ok(outcome));
        assert_eq!(bench.fake.with(|account| account.views.len()), 1);
        assert!(bench.fake.log().len() <= requests);
    }
}

#[tokio::test(start_paused = true)]
async fn maybe_sent_event_is_looked_up_before_sending() {
    // What an earlier process may have sent is looked for first; others of its kind do not count.
    let bench = bench();
    known(&bench).await;
    bench.run(&track("u1", "other")).await.unwrap();
    bench.fake.log();
    assert_eq!(bench.doubtful(&track("u1", "e")).await, Ok(OpSuccess::Sent));
    assert_eq!(bench.fake.log(), ["GET users-by-id/:id/events/", EVENT]);
    assert_eq!(bench.doubtful(&page("u1")).await, Ok(OpSuccess::Sent));
    bench.fake.log();
    let next = bench_at(bench.fake, UsersConfig::default(), DeliveryConfig::default());
    for op in [track("u1", "e"), page("u1")] {
        assert_eq!(next.doubtful(&op).await, Ok(OpSuccess::AlreadyThere));
    }
}

#[tokio::test(start_paused = true)]
async fn values_converted_by_the_server_are_matched() {
    // The history may hold numbers as text, and leave out what it could not convert.
    let bench = bench();
    known(&bench).await;
    let user = bench.fake.user("u1");
    let stored = |name: &str, data: serde_json::Value| {
        json!({
            "id": 9, "user": user, "name": name, "data": data,
            "timestamp": "2023-11-14T22:13:20Z",
        })
    };
    bench.fake.with(|account| {
        account.events.push(stored("same", json!({"n": "1.0"})));
        account.events.push(stored("differs", json!({"n": 2, "s": "x"})));
    });
    assert_eq!(bench.doubtful(&track("u1", "same")).await, Ok(OpSuccess::AlreadyThere));
    assert_eq!(bench.doubtful(&track("u1", "differs")).await, Ok(OpSuccess::Sent));
}

#[tokio::test(start_paused = true)]
async fn without_verification_event_is_sent_again() {
    // With `verify_ambiguous` off no history is read: at least once.
    let delivery = DeliveryConfig { verify_ambiguous: false, ..DeliveryConfig::default() };
    let bench = bench_with(UsersConfig::default(), delivery);
    known(&bench).await;
    bench.fake.fault(EVENT, Fault::LostReply);
    assert_eq!(bench.doubtful(&track("u1", "e")).await, Ok(OpSuccess::Sent));
    assert_eq!(bench.fake.log(), [EVENT, EVENT]);
    assert_eq!(bench.fake.with(|account| account.events.len()), 2);
}

#[tokio::test(start_paused = true)]
async fn event_has_whole_seconds_and_flat_data() {
    // The body of an event: name, UNIX seconds, data in order.
    let bench = bench();
    known(&bench).await;
    bench.run(&track("u1", "Order \"1\"")).await.unwrap();
    let expected = json!({
        "name": "Order \"1\"", "timestamp": 1_700_000_000, "data": {"n": 1, "s": "x"},
    });
    assert_eq!(bench.fake.body(), expected);
}

#[tokio::test(start_paused = true)]
async fn two_equal_events_are_both_sent() {
    // An earlier event or page view of the same content does not pass for the one that was lost.
    let bench = bench();
    known(&bench).await;
    bench.run(&track("u1", "e")).await.unwrap();
    bench.fake.fault(EVENT, Fault::LostRequest);
    assert_eq!(bench.run(&track("u1", "e")).await, Ok(OpSuccess::Sent));
    bench.fake.fault(EVENT, Fault::LostReply);
    assert_eq!(bench.run(&track("u1", "e")).await, Ok(OpSuccess::AlreadyThere));
    assert_eq!(bench.fake.with(|account| account.events.len()), 3);
    bench.run(&page("u1")).await.unwrap();
    bench.fake.fault("POST site-views/", Fault::LostRequest);
    assert_eq!(bench.run(&page("u1")).await, Ok(OpSuccess::Sent));
    assert_eq!(bench.fake.with(|account| account.views.len()), 2);
}

/// An event of user `u1`, numbered, so many seconds after another.
fn numbered(n: i64) -> Op {
    let number = n.to_string();
    let data: PackedFields = [standard("n", &number)].into_iter().collect();
    Op::Track {
        user: ExternalUserId::from("u1"),
        name: "e".into(),
        at: Some(at(1_700_000_000 + n)),
        data,
        keys: UserKeys::default(),
    }
}

fn viewed(n: i64) -> Op {
    let at = Some(at(1_700_000_000 + n));
    let (domain, path) = ("shop.example".into(), format!("/{n}").into());
    Op::Page { user: ExternalUserId::from("u1"), domain, path, at, keys: UserKeys::default() }
}

/// The next process.
fn after_a_kill(bench: Bench) -> Bench {
    bench.fake.log();
    bench_at(bench.fake, UsersConfig::default(), DeliveryConfig::default())
}

fn look_ups(bench: &Bench) -> usize {
    bench.fake.log().iter().filter(|line| line.starts_with("GET")).count()
}

#[tokio::test(start_paused = true)]
async fn one_history_read_serves_all_maybe_sent_events_of_a_user() {
    // After a kill a user's history is read once, whatever the number of events that may have been
    // sent, and what is missing is sent.
    for make in [numbered as fn(i64) -> Op, viewed] {
        let bench = bench();
        for n in [1, 2, 4, 5, 7] {
            bench.run(&make(n)).await.unwrap();
        }
        let next = after_a_kill(bench);
        next.run(&identify("u1", vec![])).await.unwrap();
        // Page views name the user by a key, which is remembered from then on.
        next.doubtful(&make(0)).await.unwrap();
        next.fake.log();
        for n in 1..10 {
            let expected = match n {
                1 | 2 | 4 | 5 | 7 => OpSuccess::AlreadyThere,
                _ => OpSuccess::Sent,
            };
            assert_eq!(next.doubtful(&make(n)).await, Ok(expected), "{n}");
        }
        assert_eq!(look_ups(&next), 0);
        // What comes after them was not sent, and later doubts ask again.
        assert_eq!(next.run(&make(10)).await, Ok(OpSuccess::Sent));
        assert_eq!(next.doubtful(&make(10)).await, Ok(OpSuccess::Sent));
        assert_eq!(look_ups(&next), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn history_entry_matches_only_one_event() {
    // Of five equal events of which three arrived before a kill, two are sent again; a lost answer
    // among them is looked for beyond all that are known.
    for lost_answers in [false, true] {
        let bench = bench();
        known(&bench).await;
        for _ in 0..3 {
            bench.run(&track("u1", "e")).await.unwrap();
        }
        let next = after_a_kill(bench);
        if lost_answers {
            next.fake.fault(EVENT, Fault::LostReply);
            next.fake.fault(EVENT, Fault::LostRequest);
        }
        for _ in 0..5 {
            next.doubtful(&track("u1", "e")).await.unwrap();
        }
        assert_eq!(next.fake.with(|account| account.events.len()), 5, "{lost_answers}");
    }
}

#[tokio::test(start_paused = true)]
async fn event_in_history_of_any_shape_is_matched() {
    // In a history of 330 entries, whatever its order, pages, ids and zone, no event that arrived
    // is sent again, and none that did not arrive is left out.
    use HistoryOrder::{NewestFirst, OldestFirst, Shuffled};
    use HistoryTimes::{Iso, Local, Sent, Zoned};
    let ids = [HistoryIds::Numbers, HistoryIds::Texts, HistoryIds::Uuids, HistoryIds::None];
    let zones = ["Europe/Warsaw", "Asia/Kathmandu", "America/New_York"];
    let times = [Sent, Iso].into_iter().chain(zones.map(Zoned)).chain(zones.map(Local));
    for (n, times) in times.enumerate() {
        for order in [NewestFirst, OldestFirst, Shuffled] {
            let bench = bench();
            let ids = ids[n % ids.len()];
            let histories = Histories { order, page_size: 100, ids, times, ..Histories::default() };
            let shape = format!("{histories:?}");
            bench.fake.with(|account| account.histories = histories);
            for n in 0..330 {
                bench.run(&numbered(n)).await.unwrap();
            }
            let next = after_a_kill(bench);
            next.fake.log();
            for n in [329, 0, 170, 12] {
                assert_eq!(
                    next.doubtful(&numbered(n)).await,
                    Ok(OpSuccess::AlreadyThere),
                    "{shape} {n}"
                );
            }
            assert_eq!(next.doubtful(&numbered(330)).await, Ok(OpSuccess::Sent), "{shape}");
            assert!(look_ups(&next) <= 4, "{shape}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn newest_first_history_is_not_read_to_its_end() {
    // Pages after entries that are certainly older than the oldest event that was possibly sent are
    // left unread.
    let bench = bench();
    let histories = Histories { page_size: 100, ..Histories::default() };
    bench.fake.with(|account| account.histories = histories);
    for n in 0..1500 {
        bench.run(&numbered(n)).await.unwrap();
    }
    let next = after_a_kill(bench);
    assert_eq!(next.doubtful(&numbered(1490)).await, Ok(OpSuccess::AlreadyThere));
    assert_eq!(look_ups(&next), 1);
    assert_eq!(next.doubtful(&numbered(1000)).await, Ok(OpSuccess::AlreadyThere));
    assert_eq!(look_ups(&next), 5);
}

#[tokio::test(start_paused = true)]
async fn event_shown_late_in_history_is_not_sent_again() {
    // Where histories show events late, a lost event is looked for until it must be shown: the
    // delay is measured with an event that was surely taken.
    for delay in [1, 3, 10, 20] {
        let bench = bench();
        bench.fake.with(|account| account.histories.delay = Duration::from_secs(delay));
        known(&bench).await;
        bench.run(&track("u1", "sample")).await.unwrap();
        for n in 0..3 {
            bench.fake.fault(EVENT, Fault::LostReply);
            let outcome = bench.run(&track("u1", &format!("e{n}"))).await;
            assert_eq!(outcome, Ok(OpSuccess::AlreadyThere), "{delay} s");
        }
        assert_eq!(bench.fake.with(|account| account.events.len()), 4);
        // Once the delay is known, it costs two looks at most.
        bench.fake.log();
        bench.fake.fault(EVENT, Fault::LostReply);
        bench.run(&track("u1", "last")).await.unwrap();
        assert!(bench.fake.log().len() <= 3);
    }
}

#[tokio::test(start_paused = true)]
async fn history_that_shows_nothing_keeps_events_waiting_once() {
    // Where histories never show what was taken, the first lost event waits for as long as the
    // settings say, and no other does.
    let bench = bench();
    bench.fake.with(|account| account.histories.delay = Duration::from_secs(1_000_000));
    known(&bench).await;
    bench.run(&track("u1", "sample")).await.unwrap();
    for (n, longest) in [40, 2, 2].into_iter().enumerate() {
        let begin = tokio::time::Instant::now();
        bench.fake.fault(EVENT, Fault::LostRequest);
        let outcome = bench.run(&track("u1", &format!("e{n}"))).await;
        assert_eq!(outcome, Ok(OpSuccess::Sent));
        assert!(begin.elapsed().as_secs() <= longest, "{n}: {:?}", begin.elapsed());
    }
    assert_eq!(bench.fake.with(|account| account.events.len()), 4);
}

#[tokio::test(start_paused = true)]
async fn lost_event_of_an_account_without_delay_waits_half_a_second() {
    // Where histories show events at once, the first lost event costs one look at another event,
    // and none waits for longer than half a second.
    let bench = bench();
    known(&bench).await;
    bench.run(&track("u1", "sample")).await.unwrap();
    bench.fake.log();
    for n in 0..3 {
        let begin = tokio::time::Instant::now();
        bench.fake.fault(EVENT, Fault::LostRequest);
        let outcome = bench.run(&track("u1", &format!("e{n}"))).await;
        assert_eq!(outcome, Ok(OpSuccess::Sent));
        assert!(begin.elapsed() <= Duration::from_millis(501), "{n}: {:?}", begin.elapsed());
    }
    assert!(look_ups(&bench) <= 5);
}

#[tokio::test(start_paused = true)]
async fn throttled_event_is_looked_up_before_it_is_sent_again() {
    // An answer of 429 may come after an event was taken: it is looked for, and is not sent again
    // where the history shows it.
    for (fault, outcome) in
        [(Fault::TakenAndThrottled, OpSuccess::AlreadyThere), (Fault::Throttled, OpSuccess::Sent)]
    {
        let bench = bench();
        known(&bench).await;
        bench.fake.fault(EVENT, fault);
        assert_eq!(bench.run(&track("u1", "e")).await, Ok(outcome));
        assert_eq!(bench.fake.with(|account| account.events.len()), 1);
        assert!(bench.fake.log().len() <= 3);
    }
}

#[tokio::test(start_paused = true)]
async fn throttle_that_takes_nothing_costs_few_look_ups() {
    // Where refused events were never taken, one in ten is looked up after the first hundred.
    let bench = bench();
    known(&bench).await;
    for n in 0..600 {
        bench.fake.fault(EVENT, Fault::Throttled);
        assert_eq!(bench.run(&numbered(n)).await, Ok(OpSuccess::Sent));
    }
    assert_eq!(look_ups(&bench), 150);
}

#[tokio::test(start_paused = true)]
async fn refused_property_of_an_event_is_left_out() {
    // A property that a 400 names is left out and reported, and the event is sent; one that is
    // refused three times in a row is not sent any more.
    for answer in [
        json!({"n": ["A valid integer is required."]}),
        json!({"data": {"n": ["A valid integer is required."]}}),
        json!({"errors": [{"field": "n", "message": "no"}]}),
        json!({"detail": "Unknown attribute: n."}),
        json!({"detail": "The property 'n' does not exist"}),
    ] {
        let bench = bench();
        known(&bench).await;
        for n in 0..4 {
            if n < 3 {
                bench.fake.fault(EVENT, Fault::Answer(400, answer.clone()));
            }
            assert_eq!(bench.run(&track("u1", "e")).await, Ok(OpSuccess::Sent), "{answer}");
            assert_eq!(bench.fake.body()["data"], json!({"s": "x"}));
            assert_eq!(bench.ears.heard().len(), n + 1);
        }
        assert_eq!(bench.fake.log().iter().filter(|line| *line == EVENT).count(), 7);
        assert!(bench.ears.heard().iter().all(|heard| heard == "dropped n"));
    }
    // What names no property is a refusal of the event.
    let bench = bench();
    known(&bench).await;
    bench.fake.fault(EVENT, Fault::Answer(400, json!({"name": ["too long"]})));
    assert!(bench.run(&track("u1", "e")).await.is_err());
}
