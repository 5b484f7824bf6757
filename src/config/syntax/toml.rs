//! TOML, with recovery: several syntax errors of a file are reported at once.

use ::toml::Spanned;
use ::toml::de::{DeInteger, DeTable, DeValue};
use indexmap::IndexMap;

use super::super::document::{Node, NodeEntry, NodeKind};
use super::super::text::InterpolatedString;
use super::{SyntaxError, fits, nan, too_large};

/// Parses TOML.
pub(super) fn parse(text: &str, file: usize) -> Result<Node, Vec<SyntaxError>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut errors: Vec<_> = errors
        .into_iter()
        .map(|error| {
            let span = error.span().unwrap_or(text.len()..text.len());
            SyntaxError::new(span, format!("invalid TOML: {}", error.message()))
        })
        .collect();
    let span = table.span();
    let kind = table_kind(table.into_inner(), file, &mut errors);
    if errors.is_empty() { Ok(Node { file, span, kind }) } else { Err(errors) }
}

fn table_kind(table: DeTable<'_>, file: usize, errors: &mut Vec<SyntaxError>) -> NodeKind {
    let mut entries: Vec<_> = table.into_iter().collect();
    // The parser returns keys by name; people read them in file order.
    entries.sort_by_key(|(key, _)| key.span().start);
    let entries: IndexMap<_, _> = entries
        .into_iter()
        .map(|(key, value)| {
            let key_span = key.span();
            let node = node(value, file, errors);
            (key.into_inner().into_owned(), NodeEntry { key_span, node })
        })
        .collect();
    NodeKind::Table(entries)
}

fn node(value: Spanned<DeValue<'_>>, file: usize, errors: &mut Vec<SyntaxError>) -> Node {
    let span = value.span();
    let kind = match value.into_inner() {
        DeValue::String(text) => NodeKind::String(InterpolatedString::plain(text.into_owned())),
        DeValue::Integer(number) => match integer(&number) {
            Some(number) => NodeKind::Integer(number),
            None => {
                errors.push(too_large(span.clone()));
                NodeKind::Null
            }
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => NodeKind::Float(number),
            _ => {
                errors.push(nan(span.clone()));
                NodeKind::Null
            }
        },
        DeValue::Boolean(value) => NodeKind::Bool(value),
        // A record has no date type: dates become RFC 3339 strings.
        DeValue::Datetime(moment) => {
            NodeKind::String(InterpolatedString::plain(moment.to_string()))
        }
        DeValue::Array(items) => {
            NodeKind::Array(items.into_iter().map(|item| node(item, file, errors)).collect())
        }
        DeValue::Table(table) => table_kind(table, file, errors),
    };
    Node { file, span, kind }
}

fn integer(number: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok().filter(|number| fits(*number))
}
