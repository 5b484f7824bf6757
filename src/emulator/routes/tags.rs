//! `add_tag/`, `add_many_tags/`, `remove_tag/` on users and companies.
//!
//! Invariant: adding a tag twice is the same as adding it once.

use rusqlite::params;
use serde_json::json;

use crate::emulator::ask::Ask;
use crate::emulator::profile::{self, Kind, tag_names};
use crate::emulator::reply::{FieldErrors, Outcome, REQUIRED, Reply};
use crate::emulator::typing::MAX_TEXT;

pub(super) fn add_to_user(ask: &Ask<'_>) -> Outcome {
    add(ask, Kind::User)
}

pub(super) fn add_to_company(ask: &Ask<'_>) -> Outcome {
    add(ask, Kind::Company)
}

pub(super) fn remove_from_user(ask: &Ask<'_>) -> Outcome {
    remove(ask, Kind::User)
}

pub(super) fn remove_from_company(ask: &Ask<'_>) -> Outcome {
    remove(ask, Kind::Company)
}

pub(super) fn add_many_to_user(ask: &Ask<'_>) -> Outcome {
    let id = profile::owner(ask, Kind::User)?;
    let names = ask.body.get("tag_names").ok_or_else(|| FieldErrors::one("tag_names", REQUIRED))?;
    let names = tag_names(names).map_err(|message| FieldErrors::one("tag_names", message))?;
    let mut tags = Vec::new();
    for name in &names {
        let created = profile::add_tag(ask, Kind::User, id, name)?;
        tags.push(json!({ "created": created, "tag": { "name": name } }));
    }
    Ok(Reply::ok(json!({ "tags": tags })))
}

fn add(ask: &Ask<'_>, kind: Kind) -> Outcome {
    let id = profile::owner(ask, kind)?;
    let name = ask.text("name", MAX_TEXT)?;
    let created = profile::add_tag(ask, kind, id, name)?;
    Ok(Reply::ok(json!({ "created": created, "tag": { "name": name } })))
}

fn remove(ask: &Ask<'_>, kind: Kind) -> Outcome {
    let id = profile::owner(ask, kind)?;
    let name = ask.text("name", MAX_TEXT)?;
    ask.db
        .prepare_cached(
            "DELETE FROM tagged WHERE kind = ?1 AND owner = ?2 \
             AND tag = (SELECT id FROM tags WHERE name = ?3)",
        )?
        .execute(params![kind.content_type(), id, name])?;
    Ok(Reply::ok(json!({ "tag": { "name": name } })))
}
