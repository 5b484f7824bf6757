//! The admin API, the data file, and the seed.

use std::path::Path;

use serde_json::{Value, json};
use usercom_sink::emulator::EmulatorConfig;

use super::{KEY, Server, config};

#[tokio::test]
async fn request_log_has_every_request_in_order() {
    // Each entry has its number, time, method, relative path, body and status, and not the key.
    let server = Server::new().await;
    server.user("a/b").await;
    server.get("users-by-id/a%2Fb/?x=1").await;
    server.post("users", json!({})).await;
    server.post("users-by-id/no/events/", json!({ "name": "e" })).await;
    let broken = server.api("POST", "users/").header("Content-Type", "application/json");
    broken.body("{oops").send().await.unwrap();
    let (_, log) = server.admin("GET", "requests", Value::Null).await;
    let seen: Vec<Value> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|e| json!([e["seq"], e["method"], e["path"], e["body"], e["status"]]))
        .collect();
    let wanted = [
        json!([1, "POST", "users/", { "custom_id": "a/b" }, 201]),
        json!([2, "GET", "users-by-id/a%2Fb/?x=1", null, 200]),
        json!([3, "POST", "users", {}, 404]),
        json!([4, "POST", "users-by-id/no/events/", { "name": "e" }, 404]),
        json!([5, "POST", "users/", "{oops", 400]),
    ];
    assert_eq!(seen, wanted);
    assert!(log[0]["time"].as_str().unwrap().ends_with('Z'));
    assert!(!log.to_string().contains(KEY));
    let (_, tail) = server.admin("GET", "requests?since=3", Value::Null).await;
    assert_eq!(tail.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn stats_count_by_route_and_reset_clears() {
    // Requests are counted by route template; a reset clears the counts and keeps the faults unless
    // asked.
    let server = Server::new().await;
    for own in ["a", "b", "a"] {
        server.post("users/update_or_create/", json!({ "custom_id": own })).await;
        let path = format!("users-by-id/{own}/events/");
        server.post(&path, json!({ "name": "e" })).await;
    }
    server.get("nowhere/").await;
    let (_, stats) = server.admin("GET", "stats", Value::Null).await;
    let routes = json!({
        "POST users/update_or_create/": 3, "POST users-by-id/:custom_id/events/": 3,
        "GET (unknown)": 1,
    });
    assert_eq!((&stats["total"], &stats["routes"]), (&json!(7), &routes));
    assert_eq!(stats["statuses"], json!({ "200": 1, "201": 5, "404": 1 }));
    assert_eq!((&stats["users"], &stats["events"]), (&json!(2), &json!(3)));
    let (_, state) = server.admin("GET", "state", Value::Null).await;
    assert_eq!(state["users"][0]["events"], 2);
    assert_eq!(state["events"].as_array().unwrap().len(), 3);
    server.admin("POST", "faults", json!({ "revoked": true })).await;
    assert_eq!(server.admin("POST", "reset", Value::Null).await.0, 200);
    let (_, stats) = server.admin("GET", "stats", Value::Null).await;
    assert_eq!(
        (&stats["total"], &stats["users"], &stats["events"]),
        (&json!(0), &json!(0), &json!(0))
    );
    assert_eq!(server.admin("GET", "requests", Value::Null).await.1, json!([]));
    assert_eq!(server.get("users/").await.0, 401, "the faults stay");
    assert_eq!(server.admin("POST", "reset", json!({ "faults": true })).await.0, 200);
    assert_eq!(server.user("a").await, 1, "numbers start again");
    assert_eq!(server.admin("POST", "reset", json!({ "fault": true })).await.0, 400);
    assert_eq!(server.admin("GET", "nothing", Value::Null).await.0, 404);
    assert_eq!(server.admin("POST", "stats", Value::Null).await.0, 405);
}

#[tokio::test]
async fn data_file_survives_restart() {
    // Data written before a stop is there after the next start, and the seed is not loaded twice.
    let folder = tempfile::tempdir().unwrap();
    let seed = folder.path().join("seed.json");
    std::fs::write(&seed, r#"{"users": [{"custom_id": "seeded"}]}"#).unwrap();
    let config = || EmulatorConfig {
        data: Some(folder.path().join("emulator.db")),
        seed: Some(seed.clone()),
        ..config()
    };
    let server = Server::with(config()).await.unwrap();
    server.user("later").await;
    server.post("users-by-id/later/events/", json!({ "name": "e" })).await;
    server.emulator.stop().await;
    let server = Server::with(config()).await.unwrap();
    assert_eq!(server.get("users/").await.1["count"], 2);
    assert_eq!(server.get("users-by-id/later/events/").await.1["count"], 1);
    assert_eq!(server.user("third").await, 3);
}

#[tokio::test]
async fn seed_loads_or_names_bad_element() {
    // A valid seed is loaded at the start; the first invalid element stops the start and is named.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed.json");
    let start = async |text: &str| {
        std::fs::write(&path, text).unwrap();
        Server::with(EmulatorConfig { seed: Some(path.clone()), ..config() }).await
    };
    let good = json!({
        "users": [{ "custom_id": "u", "age": 7, "company_custom_id": "g" }],
        "companies": [{ "custom_id": "g", "name": "Acme" }],
        "attributes": [{ "name": "age", "value_type": "integer", "content_type": "clientuser" }],
        "events": [{ "name": "Bought", "properties": { "amount": "float" } }],
    });
    let server = start(&good.to_string()).await.unwrap();
    let (_, user) = server.get("users-by-id/u/").await;
    assert_eq!((&user["age"], &user["companies"][0]["name"]), (&json!(7), &json!("Acme")));
    for (text, place) in [
        (r#"{"users": [{}, {"gender": 9}]}"#, "users[1]"),
        (r#"{"users": {}}"#, "users"),
        (r#"{"companies": [1]}"#, "companies[0]"),
        (r#"{"people": []}"#, "`people`"),
        ("{", "the file"),
    ] {
        let Err(error) = start(text).await else { panic!("{text} was sown") };
        assert!(error.to_string().contains(place), "{error}");
    }
    let missing = Some(Path::new("/nonexistent/seed.json").to_owned());
    let Err(error) = Server::with(EmulatorConfig { seed: missing, ..config() }).await else {
        panic!("it started without its seed");
    };
    assert!(error.to_string().contains("/nonexistent/seed.json"), "{error}");
}

#[tokio::test]
async fn address_in_use_is_named() {
    // Two emulators cannot share a port; the error of the second names it.
    let server = Server::new().await;
    let listen = server.emulator.addr();
    let Err(error) = Server::with(EmulatorConfig { listen, ..config() }).await else {
        panic!("two on one port");
    };
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
}

#[tokio::test]
async fn parallel_upserts_of_one_external_id_create_one_user() {
    // Of any number of parallel requests exactly one gets `created`.
    let server = Server::new().await;
    let mut racing = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let request =
            server.api("POST", "users/update_or_create/").json(&json!({ "custom_id": "u" }));
        racing.spawn(async move { super::read(request).await });
    }
    let answers = racing.join_all().await;
    assert_eq!(answers.iter().filter(|(_, body)| body["created"] == true).count(), 1);
    assert_eq!(server.get("users/").await.1["count"], 1);
}
