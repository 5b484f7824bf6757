//! The mapping table: compiled once, then from a record's tree to the calls it means.
//!
//! Of what a table may hold it knows what the bench's table holds: conditions of equality, fields
//! of one or several paths of keys, spreads. It refuses all else when it is compiled.

use jiff::Timestamp;
use serde_json::{Map, Value};
use usercom_sink::call::CallKind;
use usercom_sink::config::mapping::{
    self as written, Condition, ConditionValue, FieldValue, PathOrPaths, Scalar,
};

use super::text::text;
use super::{Fault, Notes, moment};

/// What a record meant.
pub(super) struct Call {
    pub(super) kind: CallKind,
    pub(super) user_id: Option<String>,
    pub(super) anonymous_id: Option<String>,
    pub(super) message_id: Option<String>,
    pub(super) timestamp: Option<Timestamp>,
    /// `event` of a track, `name` of a page.
    pub(super) name: Option<String>,
    pub(super) category: Option<String>,
    pub(super) group_id: Option<String>,
    /// Traits or properties.
    pub(super) fields: Map<String, Value>,
    pub(super) context: Map<String, Value>,
}

/// A compiled table.
pub(super) struct Table(Vec<Rule>);

struct Rule {
    kind: CallKind,
    when: Vec<(Path, Scalar)>,
    stop: bool,
    /// By their places in [`TARGETS`].
    reads: [Vec<Reader>; TARGETS.len()],
}

type Path = Vec<String>;

/// A path, and whether nobody reads what it leads to, or a part of it, later in the same rule: then
/// the value is taken, not copied.
struct Reader {
    path: Path,
    is_last: bool,
}

/// What a call is filled with, in the order of [`Rule::call`].
const TARGETS: [&[&str]; 9] = [
    &["user_id"],
    &["anonymous_id"],
    &["message_id"],
    &["event", "name"],
    &["category"],
    &["group_id"],
    &["timestamp"],
    &["traits.*", "properties.*"],
    &["context.*"],
];

impl Table {
    pub(super) fn compile(rules: &[written::Rule]) -> Self {
        Self(rules.iter().map(Rule::compile).collect())
    }

    /// The calls of all rules that hold.
    pub(super) fn calls(&self, mut record: Value, notes: &mut Notes) -> Result<Vec<Call>, Fault> {
        let mut due: Vec<&Rule> = Vec::new();
        for rule in &self.0 {
            if rule.holds(&record) {
                due.push(rule);
                if rule.stop {
                    break;
                }
            }
        }
        let Some(last) = due.pop() else {
            return Ok(Vec::new());
        };
        // Whoever comes last may take the record apart.
        let mut calls = Vec::with_capacity(due.len() + 1);
        for rule in due {
            calls.push(rule.call(&mut record.clone(), notes)?);
        }
        calls.push(last.call(&mut record, notes)?);
        Ok(calls)
    }
}

impl Rule {
    fn compile(rule: &written::Rule) -> Self {
        assert!(rule.foreach.is_none(), "a rule runs once");
        let known = |target: &String| TARGETS.iter().any(|names| names.contains(&&**target));
        assert!(rule.fields.keys().all(known), "a target is one of those known");
        let mut reads = TARGETS.map(|names| {
            let values = names.iter().filter_map(|name| rule.fields.get(*name));
            let paths = values.flat_map(paths);
            paths.map(|path| Reader { path, is_last: true }).collect::<Vec<_>>()
        });
        let all: Vec<Path> = reads.iter().flatten().map(|reader| reader.path.clone()).collect();
        for (n, reader) in reads.iter_mut().flatten().enumerate() {
            reader.is_last = !all[n + 1..].iter().any(|later| overlap(&reader.path, later));
        }
        Self {
            kind: rule.call,
            when: rule.when.iter().flat_map(equalities).collect(),
            stop: rule.stop,
            reads,
        }
    }

    fn holds(&self, record: &Value) -> bool {
        self.when.iter().all(|(path, wanted)| {
            let found = path.iter().try_fold(record, |at, key| at.get(key));
            found.is_some_and(|value| equals(value, wanted))
        })
    }

    fn call(&self, record: &mut Value, notes: &mut Notes) -> Result<Call, Fault> {
        let [user, anonymous, message, title, category, group, time, fields, context] = &self.reads;
        let call = Call {
            kind: self.kind,
            user_id: name(user, record, notes),
            anonymous_id: name(anonymous, record, notes),
            message_id: name(message, record, notes),
            name: name(title, record, notes),
            category: name(category, record, notes),
            group_id: name(group, record, notes),
            timestamp: timestamp(time, record, notes),
            fields: spread(fields, record, notes),
            context: spread(context, record, notes),
        };
        check(&call)?;
        Ok(call)
    }
}

impl Reader {
    /// What the path leads to; null is nothing.
    fn read(&self, record: &mut Value) -> Option<Value> {
        let found = self.path.iter().try_fold(record, |at, key| at.get_mut(key))?;
        let value = if self.is_last { found.take() } else { found.clone() };
        (!value.is_null()).then_some(value)
    }
}

/// The paths of a field value.
fn paths(value: &FieldValue) -> Vec<Path> {
    match value {
        FieldValue::Path(path) => vec![steps(path)],
        FieldValue::List(list) => list.iter().flat_map(paths).collect(),
        FieldValue::Spec(spec) => match &spec.path {
            Some(PathOrPaths::One(path)) => vec![steps(path)],
            Some(PathOrPaths::Many(paths)) => paths.iter().map(|path| steps(path)).collect(),
            None => panic!("a field's source is a path"),
        },
    }
}

fn steps(path: &str) -> Path {
    assert!(!path.contains(['[', '"', '^', '%']), "a path has plain keys only");
    let keys = path.strip_prefix('.').expect("a path starts with a dot");
    keys.split('.').map(str::to_owned).collect()
}

fn overlap(one: &[String], other: &[String]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn equalities(condition: &Condition) -> impl Iterator<Item = (Path, Scalar)> {
    condition.0.iter().map(|(path, value)| match value {
        ConditionValue::Equals(wanted) => (steps(path), wanted.clone()),
        _ => panic!("a condition is an equality"),
    })
}

fn equals(value: &Value, wanted: &Scalar) -> bool {
    match wanted {
        Scalar::Bool(truth) => value.as_bool() == Some(*truth),
        Scalar::Integer(whole) => value.as_i64() == Some(*whole),
        Scalar::Float(number) => value.as_f64() == Some(*number),
        Scalar::String(text) => value.as_str() == Some(text),
    }
}

/// The first value that is there.
fn first(readers: &[Reader], record: &mut Value) -> Option<Value> {
    readers.iter().find_map(|reader| reader.read(record))
}

/// A text of an id or a name; an empty one is nothing.
fn name(readers: &[Reader], record: &mut Value, notes: &mut Notes) -> Option<String> {
    let found = text(first(readers, record)?);
    if found.is_none() {
        notes.unread += 1;
    }
    found.filter(|text| !text.is_empty())
}

fn timestamp(readers: &[Reader], record: &mut Value, notes: &mut Notes) -> Option<Timestamp> {
    let found = moment::of(&first(readers, record)?);
    if found.is_none() {
        notes.unread += 1;
    }
    found
}

/// Objects laid over one another; later entries win, unless they are null.
fn spread(readers: &[Reader], record: &mut Value, notes: &mut Notes) -> Map<String, Value> {
    let mut whole: Option<Map<String, Value>> = None;
    for reader in readers {
        match (reader.read(record), &mut whole) {
            (Some(Value::Object(more)), Some(whole)) => {
                whole.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
            }
            (Some(Value::Object(object)), None) => whole = Some(object),
            (Some(_), _) => notes.unread += 1,
            (None, _) => {}
        }
    }
    whole.unwrap_or_default()
}

/// Refuses a call that says of nobody, of no company, or nothing.
fn check(call: &Call) -> Result<(), Fault> {
    match call.kind {
        _ if call.user_id.is_none() && call.anonymous_id.is_none() => Err("nobody is named"),
        CallKind::Track if call.name.is_none() => Err("the track has no event"),
        CallKind::Group if call.group_id.is_none() => Err("the group has no id"),
        _ => Ok(()),
    }
}
