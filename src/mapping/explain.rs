//! Explanations: for each rule whether it fired, and why not.
//!
//! The mapping itself is the same code as without an explanation; it only tells a [`RuleObserver`] what
//! it decides.

use super::{Mapped, MappingError};

/// What the plan makes of a record, and why.
#[derive(Debug)]
pub struct Explained<'r> {
    /// One entry a rule, in file order; the preset is the last.
    pub rules: Vec<RuleTrace>,
    /// What [`super::CompiledMapping::map`] says of the same record.
    pub result: Result<Mapped<'r>, MappingError>,
}

/// What became of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTrace {
    /// The rule's name.
    pub name: String,
    /// Whether it made a call.
    pub fired: bool,
    /// Why, or why not, in words: the first condition that failed and the value it failed with.
    pub why: String,
}

/// Who is told what the plan decides. Reasons are made only where someone listens.
pub(super) trait RuleObserver {
    /// Whether it wants to hear of every rule, those too that cannot hold.
    fn hears_all(&self) -> bool;
    /// The rule, or one element of its array, was passed over.
    fn not_fired(&mut self, why: impl Fn() -> String);
    /// The rule is done.
    fn rule(&mut self, name: &str, calls: usize);
    /// The rule was not tried, or failed.
    fn skipped(&mut self, name: &str, why: impl Fn() -> String);
}

/// Nobody listens.
pub(super) struct NoopRuleObserver;

impl RuleObserver for NoopRuleObserver {
    fn hears_all(&self) -> bool {
        false
    }
    fn not_fired(&mut self, _: impl Fn() -> String) {}
    fn rule(&mut self, _: &str, _: usize) {}
    fn skipped(&mut self, _: &str, _: impl Fn() -> String) {}
}

/// Writes everything down.
#[derive(Default)]
pub(super) struct TraceRecorder {
    pub(super) rules: Vec<RuleTrace>,
    /// The first reason of the rule at hand, and how many there are.
    reason: Option<String>,
    reasons: usize,
}

impl TraceRecorder {
    fn push(&mut self, name: &str, fired: bool, why: String) {
        self.reason = None;
        self.reasons = 0;
        self.rules.push(RuleTrace { name: name.to_owned(), fired, why });
    }
}

impl RuleObserver for TraceRecorder {
    fn hears_all(&self) -> bool {
        true
    }

    fn not_fired(&mut self, why: impl Fn() -> String) {
        self.reasons += 1;
        self.reason.get_or_insert_with(why);
    }

    fn rule(&mut self, name: &str, calls: usize) {
        let passed = self.reasons;
        let reason = self.reason.take().unwrap_or_default();
        let why = match (calls, passed) {
            (0, 0 | 1) => reason,
            (0, _) => format!("no element fits; the first: {reason}"),
            (1, 0) => "its condition holds".to_owned(),
            (_, 0) => format!("made {calls} calls"),
            (_, _) => format!("made {calls} calls; {passed} passed over, the first: {reason}"),
        };
        self.push(name, calls > 0, why);
    }

    fn skipped(&mut self, name: &str, why: impl Fn() -> String) {
        self.push(name, false, why());
    }
}
