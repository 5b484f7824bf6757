//! `users/merge/`: merges several users into one.
//!
//! # Invariants
//! Nothing that belongs to a merged user is lost. If two values differ, the parent's is used, then
//! that of the lowest remote id.

use std::collections::BTreeSet;

use rusqlite::params;
use serde_json::{Map, Value, json};

use crate::emulator::context::RouteContext;
use crate::emulator::profile::{self, ProfileKind};
use crate::emulator::reply::{
    FieldErrors, NOT_AN_INTEGER, REQUIRED, RouteError, RouteReply, RouteResult,
};

pub(super) fn merge(cx: &RouteContext<'_>) -> RouteResult {
    let parent = cx.integer("parent")?;
    let others = others(cx)?;
    if others.contains(&parent) {
        return Err(FieldErrors::one("users_list", "The parent cannot be merged into itself."));
    }
    for id in others.iter().chain([&parent]) {
        if !profile::exists(cx, ProfileKind::User, *id)? {
            return Err(RouteReply::not_found().into());
        }
    }
    for other in others {
        absorb(cx, parent, other)?;
    }
    Ok(RouteReply::ok(json!({ "success": true })))
}

/// The users to merge, each once, lowest remote id first.
fn others(cx: &RouteContext<'_>) -> Result<BTreeSet<i64>, RouteError> {
    let list = cx.body.get("users_list").ok_or_else(|| FieldErrors::one("users_list", REQUIRED))?;
    let ids: Option<BTreeSet<i64>> =
        list.as_array().and_then(|items| items.iter().map(Value::as_i64).collect());
    match ids {
        Some(ids) if !ids.is_empty() => Ok(ids),
        Some(_) => Err(FieldErrors::one("users_list", "This list may not be empty.")),
        None => Err(FieldErrors::one("users_list", NOT_AN_INTEGER)),
    }
}

fn absorb(cx: &RouteContext<'_>, parent: i64, other: i64) -> Result<(), RouteError> {
    for sql in [
        "UPDATE events SET user = ?1 WHERE user = ?2",
        "UPDATE page_views SET user = ?1 WHERE user = ?2",
        "UPDATE OR IGNORE members SET user = ?1 WHERE user = ?2",
        "DELETE FROM members WHERE user = ?2 AND ?1 <> ?2",
        "INSERT OR IGNORE INTO tagged (kind, owner, tag) \
         SELECT kind, ?1, tag FROM tagged WHERE kind = 'clientuser' AND owner = ?2",
        "INSERT OR IGNORE INTO attribute_values (owner, attribute, value) \
         SELECT ?1, v.attribute, v.value FROM attribute_values v \
         JOIN attributes a ON a.id = v.attribute \
         WHERE v.owner = ?2 AND a.content_type = 'clientuser'",
    ] {
        cx.db.prepare_cached(sql)?.execute(params![parent, other])?;
    }
    let mine = row(cx, parent)?;
    let theirs = row(cx, other)?;
    // The external id is unique, so the merged user is deleted before the parent takes it over.
    profile::forget(cx, ProfileKind::User, other)?;
    let mut profile = theirs.profile;
    profile.extend(mine.profile.into_iter().filter(|(_, value)| *value != json!("")));
    cx.db
        .prepare_cached(
            "UPDATE users SET profile = ?2, custom_id = ?3, page_views = ?4, first_seen = ?5, \
             last_seen = ?6, updated_at = ?7 WHERE id = ?1",
        )?
        .execute(params![
            parent,
            Value::Object(profile).to_string(),
            mine.custom_id.or(theirs.custom_id),
            mine.page_views + theirs.page_views,
            [mine.first_seen, theirs.first_seen].into_iter().flatten().min(),
            mine.last_seen.max(theirs.last_seen),
            cx.now,
        ])?;
    Ok(())
}

/// The columns that are compared between two users.
struct MergeRow {
    custom_id: Option<String>,
    profile: Map<String, Value>,
    page_views: i64,
    first_seen: Option<i64>,
    last_seen: Option<i64>,
}

fn row(cx: &RouteContext<'_>, id: i64) -> Result<MergeRow, RouteError> {
    let mut statement = cx.db.prepare_cached(
        "SELECT custom_id, profile, page_views, first_seen, last_seen FROM users WHERE id = ?",
    )?;
    Ok(statement.query_row([id], |row| {
        Ok(MergeRow {
            custom_id: row.get(0)?,
            profile: serde_json::from_str(&row.get::<_, String>(1)?).unwrap_or_default(),
            page_views: row.get(2)?,
            first_seen: row.get(3)?,
            last_seen: row.get(4)?,
        })
    })?)
}
