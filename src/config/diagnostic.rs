//! Faults with their position, for people and for programs.
//!
//! # Invariants
//!
//! A report contains file texts with every secret redacted, and messages without control
//! characters, so that it can be shown anywhere.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use super::fault::Fault;

/// How bad a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The pipeline cannot run.
    Error,
    /// The pipeline runs, but perhaps not as intended.
    Warning,
}

/// One fault with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The severity. Codes of warnings begin with `W`, those of errors with `E`.
    pub severity: Severity,
    /// Stable code: `E0101`.
    pub code: &'static str,
    /// The file as it was named, or `None` for a fault without a position.
    pub file: Option<String>,
    /// Line, counted from 1; 0 without a position.
    pub line: usize,
    /// Column in characters, counted from 1; 0 without a position.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// How to correct it.
    pub help: Option<String>,
    #[serde(skip)]
    place: Option<(usize, Range<usize>)>,
}

/// A file as a report shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RedactedSource {
    /// The name.
    pub(crate) name: String,
    /// The text with secrets redacted.
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

/// The most faults of a report that are shown; for the others only their number is.
pub(crate) const MAX_SHOWN_FAULTS: usize = 50;

/// The most faults of a report in its JSON form.
pub(crate) const MAX_JSON_FAULTS: usize = 200;

/// The longest message and help that are shown, in characters: a key may have any length.
const MAX_MESSAGE_CHARS: usize = 600;

/// The longest line that is passed whole to the renderer, and how much of a longer one is passed on
/// both sides of the fault, in bytes: a file may be one line, and it is parsed again for every
/// fault.
const MAX_LINE_BYTES: usize = 4_096;
const EXCERPT_CONTEXT_BYTES: usize = 1_000;

/// What distinguishes faults: code, position, message.
type FaultKey = (&'static str, Option<(usize, usize)>, String);

/// Every fault found in the files of a pipeline, by file and position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    files: Vec<RedactedSource>,
    /// Boxed, because a report is the error type of many functions.
    lines: Box<SourceLines>,
    diagnostics: Vec<Diagnostic>,
    seen: HashSet<FaultKey>,
}

/// The lines of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct SourceLines {
    /// Where the lines of each file begin.
    starts: Vec<Vec<usize>>,
    /// The position that was computed last: faults come in the order of the text, and a line may be
    /// as long as the file.
    last: Option<ReportedFault>,
}

/// A byte of a file and its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ReportedFault {
    file: usize,
    line: usize,
    at: usize,
    column: usize,
}

impl Report {
    pub(crate) fn new(files: Vec<RedactedSource>) -> Self {
        let starts = files.iter().map(|file| line_starts(&file.text)).collect();
        Self { files, lines: Box::new(SourceLines { starts, last: None }), ..Self::default() }
    }

    /// The same faults in the same files, with their texts redacted in another way.
    #[cfg(feature = "fluvio")]
    pub(crate) fn shown_as(mut self, files: Vec<RedactedSource>) -> Self {
        self.files = files;
        self
    }

    /// A report with one fault that has no position in a file.
    pub(crate) fn unplaced(code: &'static str, message: String, help: Option<String>) -> Self {
        let mut report = Self::default();
        report.push(code, message, help, None);
        report
    }

    /// Adds a fault at a position.
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
        let start = place.as_ref().map(|(file, span)| (*file, span.start));
        let (line, column) = start.map_or((0, 0), |(file, at)| self.line_and_column(file, at));
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
        if self.seen.insert((code, start, diagnostic.message.clone())) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Line and column of a byte, from 1.
    fn line_and_column(&mut self, file: usize, at: usize) -> (usize, usize) {
        let starts = &self.lines.starts[file];
        let line = starts.partition_point(|start| *start <= at);
        let same_line =
            |last: &ReportedFault| last.file == file && last.line == line && last.at <= at;
        let begin = ReportedFault { file, line, at: starts[line - 1], column: 1 };
        let from = self.lines.last.filter(same_line).unwrap_or(begin);
        let column = from.column + self.files[file].text[from.at..at].chars().count();
        self.lines.last = Some(ReportedFault { file, line, at, column });
        (line, column)
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

    /// The files by name, with every secret covered.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|file| (file.name.as_str(), file.text.as_str()))
    }

    /// The faults, by file and position.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Whether there is nothing to report.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// How many faults prevent the pipeline from running.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many faults are warnings.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        let same = self.diagnostics.iter().filter(|d| d.severity == severity);
        same.count()
    }

    /// The report for people: every fault with its line of the file, a caret and help, and a last
    /// line with their number; the first 50 of many. Ends with a line break; empty if there is
    /// nothing to report.
    pub fn render(&self, style: Style) -> String {
        if self.is_empty() {
            return String::new();
        }
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Coloured => Renderer::styled(),
        };
        let mut out = String::new();
        for diagnostic in self.diagnostics.iter().take(MAX_SHOWN_FAULTS) {
            out.push_str(&renderer.render(&[self.group(diagnostic)]));
            out.push_str("\n\n");
        }
        if let Some(more @ 1..) = self.diagnostics.len().checked_sub(MAX_SHOWN_FAULTS) {
            writeln!(out, "and {more} more; fix these first\n").expect("a string takes all");
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
                // Only the line itself: the renderer scans all it is given, for each fault.
                let starts = &self.lines.starts[*file];
                let start = starts[diagnostic.line - 1];
                let end = starts.get(diagnostic.line).copied().unwrap_or(shown.text.len());
                if end - start > MAX_LINE_BYTES {
                    let part = around(&shown.text, start..end, span);
                    let marked = span.start - part.start..span.end.min(part.end) - part.start;
                    // The position in the file, not in the excerpt.
                    let origin = Origin::path(&shown.name)
                        .line(diagnostic.line)
                        .char_column(diagnostic.column);
                    title.element(origin).element(
                        Snippet::source(&shown.text[part])
                            .line_start(diagnostic.line)
                            .annotation(AnnotationKind::Primary.span(marked)),
                    )
                } else {
                    title.element(
                        Snippet::source(&shown.text[start..end])
                            .line_start(diagnostic.line)
                            .path(&shown.name)
                            .annotation(
                                AnnotationKind::Primary.span(span.start - start..span.end - start),
                            ),
                    )
                }
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

    /// The report for programs: a list of `{severity, code, file, line, column, message, help}`,
    /// the first 200.
    pub fn to_json(&self) -> serde_json::Value {
        let first = &self.diagnostics[..self.diagnostics.len().min(MAX_JSON_FAULTS)];
        serde_json::to_value(first).expect("plain data always becomes JSON")
    }
}

/// A span within a text, on character boundaries and on one line.
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
    // The first line of a multi-line value shows where it is.
    let line = text[start..end].find(['\n', '\r']).map_or(end, |at| start + at);
    start..line
}

/// The part of a long line in which a fault begins.
fn around(text: &str, line: Range<usize>, span: &Range<usize>) -> Range<usize> {
    let border = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let end = span.end.min(span.start + EXCERPT_CONTEXT_BYTES) + EXCERPT_CONTEXT_BYTES;
    border(span.start.saturating_sub(EXCERPT_CONTEXT_BYTES).max(line.start))
        ..border(end.min(line.end))
}

/// The byte at which the last characters begin.
fn tail_start(text: &str, characters: usize) -> usize {
    text.char_indices().rev().nth(characters.saturating_sub(1)).map_or(0, |(at, _)| at)
}

/// Where lines begin; the first at 0.
fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1)).collect()
}

/// A message on one line, with control characters escaped and a too long middle removed.
fn printable(message: &str) -> String {
    let mut out = String::with_capacity(message.len().min(MAX_MESSAGE_CHARS * 2));
    let length = message.chars().take(MAX_MESSAGE_CHARS + 1).count();
    let half = if length > MAX_MESSAGE_CHARS { MAX_MESSAGE_CHARS / 2 } else { usize::MAX };
    let begin = message.chars().take(half);
    let (dots, tail) = match half {
        usize::MAX => ("", ""),
        half => ("…", &message[tail_start(message, half)..]),
    };
    for character in begin.chain(dots.chars()).chain(tail.chars()) {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}
