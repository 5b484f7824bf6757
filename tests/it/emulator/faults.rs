//! Faults: each one occurs as configured, and the log names it.

use std::time::Duration;

use serde_json::{Value, json};
use usercom_sink::emulator::{EmulatorConfig, EmulatorError, Faults};

use super::{KEY, Server, config};

#[tokio::test]
async fn rate_limit_returns_429() {
    // A burst up to the limit passes; the next request gets 429 with Retry-After and has no effect.
    let server = Server::faulty(Faults { rate_limit: Some(3), ..Faults::default() }).await;
    let mut done = 0;
    let refused = loop {
        let response = server.api("POST", "users/").json(&json!({})).send().await.unwrap();
        if response.status() != 201 {
            break response;
        }
        done += 1;
        assert!(done < 100, "never throttled");
    };
    assert!(done >= 3, "{done}");
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"1".parse().unwrap())
    );
    let body: Value = refused.json().await.unwrap();
    assert!(body["detail"].as_str().unwrap().starts_with("Request was throttled."));
    assert_eq!(server.admin("GET", "stats", Value::Null).await.1["users"], done);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(server.get("users/").await.0, 200);
}

#[tokio::test]
async fn injected_error_has_no_effect() {
    // Every configured status occurs, and no request that got one had an effect.
    let faults = Faults { error_rate: 1.0, error_codes: vec![500, 503], ..Faults::default() };
    let server = Server::faulty(faults).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let (status, body) = server.post("users/", json!({})).await;
        assert!(body["detail"].is_string());
        seen.insert(status);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [500, 503]);
    let (_, stats) = server.admin("GET", "stats", Value::Null).await;
    assert_eq!((&stats["users"], &stats["total"]), (&json!(0), &json!(64)));
}

#[tokio::test]
async fn latency_delays_response() {
    // A response takes at least the latency; admin requests are not delayed.
    let server =
        Server::faulty(Faults { latency_ms: 600, jitter_ms: 20, ..Faults::default() }).await;
    let clock = tokio::time::Instant::now();
    assert_eq!(server.get("users/").await.0, 200);
    assert!(clock.elapsed() >= Duration::from_millis(600));
    let clock = tokio::time::Instant::now();
    server.admin("GET", "stats", Value::Null).await;
    assert!(clock.elapsed() < Duration::from_millis(600));
}

#[tokio::test]
async fn injected_reset_closes_connection_before_or_after_work() {
    // No byte is returned, the peer sees a reset, and about half of the requests had their effect.
    let server = Server::faulty(Faults { reset_rate: 1.0, ..Faults::default() }).await;
    let request = format!(
        "POST /api/public/users/ HTTP/1.1\r\nHost: h\r\nAuthorization: Token {KEY}\r\n\
         Accept: */*; version=2\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    for _ in 0..60 {
        let error = server.raw(&request).await.expect_err("the connection to be cut");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    let (_, log) = server.admin("GET", "requests", Value::Null).await;
    let log = log.as_array().unwrap();
    let count = |fault| log.iter().filter(|entry| entry["fault"] == fault).count();
    let (before, after) = (count("reset_before"), count("reset_after"));
    assert_eq!(before + after, 60);
    assert!(before > 0 && after > 0, "{before} {after}");
    assert!(log.iter().all(|entry| entry["status"] == 0));
    assert_eq!(server.admin("GET", "stats", Value::Null).await.1["users"], after);
}

#[tokio::test]
async fn injected_hang_ends_with_stop() {
    // The caller gets no response, half of the work is done, and the emulator still stops at once.
    let server = Server::faulty(Faults { hang_rate: 1.0, ..Faults::default() }).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let request = server.api("POST", "users/").json(&json!({}));
        waiting.spawn(async move { request.send().await.is_err() });
    }
    let stats = loop {
        let (_, stats) = server.admin("GET", "stats", Value::Null).await;
        if stats["total"] == 40 {
            break stats;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(waiting.try_join_next().is_none(), "something was answered");
    let users = stats["users"].as_u64().unwrap();
    assert!((1..40).contains(&users), "{users}");
    let clock = tokio::time::Instant::now();
    server.emulator.stop().await;
    assert!(clock.elapsed() < Duration::from_secs(4));
    while let Some(failed) = waiting.join_next().await {
        assert!(failed.unwrap(), "a hung request was answered");
    }
}

#[tokio::test]
async fn revoked_key_gets_401_until_restored() {
    // A revoked key gets 401; the admin API restores it at runtime.
    let server = Server::faulty(Faults { revoked: true, ..Faults::default() }).await;
    assert_eq!(server.get("users/").await, (401, json!({ "detail": "Invalid token." })));
    assert_eq!(server.admin("POST", "faults", json!({ "revoked": false })).await.0, 200);
    assert_eq!(server.get("users/").await.0, 200);
}

#[tokio::test]
async fn faults_change_at_runtime() {
    // Absent keys keep their values, null removes the limit, unknown keys and invalid values change
    // nothing.
    let server = Server::new().await;
    let faults = async |body: Value| server.admin("POST", "faults", body).await;
    let (_, now) = faults(json!({ "rate_limit": 5, "latency_ms": 1 })).await;
    assert_eq!((&now["rate_limit"], &now["latency_ms"]), (&json!(5), &json!(1)));
    let (_, now) = faults(json!({ "error_code": 502, "error_rate": 0.5 })).await;
    assert_eq!((&now["rate_limit"], &now["error_codes"]), (&json!(5), &json!([502])));
    for bad in [
        json!({ "ratelimit": 1 }),
        json!({ "reset_rate": 2 }),
        json!({ "error_code": 200 }),
        json!({ "error_codes": [] }),
        json!({ "latency_ms": -1 }),
        json!([]),
    ] {
        assert_eq!(faults(bad.clone()).await.0, 400, "{bad}");
    }
    assert_eq!(server.admin("GET", "faults", Value::Null).await.1, now);
    assert_eq!(faults(json!({ "rate_limit": null })).await.1["rate_limit"], Value::Null);
}

#[tokio::test]
async fn invalid_faults_prevent_start() {
    // A fault out of its range is named before the emulator listens.
    let faults = Faults { hang_rate: 1.5, ..Faults::default() };
    let Err(error) = Server::with(EmulatorConfig { faults, ..config() }).await else {
        panic!("it started");
    };
    assert!(matches!(error, EmulatorError::Fault(_)));
    assert!(error.to_string().contains("1.5"), "{error}");
}
