//! Assumptions: either side of each fact.

use serde_json::{Value, json};
use usercom_sink::emulator::Assumptions;

use super::{Server, config};

/// A server that assumes one fact.
async fn assuming(fact: &str) -> Server {
    let assumptions = Assumptions::default().with(&fact.parse().unwrap()).unwrap();
    Server::with(usercom_sink::emulator::EmulatorConfig { assumptions, ..config() }).await.unwrap()
}

/// The status of a page view that names its user by a field.
async fn view(server: &Server, more: Value) -> u16 {
    let mut body = json!({
        "page_domain": "shop.example", "page_path": "/p", "timestamp": "2026-01-02T03:04:05Z",
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    server.post("site-views/", body).await.0
}

#[tokio::test]
async fn page_view_names_its_user_as_assumed() {
    // Guarantees that each form works under its assumption, only there, and counts for the user.
    let forms = [
        ("client_user", json!({ "client_user": "u" })),
        ("user_custom_id", json!({ "user_custom_id": "u" })),
        ("custom_id", json!({ "custom_id": "u" })),
        ("user_id", json!({ "user_id": 1 })),
    ];
    for fact in ["user_key", "client_user", "user_custom_id", "custom_id", "user_id"] {
        let server = assuming(&format!("page_view_user={fact}")).await;
        server.user("u").await;
        for (form, body) in &forms {
            let expected = if *form == fact { 201 } else { 400 };
            assert_eq!(view(&server, body.clone()).await, expected, "{fact}: {form}");
        }
        let key = server.get("users/1/").await.1["user_key"].clone();
        assert_eq!(view(&server, json!({ "client_user": key })).await, 201, "{fact}");
        let views = if fact == "user_key" { 1 } else { 2 };
        assert_eq!(server.get("users/1/").await.1["page_views"], views, "{fact}");
    }
}

/// The ids of the members of a user's companies after an upsert that names company `g`, which may
/// exist; the user is a member of another company before.
async fn companies_after_upsert(fact: &str, exists: bool) -> Vec<Value> {
    let server = assuming(fact).await;
    server.user("u").await;
    server.post("companies/", json!({ "custom_id": "other", "name": "Other" })).await;
    server.post("companies/1/add_member/", json!({ "user_id": 1 })).await;
    if exists {
        server.post("companies/", json!({ "custom_id": "g", "name": "g" })).await;
    }
    let body = json!({ "custom_id": "u", "company_custom_id": "g" });
    assert_eq!(server.post("users/update_or_create/", body).await.0, 200);
    let user = server.get("users-by-id/u/").await.1;
    user["companies"].as_array().unwrap().iter().map(|company| company["name"].clone()).collect()
}

#[tokio::test]
async fn company_in_upsert_has_the_assumed_effect() {
    // Guarantees each of the four effects, for a company that exists and for one that does not.
    for (side, existing, missing) in [
        ("joins", vec!["Other", "g"], vec!["Other"]),
        ("ignored", vec!["Other"], vec!["Other"]),
        ("creates", vec!["Other", "g"], vec!["Other", "g"]),
        ("moves", vec!["g"], vec!["Other"]),
    ] {
        let fact = format!("company_in_upsert={side}");
        assert_eq!(companies_after_upsert(&fact, true).await, existing, "{side}");
        assert_eq!(companies_after_upsert(&fact, false).await, missing, "{side}");
    }
}

#[tokio::test]
async fn members_are_named_as_assumed() {
    // Guarantees which ids of user and company `add_member` takes, and its answer to a second time.
    let by_id = "companies/1/add_member/";
    let by_custom_id = "companies-by-id/g/add_member/";
    for (fact, path, body, expected) in [
        ("member_user=user_id", by_id, json!({ "user_custom_id": "u" }), 400),
        ("member_user=user_custom_id", by_id, json!({ "user_custom_id": "u" }), 200),
        ("member_company=id", by_custom_id, json!({ "user_id": 1 }), 404),
        ("member_company=custom_id", by_custom_id, json!({ "user_id": 1 }), 200),
        ("member_again=accepted", by_id, json!({ "user_id": 1 }), 200),
        ("member_again=refused", by_id, json!({ "user_id": 1 }), 400),
    ] {
        let server = assuming(fact).await;
        server.user("u").await;
        server.post("companies/", json!({ "custom_id": "g", "name": "G" })).await;
        if fact.starts_with("member_again") {
            assert_eq!(server.post(path, body.clone()).await.0, 200);
        }
        assert_eq!(server.post(path, body).await.0, expected, "{fact}");
    }
}

#[tokio::test]
async fn upsert_answers_and_matches_as_assumed() {
    // Guarantees the key in the answer, the match by key, ids without case, and their length.
    let server = assuming("upsert_answer=user_key").await;
    let (_, answer) = server.post("users/update_or_create/", json!({ "custom_id": "u" })).await;
    assert_eq!(answer["user_key"], server.get("users/1/").await.1["user_key"]);

    for (fact, users) in [("user_key_in_upsert=adopts", 1), ("user_key_in_upsert=written", 2)] {
        let server = assuming(fact).await;
        let key = server.post("users/", json!({ "email": "a@b.c" })).await.1["user_key"].clone();
        let body = json!({ "custom_id": "u", "user_key": key });
        server.post("users/update_or_create/", body).await;
        assert_eq!(server.get("users/").await.1["count"], users, "{fact}");
    }
    for (fact, users) in [("id_case=ignored", 1), ("id_case=distinguished", 2)] {
        let server = assuming(fact).await;
        server.user("User").await;
        server.post("users/update_or_create/", json!({ "custom_id": "USER" })).await;
        assert_eq!(server.get("users/").await.1["count"], users, "{fact}");
    }
    let server = assuming("id_max_length=5").await;
    for (id, expected) in [("12345", 201), ("123456", 400)] {
        let reply = server.post("users/update_or_create/", json!({ "custom_id": id })).await;
        assert_eq!(reply.0, expected, "{id}");
    }
}

#[tokio::test]
async fn values_are_taken_as_assumed() {
    // Guarantees what becomes of an unknown attribute, of a value of another type, and of a null.
    for (fact, body, expected, shown) in [
        ("unknown_attribute=ignored", json!({ "plan": "x" }), 200, json!(null)),
        ("unknown_attribute=created", json!({ "plan": "x" }), 200, json!("x")),
        ("unknown_attribute=refused", json!({ "plan": "x" }), 400, json!(null)),
        ("wrong_type=refused", json!({ "seats": "12" }), 400, json!(7)),
        ("wrong_type=converted", json!({ "seats": "12" }), 200, json!(12)),
        ("wrong_type=dropped", json!({ "seats": "12" }), 200, json!(7)),
        ("null_values=refused", json!({ "city": null }), 400, json!("Paris")),
        ("null_values=ignored", json!({ "city": null }), 200, json!("Paris")),
        ("null_values=cleared", json!({ "city": null }), 200, json!(null)),
    ] {
        let server = assuming(fact).await;
        server.attribute("seats", "integer", "clientuser").await;
        let user = json!({ "custom_id": "u", "seats": 7, "city": "Paris" });
        server.post("users/", user).await;
        assert_eq!(server.put("users-by-id/u/", body.clone()).await.0, expected, "{fact}");
        let name = body.as_object().unwrap().keys().next().unwrap();
        assert_eq!(server.get("users-by-id/u/").await.1[name], shown, "{fact}");
    }
}

#[tokio::test]
async fn times_and_visibility_are_as_assumed() {
    // Guarantees what becomes of a future and a past time, and that a new user is hidden for a while.
    let now = usercom_sink::clock::now().as_second();
    for (fact, at, expected, kept) in [
        ("future_times=refused", now + 86_400, 400, false),
        ("future_times=clamped", now + 86_400, 201, false),
        ("future_times=kept", now + 86_400, 201, true),
        ("past_times=kept", now - 86_400, 201, true),
        ("past_times=clamped", now - 86_400, 201, false),
    ] {
        let server = assuming(fact).await;
        server.user("u").await;
        let event = json!({ "name": "e", "timestamp": at });
        assert_eq!(server.post("users-by-id/u/events/", event).await.0, expected, "{fact}");
        let history = server.get("users-by-id/u/events/").await.1;
        if expected == 201 {
            let stored = history["results"][0]["timestamp"].as_str().unwrap().to_owned();
            let stored: jiff::Timestamp = stored.parse().unwrap();
            assert_eq!(stored.as_second() == at, kept, "{fact}");
        }
    }
    let server = assuming("page_domain=url").await;
    let key = server.post("users/", json!({ "custom_id": "u" })).await.1["user_key"].clone();
    assert_eq!(view(&server, json!({ "client_user": key })).await, 400);
    let url = json!({ "client_user": key, "page_domain": "https://shop.example/p" });
    assert_eq!(view(&server, url).await, 201);

    let server = assuming("read_after_write_secs=1").await;
    server.user("u").await;
    let created = tokio::time::Instant::now();
    assert_eq!(server.get("users-by-id/u/").await.0, 404);
    while server.get("users-by-id/u/").await.0 == 404 {
        assert!(created.elapsed().as_secs() < 10);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(created.elapsed().as_millis() >= 900);
}

#[tokio::test]
async fn assumptions_are_changed_while_it_runs() {
    // Guarantees that absent facts stay, that a wrong one changes nothing and is named, and that all
    // of them can be read.
    let server = Server::new().await;
    let body = json!({ "id_case": "ignored", "id_max_length": 9 });
    let (status, all) = server.admin("POST", "assume", body).await;
    assert_eq!((status, &all["id_case"]), (200, &json!("ignored")));
    let body = json!({ "id_case": "distinguished", "member_user": "name" });
    let (status, answer) = server.admin("POST", "assume", body).await;
    assert_eq!(status, 400);
    assert!(answer["detail"].as_str().unwrap().contains("user_custom_id"), "{answer}");
    let (_, all) = server.admin("GET", "assume", Value::Null).await;
    assert_eq!((&all["id_case"], &all["id_max_length"]), (&json!("ignored"), &json!(9)));
}
