//! Events: occurrences by external and by remote id, a user's history, and definitions.
//!
//! # Invariants
//! A property keeps its first type; a value that does not fit is dropped from the occurrence and
//! counted. An event changes neither `last_seen` nor `page_views`.

use std::collections::HashMap;

use rusqlite::types::Value as SqlValue;
use rusqlite::{OptionalExtension, params};
use serde_json::{Map, Value, json};

use super::moment;
use crate::emulator::context::{RouteContext, bump};
use crate::emulator::profile::{self, ProfileKind};
use crate::emulator::reply::{
    FieldErrors, NOT_AN_INTEGER, NULL, RouteError, RouteReply, RouteResult, too_long,
};
use crate::emulator::typing::{MAX_TEXT_LEN, PropertyType, convert, iso, seconds_to_micros};

pub(super) fn by_external_id(cx: &RouteContext<'_>) -> RouteResult {
    let user = profile::owner(cx, ProfileKind::User)?;
    if cx.body.contains_key("user_id") {
        // In v2 this is a remote id; v1 clients send an external id here.
        cx.integer("user_id")?;
    }
    occur(cx, user)
}

pub(super) fn by_remote_id(cx: &RouteContext<'_>) -> RouteResult {
    let user = cx.integer("user_id")?;
    let found = profile::exists(cx, ProfileKind::User, user)?.then_some(user);
    occur(cx, profile::visible(cx, ProfileKind::User, found)?)
}

fn occur(cx: &RouteContext<'_>, user: i64) -> RouteResult {
    let name = cx.text("name", MAX_TEXT_LEN)?;
    let timestamp = moment::assumed(cx, timestamp(cx)?)?;
    let data = data(cx)?;
    let (definition, created) = define_name(cx, name)?;
    let data = fit(cx, definition, data)?;
    cx.db
        .prepare_cached(
            "INSERT INTO events (user, definition, timestamp, data) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![user, definition, timestamp, Value::Object(data).to_string()])?;
    Ok(RouteReply::created(json!({ "id": cx.db.last_insert_rowid(), "created": created })))
}

/// UNIX seconds as an integer; the present if absent. Milliseconds are out of range.
fn timestamp(cx: &RouteContext<'_>) -> Result<i64, RouteError> {
    let Some(value) = cx.body.get("timestamp") else {
        return Ok(cx.now);
    };
    let seconds = value.as_i64().ok_or_else(|| FieldErrors::one("timestamp", NOT_AN_INTEGER))?;
    seconds_to_micros(seconds)
        .ok_or_else(|| FieldErrors::one("timestamp", "Out of range: expected seconds since 1970."))
}

/// A flat object; strings of at most 255 characters.
fn data(cx: &RouteContext<'_>) -> Result<Map<String, Value>, RouteError> {
    let data = match cx.body.get("data") {
        None => return Ok(Map::new()),
        Some(Value::Object(data)) => data,
        Some(_) => return Err(FieldErrors::one("data", "Expected a flat object.")),
    };
    for (key, value) in data {
        let message = match value {
            Value::Null => NULL.to_owned(),
            Value::Array(_) | Value::Object(_) => "Expected a simple value.".to_owned(),
            Value::String(text) if text.chars().count() > MAX_TEXT_LEN => too_long(MAX_TEXT_LEN),
            _ => continue,
        };
        return Err(RouteReply::new(400, json!({ "data": { key: [message] } })).into());
    }
    Ok(data.clone())
}

/// Finds or creates the definition of a name. Returns whether it was created.
fn define_name(cx: &RouteContext<'_>, name: &str) -> Result<(i64, bool), RouteError> {
    let found: Option<i64> = cx
        .db
        .prepare_cached("SELECT id FROM event_definitions WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok((id, false));
    }
    cx.db.prepare_cached("INSERT INTO event_definitions (name) VALUES (?)")?.execute([name])?;
    Ok((cx.db.last_insert_rowid(), true))
}

/// Converts every value to the type of its property; a new property is a string.
fn fit(
    cx: &RouteContext<'_>,
    definition: i64,
    data: Map<String, Value>,
) -> Result<Map<String, Value>, RouteError> {
    let types: HashMap<String, PropertyType> = properties(cx, definition)?.into_iter().collect();
    let mut out = Map::new();
    for (key, value) in data {
        let value_type = match types.get(&key) {
            Some(known) => *known,
            None => {
                define_property(cx, definition, &key, PropertyType::String)?;
                PropertyType::String
            }
        };
        match convert(&value, value_type) {
            Some(value) => {
                out.insert(key, value);
            }
            None => bump(&cx.ignored.properties),
        }
    }
    Ok(out)
}

fn properties(
    cx: &RouteContext<'_>,
    definition: i64,
) -> Result<Vec<(String, PropertyType)>, RouteError> {
    let mut statement = cx.db.prepare_cached(
        "SELECT name, value_type FROM event_properties WHERE definition = ? ORDER BY name",
    )?;
    let rows = statement
        .query_map([definition], |row| {
            let value_type: String = row.get(1)?;
            Ok((row.get(0)?, PropertyType::parse(&value_type).unwrap_or(PropertyType::String)))
        })?
        .collect::<Result<_, _>>()?;
    Ok(rows)
}

fn define_property(
    cx: &RouteContext<'_>,
    definition: i64,
    name: &str,
    value_type: PropertyType,
) -> Result<(), RouteError> {
    cx.db
        .prepare_cached(
            "INSERT INTO event_properties (definition, name, value_type) VALUES (?1, ?2, ?3) \
             ON CONFLICT (definition, name) DO UPDATE SET value_type = excluded.value_type",
        )?
        .execute(params![definition, name, value_type.as_str()])?;
    Ok(())
}

/// What the app's settings page does: `{name, properties: {name: type}}`.
pub(in crate::emulator) fn define(cx: &RouteContext<'_>) -> RouteResult {
    let name = cx.text("name", MAX_TEXT_LEN)?;
    let properties = match cx.body.get("properties") {
        None => Map::new(),
        Some(Value::Object(properties)) => properties.clone(),
        Some(_) => {
            return Err(FieldErrors::one("properties", "Expected an object of types."));
        }
    };
    let (id, created) = define_name(cx, name)?;
    for (property, word) in &properties {
        let value_type = word.as_str().and_then(PropertyType::parse).ok_or_else(|| {
            FieldErrors::one("properties", format!("{word} is not a type (at \"{property}\")."))
        })?;
        define_property(cx, id, property, value_type)?;
    }
    Ok(RouteReply::created(json!({ "id": id, "created": created })))
}

/// `GET events/`: the definitions, with their properties' types.
pub(super) fn definitions(cx: &RouteContext<'_>) -> RouteResult {
    cx.page("event_definitions WHERE 1", &[], |id| describe_definition(cx, id))
}

pub(in crate::emulator) fn describe_definition(
    cx: &RouteContext<'_>,
    id: i64,
) -> Result<Value, RouteError> {
    let name: String = cx
        .db
        .prepare_cached("SELECT name FROM event_definitions WHERE id = ?")?
        .query_row([id], |row| row.get(0))?;
    let types: Map<String, Value> = properties(cx, id)?
        .into_iter()
        .map(|(name, value_type)| (name, json!(value_type.as_str())))
        .collect();
    Ok(json!({ "id": id, "name": name, "properties": types }))
}

/// A user's occurrences in order of arrival, oldest first.
pub(super) fn history(cx: &RouteContext<'_>) -> RouteResult {
    let user = profile::owner(cx, ProfileKind::User)?;
    cx.page("events WHERE user = ?", &[SqlValue::from(user)], |id| describe(cx, id))
}

/// One occurrence; `event_id` is its definition's number, `user_id` its user's.
pub(in crate::emulator) fn describe(cx: &RouteContext<'_>, id: i64) -> Result<Value, RouteError> {
    let mut statement = cx.db.prepare_cached(
        "SELECT d.name, d.id, e.timestamp, e.data, e.user FROM events e \
         JOIN event_definitions d ON d.id = e.definition WHERE e.id = ?",
    )?;
    Ok(statement.query_row([id], |row| {
        let data: Value = serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default();
        Ok(json!({
            "id": id,
            "name": row.get::<_, String>(0)?,
            "event_id": row.get::<_, i64>(1)?,
            "user_id": row.get::<_, i64>(4)?,
            "timestamp": iso(row.get(2)?),
            "data": data,
        }))
    })?)
}
