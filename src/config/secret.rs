//! Keeps secrets off the screen: which values are secret by the name of their key, how a file's
//! text looks with them covered, and which texts must not appear in a message.
//!
//! Invariant: a covered text has the same length and the same lines as the plain one, so that
//! every place in it stays where it was.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::document::{Document, Kind, Node};

/// Keys whose values are secret wherever they stand, in lower case without `_` and `-`.
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

/// The shortest outside value that is taken out of messages: shorter ones would hit by chance.
const MIN_REDACTED: usize = 4;

/// Texts that must not appear in a message, and what appears instead.
#[derive(Debug, Default)]
pub(crate) struct Redactions(Vec<(String, String)>);

impl Redactions {
    /// A message without secrets.
    pub(crate) fn apply(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for (secret, instead) in &self.0 {
            if message.contains(secret.as_str()) {
                message = message.replace(secret.as_str(), instead);
            }
        }
        message
    }

    /// Every value that came from outside a file or stands under a secret key.
    pub(crate) fn of(root: &Node) -> Self {
        let mut found = Self::default();
        found.collect(root, Depth::Root, Covered::No);
        // Longer ones first, so that no part of a secret is left beside a shorter one.
        found.0.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
        found
    }

    fn collect(&mut self, node: &Node, depth: Depth, covered: Covered) {
        match &node.kind {
            Kind::Table(entries) => {
                for (key, entry) in entries {
                    let covered = covered.or(is_secret(key, depth));
                    self.collect(&entry.node, depth.below(key), covered);
                }
            }
            Kind::Array(items) => {
                for item in items {
                    self.collect(item, Depth::Deep, covered);
                }
            }
            Kind::String(text) => {
                if covered == Covered::Yes {
                    self.add(&text.value, "***");
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

    fn add(&mut self, secret: &str, instead: &str) {
        if secret.len() >= MIN_REDACTED {
            self.0.push((secret.to_owned(), instead.to_owned()));
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Covered {
    Yes,
    No,
}

impl Covered {
    fn or(self, secret: bool) -> Self {
        if secret { Self::Yes } else { self }
    }
}

/// How far below the root a table is: in a source's or sink's own table a mistyped `api_key` is
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
            // Options of a client library are a component's settings in another notation.
            Self::Component if key == "librdkafka_options" => Self::Component,
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
    depth == Depth::Component
        && (["key", "token", "secret", "passw", "auth", "credential"]
            .iter()
            .any(|part| folded.contains(part))
            || SECRET_KEYS
                .iter()
                .any(|known| known.len() >= 5 && strsim::damerau_levenshtein(known, &folded) <= 2))
}

/// The texts of a document's files with every secret covered.
pub(crate) fn covered_texts(document: &Document) -> Vec<String> {
    let mut spans = vec![Vec::new(); document.files.len()];
    secret_spans(&document.root, Depth::Root, Covered::No, &mut spans);
    document.files.iter().zip(spans).map(|(file, spans)| cover(&file.text, &spans)).collect()
}

fn secret_spans(node: &Node, depth: Depth, covered: Covered, out: &mut [Vec<Range<usize>>]) {
    match &node.kind {
        Kind::Table(entries) => {
            for (key, entry) in entries {
                let covered = covered.or(is_secret(key, depth));
                secret_spans(&entry.node, depth.below(key), covered, out);
            }
        }
        Kind::Array(items) => {
            for item in items {
                secret_spans(item, Depth::Deep, covered, out);
            }
        }
        _ if covered == Covered::No => {}
        Kind::String(text) if is_reference(&text.written) => {}
        _ => out[node.file].push(node.span.clone()),
    }
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

/// A text that could not be parsed, with everything covered that looks like the value of a secret
/// key: the rest of its line, the lines of a multi-line string, the deeper lines of a YAML block.
pub(crate) fn covered_raw(text: &str) -> String {
    static KEY: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?i)["']?([a-z_-]*(?:key|token|secret|passw|auth|credential|kye)[a-z_-]*)["']?[ \t]*[=:]"#)
            .expect("a constant pattern")
    });
    let mut spans: Vec<Range<usize>> = Vec::new();
    for found in KEY.find_iter(text) {
        let start = found.end();
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let value = text[start..line_end].trim_start();
        let end = if value.starts_with("\"\"\"") || value.starts_with("'''") {
            let quote = &value[..3];
            let open = line_end - value.len() + 3;
            text[open..].find(quote).map_or(text.len(), |at| open + at + 3)
        } else if value.starts_with(['|', '>']) || value.is_empty() {
            block_end(text, found.start(), line_end)
        } else {
            line_end
        };
        spans.push(start..end);
    }
    cover(text, &spans)
}

/// The end of the lines behind `line_end` that are indented deeper than the line of `key`.
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
    let mut covered = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        let hidden = spans.iter().any(|span| span.contains(&at));
        if hidden && !matches!(character, '\n' | '\r' | '"' | '\'' | ' ' | '\t') {
            covered.extend(std::iter::repeat_n('*', character.len_utf8()));
        } else {
            covered.push(character);
        }
    }
    covered
}
