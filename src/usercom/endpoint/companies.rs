//! Companies: update, create, find, join.

use serde_json::Value;

use super::{get, json, number, object, quoted, segment, texts, write};
use crate::deliver::{Method, Repeat, Reply, Request};

/// `PUT companies-by-id/:id/`; `None` for an id that is not safe in a path.
pub(in crate::usercom) fn update(
    group: &str,
    fields: &[(impl AsRef<str>, impl AsRef<str>)],
) -> Option<Request> {
    let path = format!("companies-by-id/{}/", segment(group)?);
    let body = object(texts(fields));
    Some(write(Method::Put, "companies-by-id/:id/", path, body, Repeat::Safe))
}

/// `PUT companies/:id/`.
pub(in crate::usercom) fn update_number(
    id: u64,
    fields: &[(impl AsRef<str>, impl AsRef<str>)],
) -> Request {
    let body = object(texts(fields));
    write(Method::Put, "companies/:id/", format!("companies/{id}/"), body, Repeat::Safe)
}

/// `POST companies/`. Not keyed: a second one may make a second company. A company without a name
/// is named by its id.
pub(in crate::usercom) fn create(
    group: &str,
    fields: &[(impl AsRef<str>, impl AsRef<str>)],
) -> Request {
    let id = quoted(group);
    let named = fields.iter().any(|(name, _)| name.as_ref() == "name");
    let name = (!named).then_some(("name", id.as_str()));
    let body = object(std::iter::once(("custom_id", id.as_str())).chain(name).chain(texts(fields)));
    write(Method::Post, "companies/", "companies/".into(), body, Repeat::Counts)
}

/// `GET companies-by-id/:id/`; `None` for an id that is not safe in a path.
pub(in crate::usercom) fn by_own_id(group: &str) -> Option<Request> {
    let id = segment(group)?;
    Some(get("companies-by-id/:id/", format!("companies-by-id/{id}/")))
}

/// `GET companies/`.
pub(in crate::usercom) fn list() -> Request {
    get("companies/", "companies/".into())
}

/// `POST companies/:id/add_member/`. Twice is as good as once.
pub(in crate::usercom) fn add_member(company: u64, user: u64) -> Request {
    let path = format!("companies/{company}/add_member/");
    let body = object([("user_id", user.to_string().as_str())]);
    write(Method::Post, "companies/:id/add_member/", path, body, Repeat::Safe)
}

/// What a company object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::usercom) struct Found {
    /// User.com's number of the company.
    pub(in crate::usercom) id: Option<u64>,
    /// Numbers of the users that belong to it, if it says.
    pub(in crate::usercom) members: Option<Vec<u64>>,
}

/// Reads a company object.
pub(in crate::usercom) fn found(reply: &Reply) -> Found {
    found_in(&json(reply))
}

/// Reads a company object out of a list.
pub(in crate::usercom) fn found_in(body: &Value) -> Found {
    // Entries may be numbers, or users with a number.
    let member = |entry: &Value| number(entry).or_else(|| number(&entry["id"]));
    let members = body.get("employees").and_then(Value::as_array);
    Found {
        id: body.get("id").and_then(number),
        members: members.map(|list| list.iter().filter_map(member).collect()),
    }
}

/// Whether an entry of the list is the company with this own id.
pub(in crate::usercom) fn is_named(entry: &Value, group: &str) -> bool {
    ["custom_id", "company_id"].iter().any(|name| entry[name].as_str() == Some(group))
}
