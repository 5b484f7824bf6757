//! One file per family of endpoints: builds requests from values, and parses responses into values.
//!
//! # Invariants
//!
//! Untrusted text reaches a path only through [`segment`], and every path ends in `/`.

pub(super) mod attributes;
mod body;
mod charset;
pub(super) mod companies;
pub(super) mod events;
pub(super) mod site_views;
pub(super) mod users;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use url::Url;

use self::body::Body;
use self::charset::plain_body;
use crate::deliver::{ApiReply, Expects, Idempotency, MAX_RESPONSE_BYTES, Method, Need, Request};

/// The longest response that is read if it is a list or a company with all its members, in bytes.
const LONG_REPLY: usize = 4 * MAX_RESPONSE_BYTES;

/// Everything but RFC 3986's unreserved characters.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An id as one path segment, or `None` if no encoding is safe: URL parsers read `%2E%2E` as `..`,
/// and proxies may read `%2F` as `/`. For such ids the remote id is used. NULs are left out, as
/// they are in bodies.
pub(super) fn segment(id: &str) -> Option<String> {
    let id = id.replace('\0', "");
    let id = id.as_str();
    let unsafe_id = id.is_empty() || matches!(id, "." | "..") || id.contains(['/', '\\']);
    (!unsafe_id).then(|| utf8_percent_encode(id, STRICT).to_string())
}

fn get(route: &'static str, path: String) -> Request {
    let (method, idempotency, expects) = (Method::Get, Idempotency::Idempotent, Expects::default());
    Request { method, path, route, body: None, idempotency, expects }
}

/// The same request with another importance of its response.
pub(super) fn needed(mut request: Request, need: Need) -> Request {
    request.expects.need = need;
    request
}

/// The same request, whose response may be long.
fn long(mut request: Request) -> Request {
    request.expects.max_body = LONG_REPLY;
    request
}

fn write(
    method: Method,
    route: &'static str,
    path: String,
    body: String,
    idempotency: Idempotency,
) -> Request {
    let body = Some(Bytes::from(without_nul(body)));
    Request { method, path, route, body, idempotency, expects: Expects::default() }
}

/// JSON text without NULs: databases refuse them in text, and the server then answers 500.
pub(super) fn without_nul(json: String) -> String {
    const NUL: &str = "\\u0000";
    if memchr::memmem::find(json.as_bytes(), NUL.as_bytes()).is_none() {
        return json;
    }
    let mut out = String::with_capacity(json.len());
    let mut rest = json.as_str();
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(behind) = rest.strip_prefix(NUL) {
            rest = behind;
            continue;
        }
        // The character after a backslash belongs to it: `\\u0000` is not a NUL.
        let end = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
        out.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Names and JSON values, as slices.
fn slices<N: AsRef<str>, J: AsRef<str>>(fields: &[(N, J)]) -> impl Iterator<Item = (&str, &str)> {
    fields.iter().map(|(name, json)| (name.as_ref(), json.as_ref()))
}

/// A response's body as JSON, whatever its encoding; `Null` if it is not JSON.
pub(super) fn json(reply: &ApiReply) -> Value {
    serde_json::from_slice(&plain_body(&reply.body)).unwrap_or(Value::Null)
}

/// Names under which an answer may hold the one object it is about.
const OBJECT_NAMES: [&str; 6] = ["data", "result", "results", "user", "client", "company"];

/// Names of which a user or a company has at least one: what stands under [`OBJECT_NAMES`] in it is
/// something else.
const OWN_NAMES: [&str; 6] = ["id", "user_key", "key", "custom_id", "created", "name"];

/// The object a reply is about. It may stand under a name of its own, or alone in a list.
pub(super) fn object(reply: &ApiReply) -> Value {
    let mut body = json(reply);
    for _ in 0..MAX_WRAPPERS {
        let inner = match &mut body {
            Value::Array(items) if items.len() == 1 => items[0].take(),
            Value::Object(fields) if !OWN_NAMES.iter().any(|name| fields.contains_key(*name)) => {
                let is_inner = |name: &&str| {
                    fields.get(*name).is_some_and(|value| value.is_object() || value.is_array())
                };
                let Some(name) = OBJECT_NAMES.iter().copied().find(|name| is_inner(&name)) else {
                    return body;
                };
                fields.get_mut(name).map(Value::take).unwrap_or_default()
            }
            _ => return body,
        };
        body = inner;
    }
    body
}

/// How deep an object may stand in an answer.
const MAX_WRAPPERS: usize = 3;

/// The id of a user or company, written as an integer, as a float without a fraction, or as a
/// string.
pub(super) fn number(value: &Value) -> Option<u64> {
    // Up to here floats hold whole numbers exactly.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let whole = |number: f64| {
        let fits = number.fract() == 0.0 && (0.0..=EXACT).contains(&number);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole and within the range, as checked"
        )]
        fits.then_some(number as u64)
    };
    match value {
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| whole(text.parse().ok()?))
        }
        _ => None,
    }
}

/// One page of a list.
pub(super) struct Page {
    /// The entries.
    pub(super) results: Vec<Value>,
    /// Path and query of the next page, if there is one.
    pub(super) next: Option<String>,
    /// Whether the answer was a list at all.
    pub(super) is_list: bool,
}

/// Names under which an object may hold the entries of a list, or an object that does.
const LIST_NAMES: [&str; 6] = ["results", "data", "attributes", "items", "result", "response"];

/// The entries of a list that is an object without an array: objects by name, as
/// `{"plan": {"id": 1, ...}}`, perhaps under one of the usual names.
fn entries(body: &mut serde_json::Map<String, Value>) -> Vec<Value> {
    for name in LIST_NAMES {
        if let Some(Value::Object(by_name)) = body.get_mut(name) {
            return objects(by_name);
        }
    }
    objects(body)
}

/// Whether a value is an array of objects, or an object that holds one under a usual name.
fn holds_list(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => items.is_empty() || items.iter().any(Value::is_object),
        Value::Object(fields) if depth < MAX_WRAPPERS => {
            let inner = LIST_NAMES.iter().filter_map(|name| fields.get(*name));
            inner.into_iter().any(|value| holds_list(value, depth + 1))
        }
        _ => false,
    }
}

/// The entries of a list, and what is said of the next page.
fn list_in(body: Value, depth: usize) -> (Vec<Value>, Value) {
    match body {
        Value::Array(results) => (results, Value::Null),
        Value::Object(mut fields) => {
            let next = fields.remove("next").unwrap_or_default();
            let holds = |name: &&str| fields.get(*name).is_some_and(|v| holds_list(v, depth + 1));
            let Some(name) = LIST_NAMES.iter().copied().find(|name| holds(&name)) else {
                return (entries(&mut fields), next);
            };
            let (results, inner) = list_in(fields.remove(name).unwrap_or_default(), depth + 1);
            (results, if inner.is_null() { next } else { inner })
        }
        _ => (Vec::new(), Value::Null),
    }
}

/// The values of an object that are objects; a missing `name` is set to the key.
fn objects(by_name: &mut serde_json::Map<String, Value>) -> Vec<Value> {
    let objects = by_name.iter_mut().filter(|(_, value)| value.is_object());
    objects
        .map(|(key, value)| {
            let mut entry = value.take();
            if entry.get("name").is_none() {
                entry["name"] = Value::from(key.as_str());
            }
            entry
        })
        .collect()
}

/// Parses a page; a bare array is a list of one page.
///
/// `next` is an absolute URL that the server chooses. Only its query is used, on the path of the
/// request: a response cannot lead to another server or path, and the name under which the server
/// knows itself does not matter.
pub(super) fn page(reply: &ApiReply, asked: &str) -> Page {
    let body = json(reply);
    let was_list = holds_list(&body, 0);
    let (results, next) = list_in(body, 0);
    let is_list = was_list || results.iter().any(Value::is_object);
    let next = match &next {
        Value::String(next) if is_list => follow(next.trim(), asked),
        Value::Number(page) if is_list => follow(&page.to_string(), asked),
        _ => None,
    };
    Page { is_list, results, next }
}

/// The entries of a list that was read already.
pub(super) fn page_entries(body: &Value) -> Vec<Value> {
    list_in(body.clone(), 0).0
}

fn follow(next: &str, asked: &str) -> Option<String> {
    // An invented host lets relative references resolve; no request is sent to it.
    let base = Url::parse("http://localhost/").ok()?;
    let path = asked.split('?').next().unwrap_or_default();
    let same = base.join(path).ok()?;
    // The number of a page, or a query without its mark.
    let is_number = !next.is_empty() && next.bytes().all(|byte| byte.is_ascii_digit());
    let is_query = next.contains('=') && !next.contains(['?', '/']);
    let next = match (is_number, is_query) {
        (true, _) => same.join(&format!("?page={next}")).ok()?,
        (false, true) => same.join(&format!("?{next}")).ok()?,
        (false, false) => same.join(next).ok()?,
    };
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
    fn next_page_url_of_another_host_is_not_followed() {
        // Only the query of a `next` on the very same path is followed.
        let asked = "attributes/?cursor=1";
        for (next, followed) in [
            ("https://acme.user.com/api/public/attributes/?cursor=2", Some("attributes/?cursor=2")),
            ("http://evil.example/api/public/attributes/?cursor=2", Some("attributes/?cursor=2")),
            ("/api/public/attributes/?cursor=2", Some("attributes/?cursor=2")),
            ("attributes/?cursor=2", Some("attributes/?cursor=2")),
            ("?cursor=2", Some("attributes/?cursor=2")),
            ("limit=1&cursor=2", Some("attributes/?limit=1&cursor=2")),
            ("2", Some("attributes/?page=2")),
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
    fn page_in_other_shapes_is_parsed() {
        // A bare array is a page; anything unknown is an empty one.
        let reply = |body: &'static str| ApiReply { status: 200, body: Bytes::from(body) };
        assert_eq!(page(&reply("[{},{}]"), "x/").results.len(), 2);
        assert_eq!(page(&reply("{\"results\":[{}]}"), "x/").results.len(), 1);
        for list in [
            r#"{"data":[{"name":"plan"}]}"#,
            r#"{"attributes":[{"name":"plan"}],"next":null}"#,
            r#"{"plan":{"id":1}}"#,
            r#"{"attributes":{"plan":{"id":1}}}"#,
        ] {
            assert_eq!(page(&reply(list), "x/").results[0]["name"], "plan", "{list}");
        }
        for list in [
            r#"{"result":{"data":{"results":[{},{}],"next":"?page=2"}}}"#,
            r#"{"data":[{},{}],"next":"x/?page=2"}"#,
        ] {
            assert_eq!(page_entries(&json(&reply(list))).len(), 2, "{list}");
            let page = page(&reply(list), "x/");
            assert_eq!(
                (page.results.len(), page.next.as_deref()),
                (2, Some("x/?page=2")),
                "{list}"
            );
        }
        for (body, is_list) in [
            ("[]", true),
            (r#"{"results":[]}"#, true),
            ("{}", false),
            ("7", false),
            ("[null]", false),
        ] {
            assert_eq!(page(&reply(body), "x/").is_list, is_list, "{body}");
        }
        assert!(page(&reply("<html>"), "x/").results.is_empty());
        assert!(page(&reply("{\"results\":7,\"next\":7}"), "x/").next.is_none());
    }

    #[test]
    fn nul_is_removed_from_bodies_and_paths() {
        // Guarantees that no NUL is sent, and that a backslash in front of `u0000` is not taken for
        // one.
        for (json, sent) in [
            (r#"{"a":"x\u0000y\u0000"}"#, r#"{"a":"xy"}"#),
            (r#"{"a\u0000":"\\u0000"}"#, r#"{"a":"\\u0000"}"#),
            (r#"{"a":"\\\u0000é\n"}"#, r#"{"a":"\\é\n"}"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
        ] {
            let request =
                write(Method::Post, "x/", "x/".into(), json.into(), Idempotency::Idempotent);
            assert_eq!(request.body.unwrap(), sent, "{json}");
        }
        assert_eq!(segment("a\0b").as_deref(), Some("ab"));
        assert_eq!(segment("\0"), None);
    }

    #[test]
    fn ids_as_number_or_string_are_parsed() {
        // Guarantees that a user's id is found as a float, as a string and after a byte order mark.
        for body in [
            "{\"id\":7}",
            "{\"id\":7.0}",
            "{\"id\":\"7\"}",
            "{\"id\":\"7.0\"}",
            "\u{feff}{\"id\":7}",
        ] {
            let reply = ApiReply { status: 200, body: Bytes::from(body) };
            assert_eq!(users::found(&reply).id, Some(7), "{body}");
        }
        for body in ["{\"id\":7.5}", "{\"id\":-7}", "{\"id\":true}", "{\"id\":1e300}", "OK"] {
            let reply = ApiReply { status: 200, body: Bytes::from(body) };
            assert_eq!(users::found(&reply).id, None, "{body}");
        }
    }

    #[test]
    fn user_in_other_shapes_is_parsed() {
        // `user_key`, else `key`; a body that says nothing is no error.
        let read =
            |body: &'static str| users::found(&ApiReply { status: 200, body: Bytes::from(body) });
        assert_eq!(read("{\"id\":7,\"user_key\":\"a\",\"key\":\"b\"}").key.as_deref(), Some("a"));
        assert_eq!(read("{\"id\":\"7\",\"key\":\"b\"}").key.as_deref(), Some("b"));
        assert_eq!(read("{\"id\":\"7\"}").id, Some(7));
        assert_eq!(read("oops"), users::Found { id: None, key: None });
        for wrapped in [
            r#"{"data":{"id":7,"user_key":"a"}}"#,
            r#"[{"id":7,"user_key":"a"}]"#,
            r#"{"status":"ok","result":{"user":{"id":7,"key":"a"}}}"#,
        ] {
            assert_eq!(read(wrapped), users::Found { id: Some(7), key: Some("a".into()) });
        }
        // A field of the user itself is no wrapper.
        assert_eq!(read("{\"id\":7,\"company\":{\"id\":9,\"key\":\"b\"}}").id, Some(7));
    }
}
