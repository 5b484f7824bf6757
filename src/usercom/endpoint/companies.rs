//! Companies: update, create, find, add a member.

use serde_json::Value;

use super::events::UserRef;
use super::{Body, get, long, number, object, segment, slices, write};
use crate::deliver::{ApiReply, Idempotency, Method, Request};

/// `PUT companies-by-id/:id/`; `None` for an id that is not safe in a path.
pub(in crate::usercom) fn update(
    group: &str,
    fields: &[(impl AsRef<str>, impl AsRef<str>)],
) -> Option<Request> {
    let path = format!("companies-by-id/{}/", segment(group)?);
    let body = Body::new().all(slices(fields)).done();
    Some(long(write(Method::Put, "companies-by-id/:id/", path, body, Idempotency::Idempotent)))
}

/// `PUT companies/:id/`.
pub(in crate::usercom) fn update_number(
    id: u64,
    fields: &[(impl AsRef<str>, impl AsRef<str>)],
) -> Request {
    let body = Body::new().all(slices(fields)).done();
    long(write(
        Method::Put,
        "companies/:id/",
        format!("companies/{id}/"),
        body,
        Idempotency::Idempotent,
    ))
}

/// The body of a new company. One without a name gets its id as its name.
pub(in crate::usercom) fn body(
    group: &str,
    fields: &[(impl AsRef<str>, impl AsRef<str>)],
) -> String {
    let mut body = Body::new().text("custom_id", group);
    if !slices(fields).any(|(name, _)| name == "name") {
        body = body.text("name", group);
    }
    body.all(slices(fields)).done()
}

/// `POST companies/`. Without a key: a second request may create a second company.
pub(in crate::usercom) fn create(
    group: &str,
    fields: &[(impl AsRef<str>, impl AsRef<str>)],
) -> Request {
    let body = body(group, fields);
    write(Method::Post, "companies/", "companies/".into(), body, Idempotency::NonIdempotent)
}

/// `GET companies-by-id/:id/`; `None` for an id that is not safe in a path.
pub(in crate::usercom) fn by_own_id(group: &str) -> Option<Request> {
    let id = segment(group)?;
    Some(long(get("companies-by-id/:id/", format!("companies-by-id/{id}/"))))
}

/// `GET companies/`.
pub(in crate::usercom) fn list() -> Request {
    long(get("companies/", "companies/".into()))
}

/// By which of its ids a company is named in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::usercom) enum CompanyRef<'a> {
    /// The customer's own id, safe in a path.
    ExternalCompanyId(&'a str),
    /// User.com's number.
    Number(u64),
}

/// `add_member`. Twice is as good as once.
pub(in crate::usercom) fn add_member(company: CompanyRef<'_>, user: UserRef<'_>) -> Request {
    let body = match user {
        UserRef::Number(id) => Body::new().number("user_id", id),
        UserRef::ExternalUserId(id) => Body::new().text("user_custom_id", id),
    };
    let (route, path) = match company {
        CompanyRef::Number(id) => {
            ("companies/:id/add_member/", format!("companies/{id}/add_member/"))
        }
        CompanyRef::ExternalCompanyId(id) => (
            "companies-by-id/:id/add_member/",
            format!("companies-by-id/{}/add_member/", segment(id).unwrap_or_default()),
        ),
    };
    long(write(Method::Post, route, path, body.done(), Idempotency::Idempotent))
}

/// The content of a company object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::usercom) struct Found {
    /// User.com's id of the company.
    pub(in crate::usercom) id: Option<u64>,
    /// User.com's ids of its members, if the object has them.
    pub(in crate::usercom) members: Option<Vec<u64>>,
}

/// Parses a company object.
pub(in crate::usercom) fn found(reply: &ApiReply) -> Found {
    found_in(&object(reply))
}

/// Parses a company object out of a list.
pub(in crate::usercom) fn found_in(body: &Value) -> Found {
    // Entries may be ids, or users with an id.
    let member = |entry: &Value| number(entry).or_else(|| number(&entry["id"]));
    let members = body.get("employees").and_then(Value::as_array);
    Found {
        id: body.get("id").and_then(number),
        members: members.map(|list| list.iter().filter_map(member).collect()),
    }
}

/// Whether an entry of the list is the company with this external id.
pub(in crate::usercom) fn is_named(entry: &Value, group: &str) -> bool {
    ["custom_id", "company_id"].iter().any(|name| entry[name].as_str() == Some(group))
}
