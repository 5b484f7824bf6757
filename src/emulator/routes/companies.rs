//! `companies/` and `companies-by-id/`: create, read, change, delete, members.
//!
//! # Invariants
//! A company always has a name. There is no upsert, because the documentation shows none. Members
//! are added by remote ids, unless the assumptions allow external ids too.

use rusqlite::params;
use serde_json::{Map, Value, json};

use super::users::join;
use crate::emulator::assume::{AssumedMemberAgain, AssumedMemberCompany, AssumedMemberUser};
use crate::emulator::context::{RequestVersion, RouteContext};
use crate::emulator::profile::{self, Patch, ProfileKind};
use crate::emulator::reply::{BLANK, FieldErrors, REQUIRED, RouteError, RouteReply, RouteResult};
use crate::emulator::typing::{MAX_TEXT_LEN, iso};

pub(super) fn list(cx: &RouteContext<'_>) -> RouteResult {
    cx.page("companies WHERE 1", &[], |id| describe(cx, id))
}

pub(in crate::emulator) fn create(cx: &RouteContext<'_>) -> RouteResult {
    let patch = Patch::read(cx, ProfileKind::Company)?;
    if patch.field("name").is_none() {
        return Err(FieldErrors::one("name", REQUIRED));
    }
    check_name(&patch)?;
    patch.check_unique(cx, ProfileKind::Company, None)?;
    cx.db
        .prepare_cached(
            "INSERT INTO companies (profile, created_at, updated_at) VALUES ('{}', ?1, ?1)",
        )?
        .execute([cx.now])?;
    let id = cx.db.last_insert_rowid();
    patch.apply(cx, ProfileKind::Company, id)?;
    Ok(RouteReply::created(describe(cx, id)?))
}

/// Creates a company of which a user's body names the external id; that is its name too.
pub(super) fn create_bare(cx: &RouteContext<'_>, custom_id: &str) -> Result<i64, RouteError> {
    let name = json!({ "name": custom_id }).to_string();
    cx.db
        .prepare_cached(
            "INSERT INTO companies (custom_id, profile, created_at, updated_at) \
             VALUES (?1, ?2, ?3, ?3)",
        )?
        .execute(params![custom_id, name, cx.now])?;
    Ok(cx.db.last_insert_rowid())
}

pub(super) fn get(cx: &RouteContext<'_>) -> RouteResult {
    let id = profile::owner(cx, ProfileKind::Company)?;
    Ok(RouteReply::ok(describe(cx, id)?))
}

pub(super) fn update(cx: &RouteContext<'_>) -> RouteResult {
    let id = profile::owner(cx, ProfileKind::Company)?;
    let patch = Patch::read(cx, ProfileKind::Company)?;
    check_name(&patch)?;
    patch.apply(cx, ProfileKind::Company, id)?;
    Ok(RouteReply::ok(describe(cx, id)?))
}

pub(super) fn delete(cx: &RouteContext<'_>) -> RouteResult {
    let id = profile::owner(cx, ProfileKind::Company)?;
    cx.db.prepare_cached("DELETE FROM members WHERE company = ?")?.execute([id])?;
    profile::forget(cx, ProfileKind::Company, id)?;
    Ok(RouteReply::no_content())
}

fn check_name(patch: &Patch) -> Result<(), RouteError> {
    match patch.field("name") {
        Some(name) if name.trim().is_empty() => Err(FieldErrors::one("name", BLANK)),
        _ => Ok(()),
    }
}

/// `companies-by-id/ID/add_member/`, if the assumptions allow it.
pub(super) fn add_member_by_external_id(cx: &RouteContext<'_>) -> RouteResult {
    match cx.assume.member_company {
        AssumedMemberCompany::Id => Err(RouteReply::not_found().into()),
        AssumedMemberCompany::CustomId => add_member(cx),
    }
}

/// Adding a member again changes nothing.
pub(super) fn add_member(cx: &RouteContext<'_>) -> RouteResult {
    let company = profile::owner(cx, ProfileKind::Company)?;
    let user = member(cx)?;
    if cx.assume.member_again == AssumedMemberAgain::Refused && is_member(cx, company, user)? {
        return Err(FieldErrors::one("user_id", "The user is a member already."));
    }
    join(cx, company, user)?;
    Ok(RouteReply::ok(describe(cx, company)?))
}

pub(super) fn remove_member(cx: &RouteContext<'_>) -> RouteResult {
    let company = profile::owner(cx, ProfileKind::Company)?;
    let user = member(cx)?;
    cx.db
        .prepare_cached("DELETE FROM members WHERE company = ?1 AND user = ?2")?
        .execute(params![company, user])?;
    Ok(RouteReply::ok(describe(cx, company)?))
}

fn is_member(cx: &RouteContext<'_>, company: i64, user: i64) -> Result<bool, RouteError> {
    Ok(cx
        .db
        .prepare_cached("SELECT 1 FROM members WHERE company = ?1 AND user = ?2")?
        .exists(params![company, user])?)
}

/// The user that the body names: by `user_id`, or by `user_custom_id` if that is absent and the
/// assumptions allow it.
fn member(cx: &RouteContext<'_>) -> Result<i64, RouteError> {
    let by_external_id = cx.assume.member_user == AssumedMemberUser::UserCustomId
        && cx.body.contains_key("user_custom_id");
    let found = if cx.body.contains_key("user_id") || !by_external_id {
        let id = cx.integer("user_id")?;
        profile::exists(cx, ProfileKind::User, id)?.then_some(id)
    } else {
        profile::find_by_external_id(
            cx,
            ProfileKind::User,
            cx.text("user_custom_id", MAX_TEXT_LEN)?,
        )?
    };
    profile::visible(cx, ProfileKind::User, found)
}

/// The company as the API writes it.
pub(in crate::emulator) fn describe(cx: &RouteContext<'_>, id: i64) -> Result<Value, RouteError> {
    let mut statement = cx.db.prepare_cached(
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
    let (employees, members) = members(cx, id)?;
    out.insert("employees".into(), employees);
    out.insert("members".into(), members);
    profile::describe(cx, ProfileKind::Company, id, &profile, &mut out)?;
    if cx.version == RequestVersion::V1 {
        for (new, old) in [("custom_id", "company_id"), ("size", "approx_employees")] {
            let value = out.remove(new).unwrap_or_default();
            out.insert(old.into(), value);
        }
    }
    Ok(Value::Object(out))
}

/// The remote ids of the members, and the same with their time of joining.
fn members(cx: &RouteContext<'_>, id: i64) -> Result<(Value, Value), RouteError> {
    let mut statement = cx.db.prepare_cached(
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
