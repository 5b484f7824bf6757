//! The keys of `fields`, and which call accepts which.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use super::{Compiler, FaultBuilder, report};
use crate::call::CallKind;
use crate::config::fault::{ConfigPath, Target as FaultTarget};
use crate::mapping::path;
use crate::suggest::nearest;

/// What a field sets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum FieldTarget {
    UserId,
    AnonymousId,
    MessageId,
    Timestamp,
    /// `event` of a track, `name` of a page.
    Name,
    Category,
    GroupId,
    PreviousId,
    UserKey,
    Field(CallObject, FieldPath),
}

/// Which object of a call a field is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum CallObject {
    Traits,
    Properties,
    Context,
}

/// The path inside that object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum FieldPath {
    /// All entries of the value.
    Spread,
    /// The value, under these keys.
    Keys(Vec<String>),
}

impl CallObject {
    fn name(self) -> &'static str {
        match self {
            Self::Traits => "traits",
            Self::Properties => "properties",
            Self::Context => "context",
        }
    }

    /// The object that a call has.
    fn of(call: CallKind) -> Self {
        match call {
            CallKind::Identify | CallKind::Group => Self::Traits,
            CallKind::Page | CallKind::Track => Self::Properties,
            // An alias has no other fields than its ids.
            CallKind::Alias => Self::Context,
        }
    }
}

/// The top-level targets of a call.
fn plain(call: CallKind) -> &'static [&'static str] {
    match call {
        CallKind::Identify => &["user_id", "anonymous_id", "user_key", "message_id", "timestamp"],
        CallKind::Page => {
            &["user_id", "anonymous_id", "user_key", "message_id", "timestamp", "name", "category"]
        }
        CallKind::Track => {
            &["user_id", "anonymous_id", "user_key", "message_id", "timestamp", "event"]
        }
        CallKind::Group => {
            &["user_id", "anonymous_id", "user_key", "message_id", "timestamp", "group_id"]
        }
        CallKind::Alias => &["user_id", "previous_id", "message_id", "timestamp"],
    }
}

const CALLS: [CallKind; 5] =
    [CallKind::Identify, CallKind::Page, CallKind::Track, CallKind::Group, CallKind::Alias];

impl Compiler {
    /// Parses a target and checks that the call accepts it.
    pub(super) fn target(
        &mut self,
        at: &ConfigPath,
        call: CallKind,
        key: &str,
    ) -> Option<FieldTarget> {
        match read(call, key) {
            Ok(target) => Some(target),
            Err(report) => {
                self.fault(at, FaultTarget::Key, report);
                None
            }
        }
    }
}

fn read(call: CallKind, key: &str) -> Result<FieldTarget, FaultBuilder> {
    let takers: Vec<_> = CALLS.into_iter().filter(|call| plain(*call).contains(&key)).collect();
    if takers.contains(&call) {
        return Ok(match key {
            "user_id" => FieldTarget::UserId,
            "anonymous_id" => FieldTarget::AnonymousId,
            "message_id" => FieldTarget::MessageId,
            "timestamp" => FieldTarget::Timestamp,
            "category" => FieldTarget::Category,
            "group_id" => FieldTarget::GroupId,
            "previous_id" => FieldTarget::PreviousId,
            "user_key" => FieldTarget::UserKey,
            _ => FieldTarget::Name,
        });
    }
    if !takers.is_empty() {
        return Err(wrong_call(call, key, &takers));
    }
    for slot in [CallObject::Traits, CallObject::Properties, CallObject::Context] {
        let rest = key.strip_prefix(slot.name()).and_then(|rest| rest.strip_prefix('.'));
        let Some(rest) = rest else { continue };
        if slot != CallObject::Context && slot != CallObject::of(call) {
            let takers: Vec<_> = CALLS.into_iter().filter(|c| CallObject::of(*c) == slot).collect();
            let own = CallObject::of(call).name();
            return Err(wrong_call(call, key, &takers).help(format!("write `{own}.{rest}`")));
        }
        return place(key, rest).map(|place| FieldTarget::Field(slot, place));
    }
    Err(unknown(call, key))
}

/// Parses what follows `traits.`, or a key of `each`.
pub(super) fn place(key: &str, rest: &str) -> Result<FieldPath, FaultBuilder> {
    if rest == "*" {
        return Ok(FieldPath::Spread);
    }
    match path::parse_name(rest) {
        Ok(keys) if keys.len() <= path::MAX_STEPS => Ok(FieldPath::Keys(keys)),
        Ok(_) => Err(report("E0204", format!("the target `{key}` is nested too deep"))),
        Err(error) => {
            let message = format!("the target `{key}` cannot be read: {}", error.message);
            let help = "write a name with unusual characters in quotes: traits.\"odd name\"";
            Err(report("E0204", message).help(help))
        }
    }
}

fn wrong_call(call: CallKind, key: &str, takers: &[CallKind]) -> FaultBuilder {
    let takers: Vec<_> = takers.iter().map(|call| call.as_str()).collect();
    report("E0205", format!("`{key}` is a target of {}, not of {call}", takers.join(" and ")))
}

fn unknown(call: CallKind, key: &str) -> FaultBuilder {
    let own = CallObject::of(call).name();
    let unknown = report("E0204", format!("unknown target `{key}`"));
    if key == own || key == "context" {
        return unknown.help(format!("write `{key}.*` to take a whole object over"));
    }
    let known = plain(call).iter().copied();
    let prefix = key.split_once('.').map(|(prefix, _)| prefix);
    if let Some(prefix) = prefix
        && let Some(slot) = nearest(prefix, [own, "context"])
    {
        let rest = &key[prefix.len()..];
        return unknown.help(format!("did you mean `{slot}{rest}`?"));
    }
    let folded = snake(key);
    match nearest(&folded, known) {
        Some(near) if prefix.is_none() => unknown.help(format!("did you mean `{near}`?")),
        _ => unknown.help(format!("write `{own}.{key}`, if it is one of the {own}")),
    }
}

/// `userId` as `user_id`.
fn snake(key: &str) -> String {
    let mut out = String::new();
    for c in key.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// The targets of one rule so far, with the number of their field.
#[derive(Default)]
pub(super) struct TargetSet {
    keys: Vec<String>,
    hashes: RandomState,
    /// Targets, by their hash.
    whole: HashMap<u64, usize>,
    /// The parents of targets, by their hash.
    above: HashMap<u64, usize>,
}

impl TargetSet {
    /// Adds a target; returns one that it overlaps with: the same one, a parent, or a child.
    pub(super) fn add(&mut self, key: &str, target: &FieldTarget) -> Option<FaultBuilder> {
        let way = self.way(target);
        let (own, parents) = way.split_last()?;
        let others = way.iter().filter_map(|hash| self.whole.get(hash));
        let other = others.chain(self.above.get(own)).min();
        let report = other.and_then(|other| self.keys.get(*other)).map(|other| {
            report("E0216", format!("`{key}` and `{other}` set the same value"))
                .help("remove one of them")
        });
        let number = self.keys.len();
        self.whole.entry(*own).or_insert(number);
        for parent in parents {
            self.above.entry(*parent).or_insert(number);
        }
        self.keys.push(key.to_owned());
        report
    }

    /// The hashes of a target's parents, and of the target last.
    fn way(&self, target: &FieldTarget) -> Vec<u64> {
        let FieldTarget::Field(slot, FieldPath::Keys(keys)) = target else {
            return vec![self.hashes.hash_one(target)];
        };
        let mut hasher = self.hashes.build_hasher();
        slot.hash(&mut hasher);
        let steps = keys.iter().map(|key| {
            key.hash(&mut hasher);
            hasher.finish()
        });
        steps.collect()
    }
}
