//! Checks of every request before its route runs.

use serde_json::{Value, json};

use super::{KEY, Server, config, read};

#[tokio::test]
async fn wrong_or_missing_token_gets_401() {
    // A request without the key has no effect and gets the framework's 401.
    let server = Server::new().await;
    let url = format!("{}users/", server.emulator.base_url());
    for header in [None, Some("Token wrong"), Some("Bearer x"), Some(KEY)] {
        let mut request = server.http.post(&url).header("Accept", "*/*; version=2");
        if let Some(header) = header {
            request = request.header("Authorization", header);
        }
        let (status, body) = read(request.json(&json!({ "custom_id": "u" }))).await;
        assert_eq!((status, body), (401, json!({ "detail": "Invalid token." })), "{header:?}");
    }
    assert_eq!(server.get("users-by-id/u/").await.0, 404);
}

#[tokio::test]
async fn write_without_version_gets_400_with_hint() {
    // v1 writes are never accepted as v2, v2 is accepted in every spelling of the header, and v1
    // reads have v1 names.
    let server = Server::new().await;
    let url = format!("{}users/", server.emulator.base_url());
    let send = async |method: reqwest::Method, accept: &str| {
        let request = server
            .http
            .request(method, &url)
            .header("Authorization", format!("Token {KEY}"))
            .header("Accept", accept);
        read(request.json(&json!({ "city": "Oslo" }))).await
    };
    for accept in ["*/*", "application/json", "*/*; version=1"] {
        let (status, body) = send(reqwest::Method::POST, accept).await;
        assert_eq!(status, 400, "{accept}");
        assert!(body["hint"].as_str().unwrap().contains("Accept: */*; version=2"), "{body}");
    }
    for accept in ["*/*; version=2", "*/*;version=2", " */*; version=2", "*/* ;  version = 2"] {
        assert_eq!(send(reqwest::Method::POST, accept).await.0, 201, "{accept}");
    }
    assert_eq!(send(reqwest::Method::POST, "*/*; version=9").await.0, 406);
    let (_, v1) = send(reqwest::Method::GET, "*/*").await;
    let user = &v1["results"][0];
    assert!(user["key"].is_string() && user.get("user_key").is_none(), "{user}");
    assert!(user.get("user_id").is_some() && user.get("custom_id").is_none(), "{user}");
}

#[tokio::test]
async fn missing_slash_gets_404_with_hint() {
    // Without the slash no method has an effect, and the response says why.
    let server = Server::new().await;
    server.user("u").await;
    for (method, path) in [
        ("POST", "users"),
        ("POST", "users-by-id/u/events"),
        ("GET", "users-by-id/u"),
        ("GET", "users/search?email=a@b.c"),
    ] {
        let body = if method == "POST" { json!({ "name": "x" }) } else { Value::Null };
        let (status, answer) = server.call(method, path, body).await;
        assert_eq!((status, &answer["detail"]), (404, &json!("Not found.")), "{path}");
        assert!(answer["hint"].as_str().unwrap().contains('/'), "{path}");
    }
    assert_eq!(server.get("users/").await.1["count"], 1);
    assert_eq!(server.get("users-by-id/u/events/").await.1["count"], 0);
}

#[tokio::test]
async fn paths_methods_and_bodies_are_checked() {
    // A wrong method, path, media type or body gets the framework's response.
    let server = Server::new().await;
    assert_eq!(server.get("nothing/").await.0, 404);
    assert_eq!(server.call("PATCH", "users/", json!({})).await.0, 405);
    let (status, body) = server.get("users/update_or_create/").await;
    assert_eq!((status, body), (405, json!({ "detail": "Method \"GET\" not allowed." })));
    let json = "application/json";
    let rows = [(json, "{", 400), (json, "[1]", 400), ("text/plain", "{}", 415), (json, "{}", 201)];
    for (media_type, body, wanted) in rows {
        let request =
            server.api("POST", "users/").header("Content-Type", media_type).body(body.to_owned());
        let (status, answer) = read(request).await;
        assert_eq!(status, wanted, "{body}: {answer}");
        if body == "{" {
            assert!(answer["detail"].as_str().unwrap().starts_with("JSON parse error - "));
        }
    }
}

#[tokio::test]
async fn body_over_limit_gets_413_and_is_logged() {
    // A body over 4 MiB gets 413 and has no effect, and the log has the request without its body.
    let server = Server::new().await;
    let body = json!({ "custom_id": "u", "country": "x".repeat(4 * 1024 * 1024) });
    assert_eq!(server.post("users/", body).await.0, 413);
    let (_, log) = server.admin("GET", "requests", Value::Null).await;
    assert_eq!((&log[0]["status"], &log[0]["body"]), (&json!(413), &Value::Null));
    assert_eq!(server.get("users/").await.1["count"], 0);
}

#[tokio::test]
async fn listing_has_pages_of_100() {
    // Following `next` reads every object once; `previous` leads back; other parameters stay.
    let server = Server::new().await;
    for number in 0..250 {
        let body = json!({ "custom_id": format!("u{number}"), "phone_number": "+1 2" });
        server.post("users/", body).await;
    }
    let mut url = format!("{}users/search/?phone_number=%2B1%202", server.emulator.base_url());
    let mut pages = Vec::new();
    let last = loop {
        let (status, page) = read(server.request("GET", &url)).await;
        assert_eq!((status, &page["count"]), (200, &json!(250)));
        pages.push(page["results"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => url = next.to_owned(),
            None => break page,
        }
    };
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
    let ids: Vec<_> = pages.concat().iter().map(|user| user["id"].as_i64().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b));
    let (_, before) = read(server.request("GET", last["previous"].as_str().unwrap())).await;
    assert_eq!(before["results"], json!(pages[1]));
    let (_, first) = read(server.request("GET", before["previous"].as_str().unwrap())).await;
    assert_eq!((&first["results"], &first["previous"]), (&json!(pages[0]), &Value::Null));
    assert_eq!(server.get("users/?cursor=x").await.0, 404);
}

#[tokio::test]
async fn external_id_of_any_characters_is_one_segment() {
    // An external id survives percent-encoding in the path, even one made of dots.
    let server = Server::new().await;
    let rows = [
        ("a/b", "a%2Fb"),
        ("a?b#c", "a%3Fb%23c"),
        ("two words", "two%20words"),
        ("plus+at@mail.example", "plus+at@mail.example"),
        ("Łódź✓", "%C5%81%C3%B3d%C5%BA%E2%9C%93"),
        ("a..b", "a..b"),
        ("100%", "100%25"),
    ];
    for (own, encoded) in rows {
        server.user(own).await;
        let (status, user) = server.get(&format!("users-by-id/{encoded}/")).await;
        assert_eq!((status, &user["custom_id"]), (200, &json!(own)));
        let path = format!("users-by-id/{encoded}/events/");
        assert_eq!(server.post(&path, json!({ "name": "e" })).await.0, 201, "{own}");
    }
    // URL libraries normalize a segment of dots, so this request is sent as raw text.
    server.user("..").await;
    let answer = server
        .raw(&format!(
            "GET /api/public/users-by-id/%2E%2E/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
             Authorization: Token {KEY}\r\nAccept: */*; version=2\r\n\r\n"
        ))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"custom_id\":\"..\""));
}

#[tokio::test]
async fn api_key_is_absent_from_debug_output() {
    // Neither the settings nor the running emulator print the key.
    let server = Server::new().await;
    let shown = format!("{:?} {:?}", config(), server.emulator);
    assert!(shown.contains("[redacted]") && !shown.contains(KEY));
}
