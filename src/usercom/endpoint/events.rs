//! Events: sends one occurrence, reads a user's history.

use jiff::Timestamp;
use serde_json::Value;

use super::{Body, get, needed, segment, without_nul, write};
use crate::deliver::{Idempotency, Method, Need, Request};
use crate::schedule::PackedFields;

/// The id by which a path names a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::usercom) enum UserRef<'a> {
    /// The external id, safe in a path.
    ExternalUserId(&'a str),
    /// User.com's id.
    Number(u64),
}

/// The body of an event occurrence.
pub(in crate::usercom) fn body(
    whose: UserRef<'_>,
    name: &str,
    at: Option<Timestamp>,
    data: &PackedFields,
) -> String {
    let mut body = Body::new();
    if let UserRef::Number(id) = whose {
        body = body.number("user_id", id);
    }
    body = body.text("name", name);
    if let Some(at) = at {
        body = body.number("timestamp", at.as_second());
    }
    if !data.is_empty() {
        body = body.object("data", data);
    }
    body.done()
}

/// An event occurrence.
pub(in crate::usercom) fn occurrence(
    whose: UserRef<'_>,
    name: &str,
    at: Option<Timestamp>,
    data: &PackedFields,
) -> Request {
    let body = body(whose, name, at, data);
    let (route, path) = match whose {
        UserRef::Number(_) => ("events/", "events/".to_owned()),
        UserRef::ExternalUserId(id) => (
            "users-by-id/:id/events/",
            format!("users-by-id/{}/events/", segment(id).unwrap_or_default()),
        ),
    };
    write(Method::Post, route, path, body, Idempotency::NonIdempotent)
}

/// A user's events.
pub(in crate::usercom) fn history(whose: UserRef<'_>) -> Request {
    let request = match whose {
        UserRef::ExternalUserId(id) => get(
            "users-by-id/:id/events/",
            format!("users-by-id/{}/events/", segment(id).unwrap_or_default()),
        ),
        UserRef::Number(id) => get("users/:id/events/", format!("users/{id}/events/")),
    };
    needed(request, Need::Optional)
}

/// The zone offset under which an entry of the history is the occurrence that was sent, see
/// [`offset`]; `None` if it is another occurrence. Values are compared as string, number, boolean
/// or time: User.com converts them to the type of the event's attribute, and drops what it cannot
/// convert.
pub(in crate::usercom) fn same_at(
    entry: &Value,
    name: &str,
    at: Option<Timestamp>,
    data: &PackedFields,
) -> Option<i64> {
    let name = name.replace('\0', "");
    let named = match (&entry["name"], &entry["event"]) {
        (Value::String(text), _) | (_, Value::String(text)) => *text == name,
        (_, event) => event["name"].as_str() == Some(&*name),
    };
    let offset = match at {
        Some(at) => offset(written_time(entry), |seen| Some(seen.as_second() - at.as_second()))?,
        None => 0,
    };
    let same = named
        && data.iter().all(|field| {
            let stored = match &entry["data"][field.name] {
                Value::Null => &entry["data"][super::super::profile::limits::name_std(field.name)],
                stored => stored,
            };
            stored.is_null() || is_equal(stored, &without_nul(field.json.to_owned()))
        });
    same.then_some(offset)
}

/// The time of an entry, as it is written there.
pub(in crate::usercom) fn written_time(entry: &Value) -> &Value {
    match &entry["timestamp"] {
        time if moment(time).is_some() => time,
        _ => &entry["created_at"],
    }
}

/// By how many seconds a time differs from the time that was sent: by none; or, if it names no
/// zone, by the offset of some zone. `difference` is `None` if it cannot be that time.
pub(in crate::usercom) fn offset(
    written: &Value,
    difference: impl Fn(Timestamp) -> Option<i64>,
) -> Option<i64> {
    const QUARTER: i64 = 15 * 60;
    const FARTHEST: i64 = 14 * 3600;
    let off = difference(moment(written)?)?;
    let is_zone = off % QUARTER == 0 && off.abs() <= FARTHEST && !has_zone(written);
    (off == 0 || is_zone).then_some(off)
}

/// Whether a time names its zone. Numbers count seconds in UTC.
pub(in crate::usercom) fn has_zone(written: &Value) -> bool {
    let Value::String(text) = written else {
        return true;
    };
    let text = text.trim();
    if text.parse::<f64>().is_ok() {
        return true;
    }
    // The search begins after the date, whose hyphens are not a zone, and the `T`.
    let clock = text.get(10..).unwrap_or_default().trim_start_matches(['T', 't', ' ']);
    clock.contains(|c: char| matches!(c, '+' | '-' | '[') || c.is_alphabetic())
}

/// A moment as seconds, or as text.
pub(in crate::usercom) fn moment(value: &Value) -> Option<Timestamp> {
    let at = crate::usercom::attributes::moment(&value.to_string())?;
    Some(at.instant)
}

fn is_equal(stored: &Value, sent: &str) -> bool {
    let Ok(sent) = serde_json::from_str::<Value>(sent) else {
        return false;
    };
    if *stored == sent {
        return true;
    }
    let (a, b) = (plain(stored), plain(&sent));
    if a.eq_ignore_ascii_case(&b) {
        return true;
    }
    if let (Ok(a), Ok(b)) = (a.parse::<f64>(), b.parse::<f64>()) {
        return a == b;
    }
    if let (Some(a), Some(b)) = (parse_bool(&a), parse_bool(&b)) {
        return a == b;
    }
    matches!((moment(stored), moment(&sent)), (Some(a), Some(b)) if a == b)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn parse_bool(word: &str) -> Option<bool> {
    crate::coerce::boolean::parse(word)
}
