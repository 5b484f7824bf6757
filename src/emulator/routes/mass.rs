//! `mass_update_*`: one attribute to one same value on many users, named by number or by own id.
//!
//! Invariant: all of the users are changed or none.

use serde_json::{Map, Value, json};

use super::users::change;
use crate::emulator::ask::Ask;
use crate::emulator::profile::{self, Kind, Patch, definition};
use crate::emulator::reply::{
    FieldErrors, NOT_A_STRING, NOT_AN_INTEGER, Outcome, REQUIRED, Refusal, Reply,
};
use crate::emulator::typing::MAX_TEXT;

pub(super) fn standard(ask: &Ask<'_>) -> Outcome {
    check_standard(ask)?;
    write(ask, by_number)
}

pub(super) fn standard_by_own(ask: &Ask<'_>) -> Outcome {
    check_standard(ask)?;
    write(ask, by_own)
}

pub(super) fn custom(ask: &Ask<'_>) -> Outcome {
    check_custom(ask)?;
    write(ask, by_number)
}

pub(super) fn custom_by_own(ask: &Ask<'_>) -> Outcome {
    check_custom(ask)?;
    write(ask, by_own)
}

fn check_standard(ask: &Ask<'_>) -> Result<(), Refusal> {
    let name = ask.text("attribute", MAX_TEXT)?;
    if Kind::User.shape(name).is_some() {
        return Ok(());
    }
    Err(FieldErrors::one("attribute", format!("\"{name}\" is not a valid choice.")))
}

fn check_custom(ask: &Ask<'_>) -> Result<(), Refusal> {
    let name = ask.text("attribute", MAX_TEXT)?;
    if definition(ask, Kind::User, name)?.is_some() {
        return Ok(());
    }
    Err(FieldErrors::one("attribute", "Attribute with this name does not exist."))
}

fn by_number(ask: &Ask<'_>, id: &Value) -> Result<Option<i64>, Refusal> {
    let id = id.as_i64().ok_or_else(|| FieldErrors::one("ids", NOT_AN_INTEGER))?;
    Ok(profile::exists(ask, Kind::User, id)?.then_some(id))
}

fn by_own(ask: &Ask<'_>, id: &Value) -> Result<Option<i64>, Refusal> {
    let own = id.as_str().ok_or_else(|| FieldErrors::one("ids", NOT_A_STRING))?;
    profile::id_of_own(ask, Kind::User, own)
}

fn write(ask: &Ask<'_>, find: fn(&Ask<'_>, &Value) -> Result<Option<i64>, Refusal>) -> Outcome {
    let name = ask.text("attribute", MAX_TEXT)?;
    let value = ask.body.get("value").ok_or_else(|| FieldErrors::one("value", REQUIRED))?;
    let ids = ask
        .body
        .get("ids")
        .and_then(Value::as_array)
        .ok_or_else(|| FieldErrors::one("ids", "Expected a list of items."))?;
    let body = Map::from_iter([(name.to_owned(), value.clone())]);
    let patch = Patch::read_map(ask, Kind::User, &body)?;
    for id in ids {
        match find(ask, id)? {
            Some(id) => change(ask, id, &patch)?,
            None => return Err(Reply::not_found().into()),
        }
    }
    Ok(Reply::ok(json!({ "status": "ok" })))
}
