//! The catalogue of attributes: read, typed, created once.

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;
use usercom_sink::config::sink::{DeliveryConfig, UnknownAttributes, UsersConfig};
use usercom_sink::usercom::{ExecuteError, PriorSend};

use super::fake::*;

const CREATE: &str = "POST attributes/";
const LIST: &str = "GET attributes/";
const UPSERT: &str = "POST users/update_or_create/";

fn unknown(unknown_attributes: UnknownAttributes) -> Bench {
    let users = UsersConfig { unknown_attributes, ..UsersConfig::default() };
    bench_with(users, DeliveryConfig::default())
}

#[tokio::test]
async fn known_attributes_are_converted_and_unknown_ones_created_as_string() {
    // The contract's own example: '123' for a number becomes 123, 999 for a new one becomes '999'.
    let bench = bench();
    bench.fake.attribute("custom_integer", "integer", "clientuser");
    bench.usercom.open().await.unwrap();
    let fields = vec![custom("custom_integer", "\"123\""), custom("custom_integer_new", "999")];
    bench.run(&identify("u1", fields)).await.unwrap();
    assert_eq!(bench.fake.log(), [LIST, CREATE, UPSERT]);
    let body = json!({"custom_id": "u1", "custom_integer": 123, "custom_integer_new": "999"});
    assert_eq!(bench.fake.body(), body);
    assert_eq!(bench.ears.heard(), ["created custom_integer_new"]);
}

#[tokio::test]
async fn value_that_cannot_be_converted_is_dropped() {
    // A value that does not fit leaves the rest of the profile untouched, and is reported.
    let bench = bench();
    bench.fake.attribute("age", "integer", "clientuser");
    let fields = vec![custom("age", "\"old\""), standard("email", "\"a@b.c\"")];
    bench.run(&identify("u1", fields)).await.unwrap();
    assert_eq!(bench.fake.body(), json!({"custom_id": "u1", "email": "a@b.c"}));
    assert_eq!(bench.ears.heard(), ["unconverted age: not a whole number"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_create_an_attribute_once() {
    // 64 identifies with two new attributes, under two spellings, make exactly two creations.
    let bench = bench();
    let mut tasks = JoinSet::new();
    for n in 0..64 {
        let usercom = Arc::clone(&bench.usercom);
        tasks.spawn(async move {
            let name = if n % 2 == 0 { "Plan Name" } else { "plan_name" };
            let op = identify(&format!("u{n}"), vec![custom(name, "1"), custom("other", "true")]);
            usercom.execute(&op, PriorSend::None, &mut Default::default()).await
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap().unwrap();
    }
    let log = bench.fake.log();
    assert_eq!(log.iter().filter(|line| *line == CREATE).count(), 2);
    assert_eq!(log.iter().filter(|line| *line == LIST).count(), 1);
    let users = bench.fake.with(|account| account.users.clone());
    assert!(users.values().all(|user| user["plan_name"] == "1" && user["other"] == "true"));
}

#[tokio::test]
async fn existing_attribute_is_taken_from_the_list() {
    // A creation refused because another process was quicker rereads the list and uses the type
    // found.
    let bench = bench();
    bench.usercom.open().await.unwrap();
    bench.fake.attribute("age", "integer", "clientuser");
    bench.run(&identify("u1", vec![custom("age", "\"7\"")])).await.unwrap();
    assert_eq!(bench.fake.log(), [LIST, CREATE, LIST, UPSERT]);
    assert_eq!(bench.fake.body()["age"], 7);
}

#[tokio::test]
async fn refused_attribute_is_requested_once() {
    // A refused creation drops the field, not the user, and is not repeated for the next user.
    let bench = bench();
    bench.fake.fault(CREATE, Fault::Answer(400, json!({"name": ["bad"]})));
    for user in ["u1", "u2"] {
        bench.run(&identify(user, vec![custom("x", "1")])).await.unwrap();
        assert_eq!(bench.fake.body(), json!({"custom_id": user}));
    }
    let creations = bench.fake.log().iter().filter(|line| *line == CREATE).count();
    assert_eq!(creations, 1);
    assert_eq!(bench.ears.heard(), ["dropped x", "dropped x"]);
}

#[tokio::test]
async fn failed_creation_is_retried_by_the_next_caller() {
    // An unanswered creation fails its op; the next op creates the attribute.
    let bench = bench();
    bench.fake.fault(CREATE, Fault::LostRequest);
    let failed = bench.run(&identify("u1", vec![custom("x", "1")])).await;
    assert!(matches!(failed, Err(ExecuteError::Send(_))), "{failed:?}");
    bench.run(&identify("u1", vec![custom("x", "1")])).await.unwrap();
    assert_eq!(bench.fake.body()["x"], "1");
}

#[tokio::test]
async fn unknown_attributes_follow_the_setting() {
    // `drop` leaves out and tells, `send` passes the value as it is; neither creates.
    let dropped = unknown(UnknownAttributes::Drop);
    dropped.run(&identify("u1", vec![custom("x", "1")])).await.unwrap();
    assert_eq!(dropped.fake.body(), json!({"custom_id": "u1"}));
    assert_eq!(dropped.ears.heard(), ["dropped x"]);
    let sent = unknown(UnknownAttributes::Send);
    sent.run(&identify("u1", vec![custom("x", "1")])).await.unwrap();
    assert_eq!(sent.fake.body(), json!({"custom_id": "u1", "x": 1}));
    assert_eq!(sent.fake.log(), [LIST, UPSERT]);
}

#[tokio::test]
async fn users_and_companies_have_separate_attributes() {
    // A user's attribute says nothing of a company's of the same name.
    let bench = bench();
    bench.fake.attribute("plan", "integer", "user");
    bench.run(&identify("u1", vec![custom("plan", "\"1\"")])).await.unwrap();
    assert_eq!(bench.fake.body()["plan"], 1);
    bench.run(&company("g1", vec![custom("plan", "1")])).await.unwrap();
    assert_eq!(bench.fake.body()["plan"], "1");
    assert!(bench.fake.log().contains(&CREATE.to_owned()));
}

#[tokio::test]
async fn long_list_is_read_to_its_end_on_one_host() {
    // `next` is followed on our own path, and one that answers 404 ends the list.
    let bench = bench();
    for n in 0..25 {
        bench.fake.attribute(&format!("a{n}"), "integer", "clientuser");
    }
    bench.fake.with(|account| account.page_size = 10);
    bench.usercom.open().await.unwrap();
    assert_eq!(bench.fake.log(), [LIST; 4]);
    bench.run(&identify("u1", vec![custom("a24", "\"1\"")])).await.unwrap();
    assert_eq!(bench.fake.body()["a24"], 1);
}

#[tokio::test(start_paused = true)]
async fn stale_attribute_list_is_read_again() {
    // A type that changed is noticed after `catalogue_refresh_secs`; a failing reading changes
    // nothing.
    let bench = bench();
    bench.fake.attribute("x", "string", "clientuser");
    let op = identify("u1", vec![custom("x", "\"7\"")]);
    bench.run(&op).await.unwrap();
    bench.fake.with(|account| account.attributes[0]["value_type"] = "integer".into());
    bench.run(&op).await.unwrap();
    assert_eq!(bench.fake.body()["x"], "7");
    tokio::time::advance(std::time::Duration::from_secs(301)).await;
    bench.fake.fault(LIST, Fault::Answer(404, json!({})));
    bench.run(&op).await.unwrap();
    assert_eq!(bench.fake.body()["x"], "7");
    tokio::time::advance(std::time::Duration::from_secs(301)).await;
    bench.run(&op).await.unwrap();
    assert_eq!(bench.fake.body()["x"], 7);
}

#[tokio::test]
async fn refusal_that_names_an_attribute_is_retried_once() {
    // The catalogue is read again: a changed type converts, an unchanged one is left out.
    let bench = bench();
    bench.fake.attribute("x", "string", "clientuser");
    bench.usercom.open().await.unwrap();
    bench.fake.with(|account| account.attributes[0]["value_type"] = "integer".into());
    bench.fake.log();
    bench.fake.fault(UPSERT, Fault::Answer(400, json!({"x": ["a number"]})));
    bench.run(&identify("u1", vec![custom("x", "\"7\"")])).await.unwrap();
    assert_eq!(bench.fake.log(), [UPSERT, LIST, UPSERT]);
    assert_eq!(bench.fake.body()["x"], 7);
    bench.fake.fault(UPSERT, Fault::Answer(400, json!({"errors": {"x": ["no"]}})));
    bench
        .run(&identify("u1", vec![custom("x", "\"8\""), standard("city", "\"c\"")]))
        .await
        .unwrap();
    assert_eq!(bench.fake.body(), json!({"custom_id": "u1", "city": "c"}));
    assert_eq!(bench.ears.heard(), ["dropped x"]);
}

#[tokio::test]
async fn health_check_names_the_remedy() {
    // A refused health check says where to look.
    let bench = bench();
    bench.usercom.healthcheck().await.unwrap();
    bench.fake.fault(LIST, Fault::Answer(404, json!({})));
    let Err(ExecuteError::Reject { reason, .. }) = bench.usercom.healthcheck().await else {
        panic!("no refusal");
    };
    assert!(reason.contains("/api/public/"), "{reason}");
    assert!(usercom_sink::usercom::remediation(401).contains("App settings > Advanced"));
    assert!(usercom_sink::usercom::remediation(403).contains("App settings > Advanced > Domains"));
}
