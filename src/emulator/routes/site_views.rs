//! Page views: `site-views/` and a user's `ping_hits/`.
//!
//! # Invariants
//! A page view adds one to `page_views` and moves `last_seen` only forward. `last_seen` and
//! `first_seen` of a new user are null until the first page view.

use rusqlite::types::Value as SqlValue;
use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};

use super::moment;
use crate::emulator::assume::{AssumedPageDomain, AssumedPageUser};
use crate::emulator::context::RouteContext;
use crate::emulator::profile::{self, ProfileKind};
use crate::emulator::reply::{FieldErrors, RouteError, RouteReply, RouteResult};
use crate::emulator::typing::{DATETIME_FORMAT, iso, micros_of};

/// The longest host and path, in characters; similar to the limit of browsers.
const MAX_URL_LEN: usize = 2048;

pub(super) fn create(cx: &RouteContext<'_>) -> RouteResult {
    let user = viewer(cx)?;
    let domain = cx.text("page_domain", MAX_URL_LEN)?;
    let path = cx.text("page_path", MAX_URL_LEN)?;
    let timestamp = moment::assumed(cx, timestamp(cx)?)?;
    if cx.assume.page_domain == AssumedPageDomain::Url && !domain.contains("://") {
        return Err(FieldErrors::one("page_domain", "Enter a valid URL."));
    }
    cx.db
        .prepare_cached(
            "INSERT INTO page_views (user, page_domain, page_path, timestamp) \
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![user, domain, path, timestamp])?;
    let id = cx.db.last_insert_rowid();
    cx.db
        .prepare_cached(
            "UPDATE users SET page_views = page_views + 1, \
             first_seen = min(coalesce(first_seen, ?2), ?2), \
             last_seen = max(coalesce(last_seen, ?2), ?2) WHERE id = ?1",
        )?
        .execute(params![user, timestamp])?;
    Ok(RouteReply::created(json!({
        "id": id, "client_user": cx.body.get("client_user"), "page_domain": domain, "page_path": path,
        "timestamp": iso(timestamp),
    })))
}

/// The user that the body names, by the key or as the assumptions allow.
fn viewer(cx: &RouteContext<'_>) -> Result<i64, RouteError> {
    let by_external_id =
        |field| profile::find_by_external_id(cx, ProfileKind::User, cx.text(field, MAX_URL_LEN)?);
    let (field, found) = match cx.assume.page_view_user {
        AssumedPageUser::UserCustomId if cx.body.contains_key("user_custom_id") => {
            ("user_custom_id", by_external_id("user_custom_id")?)
        }
        AssumedPageUser::CustomId if cx.body.contains_key("custom_id") => {
            ("custom_id", by_external_id("custom_id")?)
        }
        AssumedPageUser::UserId if cx.body.contains_key("user_id") => {
            let id = cx.integer("user_id")?;
            ("user_id", profile::exists(cx, ProfileKind::User, id)?.then_some(id))
        }
        by => {
            let key = cx.text("client_user", MAX_URL_LEN)?;
            let found = cx
                .db
                .prepare_cached("SELECT id FROM users WHERE user_key = ?")?
                .query_row([key], |row| row.get(0))
                .optional()?;
            match found {
                None if by == AssumedPageUser::ClientUser => {
                    ("client_user", by_external_id("client_user")?)
                }
                found => ("client_user", found),
            }
        }
    };
    match profile::visible(cx, ProfileKind::User, found) {
        Ok(user) => Ok(user),
        Err(RouteError::Reply(_)) => Err(FieldErrors::one(field, "The user does not exist.")),
        Err(error) => Err(error),
    }
}

/// ISO 8601 with an offset, unlike an event's.
fn timestamp(cx: &RouteContext<'_>) -> Result<i64, RouteError> {
    match cx.body.get("timestamp") {
        Some(Value::String(text)) if !text.is_empty() => {
            micros_of(text).ok_or_else(|| FieldErrors::one("timestamp", DATETIME_FORMAT))
        }
        Some(Value::Number(_)) => Err(FieldErrors::one("timestamp", DATETIME_FORMAT)),
        _ => cx.text("timestamp", MAX_URL_LEN).map(|_| cx.now),
    }
}

/// A user's page views in order of arrival, oldest first.
pub(super) fn history(cx: &RouteContext<'_>) -> RouteResult {
    let user = profile::owner(cx, ProfileKind::User)?;
    cx.page("page_views WHERE user = ?", &[SqlValue::from(user)], |id| describe(cx, id))
}

/// One page view; `client` is the remote id of its user.
pub(in crate::emulator) fn describe(cx: &RouteContext<'_>, id: i64) -> Result<Value, RouteError> {
    let mut statement = cx.db.prepare_cached(
        "SELECT page_domain, page_path, timestamp, user FROM page_views WHERE id = ?",
    )?;
    Ok(statement.query_row([id], |row| {
        let domain: String = row.get(0)?;
        let path: String = row.get(1)?;
        Ok(json!({
            "id": id,
            "client": row.get::<_, i64>(3)?,
            "url": full_url(&domain, &path),
            "timestamp": iso(row.get(2)?),
            "page_domain": domain,
            "page_path": path,
        }))
    })?)
}

/// Some callers put the whole URL in place of the host; then it is complete.
fn full_url(domain: &str, path: &str) -> String {
    if domain.contains("://") { domain.to_owned() } else { format!("https://{domain}{path}") }
}
