//! One rule, compiled: when it fires, and the calls it makes.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::condition::Condition;
use super::convert::{self, TimeFormat};
use super::datum::Datum;
use super::env::{Env, Ref};
use super::explain::Watch;
use super::fault::{LossKind, RecordFault, RecordFaultCode};
use super::field::{self, Field, Ledger};
use super::json::{self, Kind};
use super::object::ObjectProgram;
use super::trie::{Slots, Trie};
use super::{Mapped, MappedCall, RuleId};
use crate::call::{Call, CallKind};

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Box<str>,
    pub(super) when: Option<Condition>,
    pub(super) foreach: Option<Foreach>,
    pub(super) stop: bool,
    pub(super) call: CallProgram,
}

/// The array a rule runs over, and the paths read from each element.
#[derive(Debug)]
pub(super) struct Foreach {
    pub(super) path: Ref,
    pub(super) trie: Trie,
}

/// What a call is filled with.
#[derive(Debug)]
pub(super) struct CallProgram {
    pub(super) kind: CallKind,
    pub(super) user_id: Option<Field>,
    pub(super) anonymous_id: Option<Field>,
    pub(super) message_id: Option<Field>,
    pub(super) timestamp: Option<Moment>,
    pub(super) name: Option<Field>,
    pub(super) category: Option<Field>,
    pub(super) group_id: Option<Field>,
    pub(super) previous_id: Option<Field>,
    pub(super) fields: ObjectProgram,
    pub(super) context: ObjectProgram,
}

/// The `timestamp` of a call.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) field: Field,
    pub(super) format: Option<Box<str>>,
    pub(super) zone: Option<TimeZone>,
}

impl Moment {
    fn read(&self, env: &Env<'_, '_>, datum: &Datum<'_>) -> Result<Option<Timestamp>, String> {
        // Blank text is how many systems write that there is no time.
        if let Some(text) = datum.text()
            && text.trim().is_empty()
        {
            return Ok(None);
        }
        let strptime = self.format.as_deref();
        let zone = self.zone.as_ref().unwrap_or_else(|| env.zone.get());
        convert::timestamp(datum, TimeFormat { strptime, zone }).map(Some)
    }
}

/// Whether a rule fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fired {
    Yes,
    No,
}

impl Rule {
    /// Runs the rule; its calls go into `mapped`.
    pub(super) fn run<'r>(
        &self,
        id: RuleId,
        env: &Env<'_, 'r>,
        mapped: &mut Mapped<'r>,
        watch: &mut impl Watch,
    ) -> Result<Fired, RecordFault> {
        let fired = match &self.foreach {
            Some(foreach) => self.run_each(id, foreach, env, mapped, watch),
            None => self.run_once(id, 0, env, mapped, watch),
        };
        fired.map_err(|fault| fault.in_rule(&self.name))
    }

    fn run_once<'r>(
        &self,
        id: RuleId,
        element: u32,
        env: &Env<'_, 'r>,
        mapped: &mut Mapped<'r>,
        watch: &mut impl Watch,
    ) -> Result<Fired, RecordFault> {
        if let Some(when) = self.when.as_ref().filter(|when| !when.holds(env)) {
            watch.not_fired(|| when.why_not(env).unwrap_or_default());
            return Ok(Fired::No);
        }
        let mut ledger = Ledger { stats: &mut mapped.stats, rule: id };
        let call = self.call.build(env, &mut ledger)?;
        mapped.add(MappedCall { call, rule: id, element })?;
        Ok(Fired::Yes)
    }

    fn run_each<'r>(
        &self,
        id: RuleId,
        foreach: &Foreach,
        env: &Env<'_, 'r>,
        mapped: &mut Mapped<'r>,
        watch: &mut impl Watch,
    ) -> Result<Fired, RecordFault> {
        let Some(raw) = env.get(&foreach.path) else {
            watch.not_fired(|| format!("`{}` is missing", foreach.path.shown));
            return Ok(Fired::No);
        };
        let Some(elements) = json::elements(raw) else {
            let found = Kind::of(raw).name();
            let reason = format!("`{}` is {found}, no array", foreach.path.shown);
            watch.not_fired(|| reason.clone());
            mapped.stats.lose(id, "foreach", LossKind::NotAnArray, reason);
            return Ok(Fired::No);
        };
        if elements.is_empty() {
            watch.not_fired(|| format!("`{}` is an empty array", foreach.path.shown));
        }
        let mut fired = Fired::No;
        for (n, element) in elements.into_iter().enumerate() {
            let slots = Slots::new(&foreach.trie, element);
            slots.fill().map_err(|error| {
                RecordFault::new(RecordFaultCode::InvalidJson, error.to_string())
            })?;
            let env = Env { element: Some(&slots), ..*env };
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            let once = self.run_once(id, n, &env, mapped, watch);
            let place = || format!("{}[{n}]", foreach.path.shown);
            if once.map_err(|fault| fault.of_element(place))? == Fired::Yes {
                fired = Fired::Yes;
            }
        }
        Ok(fired)
    }
}

/// What makes an id or a name of a value.
type Finish = for<'d> fn(Datum<'d>) -> Result<Option<Cow<'d, str>>, String>;

impl CallProgram {
    fn build<'r>(
        &self,
        env: &Env<'_, 'r>,
        ledger: &mut Ledger<'_>,
    ) -> Result<Call<'r>, RecordFault> {
        let mut text = |field: &Option<Field>, finish: Finish| match field {
            Some(field) => field.eval(env, ledger, finish),
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
        if let Some(moment) = &self.timestamp {
            call.timestamp = moment.field.eval(env, ledger, |datum| moment.read(env, &datum))?;
        }
        call.fields = self.fields.build(env, ledger)?;
        call.context = self.context.build(env, ledger)?;
        check(&call)?;
        Ok(call)
    }
}

/// Refuses a call that says of nobody, of no company, or nothing.
pub(super) fn check(call: &Call<'_>) -> Result<(), RecordFault> {
    if call.kind == CallKind::Alias {
        return check_alias(call);
    }
    if call.external_id().is_none() {
        return Err(RecordFault::new(
            RecordFaultCode::NoIdentity,
            format!("the {} call has neither a user id nor an anonymous id", call.kind),
        ));
    }
    if call.kind == CallKind::Track && call.name.is_none() {
        return Err(RecordFault::new(RecordFaultCode::NoEvent, "the track call has no event name"));
    }
    if call.kind == CallKind::Group && call.group_id.is_none() {
        return Err(RecordFault::new(RecordFaultCode::NoGroupId, "the group call has no group id"));
    }
    Ok(())
}

/// Refuses a call one of whose ids holds the character that stands for bytes that were no text. Two
/// people may have become one in it.
pub(super) fn check_ids(call: &Call<'_>) -> Result<(), RecordFault> {
    for (name, id) in [
        ("user_id", &call.user_id),
        ("anonymous_id", &call.anonymous_id),
        ("group_id", &call.group_id),
        ("previous_id", &call.previous_id),
    ] {
        if id.as_deref().is_some_and(|id| id.contains(char::REPLACEMENT_CHARACTER)) {
            let reason = "the id holds U+FFFD, which stands for bytes that were no text: other ids \
                          may have become the same; send ids as UTF-8";
            return Err(RecordFault::new(RecordFaultCode::IdNotText, reason).at(name, None));
        }
    }
    Ok(())
}

/// An alias names two users; an anonymous id is not taken for either, because a merge cannot be
/// taken back.
fn check_alias(call: &Call<'_>) -> Result<(), RecordFault> {
    if call.user_id.is_none() {
        return Err(RecordFault::new(RecordFaultCode::NoIdentity, "the alias call has no user id"));
    }
    if call.previous_id.is_none() {
        let reason = "the alias call has no previous id";
        return Err(RecordFault::new(RecordFaultCode::NoPreviousId, reason));
    }
    Ok(())
}
