//! `set_attribute/`, `set_multiple_attributes/`, `remove_attribute/` on users and companies.
//!
//! # Invariants
//! A request for one attribute that does not exist is rejected; in a map of many it is ignored and
//! counted, as in a create or update body.

use rusqlite::params;
use serde_json::{Map, Value};

use super::{companies, users};
use crate::emulator::context::RouteContext;
use crate::emulator::profile::{self, Patch, ProfileKind, definition};
use crate::emulator::reply::{FieldErrors, REQUIRED, RouteError, RouteReply, RouteResult};
use crate::emulator::typing::MAX_TEXT_LEN;

pub(super) fn set_on_user(cx: &RouteContext<'_>) -> RouteResult {
    set(cx, ProfileKind::User)
}

pub(super) fn set_on_company(cx: &RouteContext<'_>) -> RouteResult {
    set(cx, ProfileKind::Company)
}

pub(super) fn set_many_on_user(cx: &RouteContext<'_>) -> RouteResult {
    write(cx, ProfileKind::User, &cx.body)
}

pub(super) fn set_many_on_company(cx: &RouteContext<'_>) -> RouteResult {
    write(cx, ProfileKind::Company, &cx.body)
}

pub(super) fn remove_from_user(cx: &RouteContext<'_>) -> RouteResult {
    let id = profile::owner(cx, ProfileKind::User)?;
    let found = definition(cx, ProfileKind::User, cx.text("attribute", MAX_TEXT_LEN)?)?;
    let Some(found) = found else {
        return Err(unknown());
    };
    cx.db
        .prepare_cached("DELETE FROM attribute_values WHERE owner = ?1 AND attribute = ?2")?
        .execute(params![id, found.id])?;
    Ok(RouteReply::ok(users::describe(cx, id)?))
}

fn set(cx: &RouteContext<'_>, kind: ProfileKind) -> RouteResult {
    profile::owner(cx, kind)?;
    let name = cx.text("attribute", MAX_TEXT_LEN)?;
    let value = cx.body.get("value").ok_or_else(|| FieldErrors::one("value", REQUIRED))?;
    if kind.shape(name).is_none() && definition(cx, kind, name)?.is_none() {
        return Err(unknown());
    }
    write(cx, kind, &Map::from_iter([(name.to_owned(), value.clone())]))
}

fn unknown() -> RouteError {
    FieldErrors::one("attribute", "Attribute with this name does not exist.")
}

fn write(cx: &RouteContext<'_>, kind: ProfileKind, body: &Map<String, Value>) -> RouteResult {
    let id = profile::owner(cx, kind)?;
    let patch = Patch::read_map(cx, kind, body)?;
    match kind {
        ProfileKind::User => {
            users::change(cx, id, &patch)?;
            Ok(RouteReply::ok(users::describe(cx, id)?))
        }
        ProfileKind::Company => {
            patch.apply(cx, kind, id)?;
            Ok(RouteReply::ok(companies::describe(cx, id)?))
        }
    }
}
