//! Explanation of a mapping: for each rule whether it fired, and why.
//!
//! The same code maps with and without explanation; it reports its decisions to a
//! [`RuleObserver`].

use super::{FieldLoss, Mapped, MappingError};

/// The result of mapping a record, with a trace of every rule.
#[derive(Debug)]
pub struct Explained<'r> {
    /// One trace per rule, in file order; the preset is the last.
    pub rules: Vec<RuleTrace>,
    /// The values that were dropped, also where the record goes to the dead letters.
    pub losses: Vec<FieldLoss>,
    /// The result of [`super::CompiledMapping::map`] for the record.
    pub result: Result<Mapped<'r>, MappingError>,
}

/// Whether and why one rule fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTrace {
    /// The rule's name.
    pub name: String,
    /// Whether it made a call.
    pub fired: bool,
    /// Why, or why not: the first condition that failed, with its value.
    pub why: String,
}

/// Receives the decisions of a mapping. Reasons are built only if they are used.
pub(super) trait RuleObserver {
    /// Whether every rule must be tested, also those that the index excludes.
    fn needs_every_rule(&self) -> bool;
    /// The rule did not match the record or one element of its array.
    fn not_fired(&mut self, why: impl Fn() -> String);
    /// How near the condition was to holding, from 0 to 1.
    fn nearness(&mut self, _: impl Fn() -> f64) {}
    /// The rule was evaluated.
    fn rule(&mut self, name: &str, calls: usize);
    /// The rule was not evaluated.
    fn skipped(&mut self, name: &str, why: impl Fn() -> String);
}

/// Ignores all decisions.
pub(super) struct NoopRuleObserver;

impl RuleObserver for NoopRuleObserver {
    fn needs_every_rule(&self) -> bool {
        false
    }
    fn not_fired(&mut self, _: impl Fn() -> String) {}
    fn rule(&mut self, _: &str, _: usize) {}
    fn skipped(&mut self, _: &str, _: impl Fn() -> String) {}
}

/// Records a trace of every rule.
#[derive(Default)]
pub(super) struct TraceRecorder {
    pub(super) rules: Vec<RuleTrace>,
    /// The first reason of the current rule, and the number of reasons.
    reason: Option<String>,
    reasons: usize,
    /// The nearest condition of the current rule, and that of the rules in `rules`.
    near: f64,
    nearness: Vec<f64>,
}

/// The rule that almost matched a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearestRule {
    /// Its name.
    pub name: String,
    /// The condition that failed, with the value that was found.
    pub why: String,
}

impl TraceRecorder {
    fn push(&mut self, name: &str, fired: bool, why: String) {
        self.reason = None;
        self.reasons = 0;
        self.nearness.push(std::mem::take(&mut self.near));
        self.rules.push(RuleTrace { name: name.to_owned(), fired, why });
    }
}

impl TraceRecorder {
    /// The rule whose condition came nearest to holding; the first of several.
    pub(super) fn nearest(self) -> Option<NearestRule> {
        let mut best: Option<(f64, RuleTrace)> = None;
        for (nearness, rule) in self.nearness.into_iter().zip(self.rules) {
            if best.as_ref().is_none_or(|(nearest, _)| nearness > *nearest) {
                best = Some((nearness, rule));
            }
        }
        best.map(|(_, rule)| NearestRule { name: rule.name, why: rule.why })
    }
}

impl RuleObserver for TraceRecorder {
    fn needs_every_rule(&self) -> bool {
        true
    }

    fn not_fired(&mut self, why: impl Fn() -> String) {
        self.reasons += 1;
        self.reason.get_or_insert_with(why);
    }

    fn nearness(&mut self, nearness: impl Fn() -> f64) {
        self.near = self.near.max(nearness());
    }

    fn rule(&mut self, name: &str, calls: usize) {
        let passed = self.reasons;
        let reason = self.reason.take().unwrap_or_default();
        let why = match (calls, passed) {
            (0, 0 | 1) => reason,
            (0, _) => format!("no element matches; the first: {reason}"),
            (1, 0) => "its condition holds".to_owned(),
            (_, 0) => format!("made {calls} calls"),
            (_, _) => {
                format!("made {calls} calls; {passed} elements did not match, the first: {reason}")
            }
        };
        self.push(name, calls > 0, why);
    }

    fn skipped(&mut self, name: &str, why: impl Fn() -> String) {
        self.push(name, false, why());
    }
}
