//! The contestant of delivery: a loop that posts the very same requests through reqwest, over the
//! same number of connections, and does nothing else.
//!
//! No mapping, no order, no retry, no store. Invariant: it sends every request once and reads every
//! answer to its end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use crate::{child, clock};

/// One request as it was sent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sent {
    method: String,
    path: String,
    body: Option<Box<RawValue>>,
}

impl Sent {
    /// A request; a body that is no JSON is left out.
    pub(crate) fn new(method: &str, path: &str, body: &[u8]) -> Self {
        let body = serde_json::from_slice(body).ok();
        Self { method: method.to_owned(), path: path.to_owned(), body }
    }

    /// Whether it is the reading of the catalogue, which happens at start and not per record.
    pub(crate) fn is_catalogue(&self) -> bool {
        self.method == "GET" && self.path.starts_with("attributes/")
    }
}

/// What the loop took, without its start.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Posted {
    /// From the first request to the last answer, in seconds.
    pub(crate) seconds: f64,
    /// Processor time of that, in seconds.
    pub(crate) cpu: f64,
    /// How many requests it were.
    pub(crate) requests: usize,
    /// How many were answered with an error.
    pub(crate) failed: usize,
}

/// Sends everything in the file to `base`.
pub(crate) async fn post(base: &str, file: &Path, connections: usize) -> Posted {
    let text = std::fs::read(file).expect("the bench wrote the file");
    let sent: Vec<Sent> = serde_json::from_slice(&text).expect("the bench wrote the file");
    drop(text);
    let requests: Arc<[(reqwest::Method, String, Bytes)]> = sent
        .into_iter()
        .map(|sent| {
            let method = sent.method.parse().expect("a method that came over HTTP");
            let body = sent.body.map_or(String::new(), |body| String::from(Box::<str>::from(body)));
            (method, format!("{base}{}", sent.path), Bytes::from(body))
        })
        .collect();
    let client = reqwest::Client::builder()
        .default_headers(HeaderMap::from_iter([
            (AUTHORIZATION, HeaderValue::from_static("Token bench")),
            (ACCEPT, HeaderValue::from_static("*/*; version=2")),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ]))
        .retry(reqwest::retry::never())
        .tcp_nodelay(true)
        .build()
        .expect("a client without TLS of its own");
    let count = requests.len();
    let next = Arc::new(AtomicUsize::new(0));
    let (started, cpu) = (clock(), child::own_cpu());
    let mut loops = JoinSet::new();
    for _ in 0..connections {
        let (client, next, requests) = (client.clone(), Arc::clone(&next), Arc::clone(&requests));
        loops.spawn(async move {
            let mut failed = 0;
            while let Some((method, url, body)) = requests.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let request = client.request(method.clone(), url).body(body.clone());
                let response = request.send().await.expect("the server answers at once");
                failed += usize::from(!response.status().is_success());
                response.bytes().await.expect("the server answers to the end");
            }
            failed
        });
    }
    let failed = loops.join_all().await.into_iter().sum();
    let cpu = child::own_cpu() - cpu;
    Posted { seconds: started.elapsed().as_secs_f64(), cpu, requests: count, failed }
}
