//! Checks the tree against the JSON Schema that is generated from the typed settings, so that an
//! editor with the schema and `validate` refuse the same things. Reads the subset of JSON Schema
//! that the generator writes, and finds every fault, not only the first.
//!
//! Invariant: no fault quotes a value that came from outside the file.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::document::{Node, NodeKind};
use super::fault::{ConfigPath, Fault, Segment, Target};
use super::foreign_keys::{self, Foreign};
use super::pipeline::NAME_PATTERN;
use super::suggest::{instead_behind, list};
use super::units::Unit;

static NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(NAME_PATTERN).expect("a constant pattern"));

/// All faults of a tree. Numbers such as `4.0` become whole where whole ones are asked for: JSON
/// makes no difference between them, serde does.
pub(crate) fn check(schema: &Value, root: &mut Node) -> Vec<Fault> {
    let mut checker = Checker::new(schema);
    checker.node(schema, root, &ConfigPath::default());
    for path in checker.whole {
        if let Some(node) = root.at_mut(&path.0) {
            node.make_whole();
        }
    }
    checker.faults
}

/// Keys of one table that are looked at for one that was meant to be a missing one.
const MISTYPED: usize = 1_000;

struct Checker<'s> {
    schema: &'s Value,
    faults: Vec<Fault>,
    /// Numbers without a fraction where whole ones are asked for.
    whole: Vec<ConfigPath>,
}

impl<'s> Checker<'s> {
    fn new(schema: &'s Value) -> Self {
        Self { schema, faults: Vec::new(), whole: Vec::new() }
    }

    fn node(&mut self, schema: &'s Value, node: &Node, path: &ConfigPath) {
        let mut leaves = Vec::new();
        self.leaves(schema, &mut leaves);
        match leaves.as_slice() {
            [] => {}
            [only] => self.one(only, node, path),
            _ => self.choice(&leaves, node, path),
        }
    }

    /// The plain schemas a schema stands for: references followed, alternatives laid out. Nothing
    /// is put in where everything is allowed.
    fn leaves(&self, schema: &'s Value, out: &mut Vec<&'s Map<String, Value>>) {
        let Some(object) = schema.as_object() else {
            return;
        };
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            let pointer = reference.trim_start_matches('#');
            if let Some(target) = self.schema.pointer(pointer) {
                self.leaves(target, out);
            }
            return;
        }
        for word in ["anyOf", "oneOf"] {
            if let Some(alternatives) = object.get(word).and_then(Value::as_array) {
                for alternative in alternatives {
                    self.leaves(alternative, out);
                }
                return;
            }
        }
        let restricts = ["type", "const", "enum"];
        if restricts.iter().any(|word| object.contains_key(*word)) {
            out.push(object);
        }
    }

    fn choice(&mut self, leaves: &[&'s Map<String, Value>], node: &Node, path: &ConfigPath) {
        let fitting: Vec<_> = leaves.iter().copied().filter(|leaf| admits(leaf, node)).collect();
        match fitting.as_slice() {
            [] => {
                let words: Vec<_> = leaves.iter().flat_map(|leaf| types(leaf)).collect();
                self.wrong_type(&words, node, path);
            }
            [only] if words(only).is_none() => self.one(only, node, path),
            _ => {
                if let Some(known) = all_words(&fitting) {
                    self.word(&known, node, path);
                } else if fitting.iter().all(|leaf| tag(leaf).is_some()) {
                    self.tagged(&fitting, node, path);
                } else {
                    self.best(&fitting, node, path);
                }
            }
        }
    }

    /// The only schema there is. It may still ask for a `type`.
    fn one(&mut self, leaf: &'s Map<String, Value>, node: &Node, path: &ConfigPath) {
        if tag(leaf).is_some() && node.table().is_some() {
            self.tagged(&[leaf], node, path);
        } else {
            self.leaf(leaf, node, path);
        }
    }

    /// Several alternatives of one kind without a `type`: the one with the fewest faults speaks.
    fn best(&mut self, leaves: &[&'s Map<String, Value>], node: &Node, path: &ConfigPath) {
        let attempts = leaves.iter().map(|leaf| {
            let mut attempt = Checker::new(self.schema);
            attempt.leaf(leaf, node, path);
            attempt.faults
        });
        if let Some(faults) = attempts.min_by_key(Vec::len) {
            self.faults.extend(faults);
        }
    }

    fn tagged(&mut self, leaves: &[&'s Map<String, Value>], node: &Node, path: &ConfigPath) {
        let Some(entries) = node.table() else {
            return;
        };
        let Some(name) = entries.get("type") else {
            let known: Vec<_> = leaves.iter().copied().filter_map(tag).collect();
            let help = format!("write `type = …`: {}", list(known, "or"));
            self.missing("type", path, help);
            return;
        };
        let path_of_type = path.key("type");
        let Some(text) = name.node.text() else {
            self.wrong_type(&["string"], &name.node, &path_of_type);
            return;
        };
        if let Some(leaf) = leaves.iter().find(|leaf| tag(leaf) == Some(&text.value)) {
            self.leaf(leaf, node, path);
            return;
        }
        let known: Vec<_> = leaves.iter().copied().filter_map(tag).collect();
        self.unknown_type(text, &known, path_of_type);
    }

    fn unknown_type(
        &mut self,
        text: &super::text::InterpolatedString,
        known: &[&str],
        path: ConfigPath,
    ) {
        let in_sources = path.0.first() == Some(&Segment::Key("sources".to_owned()));
        let what = if in_sources { "source" } else { "sink" };
        if in_sources && let Some(help) = foreign_keys::absent_source(&text.value) {
            let message = format!("source type `{}` is not in this build", text.value);
            self.fault("E0106", path, Target::Value, message, help.to_owned());
            return;
        }
        let message = format!("unknown {what} type {}", quoted(text));
        let help = self.instead(&text.value, known, "the known types are");
        self.fault("E0105", path, Target::Value, message, help);
    }

    fn word(&mut self, known: &[&str], node: &Node, path: &ConfigPath) {
        let Some(text) = node.text() else {
            self.wrong_type(&["string"], node, path);
            return;
        };
        if known.contains(&text.value.as_str()) {
            return;
        }
        let message = format!("unknown word {} for `{path}`", quoted(text));
        let help = self.instead(&text.value, known, "the known words are");
        self.fault("E0104", path.clone(), Target::Value, message, help);
    }

    fn leaf(&mut self, leaf: &'s Map<String, Value>, node: &Node, path: &ConfigPath) {
        if !admits(leaf, node) {
            self.wrong_type(&types(leaf), node, path);
            return;
        }
        match &node.kind {
            NodeKind::String(_) => {
                if let Some(known) = words(leaf) {
                    self.word(&known, node, path);
                }
            }
            NodeKind::Integer(number) => {
                #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
                self.bounds(leaf, *number as f64, path);
            }
            NodeKind::Float(number) => {
                self.bounds(leaf, *number, path);
                if !types(leaf).contains(&"number") {
                    self.whole.push(path.clone());
                }
            }
            NodeKind::Array(items) => self.array(leaf, items, path),
            NodeKind::Table(entries) => self.table(leaf, entries, path),
            NodeKind::Bool(_) | NodeKind::Null => {}
        }
    }

    fn bounds(&mut self, leaf: &Map<String, Value>, number: f64, path: &ConfigPath) {
        let bound = |word: &str| leaf.get(word).and_then(Value::as_f64);
        let (low, high) = (bound("minimum"), bound("maximum"));
        if low.is_some_and(|low| number < low) || high.is_some_and(|high| number > high) {
            let message = format!("{number} is out of the range of `{path}`");
            let help = match (low, high) {
                (Some(low), Some(high)) => format!("from {low} to {high}"),
                (Some(low), None) => format!("at least {low}"),
                (_, high) => format!("at most {}", high.unwrap_or(f64::MAX)),
            };
            self.fault("E0107", path.clone(), Target::Value, message, help);
        }
    }

    fn array(&mut self, leaf: &'s Map<String, Value>, items: &[Node], path: &ConfigPath) {
        let fixed = leaf.get("prefixItems").and_then(Value::as_array);
        let count = |word: &str| leaf.get(word).and_then(Value::as_u64);
        let (low, high) = (count("minItems"), count("maxItems"));
        let length = items.len() as u64;
        if low.is_some_and(|low| length < low) || high.is_some_and(|high| length > high) {
            let message = match length {
                0 => format!("`{path}` is empty"),
                _ => format!("`{path}` has {length} elements"),
            };
            let help = match (low, high) {
                (Some(low), Some(high)) if low == high => format!("exactly {low} are needed"),
                (Some(low), _) if length < low => format!("at least {low} is needed"),
                (_, high) => format!("at most {} are allowed", high.unwrap_or_default()),
            };
            self.fault("E0108", path.clone(), Target::Value, message, help);
        }
        for (index, item) in items.iter().enumerate() {
            let schema = fixed.and_then(|schemas| schemas.get(index)).or_else(|| leaf.get("items"));
            if let Some(schema) = schema {
                self.node(schema, item, &path.index(index));
            }
        }
    }

    fn table(
        &mut self,
        leaf: &'s Map<String, Value>,
        entries: &indexmap::IndexMap<String, super::document::NodeEntry>,
        path: &ConfigPath,
    ) {
        let properties = leaf.get("properties").and_then(Value::as_object);
        let others = leaf.get("additionalProperties");
        for (key, entry) in entries {
            let below = path.key(key);
            self.name(leaf, key, &below);
            match (properties.and_then(|known| known.get(key)), others) {
                (Some(schema), _) => self.node(schema, &entry.node, &below),
                (None, Some(Value::Bool(false))) => self.unknown_key(properties, key, path),
                (None, Some(schema)) => self.node(schema, &entry.node, &below),
                (None, None) => {}
            }
        }
        self.required(leaf, entries, path);
        let least = leaf.get("minProperties").and_then(Value::as_u64);
        if least.is_some_and(|least| (entries.len() as u64) < least) {
            let message = format!("`{path}` is empty");
            let help = format!("write at least one `[{path}.NAME]`");
            self.fault("E0108", path.clone(), Target::Key, message, help);
        }
    }

    fn required(
        &mut self,
        leaf: &Map<String, Value>,
        entries: &indexmap::IndexMap<String, super::document::NodeEntry>,
        path: &ConfigPath,
    ) {
        let required = leaf.get("required").and_then(Value::as_array);
        let known = known_keys(leaf.get("properties").and_then(Value::as_object));
        for key in required.into_iter().flatten().filter_map(Value::as_str) {
            // A mistyped key has been told already, with this one as its help.
            let mistyped = |other: &String| {
                !known.contains(&other.as_str())
                    && foreign_keys::meant(path, other, &known) == Some(key)
            };
            if entries.contains_key(key) || entries.keys().take(MISTYPED).any(mistyped) {
                continue;
            }
            let help = match (path.0.is_empty(), key) {
                (true, "sources" | "sinks") => format!("write at least one `[{key}.NAME]`"),
                (_, "api_key") => {
                    "write `api_key = \"${USERCOM_API_KEY}\"` and set the variable".to_owned()
                }
                (_, "inputs") => "name the sources it reads: `inputs = [\"…\"]`".to_owned(),
                _ => format!("write `{key} = …`"),
            };
            self.missing(key, path, help);
        }
    }

    fn name(&mut self, leaf: &Map<String, Value>, key: &str, path: &ConfigPath) {
        let pattern = leaf
            .get("propertyNames")
            .and_then(|names| names.get("pattern"))
            .and_then(Value::as_str);
        // The schema has one pattern, that of names.
        if pattern == Some(NAME_PATTERN) && !NAME.is_match(key) {
            let message = format!("{key:?} cannot be a name");
            let help =
                "at most 64 letters, digits, `_`, `-` and `.`, beginning with a letter or digit";
            self.fault("E0110", path.clone(), Target::Key, message, help.to_owned());
        }
    }

    fn unknown_key(
        &mut self,
        properties: Option<&'s Map<String, Value>>,
        key: &str,
        table: &ConfigPath,
    ) {
        let known = known_keys(properties);
        let message = format!("unknown key `{key}`{}", inside(table));
        let (code, help) = match foreign_keys::foreign_key(table, key) {
            Some(Foreign::Called(name)) => ("E0109", format!("did you mean `{name}`?")),
            Some(Foreign::Absent(why)) => ("E0109", format!("leave it out: {why}")),
            None => ("E0101", self.instead(key, &known, "the known keys are")),
        };
        self.fault(code, table.key(key), Target::Key, message, help);
    }

    fn missing(&mut self, key: &str, table: &ConfigPath, help: String) {
        let message = format!("missing key `{key}`{}", inside(table));
        let mut path = table.clone();
        // The path names what is missing; it is shown at the nearest parent's name.
        path.0.push(Segment::Key(key.to_owned()));
        self.fault("E0102", path, Target::Value, message, help);
    }

    fn wrong_type(&mut self, expected: &[&str], node: &Node, path: &ConfigPath) {
        let mut kinds: Vec<_> = expected.iter().map(|word| kind_name(word)).collect();
        // null stands for "left out", which is better said by leaving it out.
        kinds.retain(|kind| *kind != "nothing");
        kinds.dedup();
        let mut seen = Vec::new();
        kinds.retain(|kind| {
            !seen.contains(kind) && {
                seen.push(*kind);
                true
            }
        });
        let expected = match kinds.split_last() {
            None => "nothing".to_owned(),
            Some((only, [])) => (*only).to_owned(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        };
        let found = kind_name(json_kind(node));
        let message = format!("expected {expected}, found {found}");
        let help = match (kinds.as_slice(), &node.kind) {
            (["a whole number" | "a number"], NodeKind::String(text)) if text.is_interpolated() => {
                "`${…}` always makes a string; write the number itself".to_owned()
            }
            (["a whole number" | "a number"], NodeKind::String(text))
                if text.value.parse::<f64>().is_ok() =>
            {
                format!("write it without quotes: {}", text.value)
            }
            (["true or false"], NodeKind::String(text))
                if matches!(text.value.as_str(), "true" | "false") =>
            {
                format!("write it without quotes: {}", text.value)
            }
            (["a whole number" | "a number"], found) if let Some(unit) = unit(path) => {
                let count = match found {
                    NodeKind::String(text) if !text.is_interpolated() => unit.count(&text.value),
                    _ => None,
                };
                let example = count.map_or_else(String::new, |count| format!(": write {count}"));
                format!("`{path}` is a whole number of {}{example}", unit.name())
            }
            (["a list"], NodeKind::String(_)) => format!("put `{path}` into a list: `[\"…\"]`"),
            _ => format!("`{path}` is {expected}"),
        };
        self.fault("E0103", path.clone(), Target::Value, message, help);
    }

    fn instead(&self, word: &str, known: &[&str], what: &str) -> String {
        instead_behind(self.faults.len(), word, known, what)
    }

    fn fault(
        &mut self,
        code: &'static str,
        path: ConfigPath,
        target: Target,
        message: String,
        help: String,
    ) {
        self.faults.push(Fault { code, path, target, message, help: Some(help) });
    }
}

/// The unit of the setting at a path.
fn unit(path: &ConfigPath) -> Option<Unit> {
    match path.0.last() {
        Some(Segment::Key(key)) => Unit::of(key),
        _ => None,
    }
}

fn known_keys(properties: Option<&Map<String, Value>>) -> Vec<&str> {
    properties
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .filter(|key| !key.starts_with('$'))
        .collect()
}

fn inside(table: &ConfigPath) -> String {
    if table.0.is_empty() { String::new() } else { format!(" in `{table}`") }
}

/// The word as it is written in the file, for messages.
fn quoted(text: &super::text::InterpolatedString) -> String {
    if text.is_interpolated() {
        format!("from `{}`", text.written)
    } else {
        format!("`{}`", text.value)
    }
}

fn types(leaf: &Map<String, Value>) -> Vec<&str> {
    match leaf.get("type") {
        Some(Value::String(word)) => vec![word],
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
        _ => vec!["string"],
    }
}

fn admits(leaf: &Map<String, Value>, node: &Node) -> bool {
    types(leaf).iter().any(|word| match (*word, &node.kind) {
        ("number", NodeKind::Integer(_)) => true,
        ("integer", NodeKind::Float(number)) => number.fract() == 0.0,
        (word, _) => word == json_kind(node),
    })
}

/// The words a schema allows, if it allows only some.
fn words(leaf: &Map<String, Value>) -> Option<Vec<&str>> {
    if let Some(word) = leaf.get("const").and_then(Value::as_str) {
        return Some(vec![word]);
    }
    let words = leaf.get("enum")?.as_array()?;
    Some(words.iter().filter_map(Value::as_str).collect())
}

fn all_words<'a>(leaves: &[&'a Map<String, Value>]) -> Option<Vec<&'a str>> {
    let words: Option<Vec<_>> = leaves.iter().map(|leaf| words(leaf)).collect();
    words.map(|words| words.concat())
}

/// The `type` a table must have to be meant by this schema.
fn tag(leaf: &Map<String, Value>) -> Option<&str> {
    leaf.get("properties")?.get("type")?.get("const")?.as_str()
}

fn json_kind(node: &Node) -> &'static str {
    match node.kind {
        NodeKind::Table(_) => "object",
        NodeKind::Array(_) => "array",
        NodeKind::String(_) => "string",
        NodeKind::Integer(_) => "integer",
        NodeKind::Float(_) => "number",
        NodeKind::Bool(_) => "boolean",
        NodeKind::Null => "null",
    }
}

fn kind_name(word: &str) -> &'static str {
    match word {
        "object" => "a table",
        "array" => "a list",
        "string" => "a string",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        _ => "nothing",
    }
}
