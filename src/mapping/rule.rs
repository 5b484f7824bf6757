//! A compiled rule: its condition and the call that it makes.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::condition::CompiledCondition;
use super::convert::{self, TimeFormat};
use super::error::{LossKind, MappingError, MappingErrorCode};
use super::eval_context::{EvalContext, PathRef};
use super::explain::RuleObserver;
use super::field::{self, FieldTemplate, LossRecorder};
use super::json::{self, JsonKind};
use super::json_value::JsonValue;
use super::object::ObjectTemplate;
use super::path_trie::{ExtractedPaths, Trie};
use super::{Mapped, MappedCall, RuleId};
use crate::call::{Call, CallKind};

#[derive(Debug)]
pub(super) struct CompiledRule {
    pub(super) name: Box<str>,
    pub(super) when: Option<CompiledCondition>,
    pub(super) foreach: Option<Foreach>,
    pub(super) stop: bool,
    pub(super) call: CallTemplate,
}

/// The array of a rule, and the paths that are read from its elements.
#[derive(Debug)]
pub(super) struct Foreach {
    pub(super) path: PathRef,
    pub(super) trie: Trie,
}

/// The fields of a call.
#[derive(Debug)]
pub(super) struct CallTemplate {
    pub(super) kind: CallKind,
    pub(super) user_id: Option<FieldTemplate>,
    pub(super) anonymous_id: Option<FieldTemplate>,
    pub(super) message_id: Option<FieldTemplate>,
    pub(super) timestamp: Option<TimestampField>,
    pub(super) name: Option<FieldTemplate>,
    pub(super) category: Option<FieldTemplate>,
    pub(super) group_id: Option<FieldTemplate>,
    pub(super) previous_id: Option<FieldTemplate>,
    pub(super) user_key: Option<FieldTemplate>,
    pub(super) fields: ObjectTemplate,
    pub(super) context: ObjectTemplate,
}

/// The `timestamp` of a call.
#[derive(Debug)]
pub(super) struct TimestampField {
    pub(super) field: FieldTemplate,
    pub(super) format: Option<Box<str>>,
    pub(super) zone: Option<TimeZone>,
}

impl TimestampField {
    fn read(
        &self,
        context: &EvalContext<'_, '_>,
        datum: &JsonValue<'_>,
    ) -> Result<Option<Timestamp>, String> {
        // Many systems write a blank string for a missing timestamp.
        if let Some(text) = datum.text()
            && text.trim().is_empty()
        {
            return Ok(None);
        }
        let strptime = self.format.as_deref();
        let zone = self.zone.as_ref().unwrap_or_else(|| context.zone.get());
        convert::timestamp(datum, TimeFormat { strptime, zone }).map(Some)
    }
}

/// Whether a rule fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fired {
    Yes,
    No,
}

impl CompiledRule {
    /// Runs the rule and adds its calls to `mapped`.
    pub(super) fn run<'r>(
        &self,
        id: RuleId,
        context: &EvalContext<'_, 'r>,
        mapped: &mut Mapped<'r>,
        observer: &mut impl RuleObserver,
    ) -> Result<Fired, MappingError> {
        let fired = match &self.foreach {
            Some(foreach) => self.run_each(id, foreach, context, mapped, observer),
            None => self.run_once(id, 0, context, mapped, observer),
        };
        fired.map_err(|fault| fault.in_rule(&self.name))
    }

    fn run_once<'r>(
        &self,
        id: RuleId,
        element: u32,
        context: &EvalContext<'_, 'r>,
        mapped: &mut Mapped<'r>,
        observer: &mut impl RuleObserver,
    ) -> Result<Fired, MappingError> {
        if let Some(when) = self.when.as_ref().filter(|when| !when.holds(context)) {
            observer.not_fired(|| when.why_not(context).unwrap_or_default());
            observer.nearness(|| when.nearness(context));
            return Ok(Fired::No);
        }
        let mut losses = LossRecorder { stats: &mut mapped.stats, rule: id };
        let call = self.call.build(context, &mut losses)?;
        mapped.add(MappedCall { call, rule: id, element })?;
        Ok(Fired::Yes)
    }

    fn run_each<'r>(
        &self,
        id: RuleId,
        foreach: &Foreach,
        context: &EvalContext<'_, 'r>,
        mapped: &mut Mapped<'r>,
        observer: &mut impl RuleObserver,
    ) -> Result<Fired, MappingError> {
        let Some(raw) = context.get(&foreach.path) else {
            observer.not_fired(|| format!("`{}` is missing", foreach.path.shown));
            return Ok(Fired::No);
        };
        let Some(elements) = json::elements(raw) else {
            let found = JsonKind::of(raw).name();
            let reason = format!("`{}` is {found}, not an array", foreach.path.shown);
            observer.not_fired(|| reason.clone());
            mapped.stats.lose(id, "foreach", LossKind::NotAnArray, reason);
            return Ok(Fired::No);
        };
        if elements.is_empty() {
            observer.not_fired(|| format!("`{}` is an empty array", foreach.path.shown));
        }
        let mut fired = Fired::No;
        for (n, element) in elements.into_iter().enumerate() {
            let slots = ExtractedPaths::new(&foreach.trie, element);
            slots.fill().map_err(|error| {
                MappingError::new(MappingErrorCode::InvalidJson, error.to_string())
            })?;
            let context = EvalContext { element: Some(&slots), ..*context };
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            let once = self.run_once(id, n, &context, mapped, observer);
            let element = || format!("{}[{n}]", foreach.path.shown);
            if once.map_err(|fault| fault.of_element(element))? == Fired::Yes {
                fired = Fired::Yes;
            }
        }
        Ok(fired)
    }
}

/// Converts a value to an id or a name.
type Finish = for<'d> fn(JsonValue<'d>) -> Result<Option<Cow<'d, str>>, String>;

impl CallTemplate {
    fn build<'r>(
        &self,
        context: &EvalContext<'_, 'r>,
        losses: &mut LossRecorder<'_>,
    ) -> Result<Call<'r>, MappingError> {
        let mut text = |field: &Option<FieldTemplate>, finish: Finish| match field {
            Some(field) => field.eval(context, losses, finish),
            None => Ok(None),
        };
        let mut call = Call::new(self.kind);
        call.user_id = text(&self.user_id, field::as_id)?;
        call.anonymous_id = text(&self.anonymous_id, field::as_id)?;
        call.message_id = text(&self.message_id, field::as_message_id)?;
        call.name = text(&self.name, field::as_text)?;
        call.category = text(&self.category, field::as_text)?;
        call.group_id = text(&self.group_id, field::as_id)?;
        call.previous_id = text(&self.previous_id, field::as_id)?;
        call.user_key = text(&self.user_key, field::as_id)?;
        if let Some(moment) = &self.timestamp {
            call.timestamp =
                moment.field.eval(context, losses, |datum| moment.read(context, &datum))?;
        }
        call.fields = self.fields.build(context, losses)?;
        call.context = self.context.build(context, losses)?;
        check(&call)?;
        Ok(call)
    }
}

/// Rejects a call without user, without company, or without event name.
pub(super) fn check(call: &Call<'_>) -> Result<(), MappingError> {
    if call.kind == CallKind::Alias {
        return check_alias(call);
    }
    if call.external_id().is_none() {
        return Err(MappingError::new(
            MappingErrorCode::NoIdentity,
            format!("the {} call has neither a user id nor an anonymous id", call.kind),
        ));
    }
    if call.kind == CallKind::Track && call.name.is_none() {
        return Err(MappingError::new(
            MappingErrorCode::NoEvent,
            "the track call has no event name",
        ));
    }
    if call.kind == CallKind::Group && call.group_id.is_none() {
        return Err(MappingError::new(
            MappingErrorCode::NoGroupId,
            "the group call has no group id",
        ));
    }
    Ok(())
}

/// Rejects a call with an id that holds U+FFFD, which replaces undecodable bytes. Ids of two users
/// may have become the same.
pub(super) fn check_ids(call: &Call<'_>) -> Result<(), MappingError> {
    for (name, id) in [
        ("user_id", &call.user_id),
        ("anonymous_id", &call.anonymous_id),
        ("group_id", &call.group_id),
        ("previous_id", &call.previous_id),
    ] {
        if id.as_deref().is_some_and(|id| id.contains(char::REPLACEMENT_CHARACTER)) {
            let reason = "the id holds U+FFFD, which replaces undecodable bytes: other ids \
                          may have become the same; send ids as UTF-8";
            return Err(MappingError::new(MappingErrorCode::IdNotText, reason).at(name, None));
        }
    }
    Ok(())
}

/// An alias needs two user ids. An anonymous id is not accepted, because a merge cannot be undone.
fn check_alias(call: &Call<'_>) -> Result<(), MappingError> {
    if call.user_id.is_none() {
        return Err(MappingError::new(
            MappingErrorCode::NoIdentity,
            "the alias call has no user id",
        ));
    }
    if call.previous_id.is_none() {
        let reason = "the alias call has no previous id";
        return Err(MappingError::new(MappingErrorCode::NoPreviousId, reason));
    }
    Ok(())
}
