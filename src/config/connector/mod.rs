//! The config of a Fluvio connector: YAML whose common part is Fluvio's and whose section
//! `usercom` holds a sink's settings, as `[sinks.NAME]` does in a pipeline file.
//!
//! ```text
//! text -> mask -> YAML -> values -> check (Fluvio's part) -> assemble -> as a pipeline file
//! ```
//!
//! Not here: running it. Codes `E04` are faults of the common part. Invariant: a secret's value
//! appears in no fault, and every fault has its place in the text as it is written.

mod assemble;
mod meta;
mod package;
mod quantity;
mod secrets;
mod template;
mod topic;

use std::path::PathBuf;
use std::sync::LazyLock;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde_json::Value;

use self::assemble::{SINK, SOURCE, pipeline_tree};
use self::meta::{ApiVersion, ConnectorFile};
use self::secrets::is_secret_name;
use self::template::{Masked, Values, mask};
use super::diagnostic::Report;
use super::document::{Document, Format, Kind, Node, SourceText};
use super::fault::{ConfigPath, Fault, Target};
use super::load::{Host, broken, judge, shown};
use super::secret::Redactions;
use super::{CompileMapping, Environment, Loaded, SourceConfig, check, syntax};

pub use self::package::connector_package_text;
pub use self::secrets::Secrets;
pub use self::topic::TopicShape;
use super::source::FluvioSource;

/// The name of a connector's source, in metrics and logs.
pub const SOURCE_NAME: &str = SOURCE;
/// The name of a connector's sink, in metrics, logs and the store.
pub const SINK_NAME: &str = SINK;

/// A connector that can run.
#[derive(Debug, Clone)]
pub struct Connector {
    /// Its name: `meta.name`.
    pub name: String,
    /// How its topic is made where it is missing.
    pub topic: TopicShape,
    /// How its topic is read.
    pub source: FluvioSource,
    /// The rest: a pipeline with that one source and one sink.
    pub loaded: Loaded,
}

/// Reads a connector's config. Whatever its name ends in, it is YAML. Without `data_dir`, state
/// lives in a folder named after the connector.
///
/// # Errors
/// Every fault in it, warnings among them.
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
    let mut common = Common::new(file, secrets, environment);
    common.resolve(&masked, &root, usercom.as_ref().map(|entry| &entry.node));
    // The pipeline's tree gets its values later, so that it is known where one was missing.
    let unfilled = root.clone();
    common.values.put(&mut root);
    common.check(&mut root, usercom.as_ref());
    let understood = common.understand(&root);

    let Some(usercom) = usercom.filter(|entry| entry.node.table().is_some()) else {
        let Common { faults, report, .. } = common;
        let mut report = placed(file, &root, faults, report);
        report.sort();
        return Err(report);
    };
    let shape = understood.as_ref().map(|understood| common.shape(understood)).unwrap_or_default();
    let name = understood.as_ref().map(|file| file.meta.name.clone()).unwrap_or_default();
    let data_dir = data_dir.unwrap_or_else(|| format!("./{name}-data").into());
    let tree =
        pipeline_tree(&unfilled, usercom, understood.as_ref(), &data_dir, &mut common.faults);
    let Common { values, faults, report, .. } = common;
    let report = placed(file, &root, faults, report);
    let document = Document { files: vec![file.clone()], root: tree };
    let host = Host {
        resolve: Some(&|root: &mut Node| unresolved(&values, root)),
        names: assemble::NAMES,
    };
    // What is shown has the secrets of the section covered; faults of both parts share it.
    let loaded =
        judge(document.clone(), report.shown_as(shown(&document)), environment, compile, &host)?;
    let Some(SourceConfig::Fluvio(source)) = loaded.pipeline.sources.get(SOURCE) else {
        unreachable!("the tree was made with this source");
    };
    Ok(Connector { name, topic: shape, source: source.clone(), loaded })
}

/// The paths of values that have an expression without a value.
fn unresolved(values: &Values, root: &mut Node) -> Vec<ConfigPath> {
    let mut missing = Vec::new();
    walk(values, root, &ConfigPath::default(), &mut missing);
    missing
}

fn walk(values: &Values, node: &mut Node, path: &ConfigPath, missing: &mut Vec<ConfigPath>) {
    if template::secret_table(node).is_some() {
        if !values.put(node) {
            missing.push(path.clone());
        }
        return;
    }
    match &mut node.kind {
        Kind::Table(entries) => {
            for (key, entry) in entries {
                walk(values, &mut entry.node, &path.key(key), missing);
            }
        }
        Kind::Array(items) => {
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

/// Faults of the common part in their places.
fn placed(file: &SourceText, root: &Node, faults: Vec<Fault>, mut report: Report) -> Report {
    let document = Document { files: vec![file.clone()], root: root.clone() };
    let redactions = Redactions::of(root);
    for mut fault in faults {
        fault.message = redactions.apply(&fault.message);
        fault.help = fault.help.map(|help| redactions.apply(&help));
        let (file, span) = document.place(&fault.path, &fault.target);
        report.place(fault, file, span);
    }
    report
}

fn take(root: &mut Node, key: &str) -> Option<super::document::Entry> {
    root.table_mut()?.shift_remove(key)
}

/// The tree with `_` in the keys of `meta`. Names that are the user's own stay as they are.
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

/// The common part while it is looked at.
struct Common<'a> {
    file: &'a SourceText,
    secrets: &'a Secrets,
    environment: &'a dyn Environment,
    values: Values,
    /// Faults by path.
    faults: Vec<Fault>,
    /// Faults by place.
    report: Report,
}

impl<'a> Common<'a> {
    fn new(file: &'a SourceText, secrets: &'a Secrets, environment: &'a dyn Environment) -> Self {
        let document = Document { files: vec![file.clone()], root: Node::empty_table() };
        let report = Report::new(shown(&document));
        Self { file, secrets, environment, values: Values::default(), faults: Vec::new(), report }
    }

    fn fault(&mut self, code: &'static str, path: ConfigPath, message: String, help: &str) {
        let target = Target::Value;
        self.faults.push(Fault { code, path, target, message, help: Some(help.to_owned()) });
    }

    fn place(
        &mut self,
        code: &'static str,
        span: std::ops::Range<usize>,
        message: String,
        help: &str,
    ) {
        let path = ConfigPath::default();
        let help = Some(help.to_owned());
        self.report.place(Fault { code, path, target: Target::Value, message, help }, 0, span);
    }

    /// Finds the values of all secrets that are named.
    fn resolve(&mut self, masked: &Masked, root: &Node, usercom: Option<&Node>) {
        let declared = declared(root);
        for expression in &masked.expressions {
            let written = &self.file.text[expression.span.clone()];
            let span = expression.span.clone();
            let name = match &expression.secret {
                Ok(name) => name,
                Err(wrong) => {
                    self.place("E0401", span, wrong.message.clone(), wrong.help);
                    continue;
                }
            };
            // In a comment of YAML's it means nothing.
            if !expression.is_in(root) && !usercom.is_some_and(|node| expression.is_in(node)) {
                continue;
            }
            let value = self.secret(name, declared.as_deref(), span);
            self.values.insert(expression, written, value);
        }
        let mut in_keys = Vec::new();
        for node in [Some(root), usercom].into_iter().flatten() {
            self.values.in_keys(node, &mut in_keys);
        }
        for (span, written) in in_keys {
            let message = format!("`{written}` in a key");
            self.place("E0401", span, message, "secrets stand in values only");
        }
        let mut tables = Vec::new();
        usercom.into_iter().for_each(|node| secret_tables(node, &mut tables));
        for (name, span) in tables {
            if let Some(value) = self.secret(&name, declared.as_deref(), span) {
                self.values.name(&name, value);
            }
        }
    }

    /// The value of a secret; `None` where there is none, and that is told.
    fn secret(
        &mut self,
        name: &str,
        declared: Option<&[String]>,
        span: std::ops::Range<usize>,
    ) -> Option<String> {
        if declared.is_some_and(|declared| !declared.iter().any(|other| other == name)) {
            let message = format!("secret {name} is not declared");
            let help = format!("add `- name: {name}` to `meta.secrets`");
            self.place("E0403", span, message, &help);
            return None;
        }
        let Some(value) = self.secrets.get(name, self.environment) else {
            self.place("E0402", span, format!("secret {name} is not there"), self.secrets.place());
            return None;
        };
        if value.contains(['\r', '\n']) {
            let message = format!("the value of secret {name} has a line break");
            self.place("E0402", span, message, "secrets are one line; check what was put into it");
            return None;
        }
        Some(value)
    }

    /// What the schema of the common part, and more than it, tells.
    fn check(&mut self, root: &mut Node, usercom: Option<&super::document::Entry>) {
        let custom = take(root, "custom");
        self.faults.extend(check::check(schema(), root));
        if let Some(section) = usercom.and_then(|entry| entry.node.table()) {
            for key in ["type", "inputs"] {
                if let Some(entry) = section.get(key) {
                    let message = format!("`usercom.{key}` is given by the connector itself");
                    self.place("E0407", entry.key_span.clone(), message, "leave it out");
                }
            }
            return;
        }
        let help = "write a sink's settings there: `usercom:` with at least `app` and `api_key`";
        match (custom, usercom) {
            (Some(custom), _) => {
                let message = "the connector's own settings are not under `custom`".to_owned();
                self.place("E0407", custom.key_span, message, "name the section `usercom`");
            }
            (None, Some(entry)) => {
                let message = "the section `usercom` is no table".to_owned();
                self.place("E0407", entry.key_span.clone(), message, help);
            }
            (None, None) => {
                self.fault(
                    "E0407",
                    ConfigPath::default(),
                    "there is no `usercom`".to_owned(),
                    help,
                );
            }
        }
    }

    /// The typed common part, if it has no faults, and what it says against itself.
    fn understand(&mut self, root: &Node) -> Option<ConnectorFile> {
        if !self.faults.is_empty() {
            return None;
        }
        let file = match ConnectorFile::deserialize(root) {
            Ok(file) => file,
            Err(error) => {
                self.fault("E0199", ConfigPath::default(), error.to_string(), "check this part");
                return None;
            }
        };
        let meta = ConfigPath::default().key("meta");
        if !is_name(&file.meta.name) {
            let message = format!("{:?} cannot be a connector's name", file.meta.name);
            let help =
                "at most 64 letters, digits, `_`, `-` and `.`, beginning with a letter or digit";
            self.fault("E0110", meta.key("name"), message, help);
        }
        if file.meta.kind.ends_with("-source") {
            let message = format!("`{}` is the type of a source", file.meta.kind);
            self.fault("E0405", meta.key("type"), message, "write `type: usercom-sink`");
        }
        for (index, secret) in file.meta.secrets.iter().flatten().enumerate() {
            if file.api_version != ApiVersion::V0 && !is_secret_name(&secret.name) {
                let message = format!("{:?} cannot be a secret's name", secret.name);
                let help = "letters, digits and `_`, not beginning with a digit";
                self.fault("E0404", meta.key("secrets").index(index).key("name"), message, help);
            }
        }
        if file.meta.producer.is_some() {
            let message = "`producer` has no effect: this connector reads".to_owned();
            self.fault("W0401", meta.key("producer"), message, "leave it out");
        }
        for (index, step) in file.transforms.iter().flatten().enumerate() {
            if step.lookback.is_some() {
                let path = ConfigPath::default().key("transforms").index(index).key("lookback");
                let message = "SmartModules that look back are not supported".to_owned();
                self.fault("E0408", path, message, "leave `lookback` out");
            }
        }
        Some(file)
    }

    fn shape(&mut self, file: &ConnectorFile) -> TopicShape {
        topic::shape(file, &mut self.faults)
    }
}

/// The names under `meta.secrets`; `None` where the format does not ask for them.
fn declared(root: &Node) -> Option<Vec<String>> {
    let version = root.get("apiVersion").and_then(Node::text);
    if version.is_none_or(|version| version.value == "0.0.0") {
        return None;
    }
    let Some(Kind::Array(secrets)) =
        root.get("meta").and_then(|meta| meta.get("secrets")).map(|node| &node.kind)
    else {
        return Some(Vec::new());
    };
    let names = secrets.iter().filter_map(|secret| secret.get("name")?.text());
    Some(names.map(|name| name.value.clone()).collect())
}

fn secret_tables(node: &Node, out: &mut Vec<(String, std::ops::Range<usize>)>) {
    if let Some(name) = template::secret_table(node) {
        out.push((name, node.span.clone()));
        return;
    }
    match &node.kind {
        Kind::Table(entries) => {
            entries.values().for_each(|entry| secret_tables(&entry.node, out));
        }
        Kind::Array(items) => items.iter().for_each(|item| secret_tables(item, out)),
        _ => {}
    }
}

fn is_name(name: &str) -> bool {
    static NAME: LazyLock<regex::Regex> = LazyLock::new(|| {
        regex::Regex::new(super::pipeline::NAME_PATTERN).expect("a constant pattern")
    });
    NAME.is_match(name)
}

/// The schema of the common part.
fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let settings = SchemaSettings::draft2020_12();
        SchemaGenerator::new(settings).into_root_schema_for::<ConnectorFile>().to_value()
    });
    &SCHEMA
}
