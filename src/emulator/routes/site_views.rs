//! Page views: `site-views/` and a user's `ping_hits/`.
//!
//! Invariant: a page view adds one to `page_views` and moves `last_seen` only forward. Both
//! `last_seen` and `first_seen` of a new user are null until its first page view.

use rusqlite::types::Value as SqlValue;
use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};

use crate::emulator::ask::Ask;
use crate::emulator::profile::{self, Kind};
use crate::emulator::reply::{FieldErrors, Outcome, Refusal, Reply};
use crate::emulator::typing::{DATETIME_FORMAT, iso, micros_of};

/// The longest host and path taken, in characters; browsers stop near it.
const MAX_URL: usize = 2048;

pub(super) fn create(ask: &Ask<'_>) -> Outcome {
    let key = ask.text("client_user", MAX_URL)?;
    let domain = ask.text("page_domain", MAX_URL)?;
    let path = ask.text("page_path", MAX_URL)?;
    let timestamp = timestamp(ask)?;
    let user: Option<i64> = ask
        .db
        .prepare_cached("SELECT id FROM users WHERE user_key = ?")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    let Some(user) = user else {
        return Err(FieldErrors::one("client_user", "User with this key does not exist."));
    };
    ask.db
        .prepare_cached(
            "INSERT INTO page_views (user, page_domain, page_path, timestamp) \
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![user, domain, path, timestamp])?;
    let id = ask.db.last_insert_rowid();
    ask.db
        .prepare_cached(
            "UPDATE users SET page_views = page_views + 1, \
             first_seen = min(coalesce(first_seen, ?2), ?2), \
             last_seen = max(coalesce(last_seen, ?2), ?2) WHERE id = ?1",
        )?
        .execute(params![user, timestamp])?;
    Ok(Reply::created(json!({
        "id": id, "client_user": key, "page_domain": domain, "page_path": path,
        "timestamp": iso(timestamp),
    })))
}

/// ISO 8601 with an offset, unlike an event's.
fn timestamp(ask: &Ask<'_>) -> Result<i64, Refusal> {
    match ask.body.get("timestamp") {
        Some(Value::String(text)) if !text.is_empty() => {
            micros_of(text).ok_or_else(|| FieldErrors::one("timestamp", DATETIME_FORMAT))
        }
        Some(Value::Number(_)) => Err(FieldErrors::one("timestamp", DATETIME_FORMAT)),
        _ => ask.text("timestamp", MAX_URL).map(|_| ask.now),
    }
}

/// A user's page views in order of arrival, the oldest first.
pub(super) fn history(ask: &Ask<'_>) -> Outcome {
    let user = profile::owner(ask, Kind::User)?;
    ask.page("page_views WHERE user = ?", &[SqlValue::from(user)], |id| describe(ask, id))
}

/// One page view; `client` is its user's number.
pub(in crate::emulator) fn describe(ask: &Ask<'_>, id: i64) -> Result<Value, Refusal> {
    let mut statement = ask.db.prepare_cached(
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

/// Some callers put the whole URL where the host belongs; then it already says everything.
fn full_url(domain: &str, path: &str) -> String {
    if domain.contains("://") { domain.to_owned() } else { format!("https://{domain}{path}") }
}
