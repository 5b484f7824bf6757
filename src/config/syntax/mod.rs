//! From text to tree, for each notation. Not here: anything about pipelines.
//!
//! Invariant: no text, however broken or deep, makes a parser panic or recurse without bound.

mod json;
mod toml;
mod yaml;

use std::ops::Range;

use super::document::{Format, Node, SourceText};

/// How deep values may be nested.
const MAX_DEPTH: usize = 100;

/// How many syntax errors of one file are shown: later ones are mostly echoes of the first.
const MAX_SYNTAX_ERRORS: usize = 3;

/// A fault of the notation itself.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    /// The bytes at fault.
    pub(crate) span: Range<usize>,
    /// What is wrong.
    pub(crate) message: String,
    /// What to write.
    pub(crate) help: Option<String>,
}

impl SyntaxError {
    fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Parses a file; `file` is its number in the document.
///
/// # Errors
/// The first few syntax errors, in the order of the text.
pub(crate) fn parse(source: &SourceText, file: usize) -> Result<Node, Vec<SyntaxError>> {
    let parsed = match source.format {
        Format::Toml => toml::parse(&source.text, file),
        Format::Json => json::parse(&source.text, file),
        Format::Yaml => yaml::parse(&source.text, file),
    };
    parsed.map_err(|mut errors| {
        errors.sort_by_key(|error| error.span.start);
        errors.truncate(MAX_SYNTAX_ERRORS);
        errors
    })
}

fn nan(span: Range<usize>) -> SyntaxError {
    SyntaxError::new(span, "`nan` and infinity are not values a record can have")
        .help("write a finite number, or a string")
}

fn too_large(span: Range<usize>) -> SyntaxError {
    SyntaxError::new(span, "this whole number is too large")
        .help("whole numbers go from -9223372036854775808 to 18446744073709551615; write larger ones as a string")
}

fn fits(number: i128) -> bool {
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number)
}
