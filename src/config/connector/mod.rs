//! Loads the config of a Fluvio connector: YAML whose common part is Fluvio's and whose section
//! `usercom` contains a sink's settings, as `[sinks.NAME]` does in a pipeline file.
//!
//! ```text
//! text -> mask -> YAML -> values -> check (Fluvio's part) -> assemble -> as a pipeline file
//! ```
//!
//! Codes `E04` are faults of the common part.
//!
//! # Invariants
//!
//! A secret's value appears in no fault, and every fault has its position in the text as written.

mod assemble;
mod common;
mod meta;
mod package;
mod secrets;
mod template;
mod topic;

use std::path::PathBuf;

use self::assemble::{SINK, SOURCE, pipeline_tree};
use self::common::CommonSettings;
use self::template::{SecretValues, mask};
use super::diagnostic::Report;
use super::document::{Document, Format, Node, NodeKind, SourceText};
use super::fault::{ConfigPath, Fault};
use super::load::{EmbeddingContext, Paths, analyze, broken, shown};
use super::{CompileMapping, Environment, Loaded, SourceConfig, syntax};
use crate::redact::Redactions;

pub use self::package::connector_package_text;
pub use self::secrets::Secrets;
pub use self::topic::TopicShape;
use super::source::FluvioSourceConfig;

/// The name of a connector's source, in metrics and logs.
pub const SOURCE_NAME: &str = SOURCE;
/// The name of a connector's sink, in metrics, logs and the store.
pub const SINK_NAME: &str = SINK;

/// A connector that can run.
#[derive(Debug, Clone)]
pub struct Connector {
    /// Its name: `meta.name`.
    pub name: String,
    /// How its topic is created if it is missing.
    pub topic: TopicShape,
    /// How its topic is read.
    pub source: FluvioSourceConfig,
    /// The rest: a pipeline with that one source and one sink.
    pub loaded: Loaded,
}

/// Loads a connector's config. It is YAML, whatever its file name. Without `data_dir`, state is
/// stored in a folder named after the connector.
///
/// # Errors
///
/// Every fault in it, including warnings.
pub fn load_connector(
    file: &SourceText,
    secrets: &Secrets,
    data_dir: Option<PathBuf>,
    environment: &dyn Environment,
    compile: &CompileMapping<'_>,
) -> Result<Connector, Report> {
    let masked = mask(&file.text);
    let text = SourceText { format: Format::Yaml, text: masked.text.clone(), ..file.clone() };
    let root = syntax::parse(&text, 0)
        .map_err(|errors| broken(std::slice::from_ref(file), std::iter::once(Some(errors))))?;
    let mut root = normalised(root);
    let usercom = take(&mut root, "usercom");
    let mut common = CommonSettings::new(file, secrets, environment);
    common.resolve(&masked, &root, usercom.as_ref().map(|entry| &entry.node));
    // The pipeline's tree gets its values later, so that missing ones are known.
    let unfilled = root.clone();
    common.values.put(&mut root);
    common.check(&mut root, usercom.as_ref());
    let understood = common.understand(&root);

    let Some(usercom) = usercom.filter(|entry| entry.node.table().is_some()) else {
        let CommonSettings { faults, report, .. } = common;
        let mut report = placed(file, &root, faults, report);
        report.sort();
        return Err(report);
    };
    let shape = understood.as_ref().map(|understood| common.shape(understood)).unwrap_or_default();
    let name = understood.as_ref().map(|file| file.meta.name.clone()).unwrap_or_default();
    let data_dir = data_dir.unwrap_or_else(|| format!("./{name}-data").into());
    let tree =
        pipeline_tree(&unfilled, usercom, understood.as_ref(), &data_dir, &mut common.faults);
    let CommonSettings { values, faults, report, .. } = common;
    let report = placed(file, &root, faults, report);
    let document = Document { files: vec![file.clone()], root: tree };
    let host = EmbeddingContext {
        resolve: Some(&|root: &mut Node| unresolved(&values, root)),
        names: assemble::NAMES,
        paths: Paths::OfTheProcess,
    };
    // What is shown has the secrets of the section redacted; faults of both parts use it.
    let loaded =
        analyze(document.clone(), report.shown_as(shown(&document)), environment, compile, &host)?;
    let Some(SourceConfig::Fluvio(source)) = loaded.pipeline.sources.get(SOURCE) else {
        unreachable!("the tree was made with this source");
    };
    Ok(Connector { name, topic: shape, source: source.clone(), loaded })
}

/// The paths of values whose expression has no value.
fn unresolved(values: &SecretValues, root: &mut Node) -> Vec<ConfigPath> {
    let mut missing = Vec::new();
    walk(values, root, &ConfigPath::default(), &mut missing);
    missing
}

fn walk(values: &SecretValues, node: &mut Node, path: &ConfigPath, missing: &mut Vec<ConfigPath>) {
    if template::secret_table(node).is_some() {
        if !values.put(node) {
            missing.push(path.clone());
        }
        return;
    }
    match &mut node.kind {
        NodeKind::Table(entries) => {
            for (key, entry) in entries {
                walk(values, &mut entry.node, &path.key(key), missing);
            }
        }
        NodeKind::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(values, item, &path.index(index), missing);
            }
        }
        _ => {
            if !values.put(node) {
                missing.push(path.clone());
            }
        }
    }
}

/// Positions faults of the common part.
fn placed(file: &SourceText, root: &Node, faults: Vec<Fault>, mut report: Report) -> Report {
    let document = Document { files: vec![file.clone()], root: root.clone() };
    let mut places = document.places();
    let redactions = Redactions::of(root);
    for mut fault in faults {
        fault.message = redactions.apply(&fault.message);
        fault.help = fault.help.map(|help| redactions.apply(&help));
        let (file, span) = places.of(&fault.path, &fault.target);
        report.place(fault, file, span);
    }
    report
}

fn take(root: &mut Node, key: &str) -> Option<super::document::NodeEntry> {
    root.table_mut()?.shift_remove(key)
}

/// The tree with `_` in the keys of `meta`. The user's own names are unchanged.
fn normalised(mut root: Node) -> Node {
    if let Some(entries) = root.table_mut()
        && let Some(meta) = entries.get_mut("meta")
    {
        snake(&mut meta.node);
    }
    root
}

fn snake(node: &mut Node) {
    let Some(entries) = node.table_mut() else {
        return;
    };
    for (key, mut entry) in std::mem::take(entries) {
        if key != "with" {
            snake(&mut entry.node);
        }
        entries.insert(key.replace('-', "_"), entry);
    }
}
