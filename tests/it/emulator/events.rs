//! Events and page views.

use serde_json::{Value, json};

use super::Server;

#[tokio::test]
async fn event_without_known_user_or_seconds_is_rejected() {
    // Both routes reject what the API rejects, and store nothing of a rejected event.
    let server = Server::new().await;
    server.user("u").await;
    let by_own = "users-by-id/u/events/";
    let first = json!({ "name": "Bought", "timestamp": 1_767_225_600 });
    assert_eq!(server.post(by_own, first).await, (201, json!({ "id": 1, "created": true })));
    let again = json!({ "user_id": 1, "name": "Bought" });
    assert_eq!(server.post("events/", again).await, (201, json!({ "id": 2, "created": false })));
    let rows = [
        ("users-by-id/unknown/events/", json!({ "name": "e" }), 404),
        ("events/", json!({ "user_id": 9, "name": "e" }), 404),
        ("events/", json!({ "client": 1, "name": "e" }), 400),
        ("events/", json!({ "user_id": "u", "name": "e" }), 400),
        (by_own, json!({ "user_id": "u", "name": "e" }), 400),
        (by_own, json!({ "timestamp": 1 }), 400),
        (by_own, json!({ "name": "x".repeat(256) }), 400),
        (by_own, json!({ "name": "e", "timestamp": 1.5 }), 400),
        (by_own, json!({ "name": "e", "timestamp": "2026-01-01T00:00:00Z" }), 400),
        (by_own, json!({ "name": "e", "timestamp": 1_767_225_600_000_i64 }), 400),
        (by_own, json!({ "name": "e", "data": [] }), 400),
        (by_own, json!({ "name": "e", "data": { "a": { "b": 1 } } }), 400),
        (by_own, json!({ "name": "e", "data": { "a": "x".repeat(256) } }), 400),
        (by_own, json!({ "name": "x".repeat(255), "data": { "a": "x".repeat(255) } }), 201),
        ("users/1/events/", json!({ "name": "e" }), 405),
    ];
    for (path, body, wanted) in rows {
        let (status, answer) = server.post(path, body.clone()).await;
        assert_eq!(status, wanted, "{path} {body}: {answer}");
    }
    assert_eq!(server.get(by_own).await.1["count"], 3);
    let (_, user) = server.get("users/1/").await;
    assert_eq!(user["last_seen"], Value::Null, "events do not move last_seen");
}

#[tokio::test]
async fn history_is_in_order_of_arrival() {
    // Entries carry id, name, time and data; a late one stays where it arrived.
    let server = Server::new().await;
    server.user("u").await;
    for (name, timestamp) in [("b", 200), ("a", 100)] {
        let body = json!({ "name": name, "timestamp": timestamp, "data": { "k": name } });
        server.post("users-by-id/u/events/", body).await;
    }
    let (_, history) = server.get("users-by-id/u/events/").await;
    let entries = history["results"].as_array().unwrap();
    assert_eq!(entries[0]["id"], 1);
    assert_eq!(entries[0]["name"], "b");
    assert_eq!(entries[0]["timestamp"], "1970-01-01T00:03:20.000000Z");
    assert_eq!(entries[0]["data"], json!({ "k": "b" }));
    assert_eq!((&entries[1]["id"], &entries[1]["name"]), (&json!(2), &json!("a")));
    assert_eq!(server.get("users/1/events/").await.1, history);
}

#[tokio::test]
async fn property_keeps_its_first_type() {
    // A new property is a string; a typed property converts values that fit and drops others.
    let server = Server::new().await;
    server.user("u").await;
    let typed = json!({ "name": "Typed", "properties": { "amount": "float", "count": "integer" } });
    assert_eq!(server.admin("POST", "events", typed).await.0, 201);
    let bad = json!({ "name": "Typed", "properties": { "amount": "money" } });
    assert_eq!(server.admin("POST", "events", bad).await.0, 400);
    let data = json!({ "amount": "1.5", "count": "many", "new": 12, "flag": true });
    let body = json!({ "name": "Typed", "data": data });
    assert_eq!(server.post("users-by-id/u/events/", body).await.1["created"], false);
    let (_, history) = server.get("users-by-id/u/events/").await;
    let wanted = json!({ "amount": 1.5, "new": "12", "flag": "true" });
    assert_eq!(history["results"][0]["data"], wanted);
    let (_, stats) = server.admin("GET", "stats", Value::Null).await;
    assert_eq!(stats["ignored_properties"], 1);
    let (_, definitions) = server.get("events/").await;
    let types = json!({ "amount": "float", "count": "integer", "new": "string", "flag": "string" });
    assert_eq!(definitions["results"][0]["properties"], types);
}

#[tokio::test]
async fn page_view_counts_and_moves_last_seen_forward_only() {
    // The key names the user, each view counts one, and an old view does not move `last_seen` back.
    let server = Server::new().await;
    let (_, user) = server.post("users/", json!({ "custom_id": "u" })).await;
    let view = |timestamp: Value| {
        json!({
            "client_user": user["user_key"], "page_domain": "shop.example", "page_path": "/a?b=1",
            "timestamp": timestamp,
        })
    };
    for (time, last_seen) in [
        ("2021-01-04T14:13:05.801+05:30", "2021-01-04T08:43:05.801000Z"),
        ("2022-01-01T00:00:00Z", "2022-01-01T00:00:00.000000Z"),
        ("2020-01-01T00:00:00Z", "2022-01-01T00:00:00.000000Z"),
    ] {
        assert_eq!(server.post("site-views/", view(json!(time))).await.0, 201, "{time}");
        assert_eq!(server.get("users/1/").await.1["last_seen"], last_seen, "{time}");
    }
    let (_, after) = server.get("users-by-id/u/").await;
    assert_eq!(after["page_views"], 3);
    assert_eq!(after["first_seen"], "2020-01-01T00:00:00.000000Z");
    let (_, hits) = server.get("users-by-id/u/ping_hits/").await;
    assert_eq!(hits["count"], 3);
    let hit = &hits["results"][0];
    assert_eq!((&hit["id"], &hit["client"]), (&json!(1), &json!(1)));
    assert_eq!(hit["url"], "https://shop.example/a?b=1");
    let mut bad = vec![view(json!(1_609_749_785)), view(json!("yesterday")), view(Value::Null)];
    for (field, value) in
        [("client_user", json!("u")), ("page_path", json!("")), ("page_domain", json!(1))]
    {
        let mut body = view(json!("2022-01-01T00:00:00Z"));
        body[field] = value;
        bad.push(body);
    }
    for body in bad {
        assert_eq!(server.post("site-views/", body.clone()).await.0, 400, "{body}");
    }
    assert_eq!(server.get("users/1/").await.1["page_views"], 3);
}
