//! The way in of pipelines: layouts of bodies, codings, credentials, verdicts.

use std::time::Duration;

use async_compression::tokio::bufread::{GzipEncoder, ZlibEncoder, ZstdEncoder};
use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use usercom_sink::ack::Verdict;

use super::{Served, answer, bodies, settling};

#[tokio::test]
async fn lines_arrays_and_objects_are_records() {
    // Each layout yields its records in order, and the answer counts them.
    let (out, seen) = settling();
    let served = Served::start("", out).await;
    let good = |n: u64| (200, json!({"received": n, "accepted": n, "rejected": 0}));
    assert_eq!(served.post("/v1/records", "{\"n\":1}\n{\"n\":2}\n").await, good(2));
    assert_eq!(served.post("/v1/records", "[{\"n\":3},\n{\"n\":4}]").await, good(2));
    assert_eq!(served.post("/v1/records", "{\n\"n\":\n5}").await, good(1));
    assert_eq!(served.post("/v1/records", "").await, good(0));
    let found: Vec<_> = bodies(&seen).iter().map(|body| body["n"].as_u64().unwrap()).collect();
    assert_eq!(found, [1, 2, 3, 4, 5]);
    let meta = seen.lock().unwrap()[0].meta.clone().unwrap();
    let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    assert_eq!((&meta["path"], &meta["ip"]), (&json!("/v1/records"), &json!("127.0.0.1")));
    served.end().await;
}

#[tokio::test]
async fn bad_line_is_a_faulty_record() {
    // What cannot be decoded is passed on with its line's number, next to the good ones.
    let (out, seen) = settling();
    let served = Served::start("", out).await;
    let answered = served.post("/v1/records", "{\"n\":1}\n\nnonsense\n{\"n\":2}").await;
    assert_eq!(answered, (200, json!({"received": 3, "accepted": 2, "rejected": 1})));
    let faults: Vec<_> =
        seen.lock().unwrap().iter().filter_map(|r| r.decode_error.clone()).collect();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("line 3: "), "{}", faults[0]);
    served.end().await;
}

#[tokio::test]
async fn other_codecs_decode_lines() {
    // The codec of the settings applies; a CSV file has its own header in each request.
    let (out, seen) = settling();
    let served = Served::start("path = '/in'\ndecoding.codec = 'csv'", out).await;
    for body in ["a,b\n1,2\n", "b\n3\n"] {
        assert_eq!(served.post("/in", body).await.0, 200);
    }
    assert_eq!(bodies(&seen), [json!({"a": "1", "b": "2"}), json!({"b": "3"})]);
    assert_eq!(served.post("/v1/records", "x").await.0, 404);
    served.end().await;
}

#[tokio::test]
async fn health_checks_are_answered() {
    // HEAD on the ingest path is answered with exactly 200, and so are GETs of the root.
    let (out, _) = settling();
    let served = Served::start("", out).await;
    let head = served.client.head(served.url("/v1/records")).send().await.unwrap();
    assert_eq!(head.status(), 200);
    for path in ["/", "/health"] {
        assert_eq!(answer(served.client.get(served.url(path))).await.0, 200);
    }
    assert_eq!(answer(served.client.get(served.url("/v1/records"))).await.0, 405);
    served.end().await;
}

async fn read(mut encoder: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut encoded = Vec::new();
    encoder.read_to_end(&mut encoded).await.unwrap();
    encoded
}

async fn gzip(bytes: &[u8]) -> Vec<u8> {
    read(GzipEncoder::new(bytes)).await
}

async fn zlib(bytes: &[u8]) -> Vec<u8> {
    read(ZlibEncoder::new(bytes)).await
}

async fn zstd(bytes: &[u8]) -> Vec<u8> {
    read(ZstdEncoder::new(bytes)).await
}

#[tokio::test]
async fn content_codings_are_decoded() {
    // Each coding is inflated; an unknown one, or two on top of each other, is refused.
    let (out, seen) = settling();
    let served = Served::start("", out).await;
    let post = |coding: &'static str, body: Vec<u8>| {
        let request = served.client.post(served.url("/v1/records"));
        answer(request.header("content-encoding", coding).body(body))
    };
    let line = b"{\"n\":1}\n";
    let mut members = gzip(line).await;
    members.extend(gzip(line).await);
    assert_eq!(post("gzip", members).await.1["received"], 2);
    assert_eq!(post("deflate", zlib(line).await).await.0, 200);
    assert_eq!(post("zstd", zstd(line).await).await.0, 200);
    assert_eq!(post("identity", line.to_vec()).await.0, 200);
    assert_eq!(bodies(&seen).len(), 5);
    assert_eq!(post("br", line.to_vec()).await.0, 415);
    assert_eq!(post("gzip, gzip", gzip(&gzip(line).await).await).await.0, 415);
    assert_eq!(post("gzip", line.to_vec()).await.0, 400);
    let mut torn = gzip(&[b'x'; 1000]).await;
    torn.truncate(torn.len() / 2);
    assert_eq!(post("gzip", torn).await.0, 400);
    assert_eq!(bodies(&seen).len(), 5, "what is refused yields nothing");
    served.end().await;
}

#[tokio::test]
async fn too_large_body_is_rejected() {
    // The limit holds before and after inflation, with and without a length told beforehand.
    let (out, seen) = settling();
    let served = Served::start("max_body_bytes = 1000", out).await;
    let long = vec![b' '; 1001];
    assert_eq!(served.post("/v1/records", long.clone()).await.0, 413);
    let chunks: Vec<_> = long.chunks(100).map(Bytes::copy_from_slice).collect();
    let frames = chunks.into_iter().map(|chunk| Ok::<_, std::io::Error>(Frame::data(chunk)));
    let chunked = reqwest::Body::wrap(StreamBody::new(futures::stream::iter(frames)));
    assert_eq!(served.post("/v1/records", chunked).await.0, 413);
    for (coding, body) in
        [("gzip", gzip(&long).await), ("deflate", zlib(&long).await), ("zstd", zstd(&long).await)]
    {
        let request = served.client.post(served.url("/v1/records"));
        let answered = answer(request.header("content-encoding", coding).body(body)).await;
        assert_eq!(answered.0, 413, "{coding}");
    }
    assert_eq!(served.post("/v1/records", vec![b' '; 1000]).await.0, 200);
    assert!(bodies(&seen).is_empty());
    served.end().await;
}

#[tokio::test]
async fn wrong_credentials_are_rejected() {
    // Without the right ones nothing is taken; the write key of SDKs is none.
    for (auth, right) in [
        ("auth = { strategy = 'bearer', token = 's3cret' }\nwrite_key = 'wk'", "Bearer s3cret"),
        ("auth = { strategy = 'basic', user = 'u', password = 'p' }", "Basic dTpw"),
    ] {
        let (out, seen) = settling();
        let served = Served::start(auth, out).await;
        let post = |authorization: Option<&'static str>| {
            let request = served.client.post(served.url("/v1/records")).body("{}");
            answer(match authorization {
                Some(text) => request.header("authorization", text),
                None => request,
            })
        };
        for wrong in
            [None, Some("Bearer s3cre"), Some("Basic d2s6"), Some("s3cret"), Some("Bearer ")]
        {
            assert_eq!(post(wrong).await.0, 401, "{wrong:?}");
        }
        assert!(bodies(&seen).is_empty());
        assert_eq!(post(Some(right)).await.0, 200);
        served.end().await;
    }
}

#[tokio::test]
async fn verdicts_decide_the_response() {
    // Rejected records are counted; one that was not settled makes the sender come again.
    let (out, _) = settling();
    let served = Served::start("", out).await;
    let answered = served.post("/v1/records", "[1,\"dead\",2]").await;
    assert_eq!(answered, (200, json!({"received": 3, "accepted": 2, "rejected": 1})));
    let request = served.client.post(served.url("/v1/records")).body("[1,\"odd\",2]");
    let reply = request.send().await.unwrap();
    assert_eq!(reply.status(), 503);
    let wait: u32 = reply.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=5).contains(&wait));
    served.end().await;
}

#[tokio::test]
async fn response_waits_for_the_verdict() {
    // The answer waits for the last record's verdict, also beyond the stop; new requests are
    // refused.
    let (out, mut records) = mpsc::channel(8);
    let served = Served::start("", out).await;
    let mut posting = Box::pin(served.post("/v1/records", "[1,2]"));
    let mut held = Vec::new();
    while held.len() < 2 {
        tokio::select! {
            _ = &mut posting => panic!("answered too early"),
            record = records.recv() => held.push(record.unwrap()),
        }
    }
    served.stop.cancel();
    let refused = served.client.post(served.url("/v1/records")).body("[3]").send();
    let refused = tokio::select! {
        _ = &mut posting => panic!("answered too early"),
        refused = refused => refused.unwrap(),
    };
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    for record in held {
        record.ack.settle(Verdict::Delivered);
    }
    assert_eq!((&mut posting).await.0, 200);
    drop(posting);
    served.end().await;
    assert!(records.recv().await.is_none());
}

#[tokio::test]
async fn full_pipeline_answers_with_retry() {
    // Where nothing moves, the sender is told to come again within the time limit.
    let (out, mut records) = mpsc::channel(1);
    let served = Served::start("response_timeout_secs = 1", out).await;
    let started = tokio::time::Instant::now();
    assert_eq!(served.post("/v1/records", "[1,2,3]").await.0, 503);
    assert!(started.elapsed() < Duration::from_secs(4));
    let first = records.recv().await.unwrap();
    first.ack.settle(Verdict::Delivered);
    served.end().await;
}

#[tokio::test]
async fn idempotency_key_names_its_records() {
    // A request that is sent again has the same ids on its records; another body under the same key
    // has others, so that neither is taken for the other.
    let (out, seen) = settling();
    let served = Served::start("", out).await;
    for body in ["{}\n\n{}", "{}\n\n{}", "{\"n\":1}"] {
        let request = served.client.post(served.url("/v1/records"));
        answer(request.header("idempotency-key", "k1").body(body)).await;
    }
    let ids: Vec<_> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|r| r.transport_id.as_deref().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 5);
    assert_eq!(ids[..2], ids[2..4]);
    assert!(ids[0].starts_with("k1/") && ids[0].ends_with("#1") && ids[1].ends_with("#3"));
    assert!(!ids[..4].contains(&ids[4]), "{ids:?}");
    served.end().await;
}
