//! Users: how many requests each op takes, and what happens when users are missing, gone or merged.

use usercom_sink::clock;
use usercom_sink::config::sink::{DeliveryConfig, UsersConfig};
use usercom_sink::schedule::{ExternalUserId, Op};
use usercom_sink::usercom::{ExecuteError, OpSuccess};

use super::fake::*;

fn merge(from: &str, into: &str) -> Op {
    Op::Merge { from: ExternalUserId::from(from), into: ExternalUserId::from(into) }
}

#[tokio::test]
async fn identify_is_one_request() {
    // An identify without custom attributes takes one upsert, keyed on the own id.
    let bench = bench();
    bench.run(&identify("u1", vec![standard("email", "\"a@b.c\"")])).await.unwrap();
    assert_eq!(bench.fake.log(), ["POST users/update_or_create/"]);
    assert_eq!(bench.fake.body(), serde_json::json!({"custom_id": "u1", "email": "a@b.c"}));
}

#[tokio::test]
async fn track_of_known_user_is_one_request() {
    // Once a user was identified, a track takes one request and a page one beyond the first
    // look-up.
    let bench = bench();
    bench.run(&identify("u1", vec![])).await.unwrap();
    bench.fake.log();
    bench.run(&track("u1", "e")).await.unwrap();
    bench.run(&page("u1")).await.unwrap();
    bench.run(&page("u1")).await.unwrap();
    assert_eq!(
        bench.fake.log(),
        [
            "POST users-by-id/:id/events/",
            "GET users-by-id/:id/",
            "POST site-views/",
            "POST site-views/",
        ]
    );
}

#[tokio::test]
async fn try_or_create_follows_observed_users() {
    // Unseen users are created first while most turn out new, and tried first once most turn out
    // known; then a new one costs a 404, and nothing is lost either way.
    let bench = bench();
    let (create, send) = ("POST users/update_or_create/", "POST users-by-id/:id/events/");
    bench.fake.user("known1");
    bench.fake.user("known2");
    for (user, requests) in [
        ("new1", vec![create, send]),
        ("known1", vec![create, send]),
        ("known2", vec![send]),
        ("new2", vec![send, create, send]),
        ("new3", vec![create, send]),
        ("new2", vec![send]),
    ] {
        bench.run(&track(user, "e")).await.unwrap();
        assert_eq!(bench.fake.log(), requests, "{user}");
    }
    assert_eq!(bench.fake.with(|account| account.events.len()), 6);
}

#[tokio::test]
async fn page_for_unknown_user_creates_the_user() {
    // A page never creates a user by a request that would double it when repeated.
    let bench = bench();
    bench.run(&page("u1")).await.unwrap();
    assert_eq!(
        bench.fake.log(),
        ["POST users/update_or_create/", "GET users-by-id/:id/", "POST site-views/"]
    );
    let body = bench.fake.body();
    assert_eq!(body["client_user"], "k1");
    assert_eq!(body["page_domain"], "shop.example");
    assert_eq!(body["page_path"], "/a");
    assert_eq!(body["timestamp"], "2026-01-02T03:04:05.678Z");
}

#[tokio::test]
async fn unknown_user_without_create_missing_is_rejected() {
    // With `create_missing` off, nothing is created, whatever the op.
    let users = UsersConfig { create_missing: false, ..UsersConfig::default() };
    let bench = bench_with(users, DeliveryConfig::default());
    for op in [track("u1", "e"), page("u1"), join("u1", "g1"), track("a/b", "e"), page("..")] {
        let outcome = bench.run(&op).await;
        let Err(ExecuteError::Reject { status: Some(404), reason, .. }) = outcome else {
            panic!("{op:?}: {outcome:?}");
        };
        assert!(reason.contains("create_missing"), "{reason}");
    }
    assert!(bench.fake.with(|account| account.users.is_empty() && account.companies.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn deleted_user_is_created_again() {
    // A 404 at a remembered user creates it once and repeats the event once.
    let bench = bench();
    bench.run(&identify("u1", vec![])).await.unwrap();
    bench.fake.with(|account| account.users.clear());
    bench.fake.log();
    // Long after it was written, a 404 is accepted as final.
    tokio::time::advance(std::time::Duration::from_secs(31)).await;
    bench.run(&track("u1", "e")).await.unwrap();
    assert_eq!(
        bench.fake.log(),
        [
            "POST users-by-id/:id/events/",
            "POST users/update_or_create/",
            "POST users-by-id/:id/events/",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn refused_user_key_is_looked_up_again() {
    // After a user was deleted or merged, its remembered key is replaced and the page sent again.
    let bench = bench();
    bench.run(&page("u1")).await.unwrap();
    bench.fake.with(|account| account.users.clear());
    bench.fake.log();
    // Long after it was written, a 404 is accepted as final.
    tokio::time::advance(std::time::Duration::from_secs(31)).await;
    bench.run(&page("u1")).await.unwrap();
    assert_eq!(
        bench.fake.log(),
        [
            "POST site-views/",
            "GET users-by-id/:id/",
            "POST users/update_or_create/",
            "GET users-by-id/:id/",
            "POST site-views/",
        ]
    );
    // A refusal that is not the key's fault ends after the look-up.
    bench
        .fake
        .fault("POST site-views/", Fault::Answer(400, serde_json::json!({"page_path": ["x"]})));
    let refused = bench.run(&page("u1")).await;
    assert!(matches!(refused, Err(ExecuteError::Reject { status: Some(400), .. })), "{refused:?}");
    assert_eq!(bench.fake.log(), ["POST site-views/", "GET users-by-id/:id/"]);
}

#[tokio::test(start_paused = true)]
async fn user_not_visible_after_upsert_is_waited_for() {
    // A 404 within `account.read_after_write_secs` of our own upsert is asked again with growing
    // pauses, and leads to no second creation; after that time it is accepted as final.
    let bench = bench();
    let not_found = || Fault::Answer(404, serde_json::json!({"detail": "Not found."}));
    bench.fake.fault("POST users-by-id/:id/events/", not_found());
    let before = tokio::time::Instant::now();
    bench.run(&track("u1", "e")).await.unwrap();
    assert!(before.elapsed() >= std::time::Duration::from_secs(1));
    let upserts = bench.fake.log().iter().filter(|line| line.contains("update_or_create")).count();
    assert_eq!(upserts, 1);
    for _ in 0..100 {
        bench.fake.fault("POST users-by-id/:id/events/", not_found());
    }
    let before = tokio::time::Instant::now();
    let gone = bench.run(&track("u2", "e")).await;
    let Err(ExecuteError::Reject { status: Some(404), reason, .. }) = gone else {
        panic!("{gone:?}");
    };
    assert!(reason.contains("account.read_after_write_secs"), "{reason}");
    assert_eq!(before.elapsed().as_secs(), 30);
    assert!(bench.fake.log().len() < 15);
}

#[tokio::test]
async fn confirmed_values_are_not_sent_again() {
    // An identify is unchanged only if all of its fields were confirmed as they are, in time; tags
    // are a set.
    let bench = bench();
    fn tags(json: &str) -> usercom_sink::schedule::Field<'_> {
        let class = usercom_sink::schedule::FieldClass::SetUnion;
        usercom_sink::schedule::Field { class, ..custom("tags", json) }
    }
    let op = identify("u1", vec![standard("email", "\"a@b.c\""), tags("[\"a\",\"b\"]")]);
    let now = clock::now();
    assert!(!bench.usercom.unchanged(&op, now));
    bench.run(&op).await.unwrap();
    assert!(bench.usercom.unchanged(&op, now));
    assert!(bench.usercom.unchanged(&identify("u1", vec![tags("[\"b\"]")]), now));
    assert!(!bench.usercom.unchanged(&identify("u1", vec![tags("[\"c\"]")]), now));
    assert!(!bench.usercom.unchanged(&identify("u1", vec![standard("email", "\"x@b.c\"")]), now));
    assert!(!bench.usercom.unchanged(&identify("u2", vec![]), now));
    assert!(!bench.usercom.unchanged(&track("u1", "e"), now));
    let later = now + jiff::SignedDuration::from_secs(3_601);
    assert!(!bench.usercom.unchanged(&op, later));

    // The memory survives the process.
    let rows = bench.usercom.take_changes(usize::MAX);
    let rows = rows.into_iter().filter_map(|(key, row)| Some((key, row?)));
    assert_eq!(bench.usercom.take_changes(usize::MAX), []);
    let next = bench_at(bench.fake, UsersConfig::default(), DeliveryConfig::default());
    next.usercom.restore(rows.into_iter().chain([("u:bad".into(), "{".into())]));
    assert!(next.usercom.unchanged(&op, now));

    // 0 turns it off.
    let users = UsersConfig { unchanged_ttl_secs: 0, ..UsersConfig::default() };
    let always = bench_with(users, DeliveryConfig::default());
    always.run(&op).await.unwrap();
    assert!(!always.usercom.unchanged(&op, clock::now()));
}

#[tokio::test]
async fn merge_uses_both_remote_ids_and_runs_once() {
    // The anonymous record goes into the identified one; a record that is not there is merged.
    let bench = bench();
    bench.run(&identify("anon", vec![])).await.unwrap();
    bench.run(&identify("u1", vec![])).await.unwrap();
    bench.fake.log();
    assert_eq!(bench.run(&merge("anon", "u1")).await, Ok(OpSuccess::Sent));
    assert_eq!(bench.fake.log(), ["POST users/merge/"]);
    assert_eq!(bench.fake.body(), serde_json::json!({"parent": 2, "users_list": [1]}));
    assert!(bench.usercom.unchanged(&merge("anon", "u1"), clock::now()));
    assert_eq!(bench.run(&merge("anon", "u1")).await, Ok(OpSuccess::Unchanged));
    assert_eq!(bench.run(&merge("absent", "u1")).await, Ok(OpSuccess::Unchanged));
    assert_eq!(bench.fake.log(), ["GET users-by-id/:id/"]);
    // Seen again, it is a new record that has to be merged again.
    bench.run(&track("anon", "e")).await.unwrap();
    assert!(!bench.usercom.unchanged(&merge("anon", "u1"), clock::now()));
}

#[tokio::test]
async fn refused_user_is_rejected_with_the_response() {
    // A 400 that names no field of the body rejects with status and excerpt, after one request.
    let bench = bench();
    let answer = serde_json::json!({"detail": "No valid email.", "pad": "x".repeat(3000)});
    bench.fake.fault("POST users/update_or_create/", Fault::Answer(400, answer));
    let outcome = bench.run(&identify("u1", vec![standard("email", "\"nope\"")])).await;
    let Err(ExecuteError::Reject { status: Some(400), body, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(body.contains("valid email") && body.len() <= 1024);
    assert_eq!(bench.fake.log().len(), 1);
}

#[tokio::test]
async fn refused_field_is_dropped_and_the_rest_is_sent() {
    // A standard field that a 400 names is dropped and reported, the rest is written; the same
    // value is not tried again for a while, and another one is.
    let upsert = "POST users/update_or_create/";
    for answer in [
        serde_json::json!({"email": ["Enter a valid email address."]}),
        serde_json::json!({"errors": {"email": ["Enter a valid email address."]}}),
        serde_json::json!({"errors": [{"field": "email", "message": "bad"}]}),
    ] {
        let bench = bench();
        let refusal = || Fault::Answer(400, answer.clone());
        bench.fake.fault(upsert, refusal());
        let first_name = standard("first_name", "\"Ann\"");
        let op = identify("u1", vec![standard("email", "\"nope\""), first_name]);
        assert_eq!(bench.run(&op).await, Ok(OpSuccess::Sent));
        assert_eq!(bench.fake.log(), [upsert, upsert]);
        let sent = serde_json::json!({"custom_id": "u1", "first_name": "Ann"});
        assert_eq!(bench.fake.body(), sent);
        assert_eq!(bench.ears.heard(), ["dropped email"]);
        let now = clock::now();
        assert!(bench.usercom.unchanged(&op, now));
        assert!(bench.usercom.unchanged(&identify("u1", vec![first_name]), now));
        let other = identify("u1", vec![standard("email", "\"a@b.pl\"")]);
        assert!(!bench.usercom.unchanged(&other, now));
        bench.fake.log();
        bench.run(&identify("u2", vec![standard("email", "\"nope\"")])).await.unwrap();
        assert_eq!(bench.fake.log(), [upsert]);
        assert_eq!(bench.fake.body(), serde_json::json!({"custom_id": "u2"}));
    }
}

#[tokio::test(start_paused = true)]
async fn conflicting_upserts_are_retried() {
    // A conflict inside User.com is met with a few more upserts; one that stays is an answer.
    let bench = bench();
    let conflict = || Fault::Answer(409, serde_json::json!({}));
    let upsert = "POST users/update_or_create/";
    bench.fake.fault(upsert, conflict());
    bench.run(&identify("u1", vec![])).await.unwrap();
    assert_eq!(bench.fake.log(), [upsert, upsert]);
    for _ in 0..5 {
        bench.fake.fault(upsert, conflict());
    }
    let refused = bench.run(&identify("u1", vec![])).await;
    assert!(matches!(refused, Err(ExecuteError::Reject { status: Some(409), .. })), "{refused:?}");
}

#[tokio::test]
async fn merge_of_missing_user_keeps_the_other() {
    // Where the one that goes is unknown, the one that stays exists afterwards, and nothing fails.
    let bench = bench();
    assert_eq!(bench.run(&merge("absent", "u9")).await, Ok(OpSuccess::Unchanged));
    assert!(bench.fake.with(|account| account.users.contains_key("u9")));
}
