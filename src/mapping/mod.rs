//! The mapping: from a record's bytes to the calls it means.
//!
//! A mapping table is compiled once into a [`CompiledMapping`]: a trie of every path any rule reads, a program
//! for every field, and the texts by which records are told apart. A record is then passed over
//! once, and looked into where a rule that may fire operators; values that are only moved from one place
//! to another stay slices of the record's text. Not here: reading the table from a file (`config`),
//! and what a call does at User.com (`plan`, `usercom`).
//!
//! Invariant: mapping is a pure function of the table, the record and its metadata. It knows no
//! clock, does no I/O, and no input makes it panic or exhausts the stack.
//!
//! What the mapping table leaves open is decided like this:
//!
//! * Null is the same as missing, everywhere. Of a key given twice the last one counts.
//! * `when` of a rule with `foreach` is asked of each element, and a rule has fired when it made a
//!   call: an array without fitting elements leaves the record to later rules.
//! * `default` fills whatever is missing at the end, also where a conversion failed (which is
//!   counted all the same). A failed step of a `required` field is a fault.
//! * Ids may be numbers, of which whole ones are written as such. Booleans, objects and lists are no
//!   ids, nor are the words with which programs write that there is none. Names may be booleans,
//!   too. Empty ones are missing.
//! * A nested target (`traits.address.city`) is laid over a spread's object of that name.
//! * A name with a field of its own never comes from a spread.

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
pub use explain::{Explained, RuleTrace};

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

/// One record, as the mapping sees it.
#[derive(Debug, Clone, Copy)]
pub struct Input<'r> {
    /// The record's JSON text.
    pub body: &'r [u8],
    /// A JSON object of what the transport knew, for `%` paths.
    pub meta: Option<&'r [u8]>,
}

/// What a record became.
#[derive(Debug, Default, PartialEq)]
pub struct Mapped<'r> {
    /// The calls, in the order of the rules and, within one, of the elements.
    pub calls: Vec<MappedCall<'r>>,
    /// Whether any rule, or the preset, took the record.
    pub matched: bool,
    /// What was left out.
    pub stats: MapStats,
}

/// Calls one record may stand for; one that stands for more is a dead letter. Segment's own
/// libraries send at most a few hundred messages in a batch.
pub const MAX_CALLS: usize = 5_000;

impl<'r> Mapped<'r> {
    /// Adds a call.
    fn add(&mut self, call: MappedCall<'r>) -> Result<(), MappingError> {
        if self.calls.len() == MAX_CALLS {
            let reason = format!(
                "the record stands for more than {MAX_CALLS} calls; send it in several records"
            );
            return Err(MappingError::new(MappingErrorCode::TooManyCalls, reason));
        }
        // Most records make one call; room for more would be the costlier kind of memory.
        self.calls.reserve_exact(usize::from(self.calls.is_empty()));
        self.calls.push(call);
        Ok(())
    }
}

/// One call and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct MappedCall<'r> {
    /// The call.
    pub call: Call<'r>,
    /// The rule that made it.
    pub rule: RuleId,
    /// Which element of the rule's `foreach` array, or of the preset's batch, counted from 0.
    pub element: u32,
}

/// A rule of a plan, by its place in the table; the preset comes behind the last rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub usize);

impl CompiledMapping {
    /// Compiles a mapping table.
    ///
    /// `at` is the path of the sink in the file, `sinks.crm`; faults point below it.
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

    /// The name of a rule of this plan.
    pub fn rule_name(&self, rule: RuleId) -> &str {
        match self.rules.get(rule.0) {
            Some(rule) => &rule.name,
            None => preset::NAME,
        }
    }

    /// Whether a rule of this plan is the preset.
    pub fn is_preset(&self, rule: RuleId) -> bool {
        rule.0 >= self.rules.len()
    }

    /// Maps a record.
    ///
    /// # Errors
    ///
    /// Why the record belongs into the dead letters: it is no JSON, or a rule that fired could not
    /// make its call. None of its calls are to be sent then.
    pub fn map<'r>(&self, input: Input<'r>) -> Result<Mapped<'r>, MappingError> {
        self.run(input, &mut NoopRuleObserver)
    }

    /// Maps a record and says of every rule why it fired or did not.
    pub fn explain<'r>(&self, input: Input<'r>) -> Explained<'r> {
        let mut trace = TraceRecorder::default();
        let result = self.run(input, &mut trace);
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
        Explained { rules, result }
    }

    fn run<'r>(
        &self,
        input: Input<'r>,
        watch: &mut impl RuleObserver,
    ) -> Result<Mapped<'r>, MappingError> {
        let body = text(input.body, "record")?;
        let zone = SourceZone::new(input.meta);
        let mut mapped = Mapped::default();
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
            self.run_rules(&context, &mut mapped, watch)?;
        }
        if self.preset.is_some() {
            self.run_preset(body, &zone, &mut mapped, watch)?;
        }
        self.check_text(input, &mut mapped)?;
        Ok(mapped)
    }

    /// Sees to it that everything in the calls is Unicode text.
    ///
    /// Halves of surrogate pairs, which JSON can write, become U+FFFD each. An id that holds U+FFFD
    /// for another reason is refused: whoever decoded the record could not read it.
    fn check_text(&self, input: Input<'_>, mapped: &mut Mapped<'_>) -> Result<(), MappingError> {
        let parts = || std::iter::once(input.body).chain(input.meta);
        if parts().any(call::may_have_surrogates) {
            mapped.calls.iter_mut().for_each(|mapped| mapped.call.replace_lone_surrogates());
        }
        let is_written = |part: &[u8]| {
            let escaped = |at: usize| part.get(at + 3..at + 6).is_some_and(is_fffd);
            memchr::memmem::find(part, "\u{fffd}".as_bytes()).is_some()
                || memchr::memmem::find_iter(part, b"\\uf").any(escaped)
                || memchr::memmem::find_iter(part, b"\\uF").any(escaped)
        };
        for MappedCall { call, rule, .. } in &mapped.calls {
            if let Err(fault) = rule::check_ids(call)
                && parts().any(is_written)
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
        watch: &mut impl RuleObserver,
    ) -> Result<(), MappingError> {
        if watch.hears_all() {
            return self.run_some(0..self.rules.len(), context, mapped, watch);
        }
        self.run_some(self.dispatch.candidates(context), context, mapped, watch)
    }

    fn run_some<'r>(
        &self,
        rules: impl Iterator<Item = usize>,
        context: &EvalContext<'_, 'r>,
        mapped: &mut Mapped<'r>,
        watch: &mut impl RuleObserver,
    ) -> Result<(), MappingError> {
        let mut stopped_by = None;
        for n in rules {
            let rule = &self.rules[n];
            if let Some(stop) = stopped_by {
                watch.skipped(&rule.name, || format!("stopped by rule `{stop}`"));
                continue;
            }
            let before = mapped.calls.len();
            let fired = rule.run(RuleId(n), context, mapped, watch)?;
            watch.rule(&rule.name, mapped.calls.len() - before);
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
        watch: &mut impl RuleObserver,
    ) -> Result<(), MappingError> {
        if mapped.matched {
            watch.skipped(preset::NAME, || "a rule took the record".to_owned());
            return Ok(());
        }
        preset::run(body, zone, RuleId(self.rules.len()), mapped, watch)?;
        watch.rule(preset::NAME, mapped.calls.len());
        Ok(())
    }
}

/// The escape of U+FFFD behind its `\u`, in either case.
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
