//! JSON, strictly: no comments, no trailing commas, no repeated keys.

use indexmap::IndexMap;
use indexmap::map::Entry as Slot;
use jsonc_parser::ast::{Object, ObjectPropName, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, parse_to_ast};

use super::super::document::{Node, NodeEntry, NodeKind};
use super::super::text::InterpolatedString;
use super::{MAX_DEPTH, SyntaxError, fits, nan, too_large};

/// Parses JSON.
pub(super) fn parse(text: &str, file: usize) -> Result<Node, Vec<SyntaxError>> {
    let collect = CollectOptions { comments: CommentCollectionStrategy::Off, tokens: false };
    let parsed = parse_to_ast(text, &collect, &strict()).map_err(|error| {
        let range = error.range();
        let message = format!("invalid JSON: {}", lower(&error.kind().to_string()));
        vec![SyntaxError::new(range.start..range.end, message)]
    })?;
    let Some(value) = parsed.value else {
        return Ok(Node { file, span: 0..0, kind: NodeKind::Null });
    };
    let mut tree = JsonTree { file, errors: Vec::new() };
    let node = tree.node(&value, 0);
    if tree.errors.is_empty() { Ok(node) } else { Err(tree.errors) }
}

fn strict() -> ParseOptions {
    ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

fn lower(message: &str) -> String {
    let mut characters = message.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

struct JsonTree {
    file: usize,
    errors: Vec<SyntaxError>,
}

impl JsonTree {
    fn node(&mut self, value: &Value<'_>, depth: usize) -> Node {
        let range = value.range();
        let span = range.start..range.end;
        if depth > MAX_DEPTH {
            let message = "invalid JSON: values are nested too deep";
            self.errors.push(SyntaxError::new(span.clone(), message));
            return self.make(span, NodeKind::Null);
        }
        let kind = match value {
            Value::StringLit(text) => {
                NodeKind::String(InterpolatedString::plain(text.value.as_ref()))
            }
            Value::NumberLit(number) => match number_kind(number.value) {
                Some(kind) => kind,
                None => {
                    let integral = number.value.bytes().all(|b| b.is_ascii_digit() || b == b'-');
                    let error = if integral { too_large } else { nan };
                    self.errors.push(error(span.clone()));
                    NodeKind::Null
                }
            },
            Value::BooleanLit(value) => NodeKind::Bool(value.value),
            Value::NullKeyword(_) => NodeKind::Null,
            Value::Object(object) => NodeKind::Table(self.entries(object, depth)),
            Value::Array(array) => NodeKind::Array(
                array.elements.iter().map(|item| self.node(item, depth + 1)).collect(),
            ),
        };
        self.make(span, kind)
    }

    fn make(&self, span: std::ops::Range<usize>, kind: NodeKind) -> Node {
        Node { file: self.file, span, kind }
    }

    fn entries(&mut self, object: &Object<'_>, depth: usize) -> IndexMap<String, NodeEntry> {
        let mut entries = IndexMap::new();
        for property in &object.properties {
            let range = property.name.range();
            let key_span = range.start..range.end;
            let key = match &property.name {
                ObjectPropName::String(text) => text.value.as_ref(),
                ObjectPropName::Word(word) => word.value,
            };
            let node = self.node(&property.value, depth + 1);
            match entries.entry(key.to_owned()) {
                Slot::Vacant(slot) => {
                    slot.insert(NodeEntry { key_span, node });
                }
                Slot::Occupied(_) => {
                    let message = format!("invalid JSON: duplicate key `{key}`");
                    self.errors.push(SyntaxError::new(key_span, message));
                }
            }
        }
        entries
    }
}

fn number_kind(text: &str) -> Option<NodeKind> {
    if text.contains(['.', 'e', 'E']) {
        let number = text.parse::<f64>().ok().filter(|n| n.is_finite())?;
        return Some(NodeKind::Float(number));
    }
    let number = text.parse::<i128>().ok().filter(|n| fits(*n))?;
    Some(NodeKind::Integer(number))
}
