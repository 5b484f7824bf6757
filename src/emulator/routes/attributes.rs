//! `attributes/`: definitions of custom attributes.
//!
//! # Invariants
//! A slug is unique within its content type.

use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};

use crate::emulator::context::{PathKey, RouteContext};
use crate::emulator::profile::ProfileKind;
use crate::emulator::reply::{
    FieldErrors, REQUIRED, RouteError, RouteReply, RouteResult, too_long,
};
use crate::emulator::typing::PropertyType;

/// The longest name, in characters.
const MAX_NAME_LEN: usize = 32;

const CONTENT_TYPES: [&str; 6] = ["activity", "clientuser", "company", "deal", "product", "ticket"];

pub(super) fn list(cx: &RouteContext<'_>) -> RouteResult {
    cx.page("attributes WHERE 1", &[], |id| describe(cx, id))
}

pub(super) fn get(cx: &RouteContext<'_>) -> RouteResult {
    Ok(RouteReply::ok(describe(cx, cx.number()?)?))
}

pub(super) fn delete(cx: &RouteContext<'_>) -> RouteResult {
    let id = cx.number()?;
    let gone = cx.db.prepare_cached("DELETE FROM attributes WHERE id = ?")?.execute([id])?;
    if gone == 0 {
        return Err(RouteReply::not_found().into());
    }
    cx.db.prepare_cached("DELETE FROM attribute_values WHERE attribute = ?")?.execute([id])?;
    Ok(RouteReply::no_content())
}

pub(super) fn type_on_users(cx: &RouteContext<'_>) -> RouteResult {
    type_of(cx, ProfileKind::User)
}

pub(super) fn type_on_companies(cx: &RouteContext<'_>) -> RouteResult {
    type_of(cx, ProfileKind::Company)
}

fn type_of(cx: &RouteContext<'_>, kind: ProfileKind) -> RouteResult {
    let PathKey::Name(slug) = &cx.key else {
        return Err(RouteReply::not_found().into());
    };
    let found: Option<String> = cx
        .db
        .prepare_cached(
            "SELECT value_type FROM attributes WHERE content_type = ?1 AND name_std = ?2",
        )?
        .query_row(params![kind.content_type(), slug], |row| row.get(0))
        .optional()?;
    match found {
        Some(value_type) => Ok(RouteReply::ok(json!({ "value_type": value_type }))),
        None => Err(RouteReply::not_found().into()),
    }
}

pub(in crate::emulator) fn create(cx: &RouteContext<'_>) -> RouteResult {
    let name = cx.text("name", MAX_NAME_LEN)?;
    let value_type = choice(cx, "value_type", |word| PropertyType::parse(word).is_some())?;
    let content_type = choice(cx, "content_type", |word| CONTENT_TYPES.contains(&word))?;
    let slug = slug(name);
    let standard = [ProfileKind::User, ProfileKind::Company]
        .iter()
        .any(|kind| kind.content_type() == content_type && kind.is_standard(&slug));
    if standard {
        return Err(FieldErrors::one("name", "This name belongs to a standard field."));
    }
    let (choices, multiple) =
        if value_type == PropertyType::Fixed.as_str() { fixed_options(cx)? } else { (None, false) };
    let added = cx
        .db
        .prepare_cached(
            "INSERT OR IGNORE INTO attributes \
             (name, name_std, value_type, content_type, choices, multiple) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![name, slug, value_type, content_type, choices, multiple])?;
    if added == 0 {
        return Err(FieldErrors::one("name", "Attribute with this name already exists."));
    }
    Ok(RouteReply::created(describe(cx, cx.db.last_insert_rowid())?))
}

/// Creates an attribute that a write names, with the type of its value.
pub(in crate::emulator) fn create_from_value(
    cx: &RouteContext<'_>,
    kind: ProfileKind,
    name: &str,
    value: &Value,
) -> Result<i64, RouteError> {
    if name.chars().count() > MAX_NAME_LEN {
        return Err(FieldErrors::one(name, too_long(MAX_NAME_LEN)));
    }
    let value_type = match value {
        Value::Bool(_) => PropertyType::Boolean,
        Value::Number(number) if number.is_i64() => PropertyType::Integer,
        Value::Number(_) => PropertyType::Float,
        Value::Array(_) | Value::Object(_) => PropertyType::Json,
        Value::Null | Value::String(_) => PropertyType::String,
    };
    cx.db
        .prepare_cached(
            "INSERT INTO attributes (name, name_std, value_type, content_type, multiple) \
             VALUES (?1, ?2, ?3, ?4, 0)",
        )?
        .execute(params![name, slug(name), value_type.as_str(), kind.content_type()])?;
    Ok(cx.db.last_insert_rowid())
}

/// Lower case, with underscores for spaces: `API string attribute` is `api_string_attribute`.
fn slug(name: &str) -> String {
    name.trim().to_lowercase().chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect()
}

fn choice<'a>(
    cx: &'a RouteContext<'_>,
    field: &str,
    known: impl Fn(&str) -> bool,
) -> Result<&'a str, RouteError> {
    let word = cx.text(field, MAX_NAME_LEN)?;
    if known(word) {
        return Ok(word);
    }
    Err(FieldErrors::one(field, format!("\"{word}\" is not a valid choice.")))
}

fn fixed_options(cx: &RouteContext<'_>) -> Result<(Option<String>, bool), RouteError> {
    let choices = cx.body.get("choices").ok_or_else(|| FieldErrors::one("choices", REQUIRED))?;
    let texts = choices
        .as_array()
        .is_some_and(|items| !items.is_empty() && items.iter().all(Value::is_string));
    if !texts {
        return Err(FieldErrors::one("choices", "Expected a list of texts that is not empty."));
    }
    let field = "allow_multiple_choices";
    match cx.body.get(field) {
        None => Err(FieldErrors::one(field, REQUIRED)),
        Some(Value::Bool(multiple)) => Ok((Some(choices.to_string()), *multiple)),
        Some(_) => Err(FieldErrors::one(field, "Must be a valid boolean.")),
    }
}

/// The definition as the API writes it.
pub(in crate::emulator) fn describe(cx: &RouteContext<'_>, id: i64) -> Result<Value, RouteError> {
    let mut statement = cx.db.prepare_cached(
        "SELECT name, name_std, value_type, content_type, choices, multiple \
         FROM attributes WHERE id = ?",
    )?;
    let found = statement
        .query_row([id], |row| {
            let mut out = json!({
                "id": id,
                "name": row.get::<_, String>(0)?,
                "name_std": row.get::<_, String>(1)?,
                "value_type": row.get::<_, String>(2)?,
                "content_type": row.get::<_, String>(3)?,
            });
            if let Some(choices) = row.get::<_, Option<String>>(4)? {
                out["choices"] = serde_json::from_str(&choices).unwrap_or_default();
                out["allow_multiple_choices"] = json!(row.get::<_, bool>(5)?);
            }
            Ok(out)
        })
        .optional()?;
    found.ok_or_else(|| RouteReply::not_found().into())
}
