//! The template of an object: spreads first, then named fields, nested by their dots.
//!
//! # Invariants
//! A name that has its own field is never taken from a spread, whatever the result of that field.
//! Names are compared as User.com compares them: without case, `_`, `-`, `.` and white space.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::error::{LossKind, MappingError};
use super::eval_context::EvalContext;
use super::field::{self, ElementTemplate, FieldOutcome, FieldTemplate, LossRecorder};
use super::json::{self, JsonKind};
use super::named_values::NamedValues;
use crate::call::{Fields, FixedKeyMap, Json, Object};

/// A field with its name: `address.city` is two keys.
#[derive(Debug)]
pub(super) struct NamedField {
    pub(super) keys: Vec<String>,
    pub(super) field: FieldTemplate,
}

/// The fields of an object. The compiler ensures that no name is a prefix of another.
#[derive(Debug, Default)]
pub(super) struct ObjectTemplate {
    pub(super) spreads: Vec<FieldTemplate>,
    pub(super) named: Vec<NamedField>,
    /// Names that are not taken from spreads. Empty if there is no spread.
    owned: FixedKeyMap<NameOwners>,
}

/// The fields that own a name.
#[derive(Debug, Default)]
struct NameOwners {
    /// Indices of the fields of that name.
    whole: Vec<usize>,
    /// Indices of the fields nested in an object of that name.
    inside: Vec<usize>,
}

/// A value with the remaining keys of its name.
type Leaf<'n, 'a> = (&'n [String], Json<'a>);

/// A name in the form that is compared.
type NormalizedName = SmallVec<[u8; 32]>;

fn normalized<'n>(parts: impl IntoIterator<Item = &'n str>) -> NormalizedName {
    let mut out = NormalizedName::new();
    for part in parts {
        if part.is_ascii() {
            let bytes = part.bytes().filter(|b| !b"_-. \t\n\r".contains(b));
            out.extend(bytes.map(|b| b.to_ascii_lowercase()));
        } else {
            let chars = part.chars().filter(|c| !"_-.".contains(*c) && !c.is_whitespace());
            for c in chars.flat_map(char::to_lowercase) {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }
    out
}

impl ObjectTemplate {
    /// Indexes the names that are not taken from spreads. Called after all fields are added.
    pub(super) fn index_owned_names(&mut self) {
        if self.spreads.is_empty() {
            return;
        }
        for (place, named) in self.named.iter().enumerate() {
            let mut note = |name: &[u8], take: fn(&mut NameOwners) -> &mut Vec<usize>| {
                if self.owned.get(name).is_none() {
                    self.owned.insert(name, NameOwners::default());
                }
                if let Some(owned) = self.owned.get_mut(name) {
                    take(owned).push(place);
                }
            };
            let keys = || named.keys.iter().map(String::as_str);
            note(&normalized(keys()), |owned| &mut owned.whole);
            if named.keys.len() > 1 {
                note(&normalized(keys().take(1)), |owned| &mut owned.inside);
            }
        }
    }

    /// Evaluates every field. Nulls of spreads are dropped. A single spread without named fields stays
    /// unparsed text.
    pub(super) fn build<'a>(
        &self,
        context: &EvalContext<'_, 'a>,
        losses: &mut LossRecorder<'_>,
    ) -> Result<Object<'a>, MappingError> {
        let mut spread = None;
        for source in &self.spreads {
            let more = source.eval(context, losses, field::as_object)?;
            spread = match (spread, more) {
                (Some(object), Some(more)) => Some(merge_over(object, more)),
                (object, more) => object.or(more),
            };
        }
        let spread = spread.unwrap_or_default();
        if self.named.is_empty() {
            return Ok(spread);
        }
        let mut found: SmallVec<[FieldOutcome<Json<'a>>; 12]> = SmallVec::new();
        for named in &self.named {
            found.push(named.field.find(context, losses, field::as_json)?);
        }
        let spread = self.without_owned(spread.into_fields(), &found, losses);
        let mut set = NamedValues::from_unique(spread);
        let mut nested: Vec<(&str, Vec<Leaf<'_, 'a>>)> = Vec::new();
        for (named, found) in self.named.iter().zip(found) {
            let Some(value) = found.value() else {
                continue;
            };
            match named.keys.as_slice() {
                [] => {}
                [name] => set.insert(Cow::Owned(name.clone()), value),
                [top, rest @ ..] => match nested.iter_mut().find(|(known, _)| known == top) {
                    Some((_, leaves)) => leaves.push((rest, value)),
                    None => nested.push((top, vec![(rest, value)])),
                },
            }
        }
        for (top, leaves) in nested {
            let below = set.get(top).map(Json::as_str);
            let rendered = merge_nested(below, &leaves);
            set.insert(Cow::Owned(top.to_owned()), Json::from_valid_unchecked(rendered));
        }
        Ok(Object::Parsed(set.into_fields()))
    }

    /// The entries of a spread without those that have their own field. An entry that its field
    /// replaces stays, to keep its position.
    fn without_owned<'a>(
        &self,
        mut fields: Fields<'a>,
        found: &[FieldOutcome<Json<'a>>],
        losses: &mut LossRecorder<'_>,
    ) -> Fields<'a> {
        if self.owned.is_empty() {
            return fields;
        }
        fields.retain_mut(|(name, json)| {
            let Some(owned) = self.owned.get(&normalized([&**name])) else {
                return true;
            };
            if !owned.whole.is_empty() {
                let is_replaced = owned.whole.iter().any(|place| {
                    matches!(found[*place], FieldOutcome::Value(_))
                        && matches!(self.named[*place].keys.as_slice(), [only] if only == name)
                });
                if !is_replaced {
                    self.record_dropped(&owned.whole, found, name, losses);
                }
                return is_replaced;
            }
            if JsonKind::of(json.as_str()) == JsonKind::Object {
                let inside = owned.inside.iter();
                let keys: Vec<_> =
                    inside.map(|place| (*place, &self.named[*place].keys[1..])).collect();
                let left = self.strip(json.as_str(), &keys, found, losses);
                if let Some(left) = left {
                    *json = Json::from_valid_unchecked(left);
                }
            }
            true
        });
        fields
    }

    /// The object without the entries that nested fields own; `None` if it has none of them.
    fn strip(
        &self,
        raw: &str,
        fields: &[(usize, &[String])],
        found: &[FieldOutcome<Json<'_>>],
        losses: &mut LossRecorder<'_>,
    ) -> Option<String> {
        let mut kept = Vec::new();
        let mut changed = false;
        for (name, json) in json::entries(raw)? {
            let normalized_name = normalized([&*name]);
            let is_whole =
                |keys: &[String]| normalized(keys.iter().map(String::as_str)) == normalized_name;
            let whole: Vec<usize> =
                fields.iter().filter(|(_, keys)| is_whole(keys)).map(|(place, _)| *place).collect();
            if !whole.is_empty() {
                changed = true;
                self.record_dropped(&whole, found, &name, losses);
                continue;
            }
            let inside: Vec<_> = fields
                .iter()
                .filter(|(_, keys)| keys.len() > 1 && is_whole(&keys[..1]))
                .map(|(place, keys)| (*place, &keys[1..]))
                .collect();
            let stripped =
                match inside.is_empty() || JsonKind::of(json.as_str()) != JsonKind::Object {
                    true => None,
                    false => self.strip(json.as_str(), &inside, found, losses),
                };
            changed |= stripped.is_some();
            kept.push((name, stripped.map_or(json, Json::from_valid_unchecked)));
        }
        changed.then(|| json::render_object(&kept))
    }

    /// Counts a value of a spread that is dropped and not replaced. A failed field is counted already.
    fn record_dropped(
        &self,
        places: &[usize],
        found: &[FieldOutcome<Json<'_>>],
        name: &str,
        losses: &mut LossRecorder<'_>,
    ) {
        if let Some(place) =
            places.iter().find(|place| matches!(found[**place], FieldOutcome::Missing))
            && places.iter().all(|place| matches!(found[*place], FieldOutcome::Missing))
        {
            let reason = format!(
                "the spread's {} is dropped: the name has its own field, which found no value",
                json::excerpt(&format!("{name:?}"))
            );
            let label = &self.named[*place].field.label;
            losses.stats.lose(losses.rule, label, LossKind::OwnedName, reason);
        }
    }
}

impl ElementTemplate for ObjectTemplate {
    fn build_element<'a>(
        &self,
        context: &EvalContext<'_, 'a>,
        losses: &mut LossRecorder<'_>,
    ) -> Result<Object<'a>, MappingError> {
        self.build(context, losses)
    }
}

/// Merges two objects; entries of `more` win.
fn merge_over<'a>(object: Object<'a>, more: Object<'a>) -> Object<'a> {
    let mut set = NamedValues::from_unique(object.into_fields());
    for (name, value) in more.into_fields() {
        set.insert(name, value);
    }
    Object::Parsed(set.into_fields())
}

/// Renders an object of the leaves, merged over an object if there is one.
fn merge_nested(below: Option<&str>, leaves: &[Leaf<'_, '_>]) -> String {
    let mut set = NamedValues::default();
    if let Some(entries) = below.and_then(json::entries) {
        set = NamedValues::from_unique(entries);
    }
    let mut done: Vec<&str> = Vec::new();
    for (keys, value) in leaves {
        let Some((first, rest)) = keys.split_first() else {
            continue;
        };
        if done.contains(&first.as_str()) {
            continue;
        }
        done.push(first);
        let rendered = if rest.is_empty() {
            value.as_str().to_owned()
        } else {
            let inner: Vec<Leaf<'_, '_>> = leaves
                .iter()
                .filter(|(keys, _)| keys.first() == Some(first))
                .map(|(keys, value)| (&keys[1..], value.clone()))
                .collect();
            let base = set.get(first).map(Json::as_str);
            merge_nested(base.filter(|raw| JsonKind::of(raw) == JsonKind::Object), &inner)
        };
        set.insert(Cow::Owned(first.clone()), Json::from_valid_unchecked(rendered));
    }
    json::render_object(&set.into_fields())
}
