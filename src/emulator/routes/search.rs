//! `users/search/`: by email, phone number, key, date, and any field or attribute with look-up
//! suffixes.
//!
//! # Invariants
//! Input of the caller reaches SQL only as a bound value.

use rusqlite::types::Value as SqlValue;
use rusqlite::{OptionalExtension, params_from_iter};
use serde_json::Value;

use super::users::describe;
use crate::emulator::context::RouteContext;
use crate::emulator::profile::{Definition, ProfileKind, Shape, definition};
use crate::emulator::reply::{FieldErrors, NOT_AN_INTEGER, RouteError, RouteReply, RouteResult};
use crate::emulator::typing::{PropertyType, iso, micros_of, seconds_to_micros};

/// Query parameters that control the search.
const CONTROL_PARAMS: [&str; 5] = ["many", "cursor", "search", "min", "max"];

/// A condition with its bound values.
struct SearchCondition {
    sql: String,
    values: Vec<SqlValue>,
}

pub(super) fn search(cx: &RouteContext<'_>) -> RouteResult {
    if let Some(email) = cx.param("email") {
        // As people compare addresses: without case and blanks around them.
        let from = "users WHERE lower(trim(json_extract(profile, '$.email'))) = lower(trim(?))";
        return if cx.param("many") == Some("true") {
            all(cx, from, email)
        } else {
            one(cx, from, email)
        };
    }
    if let Some(key) = cx.param("key") {
        return one(cx, "users WHERE user_key = ?", key);
    }
    if let Some(phone) = cx.param("phone_number") {
        let from =
            format!("users WHERE {} = ?", dialled("json_extract(profile, '$.phone_number')"));
        let phone: String = phone.chars().filter(|c| !PHONE_MARKS.contains(c)).collect();
        return cx.page(&from, &[phone.into()], |id| describe(cx, id));
    }
    let mut conditions = Vec::new();
    if let Some(field) = cx.param("search") {
        conditions.push(between(cx, field)?);
    }
    for (name, value) in
        cx.query.iter().filter(|(name, _)| !CONTROL_PARAMS.contains(&name.as_str()))
    {
        conditions.push(lookup(cx, name, value)?);
    }
    if conditions.is_empty() {
        return Err(RouteReply::detail(400, "The search names nothing to look for.").into());
    }
    let sql: Vec<&str> = conditions.iter().map(|condition| condition.sql.as_str()).collect();
    let from = format!("users WHERE {}", sql.join(" AND "));
    let values: Vec<SqlValue> =
        conditions.iter().flat_map(|condition| condition.values.clone()).collect();
    cx.page(&from, &values, |id| describe(cx, id))
}

/// What people write between the digits of a telephone number.
const PHONE_MARKS: [char; 6] = [' ', '-', '(', ')', '.', '/'];

/// The SQL of a telephone number without such marks.
fn dialled(column: &str) -> String {
    PHONE_MARKS.iter().fold(column.to_owned(), |sql, mark| format!("replace({sql}, '{mark}', '')"))
}

/// The first matching user, or 404.
fn one(cx: &RouteContext<'_>, from: &str, value: &str) -> RouteResult {
    let id: Option<i64> = cx
        .db
        .prepare_cached(&format!("SELECT id FROM {from} ORDER BY id LIMIT 1"))?
        .query_row([value], |row| row.get(0))
        .optional()?;
    match id {
        Some(id) => Ok(RouteReply::ok(describe(cx, id)?)),
        None => Err(RouteReply::not_found().into()),
    }
}

/// Every matching user, as a plain array.
fn all(cx: &RouteContext<'_>, from: &str, value: &str) -> RouteResult {
    let ids: Vec<i64> = cx
        .db
        .prepare_cached(&format!("SELECT id FROM {from} ORDER BY id"))?
        .query_map(params_from_iter([value]), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let users = ids.into_iter().map(|id| describe(cx, id)).collect::<Result<_, _>>()?;
    Ok(RouteReply::ok(Value::Array(users)))
}

/// `search=last_seen&min=&max=`, both in UNIX seconds and inclusive.
fn between(cx: &RouteContext<'_>, field: &str) -> Result<SearchCondition, RouteError> {
    if field == "last_contacted" {
        // The emulator never contacts users.
        return Ok(SearchCondition { sql: "0".into(), values: Vec::new() });
    }
    if !["first_seen", "last_seen", "updated_at"].contains(&field) {
        return Err(FieldErrors::one("search", format!("\"{field}\" is not a valid choice.")));
    }
    let mut condition = SearchCondition { sql: format!("{field} IS NOT NULL"), values: Vec::new() };
    // The upper limit includes its whole second.
    for (bound, operator, slack) in [("min", ">=", 0), ("max", "<=", 999_999)] {
        if let Some(text) = cx.param(bound) {
            let micros = text.parse().ok().and_then(seconds_to_micros);
            let micros = micros.ok_or_else(|| FieldErrors::one(bound, NOT_AN_INTEGER))?;
            condition.sql.push_str(&format!(" AND {field} {operator} ?"));
            condition.values.push((micros + slack).into());
        }
    }
    Ok(condition)
}

/// How a value is compared: as a number, as a flag, as a time, or as text.
enum SearchComparison {
    Number,
    Flag,
    Time,
    Text,
}

impl SearchComparison {
    fn of(value_type: PropertyType) -> Self {
        match value_type {
            PropertyType::Integer | PropertyType::Float => Self::Number,
            PropertyType::Boolean => Self::Flag,
            PropertyType::Datetime => Self::Time,
            _ => Self::Text,
        }
    }
}

/// `<field or attribute>[__look-up]=value`.
fn lookup(cx: &RouteContext<'_>, name: &str, value: &str) -> Result<SearchCondition, RouteError> {
    let (field, operator) = name.rsplit_once("__").unwrap_or((name, "exact"));
    let unknown = || FieldErrors::one(name, "This field or look-up is not known.");
    let (column, mut values, comparison) = match ProfileKind::User.shape(field) {
        _ if field == "custom_id" => ("custom_id".to_owned(), Vec::new(), SearchComparison::Text),
        Some(shape) => {
            let comparison = match shape {
                Shape::Integer | Shape::Choice(_) => SearchComparison::Number,
                Shape::Flag(_) => SearchComparison::Flag,
                _ => SearchComparison::Text,
            };
            // The name comes from the table of fields, not from the caller.
            (format!("json_extract(profile, '$.{field}')"), Vec::new(), comparison)
        }
        None => {
            let Definition { id, rule } =
                definition(cx, ProfileKind::User, field)?.ok_or_else(unknown)?;
            let column = "(SELECT json_extract(value, '$') FROM attribute_values \
                          WHERE owner = users.id AND attribute = ?)";
            (column.to_owned(), vec![SqlValue::from(id)], SearchComparison::of(rule.value_type))
        }
    };
    let sql = match operator {
        "exact" => format!("{column} = ?"),
        "gt" => format!("{column} > ?"),
        "gte" => format!("{column} >= ?"),
        "lt" => format!("{column} < ?"),
        "lte" => format!("{column} <= ?"),
        "iexact" => format!("lower({column}) = lower(?)"),
        "contains" => format!("instr({column}, ?) > 0"),
        "icontains" => format!("instr(lower({column}), lower(?)) > 0"),
        "startswith" => format!("instr({column}, ?) = 1"),
        "istartswith" => format!("instr(lower({column}), lower(?)) = 1"),
        _ => return Err(unknown()),
    };
    let comparison = if operator.contains("contains") || operator.contains("startswith") {
        SearchComparison::Text
    } else {
        comparison
    };
    values.push(bound(name, value, &comparison)?);
    Ok(SearchCondition { sql, values })
}

fn bound(name: &str, value: &str, comparison: &SearchComparison) -> Result<SqlValue, RouteError> {
    let read = match comparison {
        SearchComparison::Text => Some(SqlValue::from(value.to_owned())),
        SearchComparison::Number => value.parse::<f64>().ok().map(SqlValue::from),
        SearchComparison::Flag => match value {
            "true" | "True" | "1" => Some(SqlValue::from(1_i64)),
            "false" | "False" | "0" => Some(SqlValue::from(0_i64)),
            _ => None,
        },
        SearchComparison::Time => micros_of(value)
            .or_else(|| value.parse().ok().and_then(seconds_to_micros))
            .map(|micros| SqlValue::from(iso(micros))),
    };
    read.ok_or_else(|| FieldErrors::one(name, "The value does not have the field's type."))
}
