//! Attribute definitions: list and create.

use serde_json::Value;

use super::{Body, get, long, number, write};
use crate::config::sink::AttributeType;
use crate::deliver::{Idempotency, Method, Request};
use crate::usercom::attributes::{Attribute, AttributeOwner, ValueType};

const PATH: &str = "attributes/";

/// `GET attributes/`.
pub(in crate::usercom) fn list() -> Request {
    long(get(PATH, PATH.into()))
}

/// `GET attributes/?…`, a page that `next` named.
pub(in crate::usercom) fn list_page(path: String) -> Request {
    long(get(PATH, path))
}

/// `POST attributes/`. A repetition is refused because the attribute exists.
pub(in crate::usercom) fn create(
    name: &str,
    content: AttributeOwner,
    value_type: AttributeType,
) -> Request {
    let body = Body::new()
        .text("name", name)
        .text("value_type", value_type.as_str())
        .text("content_type", content.as_str())
        .done();
    write(Method::Post, PATH, PATH.into(), body, Idempotency::Idempotent)
}

/// Parses a definition; `None` for content that is neither a user nor a company.
pub(in crate::usercom) fn definition(entry: &Value) -> Option<(AttributeOwner, Attribute)> {
    let content = AttributeOwner::parse(entry["content_type"].as_str()?)?;
    let name = entry["name"].as_str().or_else(|| entry["name_std"].as_str())?;
    let name_std = match entry["name_std"].as_str() {
        Some(name_std) if !name_std.is_empty() => name_std.to_owned(),
        _ => crate::usercom::profile::limits::name_std(name),
    };
    let value_type = ValueType::parse(
        entry["value_type"].as_str().unwrap_or_default(),
        &entry["choices"],
        entry["allow_multiple_choices"].as_bool().unwrap_or_default(),
    );
    let id = number(&entry["id"]);
    let attribute = Attribute { id, name: name.into(), name_std: name_std.into(), value_type };
    Some((content, attribute))
}
