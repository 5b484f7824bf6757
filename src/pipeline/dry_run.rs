//! Dry run: what would happen to a record, without network or store. `explain` and `test` use it.

use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;
use serde_json::Value;

use crate::clock;
use crate::config::fault::{ConfigPath, Fault};
use crate::config::sink::{AttributeTypes, UsercomSink, UsersConfig};
use crate::deliver::Request;
use crate::mapping::{CompiledMapping, Input, RuleTrace};
use crate::record::Record;
use crate::schedule::Op;
use crate::usercom::{ExecutorObserver, PlanWarnings, Settings, dry_run_with, plan_call};

/// Dry-runs records for one sink.
pub struct DryRun {
    plan: CompiledMapping,
    settings: Settings,
    users: UsersConfig,
    types: (AttributeTypes, AttributeTypes),
    /// The time zone of times without one.
    timezone: Option<String>,
}

/// Collects what is dropped from requests.
#[derive(Default)]
struct NoteCollector(Mutex<Vec<String>>);

impl NoteCollector {
    fn add(&self, line: String) {
        self.0.lock().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

impl ExecutorObserver for NoteCollector {
    fn conversion_failed(&self, name: &str, reason: &str) {
        self.add(format!("{name}: left out, {reason}"));
    }

    fn field_dropped(&self, field: &str, why: &str) {
        self.add(format!("{field}: left out, {why}"));
    }

    fn cropped(&self, field: &str) {
        self.add(format!("{field}: shortened"));
    }

    fn attribute_refused(&self, name: &str, limit: usize) {
        self.add(format!(
            "{name}: dropped, more than {limit} attributes would be created within an hour"
        ));
    }
}

/// The result of a dry run.
#[derive(Debug)]
pub struct DryRunReport {
    /// Every rule, in order: whether it matched, and why.
    pub rules: Vec<RuleTrace>,
    /// The calls, in Segment's JSON shape.
    pub calls: Vec<Value>,
    /// The requests a cold cache would send into an empty account.
    pub requests: Vec<Request>,
    /// Why the record would go to the dead letters; empty if it would not.
    pub errors: Vec<String>,
    /// Values that would be dropped or shortened.
    pub notes: Vec<String>,
    /// Values that the mapping would drop, or replace with a fallback.
    pub left_out: Vec<DroppedField>,
}

/// A value of a record that the mapping drops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedField {
    /// The rule, or the preset.
    pub rule: String,
    /// The target, as the mapping table writes it.
    pub field: String,
    /// Why, as a sentence.
    pub reason: String,
}

/// Notes in order, each once, with its count.
fn told_once(notes: Vec<String>) -> Vec<String> {
    let mut counts: IndexMap<String, usize> = IndexMap::new();
    for note in notes {
        *counts.entry(note).or_default() += 1;
    }
    let told = counts.into_iter().map(|(note, count)| match count {
        1 => note,
        count => format!("{note} ({count} times)"),
    });
    told.collect()
}

impl DryRunReport {
    /// The empty report.
    pub fn nothing() -> Self {
        Self {
            rules: Vec::new(),
            calls: Vec::new(),
            requests: Vec::new(),
            errors: Vec::new(),
            notes: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Appends the report of the next record.
    pub fn then(&mut self, next: Self) {
        let Self { rules, calls, requests, errors, notes, left_out } = next;
        self.rules.extend(rules);
        self.calls.extend(calls);
        self.requests.extend(requests);
        self.errors.extend(errors);
        self.notes.extend(notes);
        self.left_out.extend(left_out);
    }
}

impl DryRun {
    /// Prepares dry runs for a sink.
    ///
    /// # Errors
    /// The faults of its mapping.
    pub fn new(name: &str, sink: &UsercomSink) -> Result<Self, Vec<Fault>> {
        let at = ConfigPath::default().key("sinks").key(name);
        let plan = CompiledMapping::compile(&at, &sink.mapping, sink.preset)?;
        let types = (sink.attributes.clone(), sink.company_attributes.clone());
        Ok(Self {
            plan,
            settings: Settings::from(&sink.users).with_account(&sink.account),
            users: sink.users.clone(),
            types,
            timezone: None,
        })
    }

    /// Sets the time zone that the source's settings name.
    #[must_use]
    pub fn in_zone(mut self, timezone: Option<&str>) -> Self {
        self.timezone = timezone.map(str::to_owned);
        self
    }

    /// The names of the mapping's rules, in order; the preset is not among them.
    pub fn rule_names(&self) -> impl Iterator<Item = &str> {
        self.plan.rule_names()
    }

    /// Dry-runs one record, given as JSON text.
    pub async fn run(&self, body: &[u8]) -> DryRunReport {
        self.run_record(Record::new(body.to_vec())).await
    }

    /// Dry-runs one record with the metadata of its source.
    pub async fn run_record(&self, mut record: Record) -> DryRunReport {
        if let Some(timezone) = &self.timezone {
            record.note_timezone(timezone);
        }
        let input = Input { body: &record.body, meta: record.meta.as_deref() };
        let explained = self.plan.explain(input);
        let mut rehearsed = DryRunReport {
            rules: explained.rules,
            calls: Vec::new(),
            requests: Vec::new(),
            errors: Vec::new(),
            notes: Vec::new(),
            left_out: Vec::new(),
        };
        rehearsed.left_out.extend(explained.losses.iter().map(|loss| DroppedField {
            rule: self.plan.rule_name(loss.rule).to_owned(),
            field: loss.field.clone(),
            reason: loss.reason.clone(),
        }));
        let losses = explained.losses.iter();
        rehearsed.notes.extend(losses.map(|loss| format!("{}: {}", loss.field, loss.reason)));
        let mapped = match explained.result {
            Ok(mapped) => mapped,
            Err(fault) => {
                rehearsed.errors.push(fault.to_string());
                return rehearsed;
            }
        };
        let mut ops: Vec<Op> = Vec::new();
        let mut notes = PlanWarnings::default();
        for mapped_call in &mapped.calls {
            rehearsed.calls.push(mapped_call.call.to_json());
            match plan_call(&mapped_call.call, &self.settings, clock::now(), &mut notes) {
                Ok(planned) => ops.extend(planned),
                Err(fault) => rehearsed.errors.push(fault.to_string()),
            }
        }
        rehearsed.notes.extend(notes.cropped.iter().map(|field| format!("{field}: shortened")));
        let dropped = notes.dropped.iter();
        rehearsed.notes.extend(dropped.map(|(field, why)| format!("{field}: left out, {why}")));
        // If one call cannot be made, the whole record becomes a dead letter.
        if rehearsed.errors.is_empty() {
            let ears = Arc::new(NoteCollector::default());
            let types = (&self.types.0, &self.types.1);
            let probe: Arc<dyn ExecutorObserver> = Arc::<NoteCollector>::clone(&ears);
            let account = &self.settings.account;
            rehearsed.requests = dry_run_with(&ops, &self.users, types, account, probe).await;
            rehearsed.notes.extend(ears.take());
        }
        rehearsed.notes = told_once(rehearsed.notes);
        rehearsed
    }
}
