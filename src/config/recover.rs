//! What can still be understood of a file with faults: values at fault are left out, so that one
//! mistake does not hide the others. Nothing made here ever runs; it is only looked at for more
//! faults.
//!
//! Invariant: `original_index` leads every kept rule back to its number in the file.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use serde::Deserialize;

use super::document::{Node, NodeKind};
use super::fault::{ConfigPath, Fault, Segment};
use super::mapping::Rule;
use super::pipeline::{SinkConfig, TestCase};
use super::source::SourceConfig;
use super::text::InterpolatedString;

/// Stands for the call of a rule without one.
const STAND_IN_CALL: &str = "identify";

/// Faults that depend on a rule's call: a target of another call, a missing target.
const CALL_CODES: [&str; 2] = ["E0205", "E0214"];

/// The typed parts of a file that could be understood.
#[derive(Debug, Default)]
pub(crate) struct RecoveredParts {
    /// Sources by name.
    pub(crate) sources: Vec<(String, SourceConfig)>,
    /// Sinks by name.
    pub(crate) sinks: Vec<RecoveredSink>,
    /// Tests by number.
    pub(crate) tests: Vec<(usize, TestCase)>,
}

/// A sink that could be understood.
#[derive(Debug)]
pub(crate) struct RecoveredSink {
    /// Its name.
    pub(crate) name: String,
    /// Its settings.
    pub(crate) config: SinkConfig,
    /// For each rule of `config`, its number in the file.
    original_index: Vec<usize>,
    /// Paths of values that were left out.
    faulty: HashSet<ConfigPath>,
    /// The tables around them.
    parents: HashSet<ConfigPath>,
    /// Numbers of rules whose `call` is missing or unknown: what depends on the call is not known.
    without_call: HashSet<usize>,
}

/// The parts of a tree, without the values at fault.
pub(crate) fn recover(root: &Node, faults: &[Fault]) -> RecoveredParts {
    let mut healthy = root.clone();
    let faulty: HashSet<ConfigPath> =
        faults.iter().filter_map(|fault| prunable(&fault.path)).collect();
    prune(&mut healthy, &mut ConfigPath::default(), &faulty);
    let mut parts = RecoveredParts::default();
    for (name, node) in children(&healthy, "sources") {
        if let Ok(source) = SourceConfig::deserialize(node) {
            parts.sources.push((name.clone(), source));
        }
    }
    let mut of_sinks = by_sink(faults);
    for (name, node) in children(&healthy, "sinks") {
        let faulty = of_sinks.remove(name.as_str()).unwrap_or_default();
        parts.sinks.extend(sink(name, node.clone(), faulty));
    }
    if let Some(NodeKind::Array(tests)) = healthy.get("tests").map(|node| &node.kind) {
        for (index, node) in tests.iter().enumerate() {
            if let Ok(test) = TestCase::deserialize(node) {
                parts.tests.push((index, test));
            }
        }
    }
    parts
}

/// Paths of faults, by the name of the sink they lie in.
fn by_sink(faults: &[Fault]) -> HashMap<&str, HashSet<ConfigPath>> {
    let mut found: HashMap<&str, HashSet<ConfigPath>> = HashMap::new();
    for fault in faults {
        if let [Segment::Key(root), Segment::Key(name), ..] = fault.path.0.as_slice()
            && root == "sinks"
        {
            found.entry(name).or_default().insert(fault.path.clone());
        }
    }
    found
}

fn children<'a>(root: &'a Node, key: &str) -> impl Iterator<Item = (&'a String, &'a Node)> {
    let entries = root.get(key).and_then(Node::table).into_iter().flatten();
    entries.map(|(name, entry)| (name, &entry.node))
}

/// The path of what is taken out for a fault: of its value, or of the nearest value around it that
/// stands under a key, since taking an element out of a list would move the others.
fn prunable(path: &ConfigPath) -> Option<ConfigPath> {
    let mut path = path.clone();
    while matches!(path.0.last(), Some(Segment::Index(_))) {
        path.0.pop();
    }
    // Whole sources, sinks and rules stay: they are looked at one by one.
    let keeps = match path.0.as_slice() {
        [] | [Segment::Key(_)] => true,
        [Segment::Key(_), Segment::Key(key)] => !key.is_empty(),
        [_, _, Segment::Key(key)] => key == "mapping",
        _ => false,
    };
    (!keeps).then_some(path)
}

/// Takes all faulty values out in one walk.
fn prune(node: &mut Node, at: &mut ConfigPath, faulty: &HashSet<ConfigPath>) {
    if faulty.is_empty() {
        return;
    }
    match &mut node.kind {
        NodeKind::Table(entries) => entries.retain(|key, entry| {
            at.0.push(Segment::Key(key.clone()));
            let stays = !faulty.contains(at);
            if stays {
                prune(&mut entry.node, at, faulty);
            }
            at.0.pop();
            stays
        }),
        NodeKind::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                at.0.push(Segment::Index(index));
                prune(item, at, faulty);
                at.0.pop();
            }
        }
        _ => {}
    }
}

fn sink(name: &str, mut node: Node, faulty: HashSet<ConfigPath>) -> Option<RecoveredSink> {
    let entries = node.table_mut()?;
    // What is missing was already said; an empty stand-in lets the rest be looked at.
    for (key, kind) in [
        ("inputs", NodeKind::Array(Vec::new())),
        ("api_key", NodeKind::String(InterpolatedString::plain("missing"))),
    ] {
        entries.entry(key.to_owned()).or_insert_with(|| super::document::NodeEntry {
            key_span: 0..0,
            node: Node { file: 0, span: 0..0, kind },
        });
    }
    let mut original_index = Vec::new();
    let mut without_call = HashSet::new();
    match entries.get_mut("mapping").map(|entry| &mut entry.node.kind) {
        Some(NodeKind::Array(rules)) => {
            let all = std::mem::take(rules);
            for (index, mut rule) in all.into_iter().enumerate() {
                if complete(&mut rule) == Completion::CallGuessed {
                    without_call.insert(index);
                }
                if Rule::deserialize(&rule).is_ok() {
                    rules.push(rule);
                    original_index.push(index);
                }
            }
        }
        Some(_) => {
            entries.shift_remove("mapping");
        }
        None => {}
    }
    let mut config = SinkConfig::deserialize(&node).ok()?;
    let SinkConfig::Usercom(usercom) = &mut config;
    // A rule without a name goes by its number, which must be the one in the file.
    for (rule, original) in usercom.mapping.iter_mut().zip(&original_index) {
        rule.name.get_or_insert_with(|| format!("rule {}", original + 1));
    }
    let parent = |path: &ConfigPath| {
        let (_, parent) = path.0.split_last()?;
        Some(ConfigPath(parent.to_vec()))
    };
    let parents = faulty.iter().filter_map(parent).collect();
    Some(RecoveredSink {
        name: name.to_owned(),
        config,
        original_index,
        faulty,
        parents,
        without_call,
    })
}

/// What a rule was given so that the rest of it can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Completion {
    Whole,
    CallGuessed,
}

/// Puts stand-ins where a rule lacks what it cannot be read without.
fn complete(rule: &mut Node) -> Completion {
    let Some(entries) = rule.table_mut() else {
        return Completion::Whole;
    };
    let missing = |kind| super::document::NodeEntry {
        key_span: 0..0,
        node: Node { file: 0, span: 0..0, kind },
    };
    entries.entry("fields".to_owned()).or_insert_with(|| missing(NodeKind::Table(IndexMap::new())));
    if entries.contains_key("call") {
        return Completion::Whole;
    }
    let stand_in = NodeKind::String(InterpolatedString::plain(STAND_IN_CALL));
    entries.insert("call".to_owned(), missing(stand_in));
    Completion::CallGuessed
}

impl RecoveredSink {
    /// The path of the sink.
    pub(crate) fn path(&self) -> ConfigPath {
        ConfigPath::default().key("sinks").key(&self.name)
    }

    /// Faults of the mapping as they are in the file: rules by their own number, and without those
    /// that only follow from a value that was left out.
    pub(crate) fn restore(&self, faults: Vec<Fault>) -> Vec<Fault> {
        let mapping = self.path().key("mapping");
        faults
            .into_iter()
            .filter_map(|mut fault| {
                if fault.path.0.starts_with(&mapping.0)
                    && let Some(Segment::Index(index)) = fault.path.0.get_mut(mapping.0.len())
                    && let Some(original) = self.original_index.get(*index)
                {
                    *index = *original;
                    if self.without_call.contains(original) && CALL_CODES.contains(&fault.code) {
                        return None;
                    }
                }
                Some(fault)
            })
            .filter(|fault| !self.follows(fault))
            .collect()
    }

    /// Whether a fault is about the very table a value was left out of, or about that value.
    fn follows(&self, fault: &Fault) -> bool {
        let at = &fault.path.0;
        let is_faulty = |length| self.faulty.contains(&ConfigPath(at[..length].to_vec()));
        (0..=at.len()).any(is_faulty) || (at.len() > 2 && self.parents.contains(&fault.path))
    }
}
