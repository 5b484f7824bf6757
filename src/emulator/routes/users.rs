//! `users/` and `users-by-id/`: create, upsert, read, change, delete.
//!
//! # Invariants
//! `custom_id` is unique, `email` is not; `update_or_create` matches by `custom_id` only, or by
//! `user_key` too if the assumptions say so.

use rand::Rng;
use rand::distr::Alphanumeric;
use rusqlite::{OptionalExtension, params};
use serde_json::{Map, Value, json};

use super::companies;
use crate::emulator::assume::{AssumedCompanyField, AssumedKeyInUpsert, AssumedUpsertAnswer};
use crate::emulator::context::{RequestVersion, RouteContext, bump};
use crate::emulator::profile::{self, Patch, ProfileKind};
use crate::emulator::reply::{FieldErrors, REQUIRED, RouteError, RouteReply, RouteResult};
use crate::emulator::typing::iso;

/// The length of a `user_key`.
const KEY_LEN: usize = 12;

pub(super) fn list(cx: &RouteContext<'_>) -> RouteResult {
    cx.page("users WHERE 1", &[], |id| describe(cx, id))
}

pub(in crate::emulator) fn create(cx: &RouteContext<'_>) -> RouteResult {
    let patch = Patch::read(cx, ProfileKind::User)?;
    let id = insert(cx, &patch)?;
    Ok(RouteReply::created(describe(cx, id)?))
}

pub(super) fn update_or_create(cx: &RouteContext<'_>) -> RouteResult {
    let patch = Patch::read(cx, ProfileKind::User)?;
    let Some(custom_id) = &patch.custom_id else {
        return Err(FieldErrors::one("custom_id", REQUIRED));
    };
    let found = match profile::find_by_external_id(cx, ProfileKind::User, custom_id)? {
        None if cx.assume.user_key_in_upsert == AssumedKeyInUpsert::Adopts => {
            without_external_id(cx, patch.user_key.as_deref())?
        }
        found => found,
    };
    match found {
        Some(id) => {
            change(cx, id, &patch)?;
            Ok(RouteReply::ok(upserted(cx, id, false)?))
        }
        None => {
            let id = insert(cx, &patch)?;
            Ok(RouteReply::created(upserted(cx, id, true)?))
        }
    }
}

/// The user with this key who has no external id yet.
fn without_external_id(
    cx: &RouteContext<'_>,
    key: Option<&str>,
) -> Result<Option<i64>, RouteError> {
    Ok(cx
        .db
        .prepare_cached("SELECT id FROM users WHERE user_key = ? AND custom_id IS NULL")?
        .query_row([key], |row| row.get(0))
        .optional()?)
}

/// The answer to an upsert.
fn upserted(cx: &RouteContext<'_>, id: i64, created: bool) -> Result<Value, RouteError> {
    let mut answer = json!({ "created": created, "id": id });
    if cx.assume.upsert_answer == AssumedUpsertAnswer::UserKey {
        let key: String = cx
            .db
            .prepare_cached("SELECT user_key FROM users WHERE id = ?")?
            .query_row([id], |row| row.get(0))?;
        answer["user_key"] = json!(key);
    }
    Ok(answer)
}

pub(super) fn get(cx: &RouteContext<'_>) -> RouteResult {
    let id = profile::owner(cx, ProfileKind::User)?;
    Ok(RouteReply::ok(describe(cx, id)?))
}

pub(super) fn update(cx: &RouteContext<'_>) -> RouteResult {
    let id = profile::owner(cx, ProfileKind::User)?;
    let patch = Patch::read(cx, ProfileKind::User)?;
    change(cx, id, &patch)?;
    Ok(RouteReply::ok(describe(cx, id)?))
}

pub(super) fn delete(cx: &RouteContext<'_>) -> RouteResult {
    let id = profile::owner(cx, ProfileKind::User)?;
    for sql in [
        "DELETE FROM events WHERE user = ?",
        "DELETE FROM page_views WHERE user = ?",
        "DELETE FROM members WHERE user = ?",
    ] {
        cx.db.prepare_cached(sql)?.execute([id])?;
    }
    profile::forget(cx, ProfileKind::User, id)?;
    Ok(RouteReply::no_content())
}

fn insert(cx: &RouteContext<'_>, patch: &Patch) -> Result<i64, RouteError> {
    patch.check_unique(cx, ProfileKind::User, None)?;
    cx.db
        .prepare_cached(
            "INSERT INTO users (user_key, profile, created_at, updated_at) \
             VALUES (?1, '{}', ?2, ?2)",
        )?
        .execute(params![new_key(), cx.now])?;
    let id = cx.db.last_insert_rowid();
    change(cx, id, patch)?;
    Ok(id)
}

fn new_key() -> String {
    rand::rng().sample_iter(Alphanumeric).take(KEY_LEN).map(char::from).collect()
}

/// Applies a patch and the fields that only users have: the key of the cookie and the company.
pub(super) fn change(cx: &RouteContext<'_>, id: i64, patch: &Patch) -> Result<(), RouteError> {
    patch.apply(cx, ProfileKind::User, id)?;
    if let Some(key) = &patch.user_key {
        // A key of another user stays there: `users/merge/` is the way to combine users.
        cx.db
            .prepare_cached("UPDATE OR IGNORE users SET user_key = ?2 WHERE id = ?1")?
            .execute(params![id, key])?;
    }
    if let Some(own) = &patch.company_custom_id {
        become_member(cx, id, own)?;
    }
    Ok(())
}

/// What `company_custom_id` does.
fn become_member(cx: &RouteContext<'_>, user: i64, own: &str) -> Result<(), RouteError> {
    let effect = cx.assume.company_in_upsert;
    let company = match (profile::find_by_external_id(cx, ProfileKind::Company, own)?, effect) {
        (Some(company), _) if effect != AssumedCompanyField::Ignored => company,
        (None, AssumedCompanyField::Creates) => companies::create_bare(cx, own)?,
        _ => {
            bump(&cx.ignored.companies);
            return Ok(());
        }
    };
    if effect == AssumedCompanyField::Moves {
        cx.db
            .prepare_cached("DELETE FROM members WHERE user = ?1 AND company <> ?2")?
            .execute(params![user, company])?;
    }
    join(cx, company, user)
}

/// Adds the user to the company; does nothing for a member.
pub(super) fn join(cx: &RouteContext<'_>, company: i64, user: i64) -> Result<(), RouteError> {
    cx.db
        .prepare_cached(
            "INSERT OR IGNORE INTO members (company, user, member_since) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![company, user, cx.now])?;
    Ok(())
}

/// The user as the API writes it.
pub(in crate::emulator) fn describe(cx: &RouteContext<'_>, id: i64) -> Result<Value, RouteError> {
    let mut statement = cx.db.prepare_cached(
        "SELECT custom_id, user_key, profile, page_views, first_seen, last_seen, created_at, \
         updated_at FROM users WHERE id = ?",
    )?;
    let mut profile = String::new();
    let mut out = statement.query_row([id], |row| {
        profile = row.get(2)?;
        let seen = |index| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(index)?.map(iso));
        let mut out = Map::new();
        out.insert("id".into(), json!(id));
        out.insert("custom_id".into(), json!(row.get::<_, Option<String>>(0)?));
        out.insert("user_key".into(), json!(row.get::<_, String>(1)?));
        out.insert("page_views".into(), json!(row.get::<_, i64>(3)?));
        out.insert("first_seen".into(), json!(seen(4)?));
        out.insert("last_seen".into(), json!(seen(5)?));
        out.insert("last_contacted".into(), Value::Null);
        out.insert("created_at".into(), json!(seen(6)?));
        out.insert("updated_at".into(), json!(seen(7)?));
        Ok(out)
    })?;
    out.insert("companies".into(), companies_of(cx, id)?);
    out.insert("lists".into(), json!([]));
    // Filled in below; reserved here so that no attribute gets this name.
    out.insert("name".into(), Value::Null);
    profile::describe(cx, ProfileKind::User, id, &profile, &mut out)?;
    let name = full_name(&out);
    out.insert("name".into(), json!(name));
    if cx.version == RequestVersion::V1 {
        for (new, old) in [("custom_id", "user_id"), ("user_key", "key")] {
            let value = out.remove(new).unwrap_or_default();
            out.insert(old.into(), value);
        }
    }
    Ok(Value::Object(out))
}

fn full_name(user: &Map<String, Value>) -> String {
    let parts: Vec<&str> = ["first_name", "last_name"]
        .iter()
        .filter_map(|field| user.get(*field).and_then(Value::as_str))
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(" ")
}

fn companies_of(cx: &RouteContext<'_>, id: i64) -> Result<Value, RouteError> {
    let mut statement = cx.db.prepare_cached(
        "SELECT c.id, json_extract(c.profile, '$.name'), m.member_since FROM members m \
         JOIN companies c ON c.id = m.company WHERE m.user = ? ORDER BY c.id",
    )?;
    let companies = statement
        .query_map([id], |row| {
            Ok(json!({
                "id": row.get::<_, i64>(0)?,
                "name": row.get::<_, Option<String>>(1)?,
                "member_since": iso(row.get(2)?),
            }))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Value::Array(companies))
}
