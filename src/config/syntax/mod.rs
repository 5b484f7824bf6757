//! Parses each format into the tree.
//!
//! # Invariants
//!
//! No text, however broken or deep, makes a parser panic or recurse without bound.

mod json;
mod toml;
mod yaml;

use std::ops::Range;

use super::document::{Format, Node, NodeKind, SourceText};

/// How deep values may be nested.
const MAX_DEPTH: usize = 100;

/// The most syntax errors of one file that are shown: later ones usually follow from the first.
const MAX_SYNTAX_ERRORS: usize = 3;

/// The longest names of tables around a value, in bytes together.
const MAX_NAME_BYTES: usize = 4_096;

/// A syntax error.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    /// The wrong bytes.
    pub(crate) span: Range<usize>,
    /// What is wrong.
    pub(crate) message: String,
    /// How to correct it.
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
///
/// The first few syntax errors, in the order of the text.
pub(crate) fn parse(source: &SourceText, file: usize) -> Result<Node, Vec<SyntaxError>> {
    let parsed = match source.format {
        Format::Toml => toml::parse(&source.text, file),
        Format::Json => json::parse(&source.text, file),
        Format::Yaml => yaml::parse(&source.text, file),
    };
    let parsed = parsed.and_then(|root| {
        let mut errors = Vec::new();
        long_names(&root, 0, &mut errors);
        if errors.is_empty() { Ok(root) } else { Err(errors) }
    });
    parsed.map_err(|mut errors| {
        errors.sort_by_key(|error| error.span.start);
        errors.truncate(MAX_SYNTAX_ERRORS);
        errors
    })
}

/// Names of tables that are too long together: every fault below them would repeat them.
fn long_names(node: &Node, above: usize, errors: &mut Vec<SyntaxError>) {
    match &node.kind {
        NodeKind::Table(entries) => {
            for (key, entry) in entries {
                let length = above + key.len();
                let has_names = matches!(entry.node.kind, NodeKind::Table(_) | NodeKind::Array(_));
                if has_names && length > MAX_NAME_BYTES {
                    let message = "the names of this table and those around it are too long";
                    let help = format!("at most {MAX_NAME_BYTES} bytes together");
                    errors.push(SyntaxError::new(entry.key_span.clone(), message).help(help));
                } else {
                    long_names(&entry.node, length, errors);
                }
            }
        }
        NodeKind::Array(items) => items.iter().for_each(|item| long_names(item, above, errors)),
        _ => {}
    }
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
