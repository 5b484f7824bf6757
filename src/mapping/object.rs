//! The program of an object: spreads first, then named fields on top, nested by their dots.

use std::borrow::Cow;

use super::env::Env;
use super::fault::RecordFault;
use super::field::{self, Field, Ledger};
use super::fields::FieldSet;
use super::json::{self, Kind};
use crate::call::{Json, Object};

/// A field with a name of its own: `address.city` is two keys.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) keys: Vec<String>,
    pub(super) field: Field,
}

/// An object's fields. No name is the beginning of another one: the compiler sees to it.
#[derive(Debug, Default)]
pub(super) struct ObjectProgram {
    pub(super) spreads: Vec<Field>,
    pub(super) named: Vec<Named>,
}

/// A value of a nested name, and the keys left to go.
type Leaf<'n, 'a> = (&'n [String], Json<'a>);

impl ObjectProgram {
    /// Evaluates every field. Nulls of spreads are left out. An object that is all there is stays as
    /// it stands in the record.
    pub(super) fn build<'a>(
        &self,
        env: &Env<'_, 'a>,
        ledger: &mut Ledger<'_>,
    ) -> Result<Object<'a>, RecordFault> {
        let mut spread = None;
        for source in &self.spreads {
            let more = source.eval(env, ledger, field::as_object)?;
            spread = match (spread, more) {
                (Some(object), Some(more)) => Some(laid_over(object, more)),
                (object, more) => object.or(more),
            };
        }
        let spread = spread.unwrap_or_default();
        if self.named.is_empty() {
            return Ok(spread);
        }
        let mut set = FieldSet::from_unique(spread.into_fields());
        let mut nested: Vec<(&str, Vec<Leaf<'_, 'a>>)> = Vec::new();
        for named in &self.named {
            let Some(value) = named.field.eval(env, ledger, field::as_json)? else {
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
            let rendered = overlay(below, &leaves);
            set.insert(Cow::Owned(top.to_owned()), Json::trusted(rendered));
        }
        Ok(Object::Entries(set.into_fields()))
    }
}

/// One object with the entries of another, which win.
fn laid_over<'a>(object: Object<'a>, more: Object<'a>) -> Object<'a> {
    let mut set = FieldSet::from_unique(object.into_fields());
    for (name, value) in more.into_fields() {
        set.insert(name, value);
    }
    Object::Entries(set.into_fields())
}

/// Renders an object of the leaves, laid over the object below, if there is one.
fn overlay(below: Option<&str>, leaves: &[Leaf<'_, '_>]) -> String {
    let mut set = FieldSet::default();
    if let Some(entries) = below.and_then(json::entries) {
        set = FieldSet::from_unique(entries);
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
            overlay(base.filter(|raw| Kind::of(raw) == Kind::Object), &inner)
        };
        set.insert(Cow::Owned(first.clone()), Json::trusted(rendered));
    }
    json::render_object(&set.into_fields())
}
