//! `users/` and `users-by-id/`: create, upsert, read, change, delete. Not search, merge, tags.
//!
//! Invariant: `custom_id` is unique, `email` is not; `update_or_create` looks at `custom_id` alone.

use rand::Rng;
use rand::distr::Alphanumeric;
use rusqlite::params;
use serde_json::{Map, Value, json};

use crate::emulator::ask::{Ask, Version, bump};
use crate::emulator::profile::{self, Kind, Patch};
use crate::emulator::reply::{FieldErrors, Outcome, REQUIRED, Refusal, Reply};
use crate::emulator::typing::iso;

/// The length of a `user_key`.
const KEY_LENGTH: usize = 12;

pub(super) fn list(ask: &Ask<'_>) -> Outcome {
    ask.page("users WHERE 1", &[], |id| describe(ask, id))
}

pub(in crate::emulator) fn create(ask: &Ask<'_>) -> Outcome {
    let patch = Patch::read(ask, Kind::User)?;
    let id = insert(ask, &patch)?;
    Ok(Reply::created(describe(ask, id)?))
}

pub(super) fn update_or_create(ask: &Ask<'_>) -> Outcome {
    let patch = Patch::read(ask, Kind::User)?;
    let Some(custom_id) = &patch.custom_id else {
        return Err(FieldErrors::one("custom_id", REQUIRED));
    };
    match profile::id_of_own(ask, Kind::User, custom_id)? {
        Some(id) => {
            change(ask, id, &patch)?;
            Ok(Reply::ok(json!({ "created": false, "id": id })))
        }
        None => {
            let id = insert(ask, &patch)?;
            Ok(Reply::created(json!({ "created": true, "id": id })))
        }
    }
}

pub(super) fn get(ask: &Ask<'_>) -> Outcome {
    let id = profile::owner(ask, Kind::User)?;
    Ok(Reply::ok(describe(ask, id)?))
}

pub(super) fn update(ask: &Ask<'_>) -> Outcome {
    let id = profile::owner(ask, Kind::User)?;
    let patch = Patch::read(ask, Kind::User)?;
    change(ask, id, &patch)?;
    Ok(Reply::ok(describe(ask, id)?))
}

pub(super) fn delete(ask: &Ask<'_>) -> Outcome {
    let id = profile::owner(ask, Kind::User)?;
    for sql in [
        "DELETE FROM events WHERE user = ?",
        "DELETE FROM page_views WHERE user = ?",
        "DELETE FROM members WHERE user = ?",
    ] {
        ask.db.prepare_cached(sql)?.execute([id])?;
    }
    profile::forget(ask, Kind::User, id)?;
    Ok(Reply::no_content())
}

fn insert(ask: &Ask<'_>, patch: &Patch) -> Result<i64, Refusal> {
    patch.check_unique(ask, Kind::User, None)?;
    ask.db
        .prepare_cached(
            "INSERT INTO users (user_key, profile, created_at, updated_at) \
             VALUES (?1, '{}', ?2, ?2)",
        )?
        .execute(params![new_key(), ask.now])?;
    let id = ask.db.last_insert_rowid();
    change(ask, id, patch)?;
    Ok(id)
}

fn new_key() -> String {
    rand::rng().sample_iter(Alphanumeric).take(KEY_LENGTH).map(char::from).collect()
}

/// Applies a patch with what only users have: the cookie's key and the company.
pub(super) fn change(ask: &Ask<'_>, id: i64, patch: &Patch) -> Result<(), Refusal> {
    patch.apply(ask, Kind::User, id)?;
    if let Some(key) = &patch.user_key {
        // A key that another record holds stays there: joining records is what merge is for.
        ask.db
            .prepare_cached("UPDATE OR IGNORE users SET user_key = ?2 WHERE id = ?1")?
            .execute(params![id, key])?;
    }
    if let Some(own) = &patch.company_custom_id {
        match profile::id_of_own(ask, Kind::Company, own)? {
            Some(company) => join(ask, company, id)?,
            None => bump(&ask.ignored.companies),
        }
    }
    Ok(())
}

/// Makes the user a member; a member stays what it is.
pub(super) fn join(ask: &Ask<'_>, company: i64, user: i64) -> Result<(), Refusal> {
    ask.db
        .prepare_cached(
            "INSERT OR IGNORE INTO members (company, user, member_since) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![company, user, ask.now])?;
    Ok(())
}

/// The user as the API writes it.
pub(in crate::emulator) fn describe(ask: &Ask<'_>, id: i64) -> Result<Value, Refusal> {
    let mut statement = ask.db.prepare_cached(
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
    out.insert("companies".into(), companies_of(ask, id)?);
    out.insert("lists".into(), json!([]));
    // Filled in below; holds the place so that no attribute takes it.
    out.insert("name".into(), Value::Null);
    profile::describe(ask, Kind::User, id, &profile, &mut out)?;
    let name = full_name(&out);
    out.insert("name".into(), json!(name));
    if ask.version == Version::V1 {
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

fn companies_of(ask: &Ask<'_>, id: i64) -> Result<Value, Refusal> {
    let mut statement = ask.db.prepare_cached(
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
