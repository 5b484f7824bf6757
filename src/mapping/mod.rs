//! The mapping from a record to calls.
//!
//! A mapping table is compiled once into a [`CompiledMapping`]: a trie of all paths that rules read,
//! a template for every call, and an index of rules by the string they compare. Mapping a record
//! then scans its text once and expands a nested value only when a rule reads it. Values that are
//! copied unchanged stay slices of the record's text.
//!
//! # Invariants
//! Mapping is a pure function of table, record and metadata: no clock, no I/O. No input makes it
//! panic or overflow the stack.
//!
//! # Rules of evaluation
//! * Null is the same as missing. Of a repeated key the last value counts.
//! * The `when` of a rule with `foreach` is tested for each element. A rule has fired if it made a
//!   call; an array without matching elements leaves the record to later rules.
//! * `default` fills a value that is missing after all steps, also after a failed conversion, which
//!   is counted nevertheless. A failed step of a `required` field is an error.
//! * Ids may be numbers; integers are written without fraction (`12.0` is `12`). Booleans, objects
//!   and lists are not ids, nor are words such as `null` or `undefined`. Names may be booleans.
//!   Empty ids and names are missing.
//! * A nested target (`traits.address.city`) is merged over the object of that name in a spread.
//! * A name that has its own field is never taken from a spread.

mod browser_key;
mod compile;
mod condition;
mod convert;
mod error;
mod eval_context;
mod explain;
mod field;
mod functions;
mod integrations;
mod json;
mod json_value;
mod named_values;
mod object;
mod path;
mod path_trie;
mod preset;
mod rule;
mod rule_index;
mod scan;
mod screen;
mod template;

pub use error::{FieldLoss, MapStats, MappingError, MappingErrorCode};
pub use explain::{Explained, NearestRule, RuleTrace};

use crate::call::{self, Call};
use crate::config::fault::{ConfigPath, Fault};
use crate::config::mapping as table;
use crate::config::sink::Preset;
use eval_context::{EvalContext, SourceZone};
use explain::{NoopRuleObserver, RuleObserver, TraceRecorder};
use path_trie::{ExtractedPaths, Trie};
use rule::{CompiledRule, Fired};
use rule_index::RuleIndex;

/// A compiled mapping table.
#[derive(Debug)]
pub struct CompiledMapping {
    rules: Vec<CompiledRule>,
    dispatch: RuleIndex,
    record: Trie,
    meta: Trie,
    preset: Option<Preset>,
}

/// The input: one record.
#[derive(Debug, Clone, Copy)]
pub struct Input<'r> {
    /// The record's JSON text.
    pub body: &'r [u8],
    /// Transport metadata as a JSON object, for `%` paths.
    pub meta: Option<&'r [u8]>,
}

/// The output: the calls of one record.
#[derive(Debug, Default, PartialEq)]
pub struct Mapped<'r> {
    /// The calls in the order of the rules and, within a rule, of the elements.
    pub calls: Vec<MappedCall<'r>>,
    /// Whether a rule or the preset matched the record.
    pub matched: bool,
    /// Counts of dropped values.
    pub stats: MapStats,
}

/// Calls per record at most; a record with more goes to the dead letters. Segment's libraries send
/// at most a few hundred messages in a batch.
pub const MAX_CALLS: usize = 5_000;

impl<'r> Mapped<'r> {
    /// Adds a call.
    fn add(&mut self, call: MappedCall<'r>) -> Result<(), MappingError> {
        if self.calls.len() == MAX_CALLS {
            let reason =
                format!("the record makes more than {MAX_CALLS} calls; send it in several records");
            return Err(MappingError::new(MappingErrorCode::TooManyCalls, reason));
        }
        // Most records make one call; allocating for more would waste memory.
        self.calls.reserve_exact(usize::from(self.calls.is_empty()));
        self.calls.push(call);
        Ok(())
    }
}

/// A call and the rule that made it.
#[derive(Debug, Clone, PartialEq)]
pub struct MappedCall<'r> {
    /// The call.
    pub call: Call<'r>,
    /// The rule.
    pub rule: RuleId,
    /// The index of the element in the rule's `foreach` array or in the preset's batch.
    pub element: u32,
}

/// The index of a rule in the table; the preset has the index after the last rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub usize);

impl CompiledMapping {
    /// Compiles a mapping table.
    ///
    /// `at` is the path of the sink in the file (`sinks.crm`); the paths of faults start with it.
    ///
    /// # Errors
    ///
    /// Every fault of the table, with codes `E0201` to `E0221`.
    pub fn compile(
        at: &ConfigPath,
        rules: &[table::Rule],
        preset: Option<Preset>,
    ) -> Result<Self, Vec<Fault>> {
        let compile::Compiled { rules, record, meta } = compile::compile(at, rules, preset)?;
        Ok(Self { dispatch: RuleIndex::of(&rules), rules, record, meta, preset })
    }

    /// The name of a rule.
    pub fn rule_name(&self, rule: RuleId) -> &str {
        match self.rules.get(rule.0) {
            Some(rule) => &rule.name,
            None => preset::NAME,
        }
    }

    /// The names of all rules, in order; the preset is not among them.
    pub fn rule_names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| &*rule.name)
    }

    /// Whether a rule is the preset.
    pub fn is_preset(&self, rule: RuleId) -> bool {
        rule.0 >= self.rules.len()
    }

    /// Maps a record.
    ///
    /// # Errors
    ///
    /// Why the record goes to the dead letters: it is not JSON, or a rule that fired could not make
    /// its call. None of its calls is sent then.
    pub fn map<'r>(&self, input: Input<'r>) -> Result<Mapped<'r>, MappingError> {
        let mut mapped = Mapped::default();
        self.run(input, &mut mapped, &mut NoopRuleObserver)?;
        Ok(mapped)
    }

    /// Maps a record and reports for every rule why it fired or did not.
    pub fn explain<'r>(&self, input: Input<'r>) -> Explained<'r> {
        let mut trace = TraceRecorder::default();
        let mut mapped = Mapped::default();
        let result = self.run(input, &mut mapped, &mut trace);
        let mut rules = trace.rules;
        if let Err(fault) = &result {
            let untried = rules.len()..self.rules.len() + usize::from(self.preset.is_some());
            rules.extend(untried.enumerate().map(|(n, id)| {
                let name = self.rule_name(RuleId(id)).to_owned();
                let why = match fault.rule {
                    Some(_) if n == 0 => format!("failed: {fault}"),
                    _ => "not tried: the record goes to the dead letters".to_owned(),
                };
                RuleTrace { name, fired: false, why }
            }));
        }
        // What was dropped before the error is shown too: often it is the cause.
        let losses = mapped.stats.losses.clone();
        Explained { rules, losses, result: result.map(|()| mapped) }
    }

    /// The rule that a record without a match almost matched. Takes as long as
    /// [`explain`](Self::explain).
    pub fn nearest_rule(&self, input: Input<'_>) -> Option<NearestRule> {
        let mut trace = TraceRecorder::default();
        // An error is not of interest here: the rules before it are traced.
        drop(self.run(input, &mut Mapped::default(), &mut trace));
        trace.nearest()
    }

    fn run<'r>(
        &self,
        input: Input<'r>,
        mapped: &mut Mapped<'r>,
        observer: &mut impl RuleObserver,
    ) -> Result<(), MappingError> {
        let body = text(input.body, "record")?;
        let zone = SourceZone::new(input.meta);
        if !self.rules.is_empty() || self.preset.is_none() {
            let record = ExtractedPaths::new(&self.record, body);
            record.fill().map_err(|error| not_json(&error, "record"))?;
            let given = input.meta.filter(|_| !self.meta.is_empty());
            let given = given.map(|meta| text(meta, "metadata")).transpose()?;
            let meta = ExtractedPaths::new(&self.meta, given.unwrap_or_default());
            if given.is_some() {
                meta.fill().map_err(|error| not_json(&error, "metadata"))?;
            }
            let context = EvalContext { record: &record, meta: &meta, element: None, zone: &zone };
            self.run_rules(&context, mapped, observer)?;
        }
        if self.preset.is_some() {
            self.run_preset(body, &zone, mapped, observer)?;
        }
        if let Some(timezone) = zone.configured() {
            for mapped_call in &mut mapped.calls {
                mapped_call.call.timezone = Some(timezone.clone());
            }
        }
        self.check_text(input, mapped)
    }

    /// Ensures that the calls hold valid Unicode.
    ///
    /// Lone surrogates become U+FFFD. An id with a U+FFFD that the record already had is an error:
    /// it stands for bytes that an earlier decoder could not read.
    fn check_text(&self, input: Input<'_>, mapped: &mut Mapped<'_>) -> Result<(), MappingError> {
        let texts = || std::iter::once(input.body).chain(input.meta);
        if texts().any(call::may_have_surrogates) {
            mapped.calls.iter_mut().for_each(|mapped| mapped.call.replace_lone_surrogates());
        }
        let is_written = |text: &[u8]| {
            let escaped = |at: usize| text.get(at + 3..at + 6).is_some_and(is_fffd);
            memchr::memmem::find(text, "\u{fffd}".as_bytes()).is_some()
                || memchr::memmem::find_iter(text, b"\\uf").any(escaped)
                || memchr::memmem::find_iter(text, b"\\uF").any(escaped)
        };
        for MappedCall { call, rule, .. } in &mapped.calls {
            if let Err(fault) = rule::check_ids(call)
                && texts().any(is_written)
            {
                return Err(fault.in_rule(self.rule_name(*rule)));
            }
        }
        Ok(())
    }

    fn run_rules<'r>(
        &self,
        context: &EvalContext<'_, 'r>,
        mapped: &mut Mapped<'r>,
        observer: &mut impl RuleObserver,
    ) -> Result<(), MappingError> {
        if observer.needs_every_rule() {
            return self.run_some(0..self.rules.len(), context, mapped, observer);
        }
        self.run_some(self.dispatch.candidates(context), context, mapped, observer)
    }

    fn run_some<'r>(
        &self,
        rules: impl Iterator<Item = usize>,
        context: &EvalContext<'_, 'r>,
        mapped: &mut Mapped<'r>,
        observer: &mut impl RuleObserver,
    ) -> Result<(), MappingError> {
        let mut stopped_by = None;
        for n in rules {
            let rule = &self.rules[n];
            if let Some(stop) = stopped_by {
                observer.skipped(&rule.name, || format!("stopped by rule `{stop}`"));
                continue;
            }
            let before = mapped.calls.len();
            let fired = rule.run(RuleId(n), context, mapped, observer)?;
            observer.rule(&rule.name, mapped.calls.len() - before);
            if fired == Fired::Yes {
                mapped.matched = true;
                stopped_by = rule.stop.then_some(&rule.name);
            }
        }
        Ok(())
    }

    fn run_preset<'r>(
        &self,
        body: &'r str,
        zone: &SourceZone<'r>,
        mapped: &mut Mapped<'r>,
        observer: &mut impl RuleObserver,
    ) -> Result<(), MappingError> {
        if mapped.matched {
            observer.skipped(preset::NAME, || "a rule matched the record".to_owned());
            return Ok(());
        }
        preset::run(body, zone, RuleId(self.rules.len()), mapped, observer)?;
        observer.rule(preset::NAME, mapped.calls.len());
        Ok(())
    }
}

/// The last digits of the escape `\\ufffd`, in any case.
fn is_fffd(digits: &[u8]) -> bool {
    digits.eq_ignore_ascii_case(b"ffd")
}

fn text<'r>(bytes: &'r [u8], what: &str) -> Result<&'r str, MappingError> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| {
        let valid = simdutf8::compat::from_utf8(bytes).map_or_else(|e| e.valid_up_to(), str::len);
        MappingError::new(
            MappingErrorCode::InvalidUtf8,
            format!("the {what} is not UTF-8 from byte {valid} on"),
        )
    })
}

fn not_json(error: &serde_json::Error, what: &str) -> MappingError {
    MappingError::new(
        MappingErrorCode::InvalidJson,
        format!("the {what} is not valid JSON: {error}"),
    )
}
