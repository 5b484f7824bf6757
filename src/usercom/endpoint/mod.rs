//! One file per family of endpoints: requests out of values, values out of replies.
//!
//! Not here: when to send what. Invariant: untrusted text reaches a path only through
//! [`segment`], and every path ends in `/`.

pub(super) mod attributes;
pub(super) mod companies;
pub(super) mod events;
pub(super) mod site_views;
pub(super) mod users;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use url::Url;

use crate::call::{Json, write_string};
use crate::deliver::{Method, Repeat, Reply, Request};

/// Everything but RFC 3986's unreserved characters.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An id as one path segment, or `None` where no encoding is safe: URL parsers read `%2E%2E` as
/// `..`, and servers in front may read `%2F` as `/`. Such ids go by number.
pub(super) fn segment(id: &str) -> Option<String> {
    let unsafe_id = id.is_empty() || matches!(id, "." | "..") || id.contains(['/', '\\']);
    (!unsafe_id).then(|| utf8_percent_encode(id, STRICT).to_string())
}

fn get(route: &'static str, path: String) -> Request {
    Request { method: Method::Get, path, route, body: None, repeat: Repeat::Safe }
}

fn write(
    method: Method,
    route: &'static str,
    path: String,
    body: String,
    repeat: Repeat,
) -> Request {
    Request { method, path, route, body: Some(Bytes::from(body)), repeat }
}

/// A JSON object from names and JSON values, in order.
pub(super) fn object<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    // Most bodies fit; one that does not grows.
    let mut text = String::with_capacity(512);
    text.push('{');
    for (name, json) in entries {
        if text.len() > 1 {
            text.push(',');
        }
        write_string(&mut text, name);
        text.push(':');
        text.push_str(json);
    }
    text.push('}');
    text
}

/// Fields as [`object`] takes them.
fn texts<N: AsRef<str>, J: AsRef<str>>(fields: &[(N, J)]) -> impl Iterator<Item = (&str, &str)> {
    fields.iter().map(|(name, json)| (name.as_ref(), json.as_ref()))
}

/// A string as JSON.
pub(super) fn quoted(text: &str) -> String {
    Json::string(text).into_text().into_owned()
}

/// A reply's body as JSON; `Null` where it is none.
pub(super) fn json(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or(Value::Null)
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// One page of a list.
pub(super) struct Page {
    /// The entries.
    pub(super) results: Vec<Value>,
    /// Path and query of the next page, if there is one.
    pub(super) next: Option<String>,
}

/// Reads a page; a bare array is a list of one page.
///
/// `next` is an absolute URL chosen by the server. Only its query is used, on the path that was
/// asked: a reply cannot lead anywhere else, nor does it matter under which name the server knows
/// itself.
pub(super) fn page(reply: &Reply, asked: &str) -> Page {
    let (results, next) = match json(reply) {
        Value::Array(results) => (results, None),
        Value::Object(mut body) => {
            let results = match body.remove("results") {
                Some(Value::Array(results)) => results,
                _ => Vec::new(),
            };
            let next = body.get("next").and_then(Value::as_str);
            (results, next.and_then(|next| follow(next, asked)))
        }
        _ => (Vec::new(), None),
    };
    Page { results, next }
}

fn follow(next: &str, asked: &str) -> Option<String> {
    // A made-up host lets relative references resolve; it goes nowhere.
    let base = Url::parse("http://localhost/").ok()?;
    let next = base.join(next).ok()?;
    let path = asked.split('?').next().unwrap_or_default();
    let same = base.join(path).ok()?;
    if !next.path().ends_with(same.path()) {
        return None;
    }
    let follow = format!("{path}?{}", next.query()?);
    (follow != asked).then_some(follow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_page_leads_nowhere_else() {
        // Only the query of a `next` on the very same path is followed.
        let asked = "attributes/?cursor=1";
        for (next, followed) in [
            ("https://acme.user.com/api/public/attributes/?cursor=2", Some("attributes/?cursor=2")),
            ("http://evil.example/api/public/attributes/?cursor=2", Some("attributes/?cursor=2")),
            ("/api/public/attributes/?cursor=2", Some("attributes/?cursor=2")),
            ("https://acme.user.com/api/public/users/?cursor=2", None),
            ("https://acme.user.com/api/public/attributes/../users/?cursor=2", None),
            ("https://acme.user.com/api/public/attributes/", None),
            ("https://acme.user.com/api/public/attributes/?cursor=1", None),
            ("", None),
        ] {
            assert_eq!(follow(next, asked).as_deref(), followed, "{next}");
        }
    }

    #[test]
    fn pages_are_read_leniently() {
        // A bare array is a page; anything unknown is an empty one.
        let reply = |body: &'static str| Reply { status: 200, body: Bytes::from(body) };
        assert_eq!(page(&reply("[1,2]"), "x/").results.len(), 2);
        assert_eq!(page(&reply("{\"results\":[1]}"), "x/").results.len(), 1);
        assert!(page(&reply("<html>"), "x/").results.is_empty());
        assert!(page(&reply("{\"results\":7,\"next\":7}"), "x/").next.is_none());
    }

    #[test]
    fn users_are_read_leniently() {
        // `user_key`, else `key`; a body that says nothing is no error.
        let read =
            |body: &'static str| users::found(&Reply { status: 200, body: Bytes::from(body) });
        assert_eq!(read("{\"id\":7,\"user_key\":\"a\",\"key\":\"b\"}").key.as_deref(), Some("a"));
        assert_eq!(read("{\"id\":\"7\",\"key\":\"b\"}").key.as_deref(), Some("b"));
        assert_eq!(read("{\"id\":\"7\"}").id, Some(7));
        assert_eq!(read("oops"), users::Found { id: None, key: None });
    }
}
