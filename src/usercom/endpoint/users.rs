//! Users: upsert, look-up, merge.

use serde_json::Value;

use super::{Body, get, json, number, segment, slices, write};
use crate::deliver::{ApiReply, Idempotency, Method, Request};

/// The body of an upsert.
pub(in crate::usercom) fn body<'a>(
    own_id: &str,
    fields: impl IntoIterator<Item = (&'a str, impl AsRef<str>)>,
) -> String {
    Body::new().text("custom_id", own_id).all(fields).done()
}

/// `POST users/update_or_create/`, keyed on `custom_id`. Twice is as good as once.
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

/// `POST users/merge/`: the parent stays. A repeat finds no user left to merge.
pub(in crate::usercom) fn merge(parent: u64, gone: u64) -> Request {
    let body = Body::new().number("parent", parent).json("users_list", &format!("[{gone}]")).done();
    write(Method::Post, "users/merge/", "users/merge/".into(), body, Idempotency::Idempotent)
}

/// What an upsert's answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::usercom) struct Upserted {
    /// Whether the user was new, if it says.
    pub(in crate::usercom) created: Option<bool>,
    /// User.com's number of the user, if it says.
    pub(in crate::usercom) id: Option<u64>,
}

/// Reads `{"created": …, "id": …}`.
pub(in crate::usercom) fn upserted(reply: &ApiReply) -> Upserted {
    let body = json(reply);
    Upserted {
        created: body.get("created").and_then(Value::as_bool),
        id: body.get("id").and_then(number),
    }
}

/// What a user object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::usercom) struct Found {
    /// User.com's number of the user.
    pub(in crate::usercom) id: Option<u64>,
    /// The key by which page views name the user.
    pub(in crate::usercom) key: Option<String>,
}

impl Found {
    /// Whether the answer was a user object at all.
    pub(in crate::usercom) fn is_readable(&self) -> bool {
        self.id.is_some() || self.key.is_some()
    }
}

/// Reads a user object.
pub(in crate::usercom) fn found(reply: &ApiReply) -> Found {
    let body = json(reply);
    let key = ["user_key", "key"]
        .iter()
        .find_map(|name| body.get(name)?.as_str())
        .filter(|key| !key.is_empty());
    Found { id: body.get("id").and_then(number), key: key.map(str::to_owned) }
}
