//! `mass_update_*`: sets one attribute to one value on many users, given by remote or external id.
//!
//! # Invariants
//! All users are changed or none.

use serde_json::{Map, Value, json};

use super::users::change;
use crate::emulator::context::RouteContext;
use crate::emulator::profile::{self, Patch, ProfileKind, definition};
use crate::emulator::reply::{
    FieldErrors, NOT_A_STRING, NOT_AN_INTEGER, REQUIRED, RouteError, RouteReply, RouteResult,
};
use crate::emulator::typing::MAX_TEXT_LEN;

pub(super) fn standard(cx: &RouteContext<'_>) -> RouteResult {
    check_standard(cx)?;
    write(cx, by_remote_id)
}

pub(super) fn standard_by_external_id(cx: &RouteContext<'_>) -> RouteResult {
    check_standard(cx)?;
    write(cx, by_external_id)
}

pub(super) fn custom(cx: &RouteContext<'_>) -> RouteResult {
    check_custom(cx)?;
    write(cx, by_remote_id)
}

pub(super) fn custom_by_external_id(cx: &RouteContext<'_>) -> RouteResult {
    check_custom(cx)?;
    write(cx, by_external_id)
}

fn check_standard(cx: &RouteContext<'_>) -> Result<(), RouteError> {
    let name = cx.text("attribute", MAX_TEXT_LEN)?;
    if ProfileKind::User.shape(name).is_some() {
        return Ok(());
    }
    Err(FieldErrors::one("attribute", format!("\"{name}\" is not a valid choice.")))
}

fn check_custom(cx: &RouteContext<'_>) -> Result<(), RouteError> {
    let name = cx.text("attribute", MAX_TEXT_LEN)?;
    if definition(cx, ProfileKind::User, name)?.is_some() {
        return Ok(());
    }
    Err(FieldErrors::one("attribute", "Attribute with this name does not exist."))
}

fn by_remote_id(cx: &RouteContext<'_>, id: &Value) -> Result<Option<i64>, RouteError> {
    let id = id.as_i64().ok_or_else(|| FieldErrors::one("ids", NOT_AN_INTEGER))?;
    Ok(profile::exists(cx, ProfileKind::User, id)?.then_some(id))
}

fn by_external_id(cx: &RouteContext<'_>, id: &Value) -> Result<Option<i64>, RouteError> {
    let own = id.as_str().ok_or_else(|| FieldErrors::one("ids", NOT_A_STRING))?;
    profile::find_by_external_id(cx, ProfileKind::User, own)
}

fn write(
    cx: &RouteContext<'_>,
    find: fn(&RouteContext<'_>, &Value) -> Result<Option<i64>, RouteError>,
) -> RouteResult {
    let name = cx.text("attribute", MAX_TEXT_LEN)?;
    let value = cx.body.get("value").ok_or_else(|| FieldErrors::one("value", REQUIRED))?;
    let ids = cx
        .body
        .get("ids")
        .and_then(Value::as_array)
        .ok_or_else(|| FieldErrors::one("ids", "Expected a list of items."))?;
    let body = Map::from_iter([(name.to_owned(), value.clone())]);
    let patch = Patch::read_map(cx, ProfileKind::User, &body)?;
    for id in ids {
        match find(cx, id)? {
            Some(id) => change(cx, id, &patch)?,
            None => return Err(RouteReply::not_found().into()),
        }
    }
    Ok(RouteReply::ok(json!({ "status": "ok" })))
}
