//! Redacts secrets: decides which values are secret by the name of their key, redacts them in a
//! file's text, and removes them from messages.
//!
//! # Invariants
//!
//! A redacted text has the same length and lines as the original, so that every position in it is
//! unchanged.

mod words;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::document::{Document, Format, Node, NodeKind};
use crate::redact::{REDACTED, Redactions};
use crate::suggest::edits_within;
use words::{looks_secret, secret_words, user_infos, without_references};

/// Keys whose values are always secret, in lower case without `_` and `-`.
const SECRET_KEYS: &[&str] = &[
    "apikey",
    "writekey",
    "password",
    "passwd",
    "passphrase",
    "token",
    "secret",
    "accesstoken",
    "authtoken",
    "apitoken",
    "bearertoken",
    "clientsecret",
    "authorization",
    "auth",
];

impl Redactions {
    /// Every value that came from outside a file or has a secret key.
    pub(crate) fn of(root: &Node) -> Self {
        let mut found = Self::default();
        found.collect(root, Depth::Root, RedactionScope::No);
        found.longest_first()
    }

    fn collect(&mut self, node: &Node, depth: Depth, scope: RedactionScope) {
        match &node.kind {
            NodeKind::Table(entries) => {
                for (key, entry) in entries {
                    let known = is_known_at(key, depth);
                    // A value that lost its key may have become part of another value.
                    if !known {
                        for part in secret_words(key) {
                            self.add(&key[part], REDACTED);
                        }
                        self.add_user_infos(key);
                    }
                    let scope = scope.or(is_secret(key, depth)).or_unknown(known);
                    self.collect(&entry.node, depth.below(key), scope);
                }
            }
            NodeKind::Array(items) => {
                for item in items {
                    self.collect(item, Depth::Deep, scope);
                }
            }
            NodeKind::String(text) => {
                // A value from outside is shown as its reference, unless its key is secret.
                let suspect = scope == RedactionScope::Suspects && scope.covers(&text.written);
                if (scope == RedactionScope::Yes || suspect) && !is_path(&text.value) {
                    self.add(&text.value, REDACTED);
                }
                self.add_user_infos(&text.value);
                if text.value.contains(char::is_whitespace) {
                    for word in secret_words(&text.value) {
                        self.add(&text.value[word], REDACTED);
                    }
                }
                for piece in text.pieces.iter().filter(|piece| piece.inserted) {
                    self.add(
                        &text.value[piece.value.clone()],
                        &text.written[piece.written.clone()],
                    );
                }
            }
            _ => {}
        }
    }

    fn add_user_infos(&mut self, text: &str) {
        for info in user_infos(text) {
            let info = text[info].trim_end_matches('@');
            self.add(info, REDACTED);
            let password = info.rsplit([':', '/', '@']).next().unwrap_or_default();
            if looks_secret(password) {
                self.add(password, REDACTED);
            }
        }
    }
}

/// Which values are redacted.
#[derive(Clone, Copy, PartialEq)]
enum RedactionScope {
    /// All: their keys name secrets.
    Yes,
    /// Those that look like a credential: their key has no meaning here.
    Suspects,
    No,
}

impl RedactionScope {
    fn or(self, secret: bool) -> Self {
        if secret { Self::Yes } else { self }
    }

    fn or_unknown(self, known: bool) -> Self {
        match (self, known) {
            (Self::Yes, _) => Self::Yes,
            (_, true) => Self::No,
            (_, false) => Self::Suspects,
        }
    }

    fn covers(self, value: &str) -> bool {
        match self {
            Self::Yes => true,
            Self::Suspects => !value.contains('/') && looks_secret(value),
            Self::No => false,
        }
    }
}

/// Whether a value is a path into a record, which is never secret.
fn is_path(value: &str) -> bool {
    value.starts_with(['.', '%', '^']) && !value.contains(char::is_whitespace)
}

/// The depth of a table below the root: in a source's or sink's own table a mistyped `api_key` is
/// secret too.
#[derive(Clone, Copy, PartialEq)]
enum Depth {
    Root,
    Components,
    Component,
    Deep,
}

impl Depth {
    fn below(self, key: &str) -> Self {
        match self {
            Self::Root if matches!(key, "sources" | "sinks") => Self::Components,
            Self::Components => Self::Component,
            // Tables of a component's settings are settings too; names in a mapping belong to the
            // data.
            Self::Component if !matches!(key, "mapping" | "decoding" | "attributes") => {
                Self::Component
            }
            _ => Self::Deep,
        }
    }
}

/// Whether the value of a client library's option is secret.
#[cfg(feature = "kafka")]
pub(crate) fn is_secret_option(key: &str) -> bool {
    is_secret(key, Depth::Component)
}

fn is_secret(key: &str, depth: Depth) -> bool {
    let folded: String =
        key.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    if SECRET_KEYS.contains(&folded.as_str()) {
        return true;
    }
    // No known name is that long, and comparing takes long.
    if folded.len() > MAX_KEY {
        return false;
    }
    let contains = || {
        ["key", "token", "secret", "passw", "auth", "credential"]
            .iter()
            .any(|part| folded.contains(part))
    };
    let near = |slips| {
        SECRET_KEYS
            .iter()
            .filter(|known| known.len() >= 5 && known.len().abs_diff(folded.len()) <= slips)
            .any(|known| edits_within(known, &folded, slips).is_some())
    };
    match depth {
        Depth::Component => contains() || near(2),
        // Where a section's name is damaged, its keys are at another depth.
        Depth::Root | Depth::Components => near(2),
        Depth::Deep => folded.len() >= 5 && near(1),
    }
}

/// Longer names are not compared.
const MAX_KEY: usize = 64;

/// Whether a key is known anywhere in a pipeline file.
fn is_known(key: &str) -> bool {
    static KNOWN: LazyLock<HashSet<String>> = LazyLock::new(|| {
        fn collect(schema: &serde_json::Value, into: &mut HashSet<String>) {
            match schema {
                serde_json::Value::Object(entries) => {
                    if let Some(properties) = entries.get("properties").and_then(|p| p.as_object())
                    {
                        into.extend(properties.keys().cloned());
                    }
                    entries.values().for_each(|value| collect(value, into));
                }
                serde_json::Value::Array(items) => {
                    items.iter().for_each(|item| collect(item, into));
                }
                _ => {}
            }
        }
        let mut known = HashSet::new();
        collect(super::schema::pipeline_schema(), &mut known);
        known
    });
    KNOWN.contains(key)
}

/// Whether a key is known in a table at that depth: `api` and `as` are unknown in a sink's.
fn is_known_at(key: &str, depth: Depth) -> bool {
    static COMPONENT: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let schema = super::schema::pipeline_schema();
        let mut known = HashSet::new();
        let mut seen = HashSet::new();
        for part in ["sources", "sinks"] {
            if let Some(part) = schema.pointer(&format!("/properties/{part}")) {
                collect_settings(schema, part, &mut known, &mut seen);
            }
        }
        known
    });
    match depth {
        Depth::Component => COMPONENT.contains(key),
        Depth::Root | Depth::Components | Depth::Deep => is_known(key),
    }
}

/// The keys of a component's settings, except those of tables that belong to the data.
fn collect_settings<'s>(
    root: &'s serde_json::Value,
    schema: &'s serde_json::Value,
    known: &mut HashSet<String>,
    seen: &mut HashSet<&'s str>,
) {
    match schema {
        serde_json::Value::Object(entries) => {
            for (word, value) in entries {
                match (word.as_str(), value) {
                    ("$ref", serde_json::Value::String(reference)) => {
                        let target = root.pointer(reference.trim_start_matches('#'));
                        if let (Some(target), true) = (target, seen.insert(reference)) {
                            collect_settings(root, target, known, seen);
                        }
                    }
                    ("properties", serde_json::Value::Object(properties)) => {
                        for (key, value) in properties {
                            known.insert(key.clone());
                            if Depth::Component.below(key) == Depth::Component {
                                collect_settings(root, value, known, seen);
                            }
                        }
                    }
                    _ => collect_settings(root, value, known, seen),
                }
            }
        }
        serde_json::Value::Array(items) => {
            items.iter().for_each(|item| collect_settings(root, item, known, seen));
        }
        _ => {}
    }
}

/// The texts of a document's files with every secret redacted.
pub(crate) fn redacted_strings(document: &Document) -> Vec<String> {
    let mut spans = vec![Spans::default(); document.files.len()];
    secret_spans(&document.root, Depth::Root, RedactionScope::No, document, &mut spans);
    let has_root = document.root.table().is_some();
    let files = document.files.iter().zip(spans);
    files
        .map(|(file, mut spans)| {
            if !has_root {
                return redacted_raw(&file.text);
            }
            spans.secret.extend(user_infos(&file.text));
            if file.format != Format::Json {
                spans.cover_comments(&file.text);
            }
            cover(&file.text, &spans.secret)
        })
        .collect()
}

/// Byte ranges in one file.
#[derive(Debug, Clone, Default)]
struct Spans {
    /// What is redacted.
    secret: Vec<Range<usize>>,
    /// Keys and values that are neither tables nor lists.
    read: Vec<Range<usize>>,
}

impl Spans {
    /// Redacts what looks like a secret outside of the tree: a commented line is still a line of
    /// the file.
    fn cover_comments(&mut self, text: &str) {
        self.read.sort_by_key(|span| span.start);
        let mut at = 0;
        let end = text.len()..text.len();
        for span in self.read.iter().chain(std::iter::once(&end)) {
            let gap = text.get(at..span.start).unwrap_or_default();
            let comments = memchr::memchr_iter(b'#', gap.as_bytes());
            let mut redacted_to = 0;
            for hash in comments {
                if hash < redacted_to {
                    continue;
                }
                let comment = gap[hash..].lines().next().unwrap_or_default();
                redacted_to = hash + comment.len();
                let start = at + hash;
                let found = raw_spans(comment).into_iter();
                self.secret.extend(found.map(|found| start + found.start..start + found.end));
            }
            at = at.max(span.end);
        }
    }
}

fn secret_spans(
    node: &Node,
    depth: Depth,
    scope: RedactionScope,
    document: &Document,
    out: &mut [Spans],
) {
    if !matches!(node.kind, NodeKind::Table(_) | NodeKind::Array(_)) {
        out[node.file].read.push(node.span.clone());
    }
    match &node.kind {
        NodeKind::Table(entries) => {
            for (key, entry) in entries {
                let known = is_known_at(key, depth);
                out[entry.node.file].read.push(entry.key_span.clone());
                if !known && let Some(file) = document.files.get(entry.node.file) {
                    let at = entry.key_span.start;
                    let raw = file.text.get(entry.key_span.clone()).unwrap_or_default();
                    let words = secret_words(raw).map(|word| at + word.start..at + word.end);
                    out[entry.node.file].secret.extend(words);
                }
                let scope = scope.or(is_secret(key, depth)).or_unknown(known);
                secret_spans(&entry.node, depth.below(key), scope, document, out);
            }
        }
        NodeKind::Array(items) => {
            for item in items {
                secret_spans(item, Depth::Deep, scope, document, out);
            }
        }
        NodeKind::String(text)
            if is_reference(&text.written) || stands_for_reference(node, document) => {}
        NodeKind::String(text) => {
            let all = scope.covers(&text.written) && !is_path(&text.written);
            let raw = document.files.get(node.file).and_then(|f| f.text.get(node.span.clone()));
            match raw {
                _ if all => out[node.file].secret.push(node.span.clone()),
                // A line that lost its key may have become part of the value before it.
                Some(raw) if raw.contains(char::is_whitespace) => {
                    let at = node.span.start;
                    let named = without_references(raw);
                    let words = secret_words(&named).map(|word| at + word.start..at + word.end);
                    out[node.file].secret.extend(words);
                }
                _ => {}
            }
        }
        _ if scope == RedactionScope::Yes => out[node.file].secret.push(node.span.clone()),
        _ => {}
    }
}

/// Whether the file contains such a reference for a value, whatever the tree contains.
fn stands_for_reference(node: &Node, document: &Document) -> bool {
    let raw = document.files.get(node.file).and_then(|file| file.text.get(node.span.clone()));
    raw.is_some_and(|raw| is_reference(raw.trim_matches(['"', '\''])))
}

/// Whether a value is one `${…}` without a default, or one `${{ secrets.NAME }}`, and nothing else:
/// it names a secret without being one.
fn is_reference(written: &str) -> bool {
    let inner = written.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    inner.is_some_and(|inner| {
        let named = inner.strip_prefix("{ secrets.").and_then(|name| name.strip_suffix(" }"));
        let name = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        !inner.contains([':', '$', '{', '}'])
            || inner.starts_with("file:")
            || named.is_some_and(|named| named.bytes().all(name))
    })
}

/// A text that could not be parsed, with everything redacted that looks like the value of a secret
/// key (the rest of its line, the lines of a multi-line string, the deeper lines of a YAML block),
/// and every word that looks like a credential.
pub(crate) fn redacted_raw(text: &str) -> String {
    cover(text, &raw_spans(text))
}

/// Strings that must not appear in a message about a text that could not be parsed.
pub(crate) fn raw_redactions(text: &str) -> Redactions {
    let mut found = Redactions::default();
    for span in raw_spans(text) {
        let is_quote = |c: char| c.is_whitespace() || "\"'".contains(c);
        for word in text[span].split(is_quote) {
            found.add(word, REDACTED);
        }
    }
    found.longest_first()
}

fn raw_spans(text: &str) -> Vec<Range<usize>> {
    static WORD: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("[A-Za-z_][A-Za-z0-9_-]{2,63}").expect("a constant pattern"));
    let mut spans: Vec<Range<usize>> = user_infos(text).chain(secret_words(text)).collect();
    let mut redacted_to = 0;
    for found in WORD.find_iter(text) {
        if found.start() < redacted_to || !is_secret(found.as_str(), Depth::Component) {
            continue;
        }
        let start = found.end();
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        // `key` and the closing quote of a quoted key.
        let value = text[start..line_end].trim_start_matches(|c: char| "\"' \t:=".contains(c));
        let value_at = line_end - value.len();
        let quote = ["\"\"\"", "'''"].into_iter().find(|q| text[start..line_end].contains(q));
        let end = match quote {
            Some(quote) => {
                let open = start + text[start..line_end].find(quote).unwrap_or(0) + 3;
                text[open..].find(quote).map_or(text.len(), |at| open + at + 3)
            }
            None => {
                let block = value.is_empty() || value.starts_with(['|', '>']);
                let block = block.then(|| block_end(text, found.start(), line_end));
                let open = open_end(text, found.range(), line_end);
                block.into_iter().chain(open).fold(line_end, usize::max)
            }
        };
        redacted_to = end;
        spans.push(value_at.min(end)..end);
    }
    spans
}

/// The end of a value that does not end in the line of its key: a quote is open, or the value has
/// not begun yet.
fn open_end(text: &str, key: Range<usize>, line_end: usize) -> Option<usize> {
    let rest = &text[key.end..line_end];
    let behind = &text[line_end..];
    let opened = |quote: &char| {
        let of_key = text[..key.start].ends_with(*quote) && rest.starts_with(*quote);
        let count = rest.matches(*quote).count() - usize::from(of_key);
        count % 2 == 1
    };
    let closed = |quote: char| behind.find(quote).unwrap_or(behind.len());
    let quoted = ['"', '\''].into_iter().filter(opened).map(closed).max();
    let is_bare = !rest.contains(char::is_alphanumeric);
    let next = is_bare.then(|| {
        let blank = behind.len() - behind.trim_start().len();
        behind[blank..].find('\n').map_or(behind.len(), |end| blank + end)
    });
    quoted.max(next).map(|length| line_end + length)
}

/// The end of the lines after `line_end` that are indented deeper than the line of `key`.
fn block_end(text: &str, key: usize, line_end: usize) -> usize {
    let line_start = text[..key].rfind('\n').map_or(0, |at| at + 1);
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = indent(&text[line_start..line_end]);
    let mut end = line_end + 1;
    for line in text[line_end..].split_inclusive('\n').skip(1) {
        if !line.trim().is_empty() && indent(line) <= own {
            break;
        }
        end += line.len();
    }
    end.min(text.len())
}

fn cover(text: &str, spans: &[Range<usize>]) -> String {
    let mut spans = spans.to_vec();
    spans.sort_by_key(|span| span.start);
    let mut redacted = String::with_capacity(text.len());
    let (mut next, mut end) = (0, 0);
    for (at, character) in text.char_indices() {
        while let Some(span) = spans.get(next)
            && span.start <= at
        {
            end = end.max(span.end);
            next += 1;
        }
        if at < end && !matches!(character, '\n' | '\r' | '"' | '\'' | ' ' | '\t') {
            redacted.extend(std::iter::repeat_n('*', character.len_utf8()));
        } else {
            redacted.push(character);
        }
    }
    redacted
}
