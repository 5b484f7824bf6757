//! A field of a call: the source of its value, and the steps that convert it.
//!
//! # Invariants
//! Steps run in a fixed order, whatever their order in the file: `split`, `then`, `replace`, `as`,
//! `map`, `each`, `join`, `only`, `except`, `rename`, `flatten`, `default`.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use jiff::tz::TimeZone;
use regex::Regex;

use super::RuleId;
use super::condition::CompiledCondition;
use super::convert::{self, TimeFormat};
use super::error::{LossKind, MapStats, MappingError, MappingErrorCode};
use super::eval_context::{EvalContext, PathRef};
use super::functions::FunctionStep;
use super::json::{self, JsonKind};
use super::json_value::JsonValue;
use super::named_values::NamedValues;
use super::path_trie::{ExtractedPaths, Trie};
use super::template::Template;
use crate::call::{Fields, Json, Object, trimmed};
use crate::coerce::number::plain_whole;
use crate::config::mapping::{OnFailure, TargetType};

/// Levels that `flatten` flattens; deeper objects stay values.
const FLATTEN_DEPTH: usize = 64;

/// The source of a value.
#[derive(Debug)]
pub(super) enum ValueSource {
    /// The first path with a value.
    Paths(Vec<PathRef>),
    /// JSON text of a literal.
    Literal(Box<str>),
    Template(Template<PathRef>),
    /// The first whose condition holds.
    Cases(Vec<(Option<CompiledCondition>, ValueSource)>),
}

/// The steps after the source.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) split: Option<Box<str>>,
    pub(super) then: Vec<FunctionStep>,
    pub(super) replace: Vec<(Regex, Box<str>)>,
    pub(super) cast: Option<TargetType>,
    /// The strptime format of `cast`.
    pub(super) format: Option<Box<str>>,
    /// The zone of timestamps without one that `cast` reads.
    pub(super) zone: Option<TimeZone>,
    pub(super) map: Option<HashMap<Box<str>, Box<str>>>,
    pub(super) map_default: Option<Box<str>>,
    pub(super) each: Option<ElementShape>,
    pub(super) join: Option<Box<str>>,
    pub(super) only: Option<HashSet<Box<str>>>,
    pub(super) except: Option<HashSet<Box<str>>>,
    pub(super) rename: Option<HashMap<Box<str>, Box<str>>>,
    pub(super) flatten: Option<Box<str>>,
}

/// How `each` converts the elements of an array to objects.
#[derive(Debug)]
pub(super) struct ElementShape {
    pub(super) trie: Trie,
    pub(super) object: Box<dyn ElementTemplate>,
}

/// The template of the object that `each` makes of an element. A trait, because a field's template
/// is part of an object's template and must not depend on it.
pub(super) trait ElementTemplate: std::fmt::Debug + Send + Sync {
    /// The object of the element in `context`.
    fn build_element<'a>(
        &self,
        context: &EvalContext<'_, 'a>,
        losses: &mut LossRecorder<'_>,
    ) -> Result<Object<'a>, MappingError>;
}

/// One field.
#[derive(Debug)]
pub(super) struct FieldTemplate {
    /// The target as written.
    pub(super) label: Box<str>,
    pub(super) source: ValueSource,
    /// `None` if the value is used unchanged.
    pub(super) steps: Option<Box<Steps>>,
    /// JSON text of the value if it is missing.
    pub(super) default: Option<Box<str>>,
    pub(super) required: bool,
    /// What a failed step does.
    pub(super) on_failure: OnFailure,
}

/// The result of evaluating a field.
pub(super) enum FieldOutcome<T> {
    /// A value.
    Value(T),
    /// Its source has no value.
    Missing,
    /// A step failed, and the loss is recorded.
    Failed,
}

impl<T> FieldOutcome<T> {
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Missing | Self::Failed => None,
        }
    }
}

/// Why a step returned no value.
pub(super) enum StepError {
    /// The value is dropped and counted.
    Skip(LossKind, String),
    /// The record goes to the dead letters.
    Reject(MappingError),
}

impl From<MappingError> for StepError {
    fn from(fault: MappingError) -> Self {
        Self::Reject(fault)
    }
}

fn conversion(reason: impl Into<String>) -> StepError {
    StepError::Skip(LossKind::Conversion, reason.into())
}

type StepResult<'a> = Result<Option<JsonValue<'a>>, StepError>;

/// Records dropped values of one rule.
pub(super) struct LossRecorder<'s> {
    pub(super) stats: &'s mut MapStats,
    pub(super) rule: RuleId,
}

impl FieldTemplate {
    /// The value, converted by `finish`. A failed step is counted, and is an error if the field
    /// requires it.
    pub(super) fn eval<'a, T>(
        &self,
        context: &EvalContext<'_, 'a>,
        losses: &mut LossRecorder<'_>,
        finish: impl Fn(JsonValue<'a>) -> Result<Option<T>, String>,
    ) -> Result<Option<T>, MappingError> {
        self.find(context, losses, finish).map(FieldOutcome::value)
    }

    /// As [`Self::eval`], but distinguishes a missing value from a failed step.
    pub(super) fn find<'a, T>(
        &self,
        context: &EvalContext<'_, 'a>,
        losses: &mut LossRecorder<'_>,
        finish: impl Fn(JsonValue<'a>) -> Result<Option<T>, String>,
    ) -> Result<FieldOutcome<T>, MappingError> {
        let finish = |datum| finish(datum).map_err(conversion);
        let found = self.value(context, losses).and_then(|found| match found {
            Some(datum) => finish(datum),
            None => Ok(None),
        });
        let missing = match found {
            Ok(Some(value)) => return Ok(FieldOutcome::Value(value)),
            Ok(None) => FieldOutcome::Missing,
            Err(StepError::Reject(fault)) => return Err(fault),
            Err(StepError::Skip(_, reason)) if self.on_failure == OnFailure::DeadLetter => {
                return Err(self.fault(MappingErrorCode::ConversionFailed, reason));
            }
            Err(StepError::Skip(kind, mut reason)) => {
                if self.on_failure == OnFailure::Now {
                    reason.push_str("; the call happens now");
                }
                losses.stats.lose(losses.rule, &self.label, kind, reason);
                FieldOutcome::Failed
            }
        };
        if self.required
            && !(self.on_failure == OnFailure::Now && matches!(missing, FieldOutcome::Failed))
        {
            return Err(
                self.fault(MappingErrorCode::MissingRequired, "the required field is missing")
            );
        }
        let default = self.default.as_deref().map(str::to_owned);
        match default.and_then(JsonValue::from_json).map(finish) {
            Some(Ok(Some(value))) => Ok(FieldOutcome::Value(value)),
            Some(Err(StepError::Skip(kind, reason))) => {
                losses.stats.lose(losses.rule, &self.label, kind, reason);
                Ok(FieldOutcome::Failed)
            }
            Some(Err(StepError::Reject(fault))) => Err(fault),
            Some(Ok(None)) | None => Ok(missing),
        }
    }

    fn fault(&self, code: MappingErrorCode, reason: impl Into<String>) -> MappingError {
        MappingError::new(code, reason).at(&self.label, self.source.shown())
    }

    fn value<'a>(
        &self,
        context: &EvalContext<'_, 'a>,
        losses: &mut LossRecorder<'_>,
    ) -> StepResult<'a> {
        let found = self.source.read(context);
        match (found, &self.steps) {
            (Some(datum), Some(steps)) => steps.run(datum, context, losses),
            (found, _) => Ok(found),
        }
    }
}

impl ValueSource {
    fn read<'a>(&self, context: &EvalContext<'_, 'a>) -> Option<JsonValue<'a>> {
        match self {
            Self::Paths(paths) => {
                let raw = paths.iter().find_map(|path| context.get(path))?;
                Some(JsonValue::Json(Cow::Borrowed(raw)))
            }
            Self::Literal(text) => Some(JsonValue::Json(Cow::Owned(text.to_string()))),
            Self::Template(template) => {
                let text = template.render(|path| context.get(path))?;
                Some(JsonValue::Text(text.into()))
            }
            Self::Cases(cases) => {
                let holds = |when: &Option<CompiledCondition>| {
                    when.as_ref().is_none_or(|w| w.holds(context))
                };
                let (_, source) = cases.iter().find(|(when, _)| holds(when))?;
                source.read(context)
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
    fn run<'a>(
        &self,
        datum: JsonValue<'a>,
        context: &EvalContext<'_, 'a>,
        losses: &mut LossRecorder<'_>,
    ) -> StepResult<'a> {
        let mut at = match &self.split {
            Some(separator) => self.split(separator, datum)?,
            None => self.text_steps(datum)?,
        };
        if let Some(cast) = self.cast {
            let Some(datum) = at else { return Ok(None) };
            let strptime = self.format.as_deref();
            let zone = self.zone.as_ref().unwrap_or_else(|| context.zone.get());
            at =
                convert::convert(cast, TimeFormat { strptime, zone }, datum).map_err(conversion)?;
        }
        if let Some(map) = &self.map {
            at = at.map(|datum| self.look_up(map, datum)).transpose()?.flatten();
        }
        let Some(mut datum) = at else {
            return Ok(None);
        };
        if let Some(each) = &self.each {
            datum = each.run(datum, context, losses)?;
        }
        if let Some(separator) = &self.join {
            datum = join(separator, datum)?;
        }
        if self.shapes_objects() {
            datum = JsonValue::Object(self.shape(datum)?);
        }
        Ok(Some(datum))
    }

    /// Splits a string and runs functions and replacements on every part. An empty string has no
    /// parts.
    fn split<'a>(&self, separator: &str, datum: JsonValue<'a>) -> StepResult<'a> {
        let text = datum.into_text().map_err(|other| {
            conversion(format!("`split` does not apply to {}", other.kind().name()))
        })?;
        let parts = text.split(separator).filter(|_| !text.is_empty());
        let mut rendered = Vec::new();
        for part in parts {
            if let Some(part) = self.text_steps(JsonValue::Text(part.into()))? {
                rendered.push(part.into_raw());
            }
        }
        Ok(Some(JsonValue::Json(json::render_array(&rendered).into())))
    }

    fn text_steps<'a>(&self, datum: JsonValue<'a>) -> StepResult<'a> {
        let mut at = Some(datum);
        for function in &self.then {
            let Some(datum) = at else { break };
            at = function.apply(datum).map_err(conversion)?;
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
        Ok(Some(JsonValue::Text(text)))
    }

    fn look_up<'a>(
        &self,
        map: &HashMap<Box<str>, Box<str>>,
        datum: JsonValue<'a>,
    ) -> StepResult<'a> {
        let found = datum.text().and_then(|text| map.get(&*text));
        match found.or(self.map_default.as_ref()) {
            Some(literal) => Ok(JsonValue::from_json(literal.to_string())),
            None => Err(StepError::Skip(
                LossKind::MapMiss,
                format!("`map` has no entry for {}", datum.describe()),
            )),
        }
    }

    /// Whether there is no step.
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

    fn shape<'a>(&self, datum: JsonValue<'a>) -> Result<Fields<'a>, StepError> {
        let mut fields = datum
            .into_entries()
            .map_err(|other| conversion(format!("{} is not an object", other.kind().name())))?;
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
            let mut set = NamedValues::default();
            flatten(None, fields, separator, FLATTEN_DEPTH, &mut set);
            fields = set.into_fields();
        }
        Ok(fields)
    }
}

/// Renames keys. A renamed value replaces one that already has its new name.
fn renamed<'a>(fields: Fields<'a>, rename: &HashMap<Box<str>, Box<str>>) -> Fields<'a> {
    let (moved, kept): (Vec<_>, Vec<_>) =
        fields.into_iter().partition(|(name, _)| rename.contains_key(&**name));
    let mut set = NamedValues::from_unique(kept);
    for (name, value) in moved {
        let new = rename.get(&*name).map_or(name, |new| Cow::Owned(new.to_string()));
        set.insert(new, value);
    }
    set.into_fields()
}

/// Flattens nested objects. Arrays stay; empty objects are removed; of two values with the same
/// name the later one counts.
fn flatten<'a>(
    prefix: Option<&str>,
    fields: Fields<'a>,
    separator: &str,
    depth: usize,
    into: &mut NamedValues<'a>,
) {
    for (name, value) in fields {
        let name = match prefix {
            Some(prefix) => Cow::Owned(format!("{prefix}{separator}{name}")),
            None => name,
        };
        if depth == 0 || JsonKind::of(value.as_str()) != JsonKind::Object {
            into.insert(name, value);
            continue;
        }
        match value_entries(value) {
            Ok(inner) => flatten(Some(&name), inner, separator, depth - 1, into),
            Err(value) => into.insert(name, value),
        }
    }
}

/// The entries of an object, owned.
fn value_entries<'a>(value: Json<'a>) -> Result<Fields<'a>, Json<'a>> {
    let owned = json::entries(value.as_str()).map(|fields| {
        let own = |(name, value): (Cow<'_, str>, Json<'_>)| {
            (Cow::Owned(name.into_owned()), value.into_owned())
        };
        fields.into_iter().map(own).collect()
    });
    owned.ok_or(value)
}

/// Joins the scalars of an array; nulls are skipped.
fn join<'a>(separator: &str, datum: JsonValue<'a>) -> Result<JsonValue<'a>, StepError> {
    let kind = datum.kind().name();
    let raw = datum.into_raw();
    let elements = json::elements(&raw)
        .ok_or_else(|| conversion(format!("`join` does not apply to {kind}")))?;
    let mut out = String::new();
    let mut first = true;
    for element in elements.into_iter().filter(|e| JsonKind::of(e) != JsonKind::Null) {
        let text = json::text(element).ok_or_else(|| {
            let kind = JsonKind::of(element).name();
            conversion(format!("`join` does not apply to a list that holds {kind}"))
        })?;
        if !std::mem::take(&mut first) {
            out.push_str(separator);
        }
        out.push_str(&text);
    }
    Ok(JsonValue::Text(out.into()))
}

impl ElementShape {
    /// Converts every element but nulls.
    fn run<'a>(
        &self,
        datum: JsonValue<'a>,
        context: &EvalContext<'_, 'a>,
        losses: &mut LossRecorder<'_>,
    ) -> Result<JsonValue<'a>, StepError> {
        let kind = datum.kind().name();
        let raw = datum.into_raw();
        let elements = json::elements(&raw)
            .ok_or_else(|| conversion(format!("`each` does not apply to {kind}")))?;
        let mut shaped = Vec::new();
        for element in elements.into_iter().filter(|e| JsonKind::of(e) != JsonKind::Null) {
            let slots = ExtractedPaths::new(&self.trie, element);
            slots.fill().map_err(|error| conversion(error.to_string()))?;
            let inner = EvalContext { element: Some(&slots), ..*context };
            shaped.push(json::render_object(
                &self.object.build_element(&inner, losses)?.into_fields(),
            ));
        }
        Ok(JsonValue::Json(json::render_array(&shaped).into()))
    }
}

/// Strings that programs write in place of a missing id. Used as ids they would put all such users
/// into one profile.
const NULL_ID_SPELLINGS: [&str; 8] = [
    "null",
    "undefined",
    "NaN",
    "None",
    "true",
    "false",
    "[object Object]",
    "00000000-0000-0000-0000-000000000000",
];

/// A value as an id. Integers are written without fraction (`12.0` is `12`); NULs are removed, as
/// databases do; a blank string is missing.
pub(super) fn as_id(datum: JsonValue<'_>) -> Result<Option<Cow<'_, str>>, String> {
    match datum.kind() {
        JsonKind::String => {}
        JsonKind::Number => {
            let text = datum.into_text().unwrap_or_default();
            let whole = plain_whole(&text).map(|whole| Cow::Owned(whole.into_owned()));
            return Ok(Some(whole.unwrap_or(text)));
        }
        other => return Err(format!("{} is not an id", other.name())),
    }
    let mut text = datum.into_text().unwrap_or_default();
    if text.contains('\0') {
        text = Cow::Owned(text.replace('\0', ""));
    }
    let word = trimmed(&text);
    if word.is_empty() {
        return Ok(None);
    }
    match NULL_ID_SPELLINGS.contains(&word) {
        true => Err(format!("{word:?} is what programs write for a missing id")),
        false => Ok(Some(text)),
    }
}

/// A value as a message id. Zero, which many messages share, is missing.
pub(super) fn as_message_id(datum: JsonValue<'_>) -> Result<Option<Cow<'_, str>>, String> {
    let id = as_id(datum)?;
    let is_zero = |id: &str| id.bytes().all(|byte| matches!(byte, b'0' | b'-'));
    Ok(id.filter(|id| !is_zero(trimmed(id))))
}

/// A value as a name; an empty string is missing.
pub(super) fn as_text(datum: JsonValue<'_>) -> Result<Option<Cow<'_, str>>, String> {
    match datum.into_text() {
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(other) => Err(format!("{} is not a string", other.kind().name())),
    }
}

/// A value as JSON.
#[expect(clippy::unnecessary_wraps, reason = "one signature for all conversions")]
pub(super) fn as_json(datum: JsonValue<'_>) -> Result<Option<Json<'_>>, String> {
    Ok(Some(datum.into_json()))
}

/// A value as an object; JSON text stays unparsed.
pub(super) fn as_object(datum: JsonValue<'_>) -> Result<Option<Object<'_>>, String> {
    match datum {
        JsonValue::Json(Cow::Borrowed(text)) if JsonKind::of(text) == JsonKind::Object => {
            Ok(Some(Object::Raw(text)))
        }
        other => Ok(as_entries(other)?.map(Object::Parsed)),
    }
}

/// A value as the entries of an object.
fn as_entries(datum: JsonValue<'_>) -> Result<Option<Fields<'_>>, String> {
    match datum.into_entries() {
        Ok(fields) => Ok(Some(fields)),
        Err(other) => Err(format!("{} is not an object", other.kind().name())),
    }
}
