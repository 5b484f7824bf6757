//! YAML 1.2, one document, built from the parser's events so that keys keep their position and
//! repeated keys are detected. Anchors and aliases work; the resulting tree is bounded.

use std::collections::HashMap;
use std::ops::Range;

use indexmap::IndexMap;
use indexmap::map::Entry as Slot;
use saphyr::{Scalar, ScalarStyle};
use saphyr_parser::{Event, Parser, Span, Tag};
use std::borrow::Cow;

use super::super::document::{Node, NodeEntry, NodeKind};
use super::super::text::InterpolatedString;
use super::{MAX_DEPTH, SyntaxError, nan};

/// How many values aliases may add to a file; a long string counts as several.
const MAX_REPEATED: usize = 100_000;

/// This many bytes of a string count as one more value.
const BYTES_PER_WEIGHT: usize = 256;

/// Parses YAML.
pub(super) fn parse(text: &str, file: usize) -> Result<Node, Vec<SyntaxError>> {
    let mut tree = YamlTree::new(text, file);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = tree.byte(error.marker().index());
            let message = format!("invalid YAML: {}", error.info());
            vec![SyntaxError::new(at..at, message)]
        })?;
        let span = tree.span(span);
        tree.event(event, span).map_err(|error| vec![error])?;
    }
    if tree.errors.is_empty() {
        Ok(tree.root.unwrap_or(Node { file, span: 0..0, kind: NodeKind::Null }))
    } else {
        Err(tree.errors)
    }
}

/// A collection that is not closed yet.
enum Open {
    Table { entries: IndexMap<String, NodeEntry>, key: Option<(String, Range<usize>)> },
    Array(Vec<Node>),
}

struct Frame {
    open: Open,
    start: usize,
    anchor: usize,
}

struct YamlTree {
    file: usize,
    /// The byte offset of every character: the parser counts characters.
    bytes: Vec<usize>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    /// How many values aliases have added.
    repeated: usize,
    root: Option<Node>,
    errors: Vec<SyntaxError>,
}

impl YamlTree {
    fn new(text: &str, file: usize) -> Self {
        let mut bytes: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
        bytes.push(text.len());
        Self {
            file,
            bytes,
            stack: Vec::new(),
            anchors: HashMap::new(),
            repeated: 0,
            root: None,
            errors: Vec::new(),
        }
    }

    fn byte(&self, character: usize) -> usize {
        let last = self.bytes.len() - 1;
        self.bytes[character.min(last)]
    }

    fn span(&self, span: Span) -> Range<usize> {
        let start = self.byte(span.start.index());
        start..self.byte(span.end.index()).max(start)
    }

    fn event(&mut self, event: Event<'_>, span: Range<usize>) -> Result<(), SyntaxError> {
        match event {
            Event::MappingStart(anchor, _) => {
                let entries = IndexMap::new();
                self.open(Open::Table { entries, key: None }, span, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(Open::Array(Vec::new()), span, anchor),
            Event::MappingEnd | Event::SequenceEnd => self.close(span),
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(text, style, tag.as_ref(), anchor, span)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => {
                    self.repeated = self.repeated.saturating_add(weight(&node));
                    if self.repeated > MAX_REPEATED {
                        let message = "invalid YAML: aliases make this file too large";
                        return Err(SyntaxError::new(span, message));
                    }
                    self.value(node, 0)
                }
                None => {
                    Err(SyntaxError::new(span, "invalid YAML: an alias inside of its own value"))
                }
            },
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(SyntaxError::new(span, "invalid YAML: a second document")
                    .help("a pipeline file is one document; give several files with several `-c`"))
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, open: Open, span: Range<usize>, anchor: usize) -> Result<(), SyntaxError> {
        if self.stack.len() >= MAX_DEPTH {
            let message = "invalid YAML: values are nested too deep";
            return Err(SyntaxError::new(span, message));
        }
        // A collection as a key cannot be the key of a table.
        if let Some(Frame { open: Open::Table { key: None, .. }, .. }) = self.stack.last() {
            return Err(not_a_name(span));
        }
        self.stack.push(Frame { open, start: span.start, anchor });
        Ok(())
    }

    fn close(&mut self, span: Range<usize>) -> Result<(), SyntaxError> {
        let Some(frame) = self.stack.pop() else {
            return Ok(());
        };
        let kind = match frame.open {
            Open::Table { entries, .. } => NodeKind::Table(entries),
            Open::Array(items) => NodeKind::Array(items),
        };
        let node = Node { file: self.file, span: frame.start..span.end.max(frame.start), kind };
        self.value(node, frame.anchor)
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        tag: Option<&Cow<'_, Tag>>,
        anchor: usize,
        span: Range<usize>,
    ) -> Result<(), SyntaxError> {
        if let Some(Frame { open: Open::Table { key, .. }, .. }) = self.stack.last_mut()
            && key.is_none()
        {
            // A key is always a string: `1: x` and `true: x` are names.
            *key = Some((text.into_owned(), span));
            return Ok(());
        }
        let kind = match Scalar::parse_from_cow_and_metadata(text, style, tag) {
            Some(Scalar::Null) => NodeKind::Null,
            Some(Scalar::Boolean(value)) => NodeKind::Bool(value),
            Some(Scalar::Integer(number)) => NodeKind::Integer(i128::from(number)),
            Some(Scalar::FloatingPoint(number)) if number.is_finite() => NodeKind::Float(number.0),
            Some(Scalar::FloatingPoint(_)) => return Err(nan(span)),
            Some(Scalar::String(text)) => {
                NodeKind::String(InterpolatedString::plain(text.into_owned()))
            }
            None => {
                let message = "invalid YAML: the value does not fit its tag";
                return Err(SyntaxError::new(span, message));
            }
        };
        let file = self.file;
        self.value(Node { file, span, kind }, anchor)
    }

    /// Inserts a finished value into its parent.
    fn value(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.open {
            Open::Array(items) => items.push(node),
            Open::Table { entries, key } => {
                let Some((key, key_span)) = key.take() else {
                    return Err(not_a_name(node.span));
                };
                match entries.entry(key) {
                    Slot::Vacant(slot) => {
                        slot.insert(NodeEntry { key_span, node });
                    }
                    Slot::Occupied(slot) => {
                        let message = format!("invalid YAML: duplicate key `{}`", slot.key());
                        self.errors.push(SyntaxError::new(key_span, message));
                    }
                }
            }
        }
        Ok(())
    }
}

fn not_a_name(span: Range<usize>) -> SyntaxError {
    SyntaxError::new(span, "invalid YAML: a key must be plain text")
}

/// How many values a tree has.
fn weight(node: &Node) -> usize {
    1 + match &node.kind {
        NodeKind::Table(entries) => {
            entries.iter().map(|(key, e)| key.len() / BYTES_PER_WEIGHT + weight(&e.node)).sum()
        }
        NodeKind::Array(items) => items.iter().map(weight).sum(),
        NodeKind::String(text) => text.written.len() / BYTES_PER_WEIGHT,
        _ => 0,
    }
}
