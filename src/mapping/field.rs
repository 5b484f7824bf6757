//! The program of one field: where its value comes from and what is done with it, step by step.
//!
//! Invariant: steps run in one order, `split`, `then`, `replace`, `as`, `map`, `each`, `join`,
//! `only`, `except`, `rename`, `flatten`, `default`, whatever the order they are written in.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use regex::Regex;

use super::RuleId;
use super::condition::Condition;
use super::convert;
use super::datum::Datum;
use super::env::{Env, Ref};
use super::fault::{LossKind, MapStats, RecordFault, RecordFaultCode};
use super::fields::FieldSet;
use super::functions;
use super::json::{self, Kind};
use super::object::ObjectProgram;
use super::template::Template;
use super::trie::{Slots, Trie};
use crate::call::{Fields, Json, Object};
use crate::config::mapping::{Function, TargetType};

/// How deep `flatten` goes; what lies deeper stays as it is.
const FLATTEN_DEPTH: usize = 64;

/// Where a value comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// The first of these that is there.
    Paths(Vec<Ref>),
    /// JSON text of a literal.
    Literal(Box<str>),
    Template(Template<Ref>),
    /// The first whose condition holds.
    Cases(Vec<(Option<Condition>, Source)>),
}

/// The steps behind the source.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) split: Option<Box<str>>,
    pub(super) then: Vec<Function>,
    pub(super) replace: Vec<(Regex, Box<str>)>,
    pub(super) cast: Option<TargetType>,
    /// The strptime format of `cast`.
    pub(super) format: Option<Box<str>>,
    pub(super) map: Option<HashMap<Box<str>, Box<str>>>,
    pub(super) map_default: Option<Box<str>>,
    pub(super) each: Option<Each>,
    pub(super) join: Option<Box<str>>,
    pub(super) only: Option<HashSet<Box<str>>>,
    pub(super) except: Option<HashSet<Box<str>>>,
    pub(super) rename: Option<HashMap<Box<str>, Box<str>>>,
    pub(super) flatten: Option<Box<str>>,
}

/// The shape of an array's elements.
#[derive(Debug)]
pub(super) struct Each {
    pub(super) trie: Trie,
    pub(super) object: ObjectProgram,
}

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    /// The target, as it is written.
    pub(super) label: Box<str>,
    pub(super) source: Source,
    /// `None` where nothing is done with the value.
    pub(super) steps: Option<Box<Steps>>,
    /// JSON text of what a missing field becomes.
    pub(super) default: Option<Box<str>>,
    pub(super) required: bool,
}

/// Why a step gave no value.
pub(super) enum Trouble {
    /// The value is left out and counted.
    Loss(LossKind, String),
    /// The record goes to the dead letters.
    Fault(RecordFault),
}

impl From<RecordFault> for Trouble {
    fn from(fault: RecordFault) -> Self {
        Self::Fault(fault)
    }
}

fn conversion(reason: impl Into<String>) -> Trouble {
    Trouble::Loss(LossKind::Conversion, reason.into())
}

type Step<'a> = Result<Option<Datum<'a>>, Trouble>;

/// Where losses are written down.
pub(super) struct Ledger<'s> {
    pub(super) stats: &'s mut MapStats,
    pub(super) rule: RuleId,
}

impl Field {
    /// The field's value, brought into its final form by `finish`. A failure is counted, and is a
    /// fault where the field is required.
    pub(super) fn eval<'a, T>(
        &self,
        env: &Env<'_, 'a>,
        ledger: &mut Ledger<'_>,
        finish: impl Fn(Datum<'a>) -> Result<Option<T>, String>,
    ) -> Result<Option<T>, RecordFault> {
        let finish = |datum| finish(datum).map_err(conversion);
        let found = self.value(env, ledger).and_then(|found| match found {
            Some(datum) => finish(datum),
            None => Ok(None),
        });
        let found = match found {
            Ok(found) => found,
            Err(Trouble::Fault(fault)) => return Err(fault),
            Err(Trouble::Loss(_, reason)) if self.required => {
                return Err(self.fault(RecordFaultCode::ConversionFailed, reason));
            }
            Err(Trouble::Loss(kind, reason)) => {
                ledger.stats.lose(ledger.rule, &self.label, kind, reason);
                None
            }
        };
        if found.is_some() {
            return Ok(found);
        }
        if self.required {
            return Err(
                self.fault(RecordFaultCode::MissingRequired, "the required field is missing")
            );
        }
        let default = self.default.as_deref().map(str::to_owned);
        match default.and_then(Datum::from_json).map(finish) {
            Some(Ok(found)) => Ok(found),
            Some(Err(Trouble::Loss(kind, reason))) => {
                ledger.stats.lose(ledger.rule, &self.label, kind, reason);
                Ok(None)
            }
            Some(Err(Trouble::Fault(fault))) => Err(fault),
            None => Ok(None),
        }
    }

    fn fault(&self, code: RecordFaultCode, reason: impl Into<String>) -> RecordFault {
        RecordFault::new(code, reason).at(&self.label, self.source.shown())
    }

    fn value<'a>(&self, env: &Env<'_, 'a>, ledger: &mut Ledger<'_>) -> Step<'a> {
        let found = self.source.read(env);
        match (found, &self.steps) {
            (Some(datum), Some(steps)) => steps.run(datum, env, ledger),
            (found, _) => Ok(found),
        }
    }
}

impl Source {
    fn read<'a>(&self, env: &Env<'_, 'a>) -> Option<Datum<'a>> {
        match self {
            Self::Paths(paths) => {
                let raw = paths.iter().find_map(|path| env.get(path))?;
                Some(Datum::Json(Cow::Borrowed(raw)))
            }
            Self::Literal(text) => Some(Datum::Json(Cow::Owned(text.to_string()))),
            Self::Template(template) => {
                let text = template.render(|path| env.get(path))?;
                Some(Datum::Text(text.into()))
            }
            Self::Cases(cases) => {
                let holds = |when: &Option<Condition>| when.as_ref().is_none_or(|w| w.holds(env));
                let (_, source) = cases.iter().find(|(when, _)| holds(when))?;
                source.read(env)
            }
        }
    }

    /// The paths, for messages.
    fn shown(&self) -> Option<String> {
        let list = |paths: Vec<&str>| (!paths.is_empty()).then(|| paths.join(", "));
        match self {
            Self::Paths(paths) => list(paths.iter().map(|p| &*p.shown).collect()),
            Self::Literal(_) => None,
            Self::Template(template) => list(template.paths().map(|p| &*p.shown).collect()),
            Self::Cases(cases) => {
                let all: Vec<_> = cases.iter().filter_map(|(_, s)| s.shown()).collect();
                list(all.iter().map(String::as_str).collect())
            }
        }
    }
}

impl Steps {
    fn run<'a>(&self, datum: Datum<'a>, env: &Env<'_, 'a>, ledger: &mut Ledger<'_>) -> Step<'a> {
        let mut at = match &self.split {
            Some(separator) => self.split(separator, datum)?,
            None => self.text_steps(datum)?,
        };
        if let Some(cast) = self.cast {
            let Some(datum) = at else { return Ok(None) };
            at = convert::convert(cast, self.format.as_deref(), datum).map_err(conversion)?;
        }
        if let Some(map) = &self.map {
            at = at.map(|datum| self.look_up(map, datum)).transpose()?.flatten();
        }
        let Some(mut datum) = at else {
            return Ok(None);
        };
        if let Some(each) = &self.each {
            datum = each.run(datum, env, ledger)?;
        }
        if let Some(separator) = &self.join {
            datum = join(separator, datum)?;
        }
        if self.shapes_objects() {
            datum = Datum::Object(self.shape(datum)?);
        }
        Ok(Some(datum))
    }

    /// Splits text, and runs the functions and replacements on every part. Empty text has no parts.
    fn split<'a>(&self, separator: &str, datum: Datum<'a>) -> Step<'a> {
        let text = datum.into_text().map_err(|other| {
            conversion(format!("`split` does not apply to {}", other.kind().name()))
        })?;
        let parts = text.split(separator).filter(|_| !text.is_empty());
        let mut rendered = Vec::new();
        for part in parts {
            if let Some(part) = self.text_steps(Datum::Text(part.into()))? {
                rendered.push(part.into_raw());
            }
        }
        Ok(Some(Datum::Json(json::render_array(&rendered).into())))
    }

    fn text_steps<'a>(&self, datum: Datum<'a>) -> Step<'a> {
        let mut at = Some(datum);
        for function in &self.then {
            let Some(datum) = at else { break };
            at = functions::apply(*function, datum).map_err(conversion)?;
        }
        let Some(datum) = at.take_if(|_| !self.replace.is_empty()) else {
            return Ok(at);
        };
        let mut text = datum.into_text().map_err(|other| {
            conversion(format!("`replace` does not apply to {}", other.kind().name()))
        })?;
        for (regex, with) in &self.replace {
            if let Cow::Owned(replaced) = regex.replace_all(&text, &**with) {
                text = Cow::Owned(replaced);
            }
        }
        Ok(Some(Datum::Text(text)))
    }

    fn look_up<'a>(&self, map: &HashMap<Box<str>, Box<str>>, datum: Datum<'a>) -> Step<'a> {
        let found = datum.text().and_then(|text| map.get(&*text));
        match found.or(self.map_default.as_ref()) {
            Some(literal) => Ok(Datum::from_json(literal.to_string())),
            None => Err(Trouble::Loss(
                LossKind::MapMiss,
                format!("`map` has no entry for {}", datum.describe()),
            )),
        }
    }

    /// Whether no step is given.
    pub(super) fn is_empty(&self) -> bool {
        self.split.is_none()
            && self.then.is_empty()
            && self.replace.is_empty()
            && self.cast.is_none()
            && self.map.is_none()
            && self.each.is_none()
            && self.join.is_none()
            && !self.shapes_objects()
    }

    fn shapes_objects(&self) -> bool {
        self.only.is_some()
            || self.except.is_some()
            || self.rename.is_some()
            || self.flatten.is_some()
    }

    fn shape<'a>(&self, datum: Datum<'a>) -> Result<Fields<'a>, Trouble> {
        let mut fields = datum
            .into_entries()
            .map_err(|other| conversion(format!("{} is no object", other.kind().name())))?;
        if let Some(only) = &self.only {
            fields.retain(|(name, _)| only.contains(&**name));
        }
        if let Some(except) = &self.except {
            fields.retain(|(name, _)| !except.contains(&**name));
        }
        if let Some(rename) = &self.rename {
            fields = renamed(fields, rename);
        }
        if let Some(separator) = &self.flatten {
            let mut set = FieldSet::default();
            flatten(None, fields, separator, FLATTEN_DEPTH, &mut set);
            fields = set.into_fields();
        }
        Ok(fields)
    }
}

/// Renames keys. A renamed value replaces one that has its new name already.
fn renamed<'a>(fields: Fields<'a>, rename: &HashMap<Box<str>, Box<str>>) -> Fields<'a> {
    let (moved, kept): (Vec<_>, Vec<_>) =
        fields.into_iter().partition(|(name, _)| rename.contains_key(&**name));
    let mut set = FieldSet::from_unique(kept);
    for (name, value) in moved {
        let new = rename.get(&*name).map_or(name, |new| Cow::Owned(new.to_string()));
        set.insert(new, value);
    }
    set.into_fields()
}

/// Lifts the entries of nested objects up. Arrays stay; an empty object leaves nothing; of two
/// values that get the same name the later one counts.
fn flatten<'a>(
    prefix: Option<&str>,
    fields: Fields<'a>,
    separator: &str,
    depth: usize,
    into: &mut FieldSet<'a>,
) {
    for (name, value) in fields {
        let name = match prefix {
            Some(prefix) => Cow::Owned(format!("{prefix}{separator}{name}")),
            None => name,
        };
        if depth == 0 || Kind::of(value.as_str()) != Kind::Object {
            into.insert(name, value);
            continue;
        }
        match value_entries(value) {
            Ok(inner) => flatten(Some(&name), inner, separator, depth - 1, into),
            Err(value) => into.insert(name, value),
        }
    }
}

/// The entries of a rendered object, owning what they must: `Json` does not give its text away.
fn value_entries<'a>(value: Json<'a>) -> Result<Fields<'a>, Json<'a>> {
    let owned = json::entries(value.as_str()).map(|fields| {
        let own = |(name, value): (Cow<'_, str>, Json<'_>)| {
            (Cow::Owned(name.into_owned()), value.into_owned())
        };
        fields.into_iter().map(own).collect()
    });
    owned.ok_or(value)
}

/// The texts of an array's elements, joined; nulls are skipped.
fn join<'a>(separator: &str, datum: Datum<'a>) -> Result<Datum<'a>, Trouble> {
    let kind = datum.kind().name();
    let raw = datum.into_raw();
    let elements = json::elements(&raw)
        .ok_or_else(|| conversion(format!("`join` does not apply to {kind}")))?;
    let mut out = String::new();
    let mut first = true;
    for element in elements.into_iter().filter(|e| Kind::of(e) != Kind::Null) {
        let text = json::text(element).ok_or_else(|| {
            let kind = Kind::of(element).name();
            conversion(format!("`join` does not apply to a list that holds {kind}"))
        })?;
        if !std::mem::take(&mut first) {
            out.push_str(separator);
        }
        out.push_str(&text);
    }
    Ok(Datum::Text(out.into()))
}

impl Each {
    /// Gives every element but nulls its shape.
    fn run<'a>(
        &self,
        datum: Datum<'a>,
        env: &Env<'_, 'a>,
        ledger: &mut Ledger<'_>,
    ) -> Result<Datum<'a>, Trouble> {
        let kind = datum.kind().name();
        let raw = datum.into_raw();
        let elements = json::elements(&raw)
            .ok_or_else(|| conversion(format!("`each` does not apply to {kind}")))?;
        let mut shaped = Vec::new();
        for element in elements.into_iter().filter(|e| Kind::of(e) != Kind::Null) {
            let slots = Slots::new(&self.trie, element);
            slots.fill().map_err(|error| conversion(error.to_string()))?;
            let inner = Env { record: env.record, meta: env.meta, element: Some(&slots) };
            shaped.push(json::render_object(&self.object.build(&inner, ledger)?.into_fields()));
        }
        Ok(Datum::Json(json::render_array(&shaped).into()))
    }
}

/// A value as the text of an id or a name; empty text is nothing.
pub(super) fn as_text(datum: Datum<'_>) -> Result<Option<Cow<'_, str>>, String> {
    match datum.into_text() {
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(other) => Err(format!("{} is no text", other.kind().name())),
    }
}

/// A value as JSON.
#[expect(clippy::unnecessary_wraps, reason = "one signature for all finishes")]
pub(super) fn as_json(datum: Datum<'_>) -> Result<Option<Json<'_>>, String> {
    Ok(Some(datum.into_json()))
}

/// A value as an object, which stays text where it is that.
pub(super) fn as_object(datum: Datum<'_>) -> Result<Option<Object<'_>>, String> {
    match datum {
        Datum::Json(Cow::Borrowed(text)) if Kind::of(text) == Kind::Object => {
            Ok(Some(Object::Text(text)))
        }
        other => Ok(as_entries(other)?.map(Object::Entries)),
    }
}

/// A value as the entries of an object.
fn as_entries(datum: Datum<'_>) -> Result<Option<Fields<'_>>, String> {
    match datum.into_entries() {
        Ok(fields) => Ok(Some(fields)),
        Err(other) => Err(format!("{} is no object", other.kind().name())),
    }
}
