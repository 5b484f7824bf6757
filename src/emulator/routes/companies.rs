//! `companies/` and `companies-by-id/`: create, read, change, delete, members.
//!
//! Invariant: a company always has a name; there is no upsert, and members are added by the
//! company's number only, since no source shows either.

use rusqlite::params;
use serde_json::{Map, Value, json};

use super::users::join;
use crate::emulator::ask::{Ask, Version};
use crate::emulator::profile::{self, Kind, Patch};
use crate::emulator::reply::{BLANK, FieldErrors, Outcome, REQUIRED, Refusal, Reply};
use crate::emulator::typing::{MAX_TEXT, iso};

pub(super) fn list(ask: &Ask<'_>) -> Outcome {
    ask.page("companies WHERE 1", &[], |id| describe(ask, id))
}

pub(in crate::emulator) fn create(ask: &Ask<'_>) -> Outcome {
    let patch = Patch::read(ask, Kind::Company)?;
    if patch.field("name").is_none() {
        return Err(FieldErrors::one("name", REQUIRED));
    }
    check_name(&patch)?;
    patch.check_unique(ask, Kind::Company, None)?;
    ask.db
        .prepare_cached(
            "INSERT INTO companies (profile, created_at, updated_at) VALUES ('{}', ?1, ?1)",
        )?
        .execute([ask.now])?;
    let id = ask.db.last_insert_rowid();
    patch.apply(ask, Kind::Company, id)?;
    Ok(Reply::created(describe(ask, id)?))
}

pub(super) fn get(ask: &Ask<'_>) -> Outcome {
    let id = profile::owner(ask, Kind::Company)?;
    Ok(Reply::ok(describe(ask, id)?))
}

pub(super) fn update(ask: &Ask<'_>) -> Outcome {
    let id = profile::owner(ask, Kind::Company)?;
    let patch = Patch::read(ask, Kind::Company)?;
    check_name(&patch)?;
    patch.apply(ask, Kind::Company, id)?;
    Ok(Reply::ok(describe(ask, id)?))
}

pub(super) fn delete(ask: &Ask<'_>) -> Outcome {
    let id = profile::owner(ask, Kind::Company)?;
    ask.db.prepare_cached("DELETE FROM members WHERE company = ?")?.execute([id])?;
    profile::forget(ask, Kind::Company, id)?;
    Ok(Reply::no_content())
}

fn check_name(patch: &Patch) -> Result<(), Refusal> {
    match patch.field("name") {
        Some(name) if name.trim().is_empty() => Err(FieldErrors::one("name", BLANK)),
        _ => Ok(()),
    }
}

/// Adding a member again changes nothing and is no error.
pub(super) fn add_member(ask: &Ask<'_>) -> Outcome {
    let company = profile::owner(ask, Kind::Company)?;
    let user = member(ask)?;
    join(ask, company, user)?;
    Ok(Reply::ok(describe(ask, company)?))
}

pub(super) fn remove_member(ask: &Ask<'_>) -> Outcome {
    let company = profile::owner(ask, Kind::Company)?;
    let user = member(ask)?;
    ask.db
        .prepare_cached("DELETE FROM members WHERE company = ?1 AND user = ?2")?
        .execute(params![company, user])?;
    Ok(Reply::ok(describe(ask, company)?))
}

/// The user that the body names: `user_id`, or `user_custom_id` where that is absent.
fn member(ask: &Ask<'_>) -> Result<i64, Refusal> {
    let found = if ask.body.contains_key("user_id") || !ask.body.contains_key("user_custom_id") {
        let id = ask.integer("user_id")?;
        profile::exists(ask, Kind::User, id)?.then_some(id)
    } else {
        profile::id_of_own(ask, Kind::User, ask.text("user_custom_id", MAX_TEXT)?)?
    };
    found.ok_or_else(|| Reply::not_found().into())
}

/// The company as the API writes it.
pub(in crate::emulator) fn describe(ask: &Ask<'_>, id: i64) -> Result<Value, Refusal> {
    let mut statement = ask.db.prepare_cached(
        "SELECT custom_id, profile, created_at, updated_at FROM companies WHERE id = ?",
    )?;
    let mut profile = String::new();
    let mut out = statement.query_row([id], |row| {
        profile = row.get(1)?;
        let mut out = Map::new();
        out.insert("id".into(), json!(id));
        out.insert("custom_id".into(), json!(row.get::<_, Option<String>>(0)?));
        out.insert("created_at".into(), json!(iso(row.get(2)?)));
        out.insert("updated_at".into(), json!(iso(row.get(3)?)));
        Ok(out)
    })?;
    let (employees, members) = members(ask, id)?;
    out.insert("employees".into(), employees);
    out.insert("members".into(), members);
    profile::describe(ask, Kind::Company, id, &profile, &mut out)?;
    if ask.version == Version::V1 {
        for (new, old) in [("custom_id", "company_id"), ("size", "approx_employees")] {
            let value = out.remove(new).unwrap_or_default();
            out.insert(old.into(), value);
        }
    }
    Ok(Value::Object(out))
}

/// The members' numbers, and the same with the moment each one joined.
fn members(ask: &Ask<'_>, id: i64) -> Result<(Value, Value), Refusal> {
    let mut statement = ask.db.prepare_cached(
        "SELECT m.user, u.custom_id, m.member_since FROM members m JOIN users u ON u.id = m.user \
         WHERE m.company = ? ORDER BY m.user",
    )?;
    let members = statement
        .query_map([id], |row| {
            Ok(json!({
                "id": row.get::<_, i64>(0)?,
                "custom_id": row.get::<_, Option<String>>(1)?,
                "member_since": iso(row.get(2)?),
            }))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let numbers = members.iter().map(|member| member["id"].clone()).collect();
    Ok((numbers, Value::Array(members)))
}
