//! `add_tag/`, `add_many_tags/`, `remove_tag/` on users and companies.
//!
//! # Invariants
//! Adding a tag twice has the same result as adding it once.

use rusqlite::params;
use serde_json::json;

use crate::emulator::context::RouteContext;
use crate::emulator::profile::{self, ProfileKind, tag_names};
use crate::emulator::reply::{FieldErrors, REQUIRED, RouteReply, RouteResult};
use crate::emulator::typing::MAX_TEXT_LEN;

pub(super) fn add_to_user(cx: &RouteContext<'_>) -> RouteResult {
    add(cx, ProfileKind::User)
}

pub(super) fn add_to_company(cx: &RouteContext<'_>) -> RouteResult {
    add(cx, ProfileKind::Company)
}

pub(super) fn remove_from_user(cx: &RouteContext<'_>) -> RouteResult {
    remove(cx, ProfileKind::User)
}

pub(super) fn remove_from_company(cx: &RouteContext<'_>) -> RouteResult {
    remove(cx, ProfileKind::Company)
}

pub(super) fn add_many_to_user(cx: &RouteContext<'_>) -> RouteResult {
    let id = profile::owner(cx, ProfileKind::User)?;
    let names = cx.body.get("tag_names").ok_or_else(|| FieldErrors::one("tag_names", REQUIRED))?;
    let names = tag_names(names).map_err(|message| FieldErrors::one("tag_names", message))?;
    let mut tags = Vec::new();
    for name in &names {
        let created = profile::add_tag(cx, ProfileKind::User, id, name)?;
        tags.push(json!({ "created": created, "tag": { "name": name } }));
    }
    Ok(RouteReply::ok(json!({ "tags": tags })))
}

fn add(cx: &RouteContext<'_>, kind: ProfileKind) -> RouteResult {
    let id = profile::owner(cx, kind)?;
    let name = cx.text("name", MAX_TEXT_LEN)?;
    let created = profile::add_tag(cx, kind, id, name)?;
    Ok(RouteReply::ok(json!({ "created": created, "tag": { "name": name } })))
}

fn remove(cx: &RouteContext<'_>, kind: ProfileKind) -> RouteResult {
    let id = profile::owner(cx, kind)?;
    let name = cx.text("name", MAX_TEXT_LEN)?;
    cx.db
        .prepare_cached(
            "DELETE FROM tagged WHERE kind = ?1 AND owner = ?2 \
             AND tag = (SELECT id FROM tags WHERE name = ?3)",
        )?
        .execute(params![kind.content_type(), id, name])?;
    Ok(RouteReply::ok(json!({ "tag": { "name": name } })))
}
