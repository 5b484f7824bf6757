//! Compiles the values of fields into a source and its steps.

use indexmap::IndexMap;
use jiff::tz::TimeZone;
use regex::Regex;
use serde_json::Value;

use super::target::{self, FieldPath};
use super::{Compiler, report};
use crate::coerce::{timestamp, zone};
use crate::config::fault::{ConfigPath, Target as FaultTarget};
use crate::config::mapping::{
    Case, FieldSpec, FieldValue, Function, OnFailure, PathOrPaths, TargetType,
};
use crate::mapping::eval_context::PathRef;
use crate::mapping::field::{ElementShape, FieldTemplate, Steps, ValueSource};
use crate::mapping::functions;
use crate::mapping::object::{NamedField, ObjectTemplate};
use crate::mapping::path::{self, Root};
use crate::mapping::path_trie::Trie;
use crate::mapping::template::{self, Template, TemplatePart};

/// The possible sources of a field or a case.
struct Sources<'t> {
    path: Option<&'t PathOrPaths>,
    value: Option<&'t Value>,
    template: Option<&'t String>,
    cases: Option<&'t Vec<Case>>,
}

impl Compiler {
    /// Compiles a field of an object, a spread or a named one.
    pub(super) fn object_field(
        &mut self,
        object: &mut ObjectTemplate,
        at: &ConfigPath,
        key: &str,
        under: FieldPath,
        value: &FieldValue,
    ) {
        match under {
            FieldPath::Spread => object.spreads.extend(self.field_list(at, key, value)),
            FieldPath::Keys(keys) => {
                let field = self.one_field(at, key, value);
                object.named.extend(field.map(|field| NamedField { keys, field }));
            }
        }
    }

    /// Compiles a value that may be a list.
    pub(super) fn field_list(
        &mut self,
        at: &ConfigPath,
        key: &str,
        value: &FieldValue,
    ) -> Vec<FieldTemplate> {
        match value {
            FieldValue::List(list) => {
                let fields = list.iter().enumerate();
                let fields =
                    fields.filter_map(|(n, value)| self.one_field(&at.index(n), key, value));
                fields.collect()
            }
            one => self.one_field(at, key, one).into_iter().collect(),
        }
    }

    /// Compiles one value.
    pub(super) fn one_field(
        &mut self,
        at: &ConfigPath,
        key: &str,
        value: &FieldValue,
    ) -> Option<FieldTemplate> {
        match value {
            FieldValue::Path(text) => {
                let path = self.path(at, text)?;
                Some(FieldTemplate {
                    label: key.into(),
                    source: ValueSource::Paths(vec![path]),
                    steps: None,
                    default: None,
                    required: false,
                    on_failure: OnFailure::Drop,
                })
            }
            FieldValue::Spec(spec) => self.spec(at, key, spec),
            FieldValue::List(_) => {
                let message = format!("`{key}` takes one value, not a list");
                let help = "write { path = [ … ] } for the first of several paths";
                self.value_fault(at, report("E0215", message).help(help));
                None
            }
        }
    }

    fn spec(&mut self, at: &ConfigPath, key: &str, spec: &FieldSpec) -> Option<FieldTemplate> {
        let before = self.faults.len();
        let source = self.source(
            at,
            &Sources {
                path: spec.path.as_ref(),
                value: spec.value.as_ref(),
                template: spec.template.as_ref(),
                cases: spec.cases.as_ref(),
            },
        );
        self.contradictions(at, spec);
        let steps = self.steps(at, spec);
        let default = self.literal(&at.key("default"), spec.default.as_ref());
        let field = FieldTemplate {
            label: key.into(),
            source: source?,
            steps: steps.map(Box::new),
            default,
            required: spec.required,
            on_failure: match spec.on_failure {
                Some(chosen) => chosen,
                None if spec.required => OnFailure::DeadLetter,
                None => OnFailure::Drop,
            },
        };
        (self.faults.len() == before).then_some(field)
    }

    fn source(&mut self, at: &ConfigPath, sources: &Sources<'_>) -> Option<ValueSource> {
        let given: Vec<_> = [
            ("path", sources.path.is_some()),
            ("value", sources.value.is_some()),
            ("template", sources.template.is_some()),
            ("cases", sources.cases.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect();
        if let [_, second, ..] = given.as_slice() {
            let message = format!("more than one source: `{}`", given.join("`, `"));
            let help = "keep one of them; { path = [ … ] } takes the first of several paths";
            let at = at.key(*second);
            self.fault(&at, FaultTarget::Key, report("E0207", message).help(help));
        }
        // With several sources each is compiled, to find its own faults.
        let path = sources.path.map(|p| self.paths(&at.key("path"), p));
        let value = sources
            .value
            .map(|v| self.literal(&at.key("value"), Some(v)).map(ValueSource::Literal));
        let template = sources
            .template
            .map(|t| self.template(&at.key("template"), t).map(ValueSource::Template));
        let cases = sources.cases.map(|c| self.cases(&at.key("cases"), c));
        let Some(source) = path.or(value).or(template).or(cases) else {
            let message = "no source: nothing says where the value comes from";
            let help = "add `path`, `value`, `template` or `cases`";
            self.value_fault(at, report("E0206", message).help(help));
            return None;
        };
        source
    }

    fn paths(&mut self, at: &ConfigPath, paths: &PathOrPaths) -> Option<ValueSource> {
        let paths = match paths {
            PathOrPaths::One(path) => return Some(ValueSource::Paths(vec![self.path(at, path)?])),
            PathOrPaths::Many(paths) => paths,
        };
        if paths.is_empty() {
            self.value_fault(at, report("E0206", "the list of paths is empty"));
            return None;
        }
        let paths: Vec<_> =
            paths.iter().enumerate().map(|(n, path)| self.path(&at.index(n), path)).collect();
        paths.into_iter().collect::<Option<_>>().map(ValueSource::Paths)
    }

    fn template(&mut self, at: &ConfigPath, text: &str) -> Option<Template<PathRef>> {
        let pieces = match template::parse(text) {
            Ok(pieces) => pieces,
            Err(errors) => {
                for error in errors {
                    let mut fault = report("E0211", error.message);
                    fault.help = error.help;
                    self.part_fault(at, error.range, fault);
                }
                return None;
            }
        };
        let pieces: Vec<_> = pieces
            .into_iter()
            .map(|piece| match piece {
                TemplatePart::Text(text) => Some(TemplatePart::Text(text)),
                TemplatePart::Insert((path, start)) => {
                    let end = text[start..].find("}}").map_or(text.len(), |end| start + end);
                    let shown = text[start..end].trim();
                    self.resolve(at, shown, &path, start).map(TemplatePart::Insert)
                }
            })
            .collect();
        pieces.into_iter().collect::<Option<_>>().map(Template)
    }

    fn cases(&mut self, at: &ConfigPath, cases: &[Case]) -> Option<ValueSource> {
        if cases.is_empty() {
            self.value_fault(at, report("E0206", "the list of cases is empty"));
            return None;
        }
        let mut compiled = Vec::new();
        let mut sound = true;
        for (n, case) in cases.iter().enumerate() {
            let at = at.index(n);
            if case.when.is_none() && n + 1 < cases.len() {
                let message = "the cases after this one can never be reached";
                let help = "give it a `when`, or move it to the end";
                self.value_fault(&at, report("E0213", message).help(help));
            }
            let when = case.when.as_ref().map(|when| self.condition(&at.key("when"), when));
            let source = self.source(
                &at,
                &Sources {
                    path: case.path.as_ref(),
                    value: case.value.as_ref(),
                    template: case.template.as_ref(),
                    cases: None,
                },
            );
            match (when, source) {
                (Some(None), _) | (_, None) => sound = false,
                (when, Some(source)) => compiled.push((when.flatten(), source)),
            }
        }
        sound.then_some(ValueSource::Cases(compiled))
    }

    fn literal(&mut self, at: &ConfigPath, value: Option<&Value>) -> Option<Box<str>> {
        let value = value?;
        if value.is_null() {
            let message = "null sets nothing: it is the same as a missing value";
            self.value_fault(at, report("E0218", message).help("take it out"));
            return None;
        }
        Some(value.to_string().into())
    }

    /// Settings that contradict each other or have no effect.
    fn contradictions(&mut self, at: &ConfigPath, spec: &FieldSpec) {
        let timestamp = spec.as_type == Some(TargetType::Timestamp);
        let shapes = ["only", "except", "rename", "flatten"].into_iter().zip([
            spec.only.is_some(),
            spec.except.is_some(),
            spec.rename.is_some(),
            spec.flatten.is_some(),
        ]);
        let shape = shapes.filter_map(|(name, given)| given.then_some(name)).next();
        let mut found = Vec::new();
        if spec.required && spec.default.is_some() {
            let why = "a field with a `default` is never missing, so `required` does nothing";
            found.push(("required", why.to_owned(), "remove one of them"));
        }
        if spec.format.is_some() && !timestamp {
            let why = "`format` is for timestamps";
            found.push(("format", why.to_owned(), "add as = \"timestamp\", or remove it"));
        }
        if spec.map_default.is_some() && spec.map.is_none() {
            found.push(("map_default", "there is no `map`".to_owned(), "add `map`"));
        }
        if spec.each.is_some() && spec.join.is_some() {
            let why = "`each` makes objects, which `join` cannot join";
            found.push(("join", why.to_owned(), "remove one of them"));
        }
        if let (Some(shape), true) = (shape, spec.join.is_some() || spec.each.is_some()) {
            let why = format!("`{shape}` is for objects, and `each` and `join` make none");
            found.push((shape, why, "remove one of them"));
        }
        if spec.required && spec.on_failure == Some(OnFailure::Drop) {
            let why = "a `required` field that is left out sends the record to the dead letters, so \
                       `drop` does nothing";
            found.push(("on_failure", why.to_owned(), "remove one of them"));
        }
        if spec.timezone.is_some() && !timestamp {
            let why = "`timezone` is for timestamps";
            found.push(("timezone", why.to_owned(), "add as = \"timestamp\", or remove it"));
        }
        for (key, message, help) in found {
            self.fault(&at.key(key), FaultTarget::Key, report("E0208", message).help(help));
        }
        if spec.on_failure == Some(OnFailure::Now) {
            let message = "`now` is for the target `timestamp` only";
            let help = "write \"drop\" or \"dead_letter\"";
            self.value_fault(&at.key("on_failure"), report("E0220", message).help(help));
        }
        self.check_moment(at, spec, spec.format.as_deref());
        self.check_empty(at, spec);
    }

    /// Checks a strptime format, and literals that must be timestamps.
    pub(super) fn check_moment(&mut self, at: &ConfigPath, spec: &FieldSpec, format: Option<&str>) {
        let Some(format) = format else { return };
        if let Err(error) = timestamp::check_format(format) {
            let message = format!("the format {format:?} cannot be read: {error}");
            let help = "use strptime directives that name a date: %Y-%m-%d %H:%M:%S";
            let at = at.key("format");
            self.part_fault(&at, 0..format.len(), report("E0210", message).help(help));
            return;
        }
        if let Some(Value::String(text)) = &spec.default
            && timestamp::parse_format(format, text, &TimeZone::UTC).is_err()
            && spec.as_type != Some(TargetType::Timestamp)
        {
            let message = format!("the default {text:?} is no timestamp of the format {format:?}");
            self.value_fault(&at.key("default"), report("E0218", message));
        }
    }

    /// The zone of a name; a fault suggests similar names.
    pub(super) fn zone(&mut self, at: &ConfigPath, name: Option<&str>) -> Option<TimeZone> {
        let name = name?;
        let found = zone::find(name);
        if found.is_none() {
            let message = format!("there is no time zone {name:?}");
            let help = match zone::nearest(name).as_slice() {
                [] => "write an IANA name: Europe/Warsaw".to_owned(),
                near => format!("did you mean {}?", near.join(", ")),
            };
            self.value_fault(&at.key("timezone"), report("E0219", message).help(help));
        }
        found
    }

    fn check_empty(&mut self, at: &ConfigPath, spec: &FieldSpec) {
        if spec.split.as_deref() == Some("") {
            let message = "`split` needs a separator";
            self.value_fault(&at.key("split"), report("E0208", message));
        }
    }

    /// The steps of a field; `None` where its value is used unchanged.
    fn steps(&mut self, at: &ConfigPath, spec: &FieldSpec) -> Option<Steps> {
        let boxed = |text: &String| -> Box<str> { text.as_str().into() };
        let mut steps = Steps {
            split: spec.split.as_ref().map(boxed),
            then: self.functions(&at.key("then"), spec.then.as_deref().unwrap_or_default()),
            cast: spec.as_type,
            format: spec.format.as_ref().map(boxed),
            zone: self.zone(at, spec.timezone.as_deref()),
            join: spec.join.as_ref().map(boxed),
            only: spec.only.as_ref().map(|l| l.iter().map(boxed).collect()),
            except: spec.except.as_ref().map(|l| l.iter().map(boxed).collect()),
            flatten: spec.flatten.as_ref().map(boxed),
            ..Steps::default()
        };
        for (n, (pattern, with)) in spec.replace.iter().flatten().enumerate() {
            let regex = self.regex(&at.key("replace").index(n).index(0), pattern);
            steps.replace.extend(regex.map(|regex| (regex, boxed(with))));
        }
        if let Some(map) = &spec.map {
            // A null here means: omit the field, which does not count as a miss.
            let entries = map.iter().map(|(key, value)| (boxed(key), value.to_string().into()));
            steps.map = Some(entries.collect());
        }
        steps.map_default = self.literal(&at.key("map_default"), spec.map_default.as_ref());
        if let Some(each) = &spec.each {
            steps.each = Some(self.each(&at.key("each"), each));
        }
        if let Some(rename) = &spec.rename {
            let pairs = rename.iter().map(|(old, new)| (boxed(old), boxed(new)));
            steps.rename = Some(pairs.collect());
        }
        (!steps.is_empty()).then_some(steps)
    }

    fn functions(&mut self, at: &ConfigPath, then: &[Function]) -> Vec<functions::FunctionStep> {
        let mut steps = Vec::new();
        for (n, function) in then.iter().enumerate() {
            let at = at.index(n);
            steps.extend(match function {
                Function::Get(path) => self.get(&at.key("get"), path),
                Function::Capture(pattern) => self.capture(&at.key("capture"), pattern),
                named => Some(functions::FunctionStep::Named(named.clone())),
            });
        }
        steps
    }

    /// A path into the result of the previous functions.
    fn get(&mut self, at: &ConfigPath, text: &str) -> Option<functions::FunctionStep> {
        let path = match path::parse(text) {
            Ok(path) => path,
            Err(mut error) => {
                if error.plain_text {
                    error.help = Some(format!("write `.{text}`, with the leading dot"));
                }
                self.path_fault(at, error);
                return None;
            }
        };
        if path.root != Root::Here {
            let message =
                format!("`get` reads inside of the current value; `{text}` is outside of it");
            let help = "write a path that starts with a dot; `path` reads the record";
            self.value_fault(at, report("E0221", message).help(help));
            return None;
        }
        let mut trie = Trie::default();
        let slot = trie.insert(&path.steps);
        Some(functions::FunctionStep::Get { shown: text.into(), trie, slot })
    }

    fn capture(&mut self, at: &ConfigPath, pattern: &str) -> Option<functions::FunctionStep> {
        let regex = self.regex(at, pattern)?;
        let named = regex.capture_names().flatten().count();
        if named == 0 && regex.captures_len() > 2 {
            let message = "several groups without names: which of them is meant?";
            let help = "name them, (?P<name>...), or write (?:...) for those that only group";
            self.value_fault(at, report("E0221", message).help(help));
            return None;
        }
        Some(functions::FunctionStep::Capture(regex))
    }

    fn each(&mut self, at: &ConfigPath, shape: &IndexMap<String, FieldValue>) -> ElementShape {
        self.scopes.enter();
        let mut object = ObjectTemplate::default();
        let mut seen = target::TargetSet::default();
        for (key, value) in shape {
            let at = at.key(key);
            match target::place(key, key) {
                Ok(under) => {
                    let target =
                        target::FieldTarget::Field(target::CallObject::Traits, under.clone());
                    if let Some(report) = seen.add(key, &target) {
                        self.fault(&at, FaultTarget::Key, report);
                    }
                    self.object_field(&mut object, &at, key, under, value);
                }
                Err(report) => self.fault(&at, FaultTarget::Key, report),
            }
        }
        object.index_owned_names();
        ElementShape { trie: self.scopes.leave(), object: Box::new(object) }
    }

    /// Compiles a regular expression; a fault points into it.
    pub(super) fn regex(&mut self, at: &ConfigPath, pattern: &str) -> Option<Regex> {
        let error = match Regex::new(pattern) {
            Ok(regex) => return Some(regex),
            Err(error) => error,
        };
        let (range, message) = match regex_syntax::parse(pattern) {
            Err(regex_syntax::Error::Parse(e)) => (span(e.span()), e.kind().to_string()),
            Err(regex_syntax::Error::Translate(e)) => (span(e.span()), e.kind().to_string()),
            _ => (0..pattern.len(), error.to_string()),
        };
        let message = format!("the regular expression {pattern:?} cannot be read: {message}");
        self.part_fault(at, range, report("E0209", message));
        None
    }
}

fn span(span: &regex_syntax::ast::Span) -> std::ops::Range<usize> {
    span.start.offset..span.end.offset
}
