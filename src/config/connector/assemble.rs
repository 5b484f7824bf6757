//! Assembles the tree of a pipeline from a connector's config: one source `fluvio`, one sink
//! `usercom`. Every value keeps its position in the config, so that faults are shown there.

use std::path::Path;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use super::super::document::{Node, NodeEntry, NodeKind};
use super::super::fault::{ConfigPath, Fault, Target};
use super::super::quantity::bytes;
use super::super::text::InterpolatedString;
use super::meta::{ByteQuantity, ConnectorFile, Period};

/// The name of the source.
pub(super) const SOURCE: &str = "fluvio";
/// The name of the sink.
pub(super) const SINK: &str = "usercom";

/// The names of the tree's paths in the config.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("sources.fluvio.decoding", "usercom.decoding"),
    ("sources.fluvio.max_in_flight", "usercom.max_in_flight"),
    ("sources.fluvio.topic", "meta.topic"),
    ("sources.fluvio.partitions", "meta.consumer.partition"),
    ("sources.fluvio.consumer", "meta.consumer.id"),
    ("sources.fluvio.offset", "meta.consumer.offset"),
    ("sources.fluvio.transforms", "transforms"),
    ("sinks.usercom", "usercom"),
    ("sources.fluvio", "meta.consumer"),
    ("`partitions = \"all\"`", "`partition: all`"),
    ("`api.", "`usercom.api."),
    ("in `api`", "in `usercom.api`"),
];

/// Settings of the section that do not belong to the sink.
pub(super) const NON_SINK_KEYS: &[&str] = &["api", "decoding", "max_in_flight"];

/// The tree.
pub(super) fn pipeline_tree(
    root: &Node,
    usercom: NodeEntry,
    file: Option<&ConnectorFile>,
    data_dir: &Path,
    faults: &mut Vec<Fault>,
) -> Node {
    let NodeEntry { key_span, node: mut section } = usercom;
    let [api, decoding, window] = NON_SINK_KEYS else {
        unreachable!("the constant has three keys");
    };
    let mut source = source(root, file, faults);
    let mut ours = |key: &str| section.table_mut()?.shift_remove(key);
    let api = ours(api);
    for key in [decoding, window] {
        if let Some(entry) = ours(key) {
            source.insert((*key).to_owned(), entry);
        }
    }
    let mut sink = match section.kind {
        NodeKind::Table(entries) => entries,
        _ => IndexMap::new(),
    };
    // If the section sets these itself, that was reported.
    sink.insert("type".to_owned(), entry(made(text("usercom"))));
    sink.insert("inputs".to_owned(), entry(made(NodeKind::Array(vec![made(text(SOURCE))]))));
    let sink = NodeEntry {
        key_span,
        node: Node { file: 0, span: section.span, kind: NodeKind::Table(sink) },
    };
    let mut tree = IndexMap::new();
    tree.insert("data_dir".to_owned(), entry(made(text(&data_dir.display().to_string()))));
    tree.extend(api.map(|api| ("api".to_owned(), api)));
    tree.insert(
        "sources".to_owned(),
        entry(table([(SOURCE, entry(made(NodeKind::Table(source))))])),
    );
    tree.insert("sinks".to_owned(), entry(table([(SINK, sink)])));
    made(NodeKind::Table(tree))
}

fn source(
    root: &Node,
    file: Option<&ConnectorFile>,
    faults: &mut Vec<Fault>,
) -> IndexMap<String, NodeEntry> {
    let meta = root.get("meta");
    let consumer = meta.and_then(|meta| meta.get("consumer"));
    let offset = consumer.and_then(|consumer| consumer.get("offset"));
    let name = meta.and_then(|meta| meta.get("name")).and_then(Node::text);
    let mut source = IndexMap::new();
    let mut put = |key: &str, node: Node| source.insert(key.to_owned(), entry(node));
    put("type", made(text("fluvio")));
    let topic = meta.and_then(|meta| meta.get("topic")).map(|topic| match &topic.kind {
        NodeKind::Table(_) => topic.get("meta").and_then(|meta| meta.get("name")).unwrap_or(topic),
        _ => topic,
    });
    // A missing value was reported; a placeholder lets the rest be checked.
    put(
        "topic",
        topic.filter(|it| it.text().is_some()).cloned().unwrap_or_else(|| made(text("missing"))),
    );
    // Any fault was reported by the schema of the common part.
    if file.is_none() {
        return source;
    }
    if let Some(partition) = given(consumer, "partition") {
        put("partitions", partition.clone());
    }
    let strategy = given(offset, "strategy");
    let forgets = strategy.and_then(Node::text).is_some_and(|word| word.value == "none");
    match given(consumer, "id") {
        // Without committed offsets an id has no effect, which Fluvio accepts.
        Some(id) if !forgets => drop(put("consumer", id.clone())),
        None if !forgets => {
            let name = name.map_or("connector", |name| name.value.as_str());
            put("consumer", made(text(&format!("usercom-sink-{name}"))));
        }
        _ => {}
    }
    let start = given(offset, "start").cloned().unwrap_or_else(|| made(text("end")));
    let strategy = strategy.cloned().unwrap_or_else(|| made(text("manual")));
    put("offset", table([("start", entry(start)), ("strategy", entry(strategy))]));
    let consumer = file.and_then(|file| file.meta.consumer.as_ref());
    if let Some(size) = consumer.and_then(|consumer| consumer.max_bytes.as_ref()) {
        let found = match size {
            ByteQuantity::Bytes(bytes) => Some(*bytes),
            ByteQuantity::Text(text) => bytes(text),
        };
        let node = given(meta.and_then(|meta| meta.get("consumer")), "max_bytes");
        match (found, node) {
            (Some(bytes), Some(node)) => {
                put("max_bytes", Node { kind: NodeKind::Integer(bytes.into()), ..node.clone() });
            }
            _ => faults.push(Fault {
                code: "E0410",
                path: ConfigPath::default().key("meta").key("consumer").key("max_bytes"),
                target: Target::Value,
                message: "this is not a size".to_owned(),
                help: Some("write `1 MB`, or `512 KiB`".to_owned()),
            }),
        }
    }
    let period = consumer.and_then(|consumer| consumer.offset.as_ref()?.flush_period.as_ref());
    if let Some(Period { secs, nanos }) = period {
        let millis = secs.saturating_mul(1000).saturating_add(u64::from(nanos / 1_000_000)).max(1);
        put("commit_interval_ms", made(NodeKind::Integer(millis.into())));
    }
    if let Some(NodeKind::Array(steps)) = root.get("transforms").map(|node| &node.kind) {
        let steps = steps.iter().map(step).collect();
        put("transforms", made(NodeKind::Array(steps)));
    }
    source
}

/// A SmartModule and its parameters, which are strings for Fluvio: other values are written as
/// JSON.
fn step(step: &Node) -> Node {
    let mut step = step.clone();
    let entries = step.table_mut().into_iter().flatten();
    for (_, entry) in entries.filter(|(key, _)| *key == "with") {
        for parameter in entry.node.table_mut().into_iter().flat_map(IndexMap::values_mut) {
            if parameter.node.text().is_none() {
                let value = Value::deserialize(&parameter.node).unwrap_or_default();
                parameter.node.kind = text(&value.to_string());
            }
        }
    }
    if let Some(entries) = step.table_mut() {
        entries.shift_remove("lookback");
        entries.retain(|_, entry| !matches!(entry.node.kind, NodeKind::Null));
    }
    step
}

/// A value that is set and not null.
fn given<'a>(table: Option<&'a Node>, key: &str) -> Option<&'a Node> {
    table?.get(key).filter(|node| !matches!(node.kind, NodeKind::Null))
}

fn text(text: &str) -> NodeKind {
    NodeKind::String(InterpolatedString::plain(text))
}

/// A value without a position in the file.
fn made(kind: NodeKind) -> Node {
    Node { file: 0, span: 0..0, kind }
}

fn entry(node: Node) -> NodeEntry {
    NodeEntry { key_span: node.span.clone(), node }
}

fn table<const N: usize>(entries: [(&str, NodeEntry); N]) -> Node {
    made(NodeKind::Table(entries.into_iter().map(|(key, entry)| (key.to_owned(), entry)).collect()))
}
