//! The metadata of a request for `%` paths: `%ip`, `%path`, `%query`, `%user_agent`,
//! `%content_type`, `%header.NAME`.
//!
//! # Invariants
//!
//! It is bounded, and contains no header with credentials.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri};
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::source::metadata::Metadata;

/// The longest value that is kept, in bytes; a longer header or query value is dropped.
const MAX_VALUE: usize = 2048;

/// The most query parameters that are kept.
const MAX_PARAMETERS: usize = 64;

/// The metadata of a request's records; `headers` are those that become `%header.NAME`.
pub(super) fn of_request(peer: IpAddr, parts: &Parts, headers: &[HeaderName]) -> Bytes {
    let mut meta =
        Metadata::default().with("path", shortened(parts.uri.path())).with("ip", peer.to_string());
    for (key, name) in [("user_agent", "user-agent"), ("content_type", "content-type")] {
        if let Some(value) = text(&parts.headers, name) {
            meta = meta.with(key, value);
        }
    }
    let query = query(&parts.uri);
    if !query.is_empty() {
        meta = meta.with("query", query);
    }
    let known: Map<String, Value> = headers
        .iter()
        .filter_map(|name| {
            Some((name.as_str().to_owned(), text(&parts.headers, name.as_str())?.into()))
        })
        .collect();
    if !known.is_empty() {
        meta = meta.with("header", known);
    }
    meta.finish()
}

/// The parameters of the query; a repeated one is a list.
fn query(uri: &Uri) -> Map<String, Value> {
    let mut found = Map::new();
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    for (name, value) in pairs.take(MAX_PARAMETERS) {
        if name.len() > MAX_VALUE || value.len() > MAX_VALUE {
            continue;
        }
        let value = Value::String(value.into_owned());
        match found.get_mut(&*name) {
            None => drop(found.insert(name.into_owned(), value)),
            Some(Value::Array(all)) => all.push(value),
            Some(one) => *one = Value::Array(vec![one.take(), value]),
        }
    }
    found
}

fn shortened(text: &str) -> &str {
    // A URL path is ASCII, so any byte is a character boundary.
    text.get(..MAX_VALUE).unwrap_or(text)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let value = std::str::from_utf8(headers.get(name)?.as_bytes()).ok()?;
    (!value.is_empty() && value.len() <= MAX_VALUE).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;
    use serde_json::json;

    #[test]
    fn query_and_listed_headers_are_in_the_metadata() {
        // Guarantees the metadata of a webhook: query decoded and repeated, listed headers only.
        let (parts, ()) = Request::post("/shopify?topic=orders%2Fpaid&tag=a&tag=b&x")
            .header("X-Shopify-Topic", "customers/create")
            .header("Authorization", "Bearer hush")
            .header("User-Agent", "agent")
            .body(())
            .unwrap()
            .into_parts();
        let headers = [HeaderName::from_static("x-shopify-topic")];
        let meta = of_request("203.0.113.7".parse().unwrap(), &parts, &headers);
        let meta: Value = serde_json::from_slice(&meta).unwrap();
        assert_eq!(
            meta,
            json!({
                "path": "/shopify", "ip": "203.0.113.7", "user_agent": "agent",
                "query": {"topic": "orders/paid", "tag": ["a", "b"], "x": ""},
                "header": {"x-shopify-topic": "customers/create"},
            })
        );
    }
}
