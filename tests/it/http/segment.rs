//! The way in of SDKs: paths, write keys, browsers.

use serde_json::json;

use super::{Served, answer, bodies, settling};

#[tokio::test]
async fn every_segment_api_path_is_accepted() {
    // Long and short names, with and without version: each call gets the type of its path.
    let (out, seen) = settling();
    let served = Served::start("", out).await;
    let calls = [
        ("identify", "i"),
        ("track", "t"),
        ("page", "p"),
        ("screen", "s"),
        ("group", "g"),
        ("alias", "a"),
    ];
    for (long, short) in calls {
        for path in [
            format!("/v1/{long}"),
            format!("/v1/{short}"),
            format!("/{long}"),
            format!("/{short}"),
            format!("/v1/{long}/"),
        ] {
            let answered = served.post(&path, r#"{"userId":"u"}"#).await;
            assert_eq!(answered, (200, json!({"success": true})), "{path}");
            let found = bodies(&seen).pop().unwrap();
            assert_eq!(found["type"], long, "{path}");
        }
    }
    for path in ["/v1/batch", "/v1/b", "/v1/import", "/batch"] {
        let before = bodies(&seen).len();
        let body = r#"{"batch":[{"type":"track","event":"A"},{"type":"page"}],"sentAt":"2026-01-01T00:00:00Z"}"#;
        assert_eq!(served.post(path, body).await.0, 200);
        let found = bodies(&seen).split_off(before);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1]["timestamp"], "2026-01-01T00:00:00Z");
    }
    served.end().await;
}

#[tokio::test]
async fn write_keys_are_checked() {
    // The key is taken as user name or from the body; a wrong one is reported in JSON.
    let (out, seen) = settling();
    let served = Served::start("write_key = 'wk'", out).await;
    let post = |authorization: Option<&'static str>, body: &'static str| {
        let request = served.client.post(served.url("/v1/t")).body(body);
        answer(match authorization {
            Some(text) => request.header("authorization", text),
            None => request,
        })
    };
    assert_eq!(post(Some("Basic d2s6"), "{}").await.0, 200);
    assert_eq!(post(None, r#"{"writeKey":"wk"}"#).await.0, 200);
    let taken = bodies(&seen);
    assert_eq!(taken.len(), 2);
    assert!(taken.iter().all(|body| body.get("writeKey").is_none()));
    for (authorization, body) in [
        (None, "{}"),
        (None, r#"{"writeKey":"kw"}"#),
        (None, r#"{"writeKey":7}"#),
        (Some("Basic a3c6"), r#"{"writeKey":"wk"}"#),
        (Some("Basic !"), "{}"),
    ] {
        let (status, reply) = post(authorization, body).await;
        assert_eq!((status, &reply["success"]), (401, &json!(false)), "{authorization:?} {body}");
    }
    assert_eq!(bodies(&seen).len(), 2);
    served.end().await;
}

#[tokio::test]
async fn configured_credentials_protect_sdk_paths() {
    // With `auth` alone no path is open.
    let (out, seen) = settling();
    let served = Served::start("auth = { strategy = 'bearer', token = 't' }", out).await;
    assert_eq!(served.post("/v1/track", "{}").await.0, 401);
    assert!(bodies(&seen).is_empty());
    let request = served.client.post(served.url("/v1/track")).bearer_auth("t").body("{}");
    assert_eq!(answer(request).await.0, 200);
    served.end().await;
}

#[tokio::test]
async fn browser_preflight_and_cors_are_answered() {
    // A page may send as text, is answered so that it may read it, and is known by its address.
    let (out, seen) = settling();
    let served = Served::start("write_key = 'wk'", out).await;
    let asked = served
        .client
        .request(reqwest::Method::OPTIONS, served.url("/v1/t"))
        .header("origin", "https://shop.example.com")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,x-custom")
        .send()
        .await
        .unwrap();
    assert!(asked.status().is_success());
    assert_eq!(asked.headers()["access-control-allow-origin"], "*");
    assert_eq!(asked.headers().get("access-control-allow-credentials"), None);
    assert_eq!(asked.headers()["access-control-allow-headers"], "content-type,x-custom");
    let sent = served
        .client
        .post(served.url("/v1/t"))
        .header("origin", "https://shop.example.com")
        .header("content-type", "text/plain")
        .body(r#"{"writeKey":"wk","event":"E","context":{"locale":"pl"}}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 200);
    assert_eq!(sent.headers()["access-control-allow-origin"], "*");
    assert_eq!(sent.headers().get("access-control-allow-credentials"), None);
    assert_eq!(bodies(&seen)[0]["context"], json!({"locale": "pl", "ip": "127.0.0.1"}));
    served.end().await;
}

#[tokio::test]
async fn body_that_is_not_a_call_is_rejected() {
    // What is no object is refused; a bad entry does not hold up the others of its batch.
    let (out, seen) = settling();
    let served = Served::start("", out).await;
    for (path, body) in [
        ("/v1/track", ""),
        ("/v1/track", "[]"),
        ("/v1/track", "{"),
        ("/v1/batch", "{}"),
        ("/v1/batch", r#"{"batch":{}}"#),
    ] {
        assert_eq!(served.post(path, body).await.0, 400, "{path} {body}");
    }
    let answered = served.post("/v1/batch", r#"{"batch":[{"type":"track"},7]}"#).await;
    assert_eq!(answered, (200, json!({"success": true})));
    let faults: Vec<_> = seen.lock().unwrap().iter().map(|r| r.decode_error.is_some()).collect();
    assert_eq!(faults, [false, true]);
    assert_eq!(answer(served.client.get(served.url("/v1/track"))).await.0, 405);
    served.end().await;
}
