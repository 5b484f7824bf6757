//! `set_attribute/`, `set_multiple_attributes/`, `remove_attribute/` on users and companies.
//!
//! Invariant: naming one attribute that does not exist is refused; in a map of many it is passed
//! over and counted, as it is in a create or update body.

use rusqlite::params;
use serde_json::{Map, Value};

use super::{companies, users};
use crate::emulator::ask::Ask;
use crate::emulator::profile::{self, Kind, Patch, definition};
use crate::emulator::reply::{FieldErrors, Outcome, REQUIRED, Refusal, Reply};
use crate::emulator::typing::MAX_TEXT;

pub(super) fn set_on_user(ask: &Ask<'_>) -> Outcome {
    set(ask, Kind::User)
}

pub(super) fn set_on_company(ask: &Ask<'_>) -> Outcome {
    set(ask, Kind::Company)
}

pub(super) fn set_many_on_user(ask: &Ask<'_>) -> Outcome {
    write(ask, Kind::User, &ask.body)
}

pub(super) fn set_many_on_company(ask: &Ask<'_>) -> Outcome {
    write(ask, Kind::Company, &ask.body)
}

pub(super) fn remove_from_user(ask: &Ask<'_>) -> Outcome {
    let id = profile::owner(ask, Kind::User)?;
    let found = definition(ask, Kind::User, ask.text("attribute", MAX_TEXT)?)?;
    let Some(found) = found else {
        return Err(unknown());
    };
    ask.db
        .prepare_cached("DELETE FROM attribute_values WHERE owner = ?1 AND attribute = ?2")?
        .execute(params![id, found.id])?;
    Ok(Reply::ok(users::describe(ask, id)?))
}

fn set(ask: &Ask<'_>, kind: Kind) -> Outcome {
    profile::owner(ask, kind)?;
    let name = ask.text("attribute", MAX_TEXT)?;
    let value = ask.body.get("value").ok_or_else(|| FieldErrors::one("value", REQUIRED))?;
    if kind.shape(name).is_none() && definition(ask, kind, name)?.is_none() {
        return Err(unknown());
    }
    write(ask, kind, &Map::from_iter([(name.to_owned(), value.clone())]))
}

fn unknown() -> Refusal {
    FieldErrors::one("attribute", "Attribute with this name does not exist.")
}

fn write(ask: &Ask<'_>, kind: Kind, body: &Map<String, Value>) -> Outcome {
    let id = profile::owner(ask, kind)?;
    let patch = Patch::read_map(ask, kind, body)?;
    match kind {
        Kind::User => {
            users::change(ask, id, &patch)?;
            Ok(Reply::ok(users::describe(ask, id)?))
        }
        Kind::Company => {
            patch.apply(ask, kind, id)?;
            Ok(Reply::ok(companies::describe(ask, id)?))
        }
    }
}
