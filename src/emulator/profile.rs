//! Users and companies as far as they are alike: a body with standard fields, custom attributes,
//! tags and an own id becomes a patch, is applied, and is described again. Not what only one of them has (page views, members).
//!
//! Invariant: a body is read whole and every fault in it named before anything is written.

use rusqlite::{OptionalExtension, params};
use serde_json::{Map, Value, json};

use super::ask::{Ask, Key, bump};
pub(super) use super::fields::{Kind, Shape};
use super::fields::{READ_ONLY, check_field, json_type, shown};
use super::reply::{BLANK, FieldErrors, NOT_A_STRING, NULL, Refusal, Reply, too_long};
use super::typing::{MAX_TEXT, Rule, ValueType, check};

/// A definition of a custom attribute, as far as a value needs it.
pub(super) struct Definition {
    pub(super) id: i64,
    pub(super) rule: Rule,
}

/// Finds an attribute by its display name or its slug.
pub(super) fn definition(
    ask: &Ask<'_>,
    kind: Kind,
    name: &str,
) -> Result<Option<Definition>, Refusal> {
    let mut statement = ask.db.prepare_cached(
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
                rule: Rule {
                    value_type: ValueType::parse(&value_type).unwrap_or(ValueType::String),
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

/// What a body wants written, checked.
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
    pub(super) fn read(ask: &Ask<'_>, kind: Kind) -> Result<Self, Refusal> {
        Self::read_map(ask, kind, &ask.body)
    }

    /// Reads an object of fields; 400 naming every field that does not fit.
    pub(super) fn read_map(
        ask: &Ask<'_>,
        kind: Kind,
        body: &Map<String, Value>,
    ) -> Result<Self, Refusal> {
        let mut patch = Self::default();
        let mut errors = FieldErrors::default();
        for (key, value) in body {
            let read = match (key.as_str(), kind) {
                ("custom_id", _) => own_id(value).map(|id| patch.custom_id = Some(id)),
                ("company_custom_id", Kind::User) => {
                    own_id(value).map(|id| patch.company_custom_id = Some(id))
                }
                ("user_key", Kind::User) => own_id(value).map(|key| patch.user_key = Some(key)),
                ("tags", _) => tag_names(value).map(|tags| patch.tags = tags),
                _ => patch.read_field(ask, kind, key, value)?,
            };
            if let Err(message) = read {
                errors.add(key, message);
            }
        }
        errors.settle()?;
        Ok(patch)
    }

    fn read_field(
        &mut self,
        ask: &Ask<'_>,
        kind: Kind,
        key: &str,
        value: &Value,
    ) -> Result<Result<(), String>, Refusal> {
        if let Some(shape) = kind.shape(key) {
            return Ok(check_field(shape, value).map(|value| {
                self.profile.insert(key.to_owned(), value);
            }));
        }
        match definition(ask, kind, key)? {
            Some(_) if value.is_null() => Ok(Err(NULL.into())),
            Some(found) => {
                Ok(check(value, &found.rule).map(|value| self.attributes.push((found.id, value))))
            }
            None => {
                if !READ_ONLY.contains(&key) {
                    bump(&ask.ignored.attributes);
                }
                Ok(Ok(()))
            }
        }
    }

    /// A text field of the patch.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.profile.get(name).and_then(Value::as_str)
    }

    /// Refuses an own id that another user or company has.
    pub(super) fn check_unique(
        &self,
        ask: &Ask<'_>,
        kind: Kind,
        me: Option<i64>,
    ) -> Result<(), Refusal> {
        let Some(custom_id) = &self.custom_id else {
            return Ok(());
        };
        match id_of_own(ask, kind, custom_id)? {
            Some(other) if Some(other) != me => Err(FieldErrors::one(
                "custom_id",
                format!(
                    "{} with this custom_id already exists.",
                    match kind {
                        Kind::User => "User",
                        Kind::Company => "Company",
                    }
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Writes what the patch says onto an existing user or company; what it leaves out stays.
    pub(super) fn apply(&self, ask: &Ask<'_>, kind: Kind, id: i64) -> Result<(), Refusal> {
        self.check_unique(ask, kind, Some(id))?;
        let table = kind.table();
        let stored: String = ask
            .db
            .prepare_cached(&format!("SELECT profile FROM {table} WHERE id = ?"))?
            .query_row([id], |row| row.get(0))?;
        let mut profile: Map<String, Value> = serde_json::from_str(&stored).unwrap_or_default();
        profile.extend(self.profile.iter().map(|(key, value)| (key.clone(), value.clone())));
        ask.db
            .prepare_cached(&format!(
                "UPDATE {table} SET profile = ?2, custom_id = coalesce(?3, custom_id), \
                 updated_at = ?4 WHERE id = ?1"
            ))?
            .execute(params![id, Value::Object(profile).to_string(), self.custom_id, ask.now])?;
        for (attribute, value) in &self.attributes {
            set_value(ask, id, *attribute, value)?;
        }
        for tag in &self.tags {
            add_tag(ask, kind, id, tag)?;
        }
        Ok(())
    }
}

/// Writes one attribute's value.
pub(super) fn set_value(
    ask: &Ask<'_>,
    owner: i64,
    attribute: i64,
    value: &Value,
) -> Result<(), Refusal> {
    ask.db
        .prepare_cached(
            "INSERT INTO attribute_values (owner, attribute, value) VALUES (?1, ?2, ?3) \
             ON CONFLICT (owner, attribute) DO UPDATE SET value = excluded.value",
        )?
        .execute(params![owner, attribute, value.to_string()])?;
    Ok(())
}

fn own_id(value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Err(NULL.into()),
        Value::String(text) if text.trim().is_empty() => Err(BLANK.into()),
        Value::String(text) if text.chars().count() > MAX_TEXT => Err(too_long(MAX_TEXT)),
        Value::String(text) => Ok(text.clone()),
        _ => Err(NOT_A_STRING.into()),
    }
}

/// A list of tag names, none of them blank.
pub(super) fn tag_names(value: &Value) -> Result<Vec<String>, String> {
    let Some(items) = value.as_array() else {
        return Err(format!("Expected a list of items but got type \"{}\".", json_type(value)));
    };
    items.iter().map(own_id).collect()
}

/// Puts a tag on a user or company, making the tag if need be; whether it was not there before.
pub(super) fn add_tag(ask: &Ask<'_>, kind: Kind, owner: i64, name: &str) -> Result<bool, Refusal> {
    ask.db.prepare_cached("INSERT OR IGNORE INTO tags (name) VALUES (?)")?.execute([name])?;
    let added = ask
        .db
        .prepare_cached(
            "INSERT OR IGNORE INTO tagged (kind, owner, tag) \
             SELECT ?1, ?2, id FROM tags WHERE name = ?3",
        )?
        .execute(params![kind.content_type(), owner, name])?;
    Ok(added == 1)
}

/// The number behind an own id.
pub(super) fn id_of_own(ask: &Ask<'_>, kind: Kind, own: &str) -> Result<Option<i64>, Refusal> {
    Ok(ask
        .db
        .prepare_cached(&format!("SELECT id FROM {} WHERE custom_id = ?", kind.table()))?
        .query_row([own], |row| row.get(0))
        .optional()?)
}

/// Whether there is a user or company of this number.
pub(super) fn exists(ask: &Ask<'_>, kind: Kind, id: i64) -> Result<bool, Refusal> {
    Ok(ask
        .db
        .prepare_cached(&format!("SELECT 1 FROM {} WHERE id = ?", kind.table()))?
        .exists([id])?)
}

/// The user or company that the path names, by number or by own id; 404 if there is none.
pub(super) fn owner(ask: &Ask<'_>, kind: Kind) -> Result<i64, Refusal> {
    let found = match &ask.key {
        Key::None => None,
        Key::Number(id) => exists(ask, kind, *id)?.then_some(*id),
        Key::Name(own) => id_of_own(ask, kind, own)?,
    };
    found.ok_or_else(|| Reply::not_found().into())
}

/// Writes into `out` what users and companies have in common: standard fields, tags, and custom
/// attributes both flat and as a list. A standard field wins over an attribute of its name.
pub(super) fn describe(
    ask: &Ask<'_>,
    kind: Kind,
    id: i64,
    profile: &str,
    out: &mut Map<String, Value>,
) -> Result<(), Refusal> {
    let mut profile: Map<String, Value> = serde_json::from_str(profile).unwrap_or_default();
    for (field, shape) in kind.fields() {
        let stored = profile.remove(*field);
        out.insert((*field).to_owned(), shown(*shape, stored));
    }
    out.insert("tags".into(), tags_of(ask, kind, id)?);
    let mut list = Vec::new();
    let mut statement = ask.db.prepare_cached(
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

fn tags_of(ask: &Ask<'_>, kind: Kind, id: i64) -> Result<Value, Refusal> {
    let mut statement = ask.db.prepare_cached(
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

/// Takes away what hangs on a user or company that is about to go.
pub(super) fn forget(ask: &Ask<'_>, kind: Kind, id: i64) -> Result<(), Refusal> {
    ask.db
        .prepare_cached("DELETE FROM tagged WHERE kind = ?1 AND owner = ?2")?
        .execute(params![kind.content_type(), id])?;
    ask.db
        .prepare_cached(
            "DELETE FROM attribute_values WHERE owner = ?1 AND attribute IN \
             (SELECT id FROM attributes WHERE content_type = ?2)",
        )?
        .execute(params![id, kind.content_type()])?;
    ask.db.prepare_cached(&format!("DELETE FROM {} WHERE id = ?", kind.table()))?.execute([id])?;
    Ok(())
}
