//! Users: upsert, look-up, merge.

use serde_json::Value;

use percent_encoding::utf8_percent_encode;

use super::{Body, STRICT, get, json, number, object, page, segment, slices, write};
use crate::deliver::{ApiReply, Idempotency, Method, Request};
use crate::schedule::KeyKind;
use crate::usercom::identity::normalized;

/// The body of an upsert.
pub(in crate::usercom) fn body<'a>(
    own_id: &str,
    fields: impl IntoIterator<Item = (&'a str, impl AsRef<str>)>,
) -> String {
    Body::new().text("custom_id", own_id).all(fields).done()
}

/// `POST users/update_or_create/`, keyed on `custom_id`. It may be repeated.
pub(in crate::usercom) fn upsert(
    own_id: &str,
    fields: &[(impl AsRef<str>, impl AsRef<str>)],
) -> Request {
    let body = body(own_id, slices(fields));
    let route = "users/update_or_create/";
    write(Method::Post, route, route.into(), body, Idempotency::Idempotent)
}

/// `GET users-by-id/:id/`; `None` for an id that is not safe in a path.
pub(in crate::usercom) fn by_own_id(own_id: &str) -> Option<Request> {
    let id = segment(own_id)?;
    Some(get("users-by-id/:id/", format!("users-by-id/{id}/")))
}

/// `GET users/:id/`.
pub(in crate::usercom) fn by_number(id: u64) -> Request {
    get("users/:id/", format!("users/{id}/"))
}

/// `POST users/merge/`: the parent remains. A repetition finds no user to merge.
pub(in crate::usercom) fn merge(parent: u64, gone: u64) -> Request {
    let body = Body::new().number("parent", parent).json("users_list", &format!("[{gone}]")).done();
    write(Method::Post, "users/merge/", "users/merge/".into(), body, Idempotency::Idempotent)
}

/// `PUT users/:id/`, with an external id for a record that has none.
pub(in crate::usercom) fn update_number(
    id: u64,
    own_id: Option<&str>,
    fields: &[(impl AsRef<str>, impl AsRef<str>)],
) -> Request {
    let body = match own_id {
        Some(own_id) => body(own_id, slices(fields)),
        None => Body::new().all(slices(fields)).done(),
    };
    write(Method::Put, "users/:id/", format!("users/{id}/"), body, Idempotency::Idempotent)
}

/// `GET users/search/` by a key.
pub(in crate::usercom) fn search(kind: KeyKind, key: &str) -> Request {
    let value = utf8_percent_encode(key, STRICT);
    let query = match kind {
        KeyKind::UserKey => format!("key={value}"),
        // Without `many` only one of several records is returned.
        KeyKind::Email => format!("email={value}&many=true"),
        KeyKind::Phone => format!("phone_number={value}"),
    };
    get("users/search/", format!("users/search/?{query}"))
}

/// The external id of a record, if the response contains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::usercom) enum OwnId {
    /// It has none.
    None,
    /// It has this one.
    Some(String),
    /// The response does not contain it.
    Unsaid,
}

/// Parses the external id of a user object.
fn own_id_in(user: &Value) -> OwnId {
    let id = user.get("custom_id").or_else(|| user.get("user_id").filter(|id| !id.is_number()));
    match id {
        None => OwnId::Unsaid,
        Some(Value::String(id)) if !id.trim().is_empty() => OwnId::Some(id.clone()),
        Some(Value::Number(id)) => OwnId::Some(id.to_string()),
        Some(_) => OwnId::None,
    }
}

/// Parses the external id of the user in a response.
pub(in crate::usercom) fn own_id(reply: &ApiReply) -> OwnId {
    own_id_in(&object(reply))
}

/// A user that a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::usercom) struct SearchHit {
    /// User.com's number of the user.
    pub(in crate::usercom) number: u64,
    /// Its external id.
    pub(in crate::usercom) own_id: OwnId,
    /// Whether it has the key that was searched for; `None` where the answer does not show it.
    pub(in crate::usercom) has_key: Option<bool>,
}

/// What came in place of an answer about the key that was searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::usercom) enum NoSearchAnswer {
    /// A body that is not JSON: it may be damaged, or not the API's.
    Unreadable(u16),
    /// A status that speaks of the route.
    Refused(u16),
}

/// Reads the users a search found: a list, a page or one user. An entry that shows another key is
/// left out: a search may be less strict than a comparison, or ignore its parameter.
pub(in crate::usercom) fn searched(
    reply: &ApiReply,
    kind: KeyKind,
    key: &str,
) -> Result<Vec<SearchHit>, NoSearchAnswer> {
    let body = json(reply);
    let is_json = !body.is_null() || reply.body.trim_ascii() == b"null";
    match reply.status {
        200..300 if is_json => {}
        // A key of a form that User.com does not take, or one that no user has.
        400 | 422 => return Ok(Vec::new()),
        404 if is_json || reply.body.trim_ascii().is_empty() => return Ok(Vec::new()),
        status @ (200..300 | 404) => return Err(NoSearchAnswer::Unreadable(status)),
        status => return Err(NoSearchAnswer::Refused(status)),
    }
    let users = match number(&body["id"]) {
        Some(_) => vec![body],
        None => page(reply, "users/search/").results,
    };
    let hits = users.iter().filter_map(|user| hit(user, kind, key));
    Ok(hits.filter(|hit| hit.has_key != Some(false)).collect())
}

/// Reads whether the user that an answer shows has a key.
pub(in crate::usercom) fn shown(reply: &ApiReply, kind: KeyKind, key: &str) -> Option<SearchHit> {
    hit(&json(reply), kind, key).filter(|_| reply.is_success())
}

fn hit(user: &Value, kind: KeyKind, key: &str) -> Option<SearchHit> {
    let names: &[&str] = match kind {
        KeyKind::UserKey => &["user_key", "key"],
        KeyKind::Email => &["email"],
        KeyKind::Phone => &["phone_number", "phone"],
    };
    let shown = names.iter().find_map(|name| user.get(name));
    let is_key = |shown: &Value| match shown {
        Value::String(shown) => normalized(kind, shown).as_deref() == Some(key),
        // A telephone number that was read as one.
        Value::Number(shown) => normalized(kind, &shown.to_string()).as_deref() == Some(key),
        _ => false,
    };
    let has_key = shown.map(is_key);
    Some(SearchHit { number: number(&user["id"])?, own_id: own_id_in(user), has_key })
}

/// The content of an upsert's response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::usercom) struct Upserted {
    /// Whether the user was new, if the response says so.
    pub(in crate::usercom) created: Option<bool>,
    /// User.com's id of the user, if the response has it.
    pub(in crate::usercom) id: Option<u64>,
    /// The user's key, if the response has it.
    pub(in crate::usercom) key: Option<String>,
}

/// Parses `{"created": …, "id": …}`.
pub(in crate::usercom) fn upserted(reply: &ApiReply) -> Upserted {
    let body = object(reply);
    Upserted {
        created: body.get("created").and_then(Value::as_bool),
        id: body.get("id").and_then(number),
        key: key_in(&body),
    }
}

/// The content of a user object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::usercom) struct Found {
    /// User.com's id of the user.
    pub(in crate::usercom) id: Option<u64>,
    /// The key by which page views name the user.
    pub(in crate::usercom) key: Option<String>,
}

impl Found {
    /// Whether the response was a user object at all.
    pub(in crate::usercom) fn is_readable(&self) -> bool {
        self.id.is_some() || self.key.is_some()
    }
}

/// Parses a user object.
pub(in crate::usercom) fn found(reply: &ApiReply) -> Found {
    let body = object(reply);
    Found { id: body.get("id").and_then(number), key: key_in(&body) }
}

fn key_in(body: &Value) -> Option<String> {
    let mut names = ["user_key", "key"].iter();
    let key = names.find_map(|name| body.get(name)?.as_str()).filter(|key| !key.is_empty());
    key.map(str::to_owned)
}
