//! Resolves `${VAR}`, `${VAR:-default}`, `${file:PATH}` and the escape `$${`, in string values
//! only: keys are unchanged, and the result is never parsed as TOML.
//!
//! # Invariants
//!
//! A resolved value appears in no fault.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::document::{Node, NodeKind};
use super::fault::{ConfigPath, Fault, Segment, Target};
use super::text::{InterpolatedString, TextSegment};

/// The largest file that `${file:…}` reads, in bytes.
const MAX_SECRET_BYTES: u64 = 1 << 20;

/// Provides the values of `${…}`.
pub trait Environment {
    /// The value of a variable, or `None` if it is not set or not UTF-8.
    fn var(&self, name: &str) -> Option<String>;

    /// The content of a file.
    ///
    /// # Errors
    /// Whatever kept the file from being read as UTF-8 text.
    fn read_file(&self, path: &Path) -> io::Result<String>;

    /// What happens where a variable or a file is missing.
    fn on_missing(&self) -> OnMissing {
        OnMissing::Fault
    }

    /// Whether a file matches a pattern; `None` if that is not known.
    fn matches_file(&self, _pattern: &Path) -> Option<bool> {
        None
    }
}

/// What happens where `${…}` has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissing {
    /// The pipeline cannot run.
    Fault,
    /// A warning, where the value only matters to what uses the network.
    Warn,
}

/// Stands for a value that is missing.
const STAND_IN: &str = "not-set";

/// The variables and files of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_SECRET_BYTES {
            let error = "it is larger than 1 MiB";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
        }
        Ok(text)
    }
}

/// The variables and files of this process, for commands that use no network: a missing one is a
/// warning.
#[derive(Debug, Clone, Copy, Default)]
pub struct OfflineEnvironment;

impl Environment for OfflineEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        ProcessEnvironment.var(name)
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        ProcessEnvironment.read_file(path)
    }

    fn on_missing(&self) -> OnMissing {
        OnMissing::Warn
    }
}

/// The variables and files of this process, for `validate`: it also looks whether patterns match
/// files.
#[derive(Debug, Clone, Copy)]
pub struct ValidationEnvironment(pub OnMissing);

impl Environment for ValidationEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        ProcessEnvironment.var(name)
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        ProcessEnvironment.read_file(path)
    }

    fn on_missing(&self) -> OnMissing {
        self.0
    }

    fn matches_file(&self, pattern: &Path) -> Option<bool> {
        let mut found = glob::glob(pattern.to_str()?).ok()?;
        Some(found.any(|path| path.is_ok_and(|path| path.is_file())))
    }
}

/// Given variables and files, for tests and for pipelines embedded in a program.
#[derive(Debug, Clone, Default)]
pub struct FixedEnvironment {
    /// Variables by name.
    pub vars: BTreeMap<String, String>,
    /// Contents by path.
    pub files: BTreeMap<PathBuf, String>,
}

impl Environment for FixedEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).cloned()
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Resolves every string value below `node` in place and returns the faults.
///
/// Relative paths of files start from the folder of the value's file; `folders` are indexed by that
/// file's number.
pub(crate) fn interpolate(
    node: &mut Node,
    path: &ConfigPath,
    environment: &dyn Environment,
    folders: &[&Path],
    faults: &mut Vec<Fault>,
) {
    let folder = folders.get(node.file).copied().unwrap_or(Path::new(""));
    match &mut node.kind {
        NodeKind::Table(entries) => {
            for (key, entry) in entries {
                interpolate(&mut entry.node, &path.key(key), environment, folders, faults);
            }
        }
        NodeKind::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                interpolate(item, &path.index(index), environment, folders, faults);
            }
        }
        // A value that another program inserted is not resolved again.
        NodeKind::String(text) if text.written.contains("${") && !text.is_interpolated() => {
            let on_missing =
                if is_needed_offline(path) { OnMissing::Fault } else { environment.on_missing() };
            let (resolved, problems) = resolve(&text.written, environment, folder, on_missing);
            // A fault points into the text as written, which the tree still contains where a fault
            // was found.
            if problems.iter().all(|problem| problem.code.starts_with('W')) {
                *text = resolved;
            }
            faults.extend(problems.into_iter().map(|problem| Fault {
                code: problem.code,
                path: path.clone(),
                target: Target::Part(problem.span),
                message: problem.message,
                help: Some(problem.help),
            }));
        }
        _ => {}
    }
}

/// Whether a value matters without the network too: where state is, how records are decoded and
/// mapped, and the tests.
fn is_needed_offline(path: &ConfigPath) -> bool {
    let keys: Vec<_> = path
        .0
        .iter()
        .map(|segment| match segment {
            Segment::Key(key) => key.as_str(),
            Segment::Index(_) => "",
        })
        .collect();
    matches!(
        keys.as_slice(),
        ["data_dir" | "tests", ..]
            | ["sources", _, "decoding" | "multiline" | "timezone", ..]
            | [
                "sinks",
                _,
                "mapping" | "preset" | "users" | "attributes" | "company_attributes",
                ..
            ]
    )
}

struct Problem {
    code: &'static str,
    span: std::ops::Range<usize>,
    message: String,
    help: String,
}

fn resolve(
    written: &str,
    environment: &dyn Environment,
    folder: &Path,
    on_missing: OnMissing,
) -> (InterpolatedString, Vec<Problem>) {
    let mut out = Builder::default();
    let mut problems = Vec::new();
    let mut at = 0;
    while let Some(found) = written[at..].find("${") {
        let open = at + found;
        if written[..open].ends_with('$') && open > at {
            // `$${` is the escape of `${`.
            out.literal(written, at..open - 1);
            out.insert("${", open - 1..open + 2, false);
            at = open + 2;
            continue;
        }
        out.literal(written, at..open);
        let Some(length) = written[open..].find('}') else {
            problems.push(Problem {
                code: "E0012",
                span: open..written.len(),
                message: "`${` without its `}`".to_owned(),
                help: "close it, or write `$${` for a literal `${`".to_owned(),
            });
            return (out.finish(written), problems);
        };
        let span = open..open + length + 1;
        match value_of(&written[open + 2..span.end - 1], environment, folder) {
            Ok(value) => out.insert(&value, span.clone(), true),
            Err((code @ ("E0010" | "E0011"), message, _)) if on_missing == OnMissing::Warn => {
                out.insert(STAND_IN, span.clone(), true);
                let code = if code == "E0010" { "W0010" } else { "W0011" };
                let help = "`run` needs it; without network it does not matter".to_owned();
                problems.push(Problem { code, span: span.clone(), message, help })
            }
            Err((code, message, help)) => {
                problems.push(Problem { code, span: span.clone(), message, help })
            }
        }
        at = span.end;
    }
    out.literal(written, at..written.len());
    (out.finish(written), problems)
}

#[derive(Default)]
struct Builder {
    value: String,
    pieces: Vec<TextSegment>,
}

impl Builder {
    fn literal(&mut self, written: &str, range: std::ops::Range<usize>) {
        if !range.is_empty() {
            let text = &written[range.clone()];
            self.push(text, range, false);
        }
    }

    fn insert(&mut self, value: &str, written: std::ops::Range<usize>, foreign: bool) {
        self.push(value, written, foreign);
    }

    fn push(&mut self, value: &str, written: std::ops::Range<usize>, inserted: bool) {
        let start = self.value.len();
        self.value.push_str(value);
        self.pieces.push(TextSegment { value: start..self.value.len(), written, inserted });
    }

    fn finish(self, written: &str) -> InterpolatedString {
        InterpolatedString { value: self.value, written: written.to_owned(), pieces: self.pieces }
    }
}

type InterpolationError = (&'static str, String, String);

fn value_of(
    expression: &str,
    environment: &dyn Environment,
    folder: &Path,
) -> Result<String, InterpolationError> {
    if expression.contains("${") {
        return Err((
            "E0012",
            "`${` inside `${…}`".to_owned(),
            "references cannot be nested; give the default as plain text".to_owned(),
        ));
    }
    let (value, origin) = match expression.strip_prefix("file:") {
        Some(path) => (file(path, environment, folder)?, format!("file {path}")),
        None => variable(expression, environment)?,
    };
    if value.contains(['\r', '\n']) {
        return Err((
            "E0013",
            format!("the value of {origin} has a line break"),
            "values of `${…}` are one line; check its content".to_owned(),
        ));
    }
    Ok(value)
}

fn file(
    path: &str,
    environment: &dyn Environment,
    folder: &Path,
) -> Result<String, InterpolationError> {
    let place = folder.join(path);
    let mut text = environment.read_file(&place).map_err(|error| {
        (
            "E0011",
            format!("cannot read {}: {error}", place.display()),
            "a path behind `file:` is relative to the folder of the pipeline file; check that it exists and may be read".to_owned(),
        )
    })?;
    // Editors end a file with a line break; it is not part of the secret.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn variable(
    expression: &str,
    environment: &dyn Environment,
) -> Result<(String, String), InterpolationError> {
    let (name, default) = match expression.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (expression, None),
    };
    if !is_name(name) {
        return Err((
            "E0012",
            format!("`${{{expression}}}` names no variable"),
            "write `${VAR}`, `${VAR:-default}` or `${file:PATH}`, and `$${` for a literal `${`"
                .to_owned(),
        ));
    }
    let set = environment.var(name);
    let value = match (set, default) {
        (Some(value), None) => value,
        (Some(value), Some(_)) if !value.is_empty() => value,
        (_, Some(default)) => default.to_owned(),
        (None, None) => {
            return Err((
                "E0010",
                format!("variable {name} is not set"),
                format!("set it (as UTF-8 text), or give a default: `${{{name}:-…}}`"),
            ));
        }
    };
    Ok((value, format!("variable {name}")))
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
