//! A checked request as its route sees it: the key in the path, the query, the body, and the store.
//!
//! # Invariants
//! `body` is an object; a request without a body has an empty one.

use std::cell::Cell;

use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use serde_json::{Map, Value, json};

use super::assume::Assumptions;
use super::reply::{
    FieldErrors, NOT_AN_INTEGER, NULL, REQUIRED, RouteError, RouteReply, RouteResult,
};

/// Objects on a page of a listing.
const PAGE_SIZE: usize = 100;

/// The decoded value of a path's variable segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathKey {
    /// The path has no variable segment.
    None,
    /// A remote id (User.com's number).
    Number(i64),
    /// An external id or another name.
    Name(String),
}

/// The API version, which decides the field names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestVersion {
    V1,
    V2,
}

/// Counts of values that a write ignored because they are not defined.
#[derive(Debug, Default)]
pub(super) struct Ignored {
    pub(super) attributes: Cell<u64>,
    pub(super) properties: Cell<u64>,
    pub(super) companies: Cell<u64>,
}

/// One request, ready for its route.
pub(super) struct RouteContext<'a> {
    pub(super) db: &'a Connection,
    pub(super) key: PathKey,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Map<String, Value>,
    pub(super) version: RequestVersion,
    pub(super) assume: Assumptions,
    /// Microseconds since 1970.
    pub(super) now: i64,
    /// The absolute URL of this resource without its query, for `next` and `previous`.
    pub(super) url: String,
    pub(super) ignored: Ignored,
}

pub(super) fn bump(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

impl<'a> RouteContext<'a> {
    /// A request that did not come over HTTP: from the seed or an admin route.
    pub(super) fn internal(db: &'a Connection, body: Map<String, Value>) -> Self {
        Self {
            db,
            key: PathKey::None,
            query: Vec::new(),
            body,
            version: RequestVersion::V2,
            assume: Assumptions::default(),
            now: crate::clock::now().as_microsecond(),
            url: String::new(),
            ignored: Ignored::default(),
        }
    }
}

impl RouteContext<'_> {
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The remote id in the path; only for routes with `:id` in their template.
    pub(super) fn number(&self) -> Result<i64, RouteError> {
        match self.key {
            PathKey::Number(number) => Ok(number),
            _ => Err(RouteReply::not_found().into()),
        }
    }

    /// A mandatory integer of the body.
    pub(super) fn integer(&self, field: &str) -> Result<i64, RouteError> {
        match self.body.get(field) {
            None => Err(FieldErrors::one(field, REQUIRED)),
            Some(value) => value.as_i64().ok_or_else(|| FieldErrors::one(field, NOT_AN_INTEGER)),
        }
    }

    /// A mandatory string of the body that is not blank and has at most `max` characters.
    pub(super) fn text(&self, field: &str, max: usize) -> Result<&str, RouteError> {
        let message = match self.body.get(field) {
            None => REQUIRED.to_owned(),
            Some(Value::Null) => NULL.to_owned(),
            Some(Value::String(text)) if text.trim().is_empty() => super::reply::BLANK.to_owned(),
            Some(Value::String(text)) if text.chars().count() > max => super::reply::too_long(max),
            Some(Value::String(text)) => return Ok(text),
            Some(_) => super::reply::NOT_A_STRING.to_owned(),
        };
        Err(FieldErrors::one(field, message))
    }

    /// One page of a listing in order of `id`. `from` is a table with a `WHERE` clause whose `?`
    /// are filled from `values`; `render` writes one object.
    pub(super) fn page(
        &self,
        from: &str,
        values: &[SqlValue],
        render: impl Fn(i64) -> Result<Value, RouteError>,
    ) -> RouteResult {
        let after = match self.param("cursor") {
            None => 0,
            Some(cursor) => match cursor.parse::<i64>() {
                Ok(after) if after >= 0 => after,
                _ => return Err(RouteReply::detail(404, "Invalid cursor").into()),
            },
        };
        let with_cursor =
            || params_from_iter(values.iter().cloned().chain([SqlValue::from(after)]));
        let count: i64 = self
            .db
            .prepare_cached(&format!("SELECT count(*) FROM {from}"))?
            .query_row(params_from_iter(values), |row| row.get(0))?;
        let mut ids: Vec<i64> = self
            .db
            .prepare_cached(&format!(
                "SELECT id FROM {from} AND id > ? ORDER BY id LIMIT {}",
                PAGE_SIZE + 1
            ))?
            .query_map(with_cursor(), |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let more = ids.len() > PAGE_SIZE;
        ids.truncate(PAGE_SIZE);
        let next = more.then(|| ids.last().copied()).flatten().map(|last| self.page_url(last));
        let previous = if after == 0 {
            None
        } else {
            let before: Option<i64> = self
                .db
                .prepare_cached(&format!(
                    "SELECT id FROM {from} AND id <= ? ORDER BY id DESC LIMIT 1 OFFSET {PAGE_SIZE}"
                ))?
                .query_row(with_cursor(), |row| row.get(0))
                .optional()?;
            Some(self.page_url(before.unwrap_or(0)))
        };
        let results = ids.into_iter().map(render).collect::<Result<Vec<_>, _>>()?;
        Ok(RouteReply::ok(json!({
            "count": count, "next": next, "previous": previous, "results": results,
        })))
    }

    fn page_url(&self, after: i64) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in self.query.iter().filter(|(key, _)| key != "cursor") {
            query.append_pair(key, value);
        }
        if after > 0 {
            query.append_pair("cursor", &after.to_string());
        }
        let query = query.finish();
        if query.is_empty() { self.url.clone() } else { format!("{}?{query}", self.url) }
    }
}
