//! Companies and memberships.

use std::sync::Arc;

use tokio::task::JoinSet;
use usercom_sink::clock;
use usercom_sink::usercom::{ExecuteError, OpSuccess};

use super::fake::*;

const PUT: &str = "PUT companies-by-id/:id/";
const JOIN: &str = "POST companies/:id/add_member/";

#[tokio::test]
async fn new_company_is_searched_created_and_joined() {
    // A group call for a new company and a new user ends with one company, one user, one
    // membership.
    let bench = bench();
    bench.run(&company("g1", vec![standard("size", "12")])).await.unwrap();
    assert_eq!(bench.fake.log(), [PUT, "POST companies/"]);
    // A company without a name is named by its id.
    let body = serde_json::json!({"custom_id": "g1", "name": "g1", "size": 12});
    assert_eq!(bench.fake.body(), body);
    bench.run(&identify("u1", vec![])).await.unwrap();
    bench.fake.log();
    assert_eq!(bench.run(&join("u1", "g1")).await, Ok(OpSuccess::Sent));
    assert_eq!(bench.fake.log(), [JOIN]);
    assert_eq!(bench.run(&join("u1", "g1")).await, Ok(OpSuccess::Unchanged));
    assert_eq!(bench.fake.log(), Vec::<String>::new());
    assert!(bench.usercom.unchanged(&join("u1", "g1"), clock::now()));
}

#[tokio::test]
async fn known_company_is_updated_by_one_request() {
    // A company that is there takes one PUT, and its answer tells who is a member already.
    let bench = bench();
    bench.run(&company("g1", vec![])).await.unwrap();
    bench.run(&join("u1", "g1")).await.unwrap();
    let fresh = bench_at(Arc::clone(&bench.fake), Default::default(), Default::default());
    fresh.run(&identify("u1", vec![])).await.unwrap();
    bench.fake.log();
    let op = company("g1", vec![standard("city", "\"Oslo\"")]);
    fresh.run(&op).await.unwrap();
    assert_eq!(fresh.run(&join("u1", "g1")).await, Ok(OpSuccess::Unchanged));
    assert_eq!(bench.fake.log(), [PUT]);
    assert_eq!(bench.fake.body(), serde_json::json!({"city": "Oslo"}));
    assert!(fresh.usercom.unchanged(&op, clock::now()));
    assert!(
        !fresh.usercom.unchanged(&company("g1", vec![standard("city", "\"Rome\"")]), clock::now())
    );
}

#[tokio::test(start_paused = true)]
async fn company_with_unknown_creation_is_not_created_twice() {
    // A lost reply to the creation is settled by a look; a lost request by a second creation.
    for fault in [Fault::LostReply, Fault::LostRequest] {
        let bench = bench();
        bench.fake.fault("POST companies/", fault);
        bench.run(&company("g1", vec![standard("size", "12")])).await.unwrap();
        let log = bench.fake.log();
        assert_eq!(log[..3], [PUT, "POST companies/", "GET companies-by-id/:id/"]);
        let made = bench.fake.with(|account| account.companies.len());
        assert_eq!(made, 1);
    }
}

#[tokio::test]
async fn concurrent_users_join_a_new_company() {
    // However many joins race for a company that is not there, it is created once.
    let bench = bench();
    let mut joins = JoinSet::new();
    for n in 0..20 {
        let usercom = Arc::clone(&bench.usercom);
        joins.spawn(async move {
            let op = join(&format!("u{n}"), "g1");
            usercom
                .execute(&op, usercom_sink::usercom::PriorSend::None, &mut Default::default())
                .await
        });
    }
    while let Some(outcome) = joins.join_next().await {
        outcome.unwrap().unwrap();
    }
    let log = bench.fake.log();
    assert_eq!(log.iter().filter(|line| *line == "POST companies/").count(), 1);
    assert_eq!(bench.fake.with(|account| account.members.len()), 20);
}

#[tokio::test(start_paused = true)]
async fn existing_membership_is_success() {
    // A refusal of a user who is listed is no refusal; of one who is not, it is.
    let bench = bench();
    bench.run(&company("g1", vec![])).await.unwrap();
    bench.run(&identify("u1", vec![])).await.unwrap();
    bench.fake.fault(JOIN, Fault::Answer(409, serde_json::json!({})));
    assert_eq!(bench.run(&join("u1", "g1")).await, Ok(OpSuccess::Sent));
    bench.run(&identify("u2", vec![])).await.unwrap();
    for _ in 0..100 {
        bench.fake.fault(JOIN, Fault::Answer(400, serde_json::json!({"user_id": ["no"]})));
    }
    let refused = bench.run(&join("u2", "g1")).await;
    bench.fake.with(|account| account.forget_faults());
    assert!(matches!(refused, Err(ExecuteError::Reject { status: Some(400), .. })), "{refused:?}");
    let ids = (bench.fake.user("u3"), 1);
    bench.fake.with(|account| account.members.insert((ids.1, ids.0)));
    bench
        .fake
        .fault(JOIN, Fault::Answer(400, serde_json::json!({"user_id": ["already a member"]})));
    assert_eq!(bench.run(&join("u3", "g1")).await, Ok(OpSuccess::Sent));
}

#[tokio::test(start_paused = true)]
async fn join_survives_deleted_user_and_company() {
    // A 404 at the membership creates what was deleted again, once.
    let bench = bench();
    bench.run(&company("g1", vec![])).await.unwrap();
    bench.run(&identify("u1", vec![])).await.unwrap();
    bench.fake.with(|account| {
        account.users.clear();
        account.companies.clear();
    });
    assert_eq!(bench.run(&join("u1", "g1")).await, Ok(OpSuccess::Sent));
    let (user, group) = bench.fake.with(|account| {
        (account.users["u1"]["id"].as_u64(), account.companies["g1"]["id"].as_u64())
    });
    let member = (group.unwrap(), user.unwrap());
    assert!(bench.fake.with(|account| account.members.contains(&member)));
}

#[tokio::test]
async fn company_with_unsafe_id_is_addressed_by_remote_id() {
    // `..` and ids with slashes are looked for in the list, once, and written by number.
    let bench = bench();
    for group in ["..", "a/b"] {
        bench.run(&company(group, vec![standard("size", "1")])).await.unwrap();
        assert_eq!(bench.fake.log(), ["GET companies/", "POST companies/"]);
        bench.run(&company(group, vec![standard("size", "2")])).await.unwrap();
        assert_eq!(bench.fake.log(), ["PUT companies/:id/"]);
    }
}

#[tokio::test(start_paused = true)]
async fn company_unseen_after_its_creation_is_not_created_twice() {
    // A 404 about a company that was just created, whether User.com said so or the answer was
    // lost, is asked again: one company, all members.
    for lost in [true, false] {
        let bench = bench();
        if lost {
            bench.fake.fault("POST companies/", Fault::LostReply);
        }
        for route in [PUT, "GET companies-by-id/:id/", JOIN] {
            for _ in 0..4 {
                let not_found = serde_json::json!({"detail": "Not found."});
                bench.fake.fault(route, Fault::Answer(404, not_found));
            }
        }
        let op = company("g1", vec![standard("size", "1")]);
        bench.run(&op).await.unwrap();
        bench.run(&company("g1", vec![standard("size", "2")])).await.unwrap();
        assert_eq!(bench.run(&join("u1", "g1")).await, Ok(OpSuccess::Sent));
        let log = bench.fake.log();
        let creations = log.iter().filter(|line| *line == "POST companies/").count();
        assert_eq!(creations, 1, "{log:?}");
        assert_eq!(bench.fake.with(|account| account.members.len()), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn member_unseen_after_its_upsert_keeps_no_other_member_waiting() {
    // While one new user is waited for, another one joins the same company.
    let bench = bench();
    bench.run(&company("g1", vec![])).await.unwrap();
    bench.run(&identify("u2", vec![])).await.unwrap();
    for _ in 0..3 {
        bench.fake.fault(JOIN, Fault::Answer(404, serde_json::json!({"detail": "Not found."})));
    }
    let usercom = Arc::clone(&bench.usercom);
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    let first = tokio::spawn(async move {
        let prior = usercom_sink::usercom::PriorSend::None;
        usercom.execute(&join("u1", "g1"), prior, &mut Default::default()).await
    });
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    bench.fake.with(|account| account.forget_faults());
    assert_eq!(bench.run(&join("u2", "g1")).await, Ok(OpSuccess::Sent));
    assert!(!first.is_finished());
    assert_eq!(first.await.unwrap(), Ok(OpSuccess::Sent));
}
