//! Compiles the mapping table into rules, or returns every fault in it.
//!
//! | code | fault |
//! |---|---|
//! | E0201 | a path with a mistake in it |
//! | E0202 | text where a path belongs |
//! | E0203 | `^` where there is no element |
//! | E0204 | unknown target |
//! | E0205 | target of another call |
//! | E0206 | a field, or a case, without a source |
//! | E0207 | more than one source |
//! | E0208 | settings that contradict each other or have no effect |
//! | E0209 | bad regular expression |
//! | E0210 | bad strptime format |
//! | E0211 | bad template |
//! | E0212 | bad condition |
//! | E0213 | a rule, or a case, that is never reached |
//! | E0214 | a call without a required field |
//! | E0215 | a list where one value belongs |
//! | E0216 | targets that overlap |
//! | E0217 | two rules with one name |
//! | E0218 | a literal that sets nothing or cannot be parsed |
//! | E0219 | unknown time zone |
//! | E0220 | `on_failure` that does not fit |
//! | E0221 | a `get` or `capture` that cannot be used |
//!
//! # Invariants
//!
//! Compiling never stops at the first fault: what could not be compiled is omitted, and with any
//! fault there is no compiled mapping.

mod condition;
mod field;
mod scope;
mod target;

use std::collections::HashMap;
use std::ops::Range;

use super::path::{self, PathError};
use super::path_trie::Trie;
use super::rule::{CallTemplate, CompiledRule, Foreach, TimestampField};
use crate::call::CallKind;
use crate::config::fault::{ConfigPath, Fault, Target as FaultTarget};
use crate::config::mapping as table;
use crate::config::mapping::OnFailure;
use crate::config::sink::Preset;
use scope::Scopes;
use target::{CallObject, FieldTarget};

/// The rules and the paths they read.
pub(super) struct Compiled {
    pub(super) rules: Vec<CompiledRule>,
    pub(super) record: Trie,
    pub(super) meta: Trie,
}

/// Compiles the rules of one sink.
pub(super) fn compile(
    at: &ConfigPath,
    rules: &[table::Rule],
    preset: Option<Preset>,
) -> Result<Compiled, Vec<Fault>> {
    let mut compiler = Compiler::default();
    let table = at.key("mapping");
    let compiled: Vec<_> = rules
        .iter()
        .enumerate()
        .filter_map(|(n, rule)| compiler.rule(&table.index(n), n, rule))
        .collect();
    compiler.check_duplicate_names(&table, rules);
    compiler.check_unreachable(at, rules, preset);
    if !compiler.faults.is_empty() {
        return Err(compiler.faults);
    }
    let (record, meta) = compiler.scopes.into_tries();
    Ok(Compiled { rules: compiled, record, meta })
}

#[derive(Default)]
struct Compiler {
    faults: Vec<Fault>,
    scopes: Scopes,
}

/// A fault under construction: its code and message.
struct FaultBuilder {
    code: &'static str,
    message: String,
    help: Option<String>,
}

fn report(code: &'static str, message: impl Into<String>) -> FaultBuilder {
    FaultBuilder { code, message: message.into(), help: None }
}

impl FaultBuilder {
    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Compiler {
    fn fault(&mut self, at: &ConfigPath, target: FaultTarget, report: FaultBuilder) {
        self.faults.push(Fault {
            code: report.code,
            path: at.clone(),
            target,
            message: report.message,
            help: report.help,
        });
    }

    fn value_fault(&mut self, at: &ConfigPath, report: FaultBuilder) {
        self.fault(at, FaultTarget::Value, report);
    }

    fn part_fault(&mut self, at: &ConfigPath, range: Range<usize>, report: FaultBuilder) {
        self.fault(at, FaultTarget::Part(range), report);
    }

    fn path_fault(&mut self, at: &ConfigPath, error: PathError) {
        let code = if error.plain_text { "E0202" } else { "E0201" };
        let (range, help) = (error.range, error.help);
        let message = error.message;
        self.part_fault(at, range, FaultBuilder { code, message, help });
    }

    fn rule(&mut self, at: &ConfigPath, n: usize, rule: &table::Rule) -> Option<CompiledRule> {
        let foreach = rule.foreach.as_ref().map(|text| self.path(&at.key("foreach"), text));
        if foreach.is_some() {
            self.scopes.enter_foreach();
        }
        let when = rule.when.as_ref().map(|when| self.condition(&at.key("when"), when));
        let call = self.call(at, rule);
        let trie = foreach.is_some().then(|| self.scopes.leave_foreach());
        let foreach = match (foreach, trie) {
            (Some(path), Some(trie)) => Some(Foreach { path: path?, trie }),
            _ => None,
        };
        Some(CompiledRule {
            name: name(rule, n).into(),
            when: match when {
                Some(when) => Some(when?),
                None => None,
            },
            foreach,
            stop: rule.stop,
            call,
        })
    }

    fn call(&mut self, at: &ConfigPath, rule: &table::Rule) -> CallTemplate {
        let mut call = CallTemplate {
            kind: rule.call,
            user_id: None,
            anonymous_id: None,
            message_id: None,
            timestamp: None,
            name: None,
            category: None,
            group_id: None,
            previous_id: None,
            user_key: None,
            fields: Default::default(),
            context: Default::default(),
        };
        let mut seen = target::TargetSet::default();
        let fields_at = at.key("fields");
        for (key, value) in &rule.fields {
            let at = fields_at.key(key);
            let Some(target) = self.target(&at, rule.call, key) else {
                // The value's own faults are reported too.
                self.field_list(&at, key, value);
                continue;
            };
            if let Some(report) = seen.add(key, &target) {
                self.fault(&at, FaultTarget::Key, report);
            }
            self.assign(&mut call, &at, key, target, value);
        }
        self.check_required(at, rule);
        call.fields.index_owned_names();
        call.context.index_owned_names();
        call
    }

    fn assign(
        &mut self,
        call: &mut CallTemplate,
        at: &ConfigPath,
        key: &str,
        target: FieldTarget,
        value: &table::FieldValue,
    ) {
        let slot = match target {
            FieldTarget::Field(slot, place) => {
                let object = match slot {
                    CallObject::Context => &mut call.context,
                    _ => &mut call.fields,
                };
                self.object_field(object, at, key, place, value);
                return;
            }
            FieldTarget::Timestamp => {
                call.timestamp = self.moment(at, key, value);
                return;
            }
            FieldTarget::UserId => &mut call.user_id,
            FieldTarget::AnonymousId => &mut call.anonymous_id,
            FieldTarget::MessageId => &mut call.message_id,
            FieldTarget::Name => &mut call.name,
            FieldTarget::Category => &mut call.category,
            FieldTarget::GroupId => &mut call.group_id,
            FieldTarget::PreviousId => &mut call.previous_id,
            FieldTarget::UserKey => &mut call.user_key,
        };
        *slot = self.one_field(at, key, value);
    }

    fn moment(
        &mut self,
        at: &ConfigPath,
        key: &str,
        value: &table::FieldValue,
    ) -> Option<TimestampField> {
        // The call stores a timestamp, so the target itself converts like `as`.
        let mut value = value.clone();
        let mut format = None;
        let mut zone = None;
        let mut on_failure = OnFailure::DeadLetter;
        if let table::FieldValue::Spec(spec) = &mut value {
            // With a default, a failed conversion uses it.
            if spec.default.is_some() {
                on_failure = OnFailure::Drop;
            }
            on_failure = spec.on_failure.unwrap_or(on_failure);
            spec.on_failure.take_if(|chosen| *chosen == OnFailure::Now);
            if matches!(spec.as_type, None | Some(table::TargetType::Timestamp)) {
                spec.as_type = None;
                format = spec.format.take();
                zone = self.zone(at, spec.timezone.take().as_deref());
                self.check_moment(at, spec, format.as_deref());
            }
        }
        let mut field = self.one_field(at, key, &value)?;
        field.on_failure = on_failure;
        Some(TimestampField { field, format: format.map(Into::into), zone })
    }

    /// What a call requires.
    fn check_required(&mut self, at: &ConfigPath, rule: &table::Rule) {
        let has = |key: &str| rule.fields.contains_key(key);
        let at = at.key("fields");
        if rule.call == CallKind::Alias && !has("user_id") {
            self.value_fault(
                &at,
                report("E0214", "an alias call needs `user_id`")
                    .help("set `user_id` to the path of the id that remains"),
            );
        } else if !has("user_id") && !has("anonymous_id") {
            self.value_fault(
                &at,
                report(
                    "E0214",
                    format!(
                        "{} {} call needs `user_id` or `anonymous_id`",
                        article(rule.call),
                        rule.call
                    ),
                )
                .help("set `user_id` to the path of the user's external id"),
            );
        }
        let lacks = match rule.call {
            CallKind::Track if !has("event") => "event",
            CallKind::Group if !has("group_id") => "group_id",
            CallKind::Alias if !has("previous_id") => "previous_id",
            _ => return,
        };
        self.value_fault(
            &at,
            report("E0214", format!("{} {} call needs `{lacks}`", article(rule.call), rule.call)),
        );
    }

    fn check_duplicate_names(&mut self, table: &ConfigPath, rules: &[table::Rule]) {
        let mut known: HashMap<String, usize> = HashMap::new();
        for (n, rule) in rules.iter().enumerate() {
            if let Some(first) = known.get(&name(rule, n)) {
                let message = format!("rule {} has the name of rule {}", n + 1, first + 1);
                let at = table.index(n).key("name");
                self.value_fault(&at, report("E0217", message).help("give it a name of its own"));
            } else {
                known.insert(name(rule, n), n);
            }
        }
    }

    /// Rules, and a preset, that are never reached.
    fn check_unreachable(
        &mut self,
        at: &ConfigPath,
        rules: &[table::Rule],
        preset: Option<Preset>,
    ) {
        let always = |rule: &table::Rule| {
            let operators = rule.when.as_ref().is_some_and(|when| !when.0.is_empty());
            !operators && rule.foreach.is_none()
        };
        let stop = rules.iter().position(|rule| rule.stop && always(rule));
        if let Some(stop) = stop {
            let by = name(&rules[stop], stop);
            for (n, rule) in rules.iter().enumerate().skip(stop + 1) {
                let message = format!(
                    "the rule `{}` can never fire: rule `{by}` takes every record and stops",
                    name(rule, n)
                );
                self.value_fault(
                    &at.key("mapping").index(n),
                    report("E0213", message)
                        .help(format!("give `{by}` a `when`, or move it to the end")),
                );
            }
        }
        if let (Some(n), Some(_)) = (rules.iter().position(always), preset) {
            let by = name(&rules[n], n);
            let message = format!("the preset can never fire: rule `{by}` takes every record");
            self.value_fault(
                &at.key("preset"),
                report("E0213", message)
                    .help(format!("give `{by}` a `when`, or remove the preset")),
            );
        }
    }

    /// Resolves a path.
    fn path(&mut self, at: &ConfigPath, text: &str) -> Option<super::eval_context::PathRef> {
        match path::parse(text) {
            Ok(path) => self.resolve(at, text, &path, 0),
            Err(error) => {
                self.path_fault(at, error);
                None
            }
        }
    }

    fn resolve(
        &mut self,
        at: &ConfigPath,
        shown: &str,
        path: &path::Path,
        offset: usize,
    ) -> Option<super::eval_context::PathRef> {
        let found = self.scopes.resolve(shown, path);
        if found.is_none() {
            let message = format!("`{shown}` starts with `^`, but there is no element to leave");
            let help = match shown.strip_prefix('^') {
                Some(rest) => format!("write `{rest}`; `^` is for rules with `foreach`"),
                None => "`^` is for rules with `foreach`".to_owned(),
            };
            self.part_fault(at, offset..offset + 1, report("E0203", message).help(help));
        }
        found
    }
}

fn article(call: CallKind) -> &'static str {
    match call {
        CallKind::Alias | CallKind::Identify => "an",
        CallKind::Page | CallKind::Track | CallKind::Group => "a",
    }
}

/// A rule's name.
fn name(rule: &table::Rule, n: usize) -> String {
    match &rule.name {
        Some(name) => name.clone(),
        None => format!("rule {}", n + 1),
    }
}
