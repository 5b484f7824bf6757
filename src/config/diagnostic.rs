//! Faults with their place, as people and machines read them. Not here: finding faults.
//!
//! Invariant: a report holds file texts with every secret covered, and messages without control
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
pub(crate) struct RedactedSource {
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

/// Faults of one report that are shown; of the others only the number is.
pub(crate) const MAX_SHOWN: usize = 50;

/// Faults of one report that machines are given.
pub(crate) const MAX_JSON: usize = 200;

/// The longest message and help shown, in characters: a key may be of any length.
const MAX_MESSAGE: usize = 600;

/// The longest line that is given to the renderer whole, and how much of a longer one is given on
/// both sides of the fault, in bytes: a file may be one line, and it is read for every fault.
const MAX_LINE: usize = 4_096;
const AROUND: usize = 1_000;

/// What tells one fault from another: code, place, message.
type FaultKey = (&'static str, Option<(usize, usize)>, String);

/// Every fault found in the files of a pipeline, by file and position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    files: Vec<RedactedSource>,
    /// In a box, since a report is the error of many functions.
    lines: Box<SourceLines>,
    diagnostics: Vec<Diagnostic>,
    seen: HashSet<FaultKey>,
}

/// The lines of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct SourceLines {
    /// Where the lines of each file begin.
    starts: Vec<Vec<usize>>,
    /// The place that was told last: faults come in the order of the text, and a line may be as long
    /// as the file.
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

    /// The same faults in the same files, whose texts are covered in another way.
    #[cfg(feature = "fluvio")]
    pub(crate) fn shown_as(mut self, files: Vec<RedactedSource>) -> Self {
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
    /// line that counts them; the first 50 of many. Ends with a line break; empty if
    /// there is nothing to report.
    pub fn render(&self, style: Style) -> String {
        if self.is_empty() {
            return String::new();
        }
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Coloured => Renderer::styled(),
        };
        let mut out = String::new();
        for diagnostic in self.diagnostics.iter().take(MAX_SHOWN) {
            out.push_str(&renderer.render(&[self.group(diagnostic)]));
            out.push_str("\n\n");
        }
        if let Some(more @ 1..) = self.diagnostics.len().checked_sub(MAX_SHOWN) {
            writeln!(out, "and {more} more; put these right first\n").expect("a string takes all");
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
                // Only the line itself: the renderer reads all it is given for each fault.
                let starts = &self.lines.starts[*file];
                let start = starts[diagnostic.line - 1];
                let end = starts.get(diagnostic.line).copied().unwrap_or(shown.text.len());
                if end - start > MAX_LINE {
                    let part = around(&shown.text, start..end, span);
                    let marked = span.start - part.start..span.end.min(part.end) - part.start;
                    // The place is that in the file, not that in the part.
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

    /// The report for machines: a list of
    /// `{severity, code, file, line, column, message, help}`, of which the first 200 are
    /// given.
    pub fn to_json(&self) -> serde_json::Value {
        let first = &self.diagnostics[..self.diagnostics.len().min(MAX_JSON)];
        serde_json::to_value(first).expect("plain data always becomes JSON")
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

/// The part of a long line in which a fault begins.
fn around(text: &str, line: Range<usize>, span: &Range<usize>) -> Range<usize> {
    let border = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let end = span.end.min(span.start + AROUND) + AROUND;
    border(span.start.saturating_sub(AROUND).max(line.start))..border(end.min(line.end))
}

/// The byte at which the last so many characters begin.
fn tail_start(text: &str, characters: usize) -> usize {
    text.char_indices().rev().nth(characters.saturating_sub(1)).map_or(0, |(at, _)| at)
}

/// Where lines begin; the first at 0.
fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1)).collect()
}

/// A message on one line, with control characters escaped and a middle that is too long left out.
fn printable(message: &str) -> String {
    let mut out = String::with_capacity(message.len().min(MAX_MESSAGE * 2));
    let length = message.chars().take(MAX_MESSAGE + 1).count();
    let half = if length > MAX_MESSAGE { MAX_MESSAGE / 2 } else { usize::MAX };
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
