//! Keeps secrets off the screen: which values are secret by the name of their key, how a file's
//! text looks with them covered, and which texts must not appear in a message.
//!
//! Invariant: a covered text has the same length and the same lines as the plain one, so that
//! every place in it stays where it was.

use std::collections::HashSet;
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
                    let known = is_known(key);
                    // What lost its own key may have become part of one.
                    if !known {
                        for part in secret_words(key).chain(user_infos(key)) {
                            self.add(key[part].trim_end_matches('@'), "***");
                        }
                    }
                    let covered = covered.or(is_secret(key, depth)).or_unknown(known);
                    self.collect(&entry.node, depth.below(key), covered);
                }
            }
            Kind::Array(items) => {
                for item in items {
                    self.collect(item, Depth::Deep, covered);
                }
            }
            Kind::String(text) => {
                // What comes from outside is shown as it is written, unless its key is secret.
                let suspect = covered == Covered::Suspects && covered.covers(&text.written);
                if (covered == Covered::Yes || suspect) && !is_path(&text.value) {
                    self.add(&text.value, "***");
                }
                for info in user_infos(&text.value) {
                    self.add(text.value[info].trim_end_matches('@'), "***");
                }
                if text.value.contains(char::is_whitespace) {
                    for word in secret_words(&text.value) {
                        self.add(&text.value[word], "***");
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

    fn add(&mut self, secret: &str, instead: &str) {
        if secret.len() >= MIN_REDACTED {
            self.0.push((secret.to_owned(), instead.to_owned()));
        }
    }
}

/// Which values are covered.
#[derive(Clone, Copy, PartialEq)]
enum Covered {
    /// All: their key names a secret.
    Yes,
    /// Those that look like a credential: their key means nothing here.
    Suspects,
    No,
}

impl Covered {
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

/// Whether a value is a path into a record, which is a secret nowhere.
fn is_path(value: &str) -> bool {
    value.starts_with(['.', '%', '^']) && !value.contains(char::is_whitespace)
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
            // Tables of a component's settings are settings too; what a mapping names is the data's.
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
    // No name of ours is that long, and comparing takes long.
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
            .any(|known| strsim::damerau_levenshtein(known, &folded) <= slips)
    };
    match depth {
        Depth::Component => contains() || near(2),
        // Where a section's name is damaged, its keys stand elsewhere.
        Depth::Root | Depth::Components => near(2),
        Depth::Deep => folded.len() >= 5 && near(1),
    }
}

/// Longer names are not compared.
const MAX_KEY: usize = 64;

/// Whether a key has a meaning anywhere in a pipeline file.
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

/// Whether a word looks like a credential: long, and not like a name, a path or a number.
fn looks_secret(word: &str) -> bool {
    let count = |is: fn(&char) -> bool| word.chars().filter(is).count();
    let digits = count(char::is_ascii_digit);
    let number = word.chars().all(|c| c.is_ascii_digit() || ".-+_:TZ".contains(c));
    word.len() >= 8
        && !number
        && !word.starts_with(['.', '%', '^', '$'])
        && !word.contains("${")
        && (digits > 0 || count(char::is_ascii_uppercase) > 1 || word.len() >= 16)
}

/// The words of a text that look like credentials, by place.
fn secret_words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_border = |c: char| c.is_whitespace() || "\"'`=,:;[]{}()<>/@#&*|".contains(c);
    text.split_inclusive(is_border)
        .scan(0, |at, piece| {
            let start = *at;
            *at += piece.len();
            Some((start, piece))
        })
        .filter_map(move |(start, piece)| {
            let word = piece.trim_end_matches(is_border);
            (looks_secret(word) && !is_known(word)).then(|| start..start + word.len())
        })
}

/// What stands before the `@` of a URL, or where a password would if the `@` is missing.
fn user_infos(text: &str) -> impl Iterator<Item = Range<usize>> {
    static URL: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"//([^\s/"'@]*@|[^\s/"'@:]*:[^\s/"'@]*[^\s/"'@0-9][^\s/"'@]*)"#)
            .expect("a constant pattern")
    });
    URL.captures_iter(text).filter_map(|found| {
        let info = found.get(1)?;
        // Templates of a path may follow a port.
        (!info.as_str().contains("${")).then(|| info.range())
    })
}

/// The texts of a document's files with every secret covered.
pub(crate) fn covered_texts(document: &Document) -> Vec<String> {
    let mut spans = vec![Vec::new(); document.files.len()];
    secret_spans(&document.root, Depth::Root, Covered::No, document, &mut spans);
    let has_root = document.root.table().is_some();
    let files = document.files.iter().zip(spans);
    files
        .map(|(file, mut spans)| {
            if !has_root {
                return covered_raw(&file.text);
            }
            spans.extend(user_infos(&file.text));
            cover(&file.text, &spans)
        })
        .collect()
}

fn secret_spans(
    node: &Node,
    depth: Depth,
    covered: Covered,
    document: &Document,
    out: &mut [Vec<Range<usize>>],
) {
    match &node.kind {
        Kind::Table(entries) => {
            for (key, entry) in entries {
                let known = is_known(key);
                if !known && let Some(file) = document.files.get(entry.node.file) {
                    let at = entry.key_span.start;
                    let raw = file.text.get(entry.key_span.clone()).unwrap_or_default();
                    let words = secret_words(raw).map(|word| at + word.start..at + word.end);
                    out[entry.node.file].extend(words);
                }
                let covered = covered.or(is_secret(key, depth)).or_unknown(known);
                secret_spans(&entry.node, depth.below(key), covered, document, out);
            }
        }
        Kind::Array(items) => {
            for item in items {
                secret_spans(item, Depth::Deep, covered, document, out);
            }
        }
        Kind::String(text) if is_reference(&text.written) => {}
        Kind::String(text) => {
            let all = covered.covers(&text.written) && !is_path(&text.written);
            let raw = document.files.get(node.file).and_then(|f| f.text.get(node.span.clone()));
            match raw {
                _ if all => out[node.file].push(node.span.clone()),
                // A line that lost its key may have become part of the value before it.
                Some(raw) if raw.contains('\n') => {
                    let at = node.span.start;
                    let words = secret_words(raw).map(|word| at + word.start..at + word.end);
                    out[node.file].extend(words);
                }
                _ => {}
            }
        }
        _ if covered == Covered::Yes => out[node.file].push(node.span.clone()),
        _ => {}
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
/// key: the rest of its line, the lines of a multi-line string, the deeper lines of a YAML block;
/// and every word that looks like a credential itself.
pub(crate) fn covered_raw(text: &str) -> String {
    cover(text, &raw_spans(text))
}

/// Texts that must not appear in a message about a text that could not be parsed.
pub(crate) fn raw_redactions(text: &str) -> Redactions {
    let mut found = Redactions::default();
    for span in raw_spans(text).into_iter().take(MAX_RAW_REDACTIONS) {
        let is_quote = |c: char| c.is_whitespace() || "\"'".contains(c);
        for word in text[span].split(is_quote).filter(|word| word.len() <= MAX_RAW_WORD) {
            found.add(word, "***");
        }
    }
    found.0.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
    found
}

/// Places looked at for words that must not be in a message, and the longest word.
const MAX_RAW_REDACTIONS: usize = 1_000;
const MAX_RAW_WORD: usize = 4_096;

fn raw_spans(text: &str) -> Vec<Range<usize>> {
    static WORD: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("[A-Za-z_][A-Za-z0-9_-]{2,63}").expect("a constant pattern"));
    let mut spans: Vec<Range<usize>> = user_infos(text).chain(secret_words(text)).collect();
    let mut covered_to = 0;
    for found in WORD.find_iter(text) {
        if found.start() < covered_to || !is_secret(found.as_str(), Depth::Component) {
            continue;
        }
        let start = found.end();
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        // `key` and what closes a quoted key.
        let value = text[start..line_end].trim_start_matches(|c: char| "\"' \t:=".contains(c));
        let value_at = line_end - value.len();
        let quote = ["\"\"\"", "'''"].into_iter().find(|q| text[start..line_end].contains(q));
        let end = match quote {
            Some(quote) => {
                let open = start + text[start..line_end].find(quote).unwrap_or(0) + 3;
                text[open..].find(quote).map_or(text.len(), |at| open + at + 3)
            }
            None if value.is_empty() || value.starts_with(['|', '>']) => {
                block_end(text, found.start(), line_end)
            }
            None => line_end,
        };
        covered_to = end;
        spans.push(value_at.min(end)..end);
    }
    spans
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
    let mut spans = spans.to_vec();
    spans.sort_by_key(|span| span.start);
    let mut covered = String::with_capacity(text.len());
    let (mut next, mut end) = (0, 0);
    for (at, character) in text.char_indices() {
        while let Some(span) = spans.get(next)
            && span.start <= at
        {
            end = end.max(span.end);
            next += 1;
        }
        if at < end && !matches!(character, '\n' | '\r' | '"' | '\'' | ' ' | '\t') {
            covered.extend(std::iter::repeat_n('*', character.len_utf8()));
        } else {
            covered.push(character);
        }
    }
    covered
}
