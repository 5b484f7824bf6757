//! What users and companies have in common: reading a body with standard fields, custom attributes,
//! tags and an external id as a patch, applying it, and rendering the profile.
//!
//! # Invariants
//! A body is checked completely, and every error in it reported, before anything is written.

use rusqlite::{OptionalExtension, params};
use serde_json::{Map, Value, json};

use super::assume::{AssumedIdCase, AssumedNulls, AssumedUnknownAttribute, AssumedWrongType};
use super::context::{PathKey, RouteContext, bump};
pub(super) use super::fields::{ProfileKind, Shape};
use super::fields::{READ_ONLY, check_field, json_type, shown};
use super::reply::{BLANK, FieldErrors, NOT_A_STRING, NULL, RouteError, RouteReply, too_long};
use super::typing::{MAX_TEXT_LEN, PropertyType, ValueRule, check, convert};

/// The definition of a custom attribute that its values need.
pub(super) struct Definition {
    pub(super) id: i64,
    pub(super) rule: ValueRule,
}

/// Finds an attribute by its display name or its slug.
pub(super) fn definition(
    cx: &RouteContext<'_>,
    kind: ProfileKind,
    name: &str,
) -> Result<Option<Definition>, RouteError> {
    let mut statement = cx.db.prepare_cached(
        "SELECT id, value_type, choices, multiple FROM attributes \
         WHERE content_type = ?1 AND (name_std = ?2 OR name = ?2) \
         ORDER BY name_std = ?2 DESC, id LIMIT 1",
    )?;
    let found = statement
        .query_row(params![kind.content_type(), name], |row| {
            let value_type: String = row.get(1)?;
            let choices: Option<String> = row.get(2)?;
            Ok(Definition {
                id: row.get(0)?,
                rule: ValueRule {
                    value_type: PropertyType::parse(&value_type).unwrap_or(PropertyType::String),
                    choices: choices
                        .and_then(|text| serde_json::from_str(&text).ok())
                        .unwrap_or_default(),
                    multiple: row.get(3)?,
                },
            })
        })
        .optional()?;
    Ok(found)
}

/// The checked changes of a body.
#[derive(Debug, Default)]
pub(super) struct Patch {
    pub(super) custom_id: Option<String>,
    pub(super) user_key: Option<String>,
    pub(super) company_custom_id: Option<String>,
    profile: Map<String, Value>,
    attributes: Vec<(i64, Value)>,
    tags: Vec<String>,
}

impl Patch {
    /// Reads the request's body.
    pub(super) fn read(cx: &RouteContext<'_>, kind: ProfileKind) -> Result<Self, RouteError> {
        Self::read_map(cx, kind, &cx.body)
    }

    /// Reads an object of fields; 400 with every invalid field.
    pub(super) fn read_map(
        cx: &RouteContext<'_>,
        kind: ProfileKind,
        body: &Map<String, Value>,
    ) -> Result<Self, RouteError> {
        let mut patch = Self::default();
        let mut errors = FieldErrors::default();
        for (key, value) in body {
            if value.is_null() && cx.assume.null_values != AssumedNulls::Refused {
                patch.read_null(cx, kind, key)?;
                continue;
            }
            let read = match (key.as_str(), kind) {
                ("custom_id", _) => {
                    checked_external_id(cx, value).map(|id| patch.custom_id = Some(id))
                }
                ("company_custom_id", ProfileKind::User) => {
                    external_id(value).map(|id| patch.company_custom_id = Some(id))
                }
                ("user_key", ProfileKind::User) => {
                    external_id(value).map(|key| patch.user_key = Some(key))
                }
                ("tags", _) => tag_names(value).map(|tags| patch.tags = tags),
                _ => patch.read_field(cx, kind, key, value)?,
            };
            if let Err(message) = read {
                errors.add(key, message);
            }
        }
        errors.into_result()?;
        Ok(patch)
    }

    fn read_field(
        &mut self,
        cx: &RouteContext<'_>,
        kind: ProfileKind,
        key: &str,
        value: &Value,
    ) -> Result<Result<(), String>, RouteError> {
        if let Some(shape) = kind.shape(key) {
            return Ok(check_field(shape, value).map(|value| {
                self.profile.insert(key.to_owned(), value);
            }));
        }
        match definition(cx, kind, key)? {
            Some(_) if value.is_null() => Ok(Err(NULL.into())),
            Some(found) => {
                let checked = check(value, &found.rule);
                Ok(match (checked, cx.assume.wrong_type) {
                    (Ok(value), _) => {
                        self.attributes.push((found.id, value));
                        Ok(())
                    }
                    (Err(message), AssumedWrongType::Refused) => Err(message),
                    (Err(_), AssumedWrongType::Dropped) => Ok(()),
                    (Err(_), AssumedWrongType::Converted) => {
                        let converted = convert(value, found.rule.value_type);
                        self.attributes.extend(converted.map(|value| (found.id, value)));
                        Ok(())
                    }
                })
            }
            None if READ_ONLY.contains(&key) => Ok(Ok(())),
            None if cx.assume.unknown_attribute == AssumedUnknownAttribute::Refused => {
                Ok(Err("There is no attribute of this name.".into()))
            }
            None if cx.assume.unknown_attribute == AssumedUnknownAttribute::Created => {
                let attribute = super::routes::create_from_value(cx, kind, key, value)?;
                self.attributes.push((attribute, value.clone()));
                Ok(Ok(()))
            }
            None => {
                bump(&cx.ignored.attributes);
                Ok(Ok(()))
            }
        }
    }

    /// Empties a field or attribute, or leaves it as it is.
    fn read_null(
        &mut self,
        cx: &RouteContext<'_>,
        kind: ProfileKind,
        key: &str,
    ) -> Result<(), RouteError> {
        if cx.assume.null_values != AssumedNulls::Cleared {
            return Ok(());
        }
        if kind.shape(key).is_some() {
            self.profile.insert(key.to_owned(), Value::Null);
        } else if let Some(found) = definition(cx, kind, key)? {
            self.attributes.push((found.id, Value::Null));
        }
        Ok(())
    }

    /// A string field of the patch.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.profile.get(name).and_then(Value::as_str)
    }

    /// Rejects an external id that another profile of this kind has.
    pub(super) fn check_unique(
        &self,
        cx: &RouteContext<'_>,
        kind: ProfileKind,
        me: Option<i64>,
    ) -> Result<(), RouteError> {
        let Some(custom_id) = &self.custom_id else {
            return Ok(());
        };
        match find_by_external_id(cx, kind, custom_id)? {
            Some(other) if Some(other) != me => Err(FieldErrors::one(
                "custom_id",
                format!(
                    "{} with this custom_id already exists.",
                    match kind {
                        ProfileKind::User => "User",
                        ProfileKind::Company => "Company",
                    }
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Applies the patch to an existing user or company; absent fields keep their values.
    pub(super) fn apply(
        &self,
        cx: &RouteContext<'_>,
        kind: ProfileKind,
        id: i64,
    ) -> Result<(), RouteError> {
        self.check_unique(cx, kind, Some(id))?;
        let table = kind.table();
        let stored: String = cx
            .db
            .prepare_cached(&format!("SELECT profile FROM {table} WHERE id = ?"))?
            .query_row([id], |row| row.get(0))?;
        let mut profile: Map<String, Value> = serde_json::from_str(&stored).unwrap_or_default();
        profile.extend(self.profile.iter().map(|(key, value)| (key.clone(), value.clone())));
        profile.retain(|_, value| !value.is_null());
        cx.db
            .prepare_cached(&format!(
                "UPDATE {table} SET profile = ?2, custom_id = coalesce(?3, custom_id), \
                 updated_at = ?4 WHERE id = ?1"
            ))?
            .execute(params![id, Value::Object(profile).to_string(), self.custom_id, cx.now])?;
        for (attribute, value) in &self.attributes {
            set_value(cx, id, *attribute, value)?;
        }
        for tag in &self.tags {
            add_tag(cx, kind, id, tag)?;
        }
        Ok(())
    }
}

/// Writes one attribute's value.
pub(super) fn set_value(
    cx: &RouteContext<'_>,
    owner: i64,
    attribute: i64,
    value: &Value,
) -> Result<(), RouteError> {
    cx.db
        .prepare_cached(
            "INSERT INTO attribute_values (owner, attribute, value) VALUES (?1, ?2, ?3) \
             ON CONFLICT (owner, attribute) DO UPDATE SET value = excluded.value",
        )?
        .execute(params![owner, attribute, value.to_string()])?;
    Ok(())
}

fn external_id(value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Err(NULL.into()),
        Value::String(text) if text.trim().is_empty() => Err(BLANK.into()),
        Value::String(text) if text.chars().count() > MAX_TEXT_LEN => Err(too_long(MAX_TEXT_LEN)),
        Value::String(text) => Ok(text.clone()),
        _ => Err(NOT_A_STRING.into()),
    }
}

/// An external id of a user or company.
fn checked_external_id(cx: &RouteContext<'_>, value: &Value) -> Result<String, String> {
    let id = external_id(value)?;
    let max = usize::try_from(cx.assume.id_max_length).unwrap_or(usize::MAX);
    if id.chars().count() > max { Err(too_long(max)) } else { Ok(id) }
}

/// A list of tag names, none of them blank.
pub(super) fn tag_names(value: &Value) -> Result<Vec<String>, String> {
    let Some(items) = value.as_array() else {
        return Err(format!("Expected a list of items but got type \"{}\".", json_type(value)));
    };
    items.iter().map(external_id).collect()
}

/// Adds a tag to a user or company, and creates the tag if needed. Returns whether it was added.
pub(super) fn add_tag(
    cx: &RouteContext<'_>,
    kind: ProfileKind,
    owner: i64,
    name: &str,
) -> Result<bool, RouteError> {
    cx.db.prepare_cached("INSERT OR IGNORE INTO tags (name) VALUES (?)")?.execute([name])?;
    let added = cx
        .db
        .prepare_cached(
            "INSERT OR IGNORE INTO tagged (kind, owner, tag) \
             SELECT ?1, ?2, id FROM tags WHERE name = ?3",
        )?
        .execute(params![kind.content_type(), owner, name])?;
    Ok(added == 1)
}

/// The remote id of an external id.
pub(super) fn find_by_external_id(
    cx: &RouteContext<'_>,
    kind: ProfileKind,
    own: &str,
) -> Result<Option<i64>, RouteError> {
    let collation = match cx.assume.id_case {
        AssumedIdCase::Distinguished => "",
        AssumedIdCase::Ignored => " COLLATE NOCASE",
    };
    let table = kind.table();
    Ok(cx
        .db
        .prepare_cached(&format!("SELECT id FROM {table} WHERE custom_id = ?{collation}"))?
        .query_row([own], |row| row.get(0))
        .optional()?)
}

/// Whether a user or company with this remote id exists.
pub(super) fn exists(
    cx: &RouteContext<'_>,
    kind: ProfileKind,
    id: i64,
) -> Result<bool, RouteError> {
    Ok(cx
        .db
        .prepare_cached(&format!("SELECT 1 FROM {} WHERE id = ?", kind.table()))?
        .exists([id])?)
}

/// The user or company that the path names, by remote or external id; 404 if there is none.
pub(super) fn owner(cx: &RouteContext<'_>, kind: ProfileKind) -> Result<i64, RouteError> {
    let found = match &cx.key {
        PathKey::None => None,
        PathKey::Number(id) => exists(cx, kind, *id)?.then_some(*id),
        PathKey::Name(own) => find_by_external_id(cx, kind, own)?,
    };
    visible(cx, kind, found)
}

/// A user or company that was found, or 404 if it is none or is too new to be shown.
pub(super) fn visible(
    cx: &RouteContext<'_>,
    kind: ProfileKind,
    found: Option<i64>,
) -> Result<i64, RouteError> {
    let id = found.ok_or_else(RouteReply::not_found)?;
    if cx.assume.read_after_write_secs > 0 {
        let created: i64 = cx
            .db
            .prepare_cached(&format!("SELECT created_at FROM {} WHERE id = ?", kind.table()))?
            .query_row([id], |row| row.get(0))?;
        let age = u64::try_from(cx.now - created).unwrap_or_default() / 1_000_000;
        if age < cx.assume.read_after_write_secs {
            return Err(RouteReply::not_found().into());
        }
    }
    Ok(id)
}

/// Writes the common fields of users and companies into `out`: standard fields, tags, and custom
/// attributes both flat and as a list. A standard field takes precedence over an attribute of its
/// name.
pub(super) fn describe(
    cx: &RouteContext<'_>,
    kind: ProfileKind,
    id: i64,
    profile: &str,
    out: &mut Map<String, Value>,
) -> Result<(), RouteError> {
    let mut profile: Map<String, Value> = serde_json::from_str(profile).unwrap_or_default();
    for (field, shape) in kind.fields() {
        let stored = profile.remove(*field);
        out.insert((*field).to_owned(), shown(*shape, stored));
    }
    out.insert("tags".into(), tags_of(cx, kind, id)?);
    let mut list = Vec::new();
    let mut statement = cx.db.prepare_cached(
        "SELECT a.id, a.name, a.name_std, v.value FROM attribute_values v \
         JOIN attributes a ON a.id = v.attribute \
         WHERE v.owner = ?1 AND a.content_type = ?2 ORDER BY a.id",
    )?;
    let mut rows = statement.query(params![id, kind.content_type()])?;
    while let Some(row) = rows.next()? {
        let (name, slug, text): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        list.push(json!({
            "id": row.get::<_, i64>(0)?, "name": name, "name_std": slug, "value": value,
        }));
        out.entry(slug).or_insert(value);
    }
    out.insert("attributes".into(), Value::Array(list));
    Ok(())
}

fn tags_of(cx: &RouteContext<'_>, kind: ProfileKind, id: i64) -> Result<Value, RouteError> {
    let mut statement = cx.db.prepare_cached(
        "SELECT t.id, t.name FROM tagged d JOIN tags t ON t.id = d.tag \
         WHERE d.kind = ?1 AND d.owner = ?2 ORDER BY t.id",
    )?;
    let tags = statement
        .query_map(params![kind.content_type(), id], |row| {
            Ok(json!({ "id": row.get::<_, i64>(0)?, "name": row.get::<_, String>(1)? }))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Value::Array(tags))
}

/// Deletes the rows that belong to a user or company, before it is deleted.
pub(super) fn forget(cx: &RouteContext<'_>, kind: ProfileKind, id: i64) -> Result<(), RouteError> {
    cx.db
        .prepare_cached("DELETE FROM tagged WHERE kind = ?1 AND owner = ?2")?
        .execute(params![kind.content_type(), id])?;
    cx.db
        .prepare_cached(
            "DELETE FROM attribute_values WHERE owner = ?1 AND attribute IN \
             (SELECT id FROM attributes WHERE content_type = ?2)",
        )?
        .execute(params![id, kind.content_type()])?;
    cx.db.prepare_cached(&format!("DELETE FROM {} WHERE id = ?", kind.table()))?.execute([id])?;
    Ok(())
}
