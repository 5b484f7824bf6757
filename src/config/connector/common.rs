//! Checks Fluvio's part of a connector's config: its secrets, its shape, and contradictions in it.
//!
//! # Invariants
//!
//! A fault is reported once, at its position in the text as written.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::LazyLock;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde_json::Value;

use super::super::diagnostic::Report;
use super::super::document::{Document, Node, NodeEntry, NodeKind, SourceText};
use super::super::fault::{ConfigPath, Fault, Target};
use super::super::load::shown;
use super::super::pipeline::NAME_PATTERN;
use super::super::{Environment, check};
use super::meta::{ApiVersion, ConnectorFile};
use super::secrets::{Secrets, is_secret_name};
use super::take;
use super::template::{self, Masked, SecretValues};
use super::topic::{self, TopicShape};

/// The common part while it is checked.
pub(super) struct CommonSettings<'a> {
    file: &'a SourceText,
    secrets: &'a Secrets,
    environment: &'a dyn Environment,
    pub(super) values: SecretValues,
    /// Faults by path.
    pub(super) faults: Vec<Fault>,
    /// Faults by position.
    pub(super) report: Report,
}

impl<'a> CommonSettings<'a> {
    pub(super) fn new(
        file: &'a SourceText,
        secrets: &'a Secrets,
        environment: &'a dyn Environment,
    ) -> Self {
        let document = Document { files: vec![file.clone()], root: Node::empty_table() };
        let report = Report::new(shown(&document));
        Self {
            file,
            secrets,
            environment,
            values: SecretValues::default(),
            faults: Vec::new(),
            report,
        }
    }

    fn fault(&mut self, code: &'static str, path: ConfigPath, message: String, help: &str) {
        let target = Target::Value;
        self.faults.push(Fault { code, path, target, message, help: Some(help.to_owned()) });
    }

    fn place(&mut self, code: &'static str, span: Range<usize>, message: String, help: &str) {
        let path = ConfigPath::default();
        let help = Some(help.to_owned());
        self.report.place(Fault { code, path, target: Target::Value, message, help }, 0, span);
    }

    /// Finds the values of all secrets that are referenced.
    pub(super) fn resolve(&mut self, masked: &Masked, root: &Node, usercom: Option<&Node>) {
        let declared = declared(root);
        let nodes: Vec<&Node> = [Some(root), usercom].into_iter().flatten().collect();
        let standing = masked.standing_in(&nodes);
        for (at, expression) in masked.expressions.iter().enumerate() {
            let written = &self.file.text[expression.span.clone()];
            let span = expression.span.clone();
            let name = match &expression.secret {
                Ok(name) => name,
                Err(wrong) => {
                    self.place("E0401", span, wrong.message.clone(), wrong.help);
                    continue;
                }
            };
            // In a YAML comment it has no meaning.
            if !standing.contains(&at) {
                continue;
            }
            let value = self.secret(name, declared.as_ref(), span);
            self.values.insert(expression, written, value);
        }
        let mut in_keys = Vec::new();
        for node in [Some(root), usercom].into_iter().flatten() {
            self.values.in_keys(node, &mut in_keys);
        }
        for (span, written) in in_keys {
            let message = format!("`{written}` in a key");
            self.place("E0401", span, message, "secrets are allowed in values only");
        }
        let mut tables = Vec::new();
        usercom.into_iter().for_each(|node| secret_tables(node, &mut tables));
        for (name, span) in tables {
            if let Some(value) = self.secret(&name, declared.as_ref(), span) {
                self.values.name(&name, value);
            }
        }
    }

    /// The value of a secret; `None` where there is none, which is reported.
    fn secret(
        &mut self,
        name: &str,
        declared: Option<&HashSet<String>>,
        span: Range<usize>,
    ) -> Option<String> {
        if declared.is_some_and(|declared| !declared.contains(name)) {
            let message = format!("secret {name} is not declared");
            let help = format!("add `- name: {name}` to `meta.secrets`");
            self.place("E0403", span, message, &help);
            return None;
        }
        let Some(value) = self.secrets.get(name, self.environment) else {
            self.place("E0402", span, format!("secret {name} is not set"), self.secrets.place());
            return None;
        };
        if value.contains(['\r', '\n']) {
            let message = format!("the value of secret {name} has a line break");
            self.place("E0402", span, message, "secrets are one line; check its content");
            return None;
        }
        Some(value)
    }

    /// Checks the common part against its schema and further rules.
    pub(super) fn check(&mut self, root: &mut Node, usercom: Option<&NodeEntry>) {
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
                let message = "the section `usercom` is not a table".to_owned();
                self.place("E0407", entry.key_span.clone(), message, help);
            }
            (None, None) => {
                self.fault(
                    "E0407",
                    ConfigPath::default(),
                    "the section `usercom` is missing".to_owned(),
                    help,
                );
            }
        }
    }

    /// The typed common part, if it has no faults, and its contradictions.
    pub(super) fn understand(&mut self, root: &Node) -> Option<ConnectorFile> {
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
                let message = "SmartModules with `lookback` are not supported".to_owned();
                self.fault("E0408", path, message, "leave `lookback` out");
            }
        }
        Some(file)
    }

    pub(super) fn shape(&mut self, file: &ConnectorFile) -> TopicShape {
        topic::shape(file, &mut self.faults)
    }
}

/// The names under `meta.secrets`; `None` where the format does not require them.
fn declared(root: &Node) -> Option<HashSet<String>> {
    let version = root.get("apiVersion").and_then(Node::text);
    if version.is_none_or(|version| version.value == "0.0.0") {
        return None;
    }
    let Some(NodeKind::Array(secrets)) =
        root.get("meta").and_then(|meta| meta.get("secrets")).map(|node| &node.kind)
    else {
        return Some(HashSet::new());
    };
    let names = secrets.iter().filter_map(|secret| secret.get("name")?.text());
    Some(names.map(|name| name.value.clone()).collect())
}

fn secret_tables(node: &Node, out: &mut Vec<(String, Range<usize>)>) {
    if let Some(name) = template::secret_table(node) {
        out.push((name, node.span.clone()));
        return;
    }
    match &node.kind {
        NodeKind::Table(entries) => {
            entries.values().for_each(|entry| secret_tables(&entry.node, out));
        }
        NodeKind::Array(items) => items.iter().for_each(|item| secret_tables(item, out)),
        _ => {}
    }
}

fn is_name(name: &str) -> bool {
    static NAME: LazyLock<regex::Regex> =
        LazyLock::new(|| regex::Regex::new(NAME_PATTERN).expect("a constant pattern"));
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
