//! Events and page views of unknown fate.

use usercom_sink::config::sink::{DeliveryConfig, UsersConfig};
use usercom_sink::usercom::Done;

use super::fake::*;

/// User `u1` is there, and the sink has seen it.
async fn known(bench: &Bench) {
    bench.run(&identify("u1", vec![])).await.unwrap();
    bench.fake.log();
}

const EVENT: &str = "POST users-by-id/:id/events/";

#[tokio::test]
async fn an_event_that_arrived_is_not_sent_again() {
    // After a lost reply the history shows the event: one occurrence, and the probe hears of it.
    let bench = bench();
    known(&bench).await;
    bench.fake.fault(EVENT, Fault::LostReply);
    assert_eq!(bench.run(&track("u1", "e")).await, Ok(Done::AlreadyThere));
    assert_eq!(bench.fake.log(), [EVENT, "GET users-by-id/:id/events/"]);
    assert_eq!(bench.fake.with(|account| account.events.len()), 1);
    assert_eq!(bench.ears.heard(), ["duplicate"]);
}

#[tokio::test]
async fn an_event_that_did_not_arrive_is_sent_again() {
    // After a lost request the history does not show the event, so it is sent until it arrives.
    let bench = bench();
    known(&bench).await;
    bench.fake.fault(EVENT, Fault::LostRequest);
    bench.fake.fault(EVENT, Fault::LostRequest);
    assert_eq!(bench.run(&track("u1", "e")).await, Ok(Done::Sent));
    assert_eq!(bench.fake.with(|account| account.events.len()), 1);
    assert_eq!(bench.fake.log().len(), 5);
}

#[tokio::test]
async fn a_page_view_of_unknown_fate_is_looked_for() {
    // Page views are looked for among the page hits.
    for (fault, outcome, requests) in
        [(Fault::LostReply, Done::AlreadyThere, 3), (Fault::LostRequest, Done::Sent, 4)]
    {
        let bench = bench();
        known(&bench).await;
        bench.fake.fault("POST site-views/", fault);
        assert_eq!(bench.run(&page("u1")).await, Ok(outcome));
        assert_eq!(bench.fake.with(|account| account.views.len()), 1);
        assert_eq!(bench.fake.log().len(), requests);
    }
}

#[tokio::test]
async fn a_doubt_from_before_is_settled_before_the_first_send() {
    // What an earlier process may have sent is looked for first; others of its kind do not count.
    let bench = bench();
    known(&bench).await;
    bench.run(&track("u1", "other")).await.unwrap();
    bench.fake.log();
    assert_eq!(bench.doubtful(&track("u1", "e")).await, Ok(Done::Sent));
    assert_eq!(bench.fake.log(), ["GET users-by-id/:id/events/", EVENT]);
    assert_eq!(bench.doubtful(&page("u1")).await, Ok(Done::Sent));
    let next = bench_at(bench.fake, UsersConfig::default(), DeliveryConfig::default());
    for op in [track("u1", "e"), page("u1")] {
        assert_eq!(next.doubtful(&op).await, Ok(Done::AlreadyThere));
    }
}

#[tokio::test]
async fn values_converted_by_the_server_are_recognised() {
    // The history may hold numbers as text, and leave out what it could not convert.
    let bench = bench();
    known(&bench).await;
    let user = bench.fake.user("u1");
    let stored = |name: &str, data: serde_json::Value| {
        serde_json::json!({
            "id": 9, "user": user, "name": name, "data": data,
            "timestamp": "2023-11-14T22:13:20Z",
        })
    };
    bench.fake.with(|account| {
        account.events.push(stored("same", serde_json::json!({"n": "1.0"})));
        account.events.push(stored("differs", serde_json::json!({"n": 2, "s": "x"})));
    });
    assert_eq!(bench.doubtful(&track("u1", "same")).await, Ok(Done::AlreadyThere));
    assert_eq!(bench.doubtful(&track("u1", "differs")).await, Ok(Done::Sent));
}

#[tokio::test]
async fn without_verification_it_is_sent_again() {
    // With `verify_ambiguous` off no history is read: at least once.
    let delivery = DeliveryConfig { verify_ambiguous: false, ..DeliveryConfig::default() };
    let bench = bench_with(UsersConfig::default(), delivery);
    known(&bench).await;
    bench.fake.fault(EVENT, Fault::LostReply);
    assert_eq!(bench.doubtful(&track("u1", "e")).await, Ok(Done::Sent));
    assert_eq!(bench.fake.log(), [EVENT, EVENT]);
    assert_eq!(bench.fake.with(|account| account.events.len()), 2);
}

#[tokio::test]
async fn an_event_carries_whole_seconds_and_flat_data() {
    // The body of an event: name, UNIX seconds, data in order.
    let bench = bench();
    known(&bench).await;
    bench.run(&track("u1", "Order \"1\"")).await.unwrap();
    let expected = serde_json::json!({
        "name": "Order \"1\"", "timestamp": 1_700_000_000, "data": {"n": 1, "s": "x"},
    });
    assert_eq!(bench.fake.body(), expected);
}

#[tokio::test]
async fn two_of_the_same_are_two() {
    // An earlier event or page view of the same content does not pass for the one that was lost.
    let bench = bench();
    known(&bench).await;
    bench.run(&track("u1", "e")).await.unwrap();
    bench.fake.fault(EVENT, Fault::LostRequest);
    assert_eq!(bench.run(&track("u1", "e")).await, Ok(Done::Sent));
    bench.fake.fault(EVENT, Fault::LostReply);
    assert_eq!(bench.run(&track("u1", "e")).await, Ok(Done::AlreadyThere));
    assert_eq!(bench.fake.with(|account| account.events.len()), 3);
    bench.run(&page("u1")).await.unwrap();
    bench.fake.fault("POST site-views/", Fault::LostRequest);
    assert_eq!(bench.run(&page("u1")).await, Ok(Done::Sent));
    assert_eq!(bench.fake.with(|account| account.views.len()), 2);
}
