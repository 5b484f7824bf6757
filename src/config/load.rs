//! Loads the settings of a pipeline from its texts, or returns every fault in them: parse, merge,
//! interpolate, check the schema, deserialize, check the meaning.

use std::collections::HashSet;
use std::path::Path;

use indexmap::IndexMap;

use super::diagnostic::{MAX_JSON_FAULTS, RedactedSource, Report};
use super::document::{Document, Node, SourceText};
use super::fault::{ConfigPath, Fault, Segment, Target};
use super::fingerprint::Fingerprints;
use super::interpolate::{Environment, interpolate};
use super::locate::locate;
use super::pipeline::{Pipeline, SinkConfig};
use super::recover::recover;
use super::schema::pipeline_schema;
use super::secret::{raw_redactions, redacted_raw, redacted_strings};
use super::sink::UsercomSink;
use super::source::SourceConfig;
use super::{check, semantic, syntax};
use crate::redact::Redactions;

/// Finds faults in a sink's mapping table. The path is the sink's: `sinks.NAME`. Faults whose code
/// begins with `W` are warnings.
pub type CompileMapping<'a> = dyn Fn(&ConfigPath, &UsercomSink) -> Vec<Fault> + 'a;

/// A pipeline that can run.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its settings. Endpoints end in a slash.
    pub pipeline: Pipeline,
    /// Compares the sources and sinks with those of another load.
    pub fingerprints: Fingerprints,
    /// What may not be intended. Empty if there is nothing.
    pub warnings: Report,
}

/// Loads a pipeline from the texts of its files.
///
/// # Errors
///
/// Every fault in the files, including warnings. Files with syntax errors are not checked further.
pub fn load(
    files: &[SourceText],
    environment: &dyn Environment,
    compile: &CompileMapping<'_>,
) -> Result<Loaded, Report> {
    let (document, duplicates) = Document::parse(files)?;
    let mut report = Report::new(shown(&document));
    for duplicate in duplicates {
        report.place(duplicate.fault, duplicate.file, duplicate.span);
    }
    analyze(document, report, environment, compile, &EmbeddingContext::default())
}

/// How the config of another program embeds a pipeline's settings.
#[derive(Default)]
pub(super) struct EmbeddingContext<'a> {
    /// Inserts what that program resolves, after `${}`; returns the paths where something was
    /// missing, which was reported.
    pub(super) resolve: Option<&'a Resolve<'a>>,
    /// The names of the pipeline's paths in that config: `sinks.crm`, and its name there.
    pub(super) names: &'a [(&'a str, &'a str)],
    /// Where relative paths start.
    pub(super) paths: Paths,
}

/// Where relative paths start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Paths {
    /// In the folder of their file.
    #[default]
    OfTheirFile,
    /// In the working directory.
    #[cfg(feature = "fluvio")]
    OfTheProcess,
}

/// Resolves other references than `${}`.
pub(super) type Resolve<'a> = dyn Fn(&mut Node) -> Vec<ConfigPath> + 'a;

impl EmbeddingContext<'_> {
    fn call(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (path, name)| text.replace(path, name))
    }
}

/// The settings in a tree, or every fault in it together with those already in the report.
pub(super) fn analyze(
    mut document: Document,
    mut report: Report,
    environment: &dyn Environment,
    compile: &CompileMapping<'_>,
    host: &EmbeddingContext<'_>,
) -> Result<Loaded, Report> {
    let mut faults = Vec::new();
    let root = ConfigPath::default();
    let folders: Vec<&Path> = document.files.iter().map(|file| file.folder.as_path()).collect();
    interpolate(&mut document.root, &root, environment, &folders, &mut faults);
    let missing = host.resolve.map_or_else(Vec::new, |resolve| resolve(&mut document.root));
    let checked = check::check(pipeline_schema(), &mut document.root);
    escalate(&mut faults, &checked);
    faults.extend(checked);
    // A document without a root table has one fault, and nothing else to check.
    let parts = recover(&document.root, &faults);
    faults.extend(semantic::check(&document.root, &parts));
    for sink in &parts.sinks {
        let SinkConfig::Usercom(config) = &sink.config;
        faults.extend(sink.restore(compile(&sink.path(), config)));
    }

    // A value whose `${}` could not be resolved has only that fault.
    let unresolved: HashSet<_> = faults
        .iter()
        .filter(|fault| is_unresolved(fault))
        .map(|fault| fault.path.clone())
        .chain(missing)
        .collect();
    faults.retain(|fault| is_unresolved(fault) || !unresolved.contains(&fault.path));

    let clean = faults.iter().all(|fault| fault.code.starts_with('W'));
    let pipeline = if clean && report.errors() == 0 {
        if host.paths == Paths::OfTheirFile {
            locate(&mut document.root, &folders);
        }
        let understood = understand(&document.root).map_err(|fault| faults.push(fault));
        if let Ok(pipeline) = &understood {
            let unmatched = unmatched_patterns(pipeline, environment);
            faults.extend(unmatched.into_iter().filter(|fault| !unresolved.contains(&fault.path)));
        }
        understood
    } else {
        Err(())
    };

    let mut places = document.places();
    let mut placed: Vec<_> =
        faults.into_iter().map(|fault| (places.of(&fault.path, &fault.target), fault)).collect();
    placed.sort_by_key(|((file, span), fault)| (*file, span.start, fault.code));
    let shown = placed.iter().take(MAX_JSON_FAULTS).map(|(_, fault)| fault);
    let redactions = Redactions::of(&document.root).within(shown.flat_map(texts));
    for (number, ((file, span), mut fault)) in placed.into_iter().enumerate() {
        if number < MAX_JSON_FAULTS {
            fault.message = host.call(&redactions.apply(&fault.message));
            fault.help = fault.help.map(|help| host.call(&redactions.apply(&help)));
        } else {
            // Only counted.
            fault.message = format!("fault {}", number + 1);
            fault.help = None;
        }
        report.place(fault, file, span);
    }
    report.sort();
    match pipeline {
        Ok(pipeline) => Ok(Loaded {
            pipeline,
            fingerprints: Fingerprints::of(&document.root),
            warnings: report,
        }),
        Err(()) => Err(report),
    }
}

/// Whether a fault is that `${}` could not be resolved.
fn is_unresolved(fault: &Fault) -> bool {
    fault.code.starts_with("E001") || fault.code.starts_with("W001")
}

/// A stand-in that the schema does not admit is no help: what was a warning keeps the pipeline from
/// being understood.
fn escalate(faults: &mut [Fault], checked: &[Fault]) {
    let faulty: HashSet<&ConfigPath> = checked.iter().map(|fault| &fault.path).collect();
    for fault in faults.iter_mut().filter(|fault| faulty.contains(&fault.path)) {
        match fault.code {
            "W0010" => fault.code = "E0010",
            "W0011" => fault.code = "E0011",
            _ => {}
        }
    }
}

/// Patterns of `include` that no file matches. Files may come later, so these are warnings.
fn unmatched_patterns(pipeline: &Pipeline, environment: &dyn Environment) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, source) in &pipeline.sources {
        let SourceConfig::File(file) = source else {
            continue;
        };
        for (index, pattern) in file.include.iter().enumerate() {
            let path = ConfigPath::default().key("sources").key(name).key("include").index(index);
            if environment.matches_file(Path::new(pattern)) == Some(false) {
                faults.push(Fault {
                    code: "W0306",
                    path,
                    target: Target::Value,
                    message: "no file matches this pattern now".to_owned(),
                    help: Some(
                        "relative patterns start in the folder of the pipeline file; `run` reads \
                         files that come later, `run --once` ends without a record"
                            .to_owned(),
                    ),
                });
            }
        }
    }
    faults
}

/// The texts of a fault.
fn texts(fault: &Fault) -> impl Iterator<Item = &str> {
    std::iter::once(fault.message.as_str()).chain(fault.help.as_deref())
}

/// The files of a pipeline as one JSON value, as written: `${}` is not resolved.
///
/// # Errors
///
/// Syntax errors, and names that several files have.
pub fn plain_json(files: &[SourceText]) -> Result<serde_json::Value, Report> {
    use serde::Deserialize;
    let (document, duplicates) = Document::parse(files)?;
    if !duplicates.is_empty() {
        let mut report = Report::new(shown(&document));
        for duplicate in duplicates {
            report.place(duplicate.fault, duplicate.file, duplicate.span);
        }
        return Err(report);
    }
    Ok(serde_json::Value::deserialize(&document.root).expect("every tree is a JSON value"))
}

impl Document {
    fn parse(files: &[SourceText]) -> Result<(Self, Vec<super::document::Duplicate>), Report> {
        let parsed: Vec<_> =
            files.iter().enumerate().map(|(number, file)| syntax::parse(file, number)).collect();
        if parsed.iter().all(Result::is_ok) {
            let trees: Vec<Node> = parsed.into_iter().flatten().collect();
            return Ok(Self::merge(files.to_vec(), trees));
        }
        Err(broken(files, parsed.into_iter().map(Result::err)))
    }
}

/// The report of texts that could not be parsed.
pub(super) fn broken(
    files: &[SourceText],
    errors: impl Iterator<Item = Option<Vec<syntax::SyntaxError>>>,
) -> Report {
    let raw = files
        .iter()
        .map(|file| RedactedSource { name: file.name.clone(), text: redacted_raw(&file.text) });
    let mut report = Report::new(raw.collect());
    for (number, errors) in errors.enumerate() {
        let Some(errors) = errors else {
            continue;
        };
        let texts = errors
            .iter()
            .flat_map(|error| std::iter::once(error.message.as_str()).chain(error.help.as_deref()));
        let redactions = raw_redactions(&files[number].text).within(texts);
        for error in errors {
            let fault = Fault {
                code: "E0002",
                path: ConfigPath::default(),
                target: Target::Value,
                message: redactions.apply(&error.message),
                help: error.help.map(|help| redactions.apply(&help)),
            };
            report.place(fault, number, error.span);
        }
    }
    report.sort();
    report
}

pub(super) fn shown(document: &Document) -> Vec<RedactedSource> {
    document
        .files
        .iter()
        .zip(redacted_strings(document))
        .map(|(file, text)| RedactedSource { name: file.name.clone(), text })
        .collect()
}

/// The typed settings of a tree without faults.
fn understand(root: &Node) -> Result<Pipeline, Fault> {
    let mut pipeline: Pipeline = serde_path_to_error::deserialize(root).map_err(|error| {
        let path = error.path().iter().filter_map(segment).collect();
        Fault {
            code: "E0199",
            path: ConfigPath(path),
            target: Target::Value,
            message: error.inner().to_string(),
            help: None,
        }
    })?;
    normalise(&mut pipeline.sinks);
    Ok(pipeline)
}

fn segment(segment: &serde_path_to_error::Segment) -> Option<Segment> {
    match segment {
        serde_path_to_error::Segment::Seq { index } => Some(Segment::Index(*index)),
        serde_path_to_error::Segment::Map { key } => Some(Segment::Key(key.clone())),
        _ => None,
    }
}

fn normalise(sinks: &mut IndexMap<String, SinkConfig>) {
    for sink in sinks.values_mut() {
        let SinkConfig::Usercom(sink) = sink;
        if let Some(endpoint) = &mut sink.endpoint
            && !endpoint.ends_with('/')
        {
            endpoint.push('/');
        }
    }
}
