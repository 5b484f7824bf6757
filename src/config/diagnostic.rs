//! Faults with their place, as people and machines read them. Not here: finding faults.
//!
//! Invariant: a report holds file texts with every secret covered, and messages without control
//! characters, so that it can be shown anywhere.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::fault::Fault;

/// How bad a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The pipeline cannot run.
    Error,
    /// The pipeline runs, but perhaps not as meant.
    Warning,
}

/// One fault with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is. Codes of warnings begin with `W`, those of errors with `E`.
    pub severity: Severity,
    /// Stable code: `E0101`.
    pub code: &'static str,
    /// The file as it was named, or `None` for a fault without a place.
    pub file: Option<String>,
    /// Line, counted from 1; 0 without a place.
    pub line: usize,
    /// Column in characters, counted from 1; 0 without a place.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub help: Option<String>,
    #[serde(skip)]
    place: Option<(usize, Range<usize>)>,
}

/// A file as a report shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The name.
    pub(crate) name: String,
    /// The text with secrets covered.
    pub(crate) text: String,
}

/// How a report is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Plain text.
    Plain,
    /// With ANSI colours, for terminals.
    Coloured,
}

/// Every fault found in the files of a pipeline, by file and position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    files: Vec<Shown>,
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    pub(crate) fn new(files: Vec<Shown>) -> Self {
        Self { files, diagnostics: Vec::new() }
    }

    /// The same faults in the same files, whose texts are covered in another way.
    pub(crate) fn shown_as(mut self, files: Vec<Shown>) -> Self {
        self.files = files;
        self
    }

    /// A report with one fault that has no place in a file.
    pub(crate) fn unplaced(code: &'static str, message: String, help: Option<String>) -> Self {
        let mut report = Self::default();
        report.push(code, message, help, None);
        report
    }

    /// Adds a fault at a place.
    pub(crate) fn place(&mut self, fault: Fault, file: usize, span: Range<usize>) {
        self.push(fault.code, fault.message, fault.help, Some((file, span)));
    }

    fn push(
        &mut self,
        code: &'static str,
        message: String,
        help: Option<String>,
        place: Option<(usize, Range<usize>)>,
    ) {
        let place = place.and_then(|(file, span)| {
            let text = &self.files.get(file)?.text;
            Some((file, within(text, span)))
        });
        let (line, column) = place
            .as_ref()
            .map_or((0, 0), |(file, span)| line_and_column(&self.files[*file].text, span.start));
        let severity = if code.starts_with('W') { Severity::Warning } else { Severity::Error };
        let diagnostic = Diagnostic {
            severity,
            code,
            file: place.as_ref().map(|(file, _)| self.files[*file].name.clone()),
            line,
            column,
            message: printable(&message),
            help: help.as_deref().map(printable),
            place,
        };
        if !self.diagnostics.contains(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Puts the faults in the order of the files.
    pub(crate) fn sort(&mut self) {
        self.diagnostics.sort_by_key(|diagnostic| {
            let place = diagnostic.place.as_ref();
            (
                place.map_or(0, |(file, _)| *file),
                place.map_or(0, |(_, span)| span.start),
                diagnostic.code,
            )
        });
    }

    /// The faults, by file and position.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Whether there is nothing to report.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// How many faults keep the pipeline from running.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many faults do not.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        let same = self.diagnostics.iter().filter(|d| d.severity == severity);
        same.count()
    }

    /// The report for people: every fault with its line of the file, a caret and help, and a last
    /// line that counts them. Ends with a line break; empty if there is nothing to report.
    pub fn render(&self, style: Style) -> String {
        if self.is_empty() {
            return String::new();
        }
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Coloured => Renderer::styled(),
        };
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            out.push_str(&renderer.render(&[self.group(diagnostic)]));
            out.push_str("\n\n");
        }
        out.push_str(&self.summary());
        out.push('\n');
        out
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&diagnostic.message).id(diagnostic.code);
        let mut group = match &diagnostic.place {
            Some((file, span)) => {
                let shown = &self.files[*file];
                title.element(
                    Snippet::source(&shown.text)
                        .path(&shown.name)
                        .annotation(AnnotationKind::Primary.span(span.clone())),
                )
            }
            None => Group::with_title(title),
        };
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help));
        }
        group
    }

    /// The last line: `6 errors and 1 warning in pipeline.toml`.
    fn summary(&self) -> String {
        let counted = |count: usize, noun: &str| match count {
            0 => None,
            1 => Some(format!("1 {noun}")),
            _ => Some(format!("{count} {noun}s")),
        };
        let counts: Vec<_> = [counted(self.errors(), "error"), counted(self.warnings(), "warning")]
            .into_iter()
            .flatten()
            .collect();
        let counts = counts.join(" and ");
        let names: Vec<_> = self.files.iter().map(|file| file.name.as_str()).collect();
        if names.is_empty() {
            return counts;
        }
        format!("{counts} in {}", printable(&names.join(", ")))
    }

    /// The report for machines: a list of
    /// `{severity, code, file, line, column, message, help}`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.diagnostics).expect("plain data always becomes JSON")
    }
}

/// A span that lies within a text, on character borders, and on one line.
fn within(text: &str, span: Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    let end = floor(span.end.max(start));
    // The rest of a value of many lines tells nothing; its first line shows where it is.
    let line = text[start..end].find(['\n', '\r']).map_or(end, |at| start + at);
    start..line
}

fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// A message on one line, with control characters escaped.
fn printable(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for character in message.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}
