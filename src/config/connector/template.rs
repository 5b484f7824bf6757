//! Handles `${{ secrets.NAME }}` in a connector's config, and comments `${# … #}`.
//!
//! Fluvio renders the text before it parses it as YAML. So that every value keeps its position in
//! the file and no secret is ever parsed as YAML, an expression is replaced by a word of the same
//! length before the text is parsed, and the word by the secret afterwards, in string values only.
//!
//! # Invariants
//!
//! A masked text has the length and the lines of the original one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use super::super::document::{Node, NodeEntry, NodeKind};
use super::super::text::{InterpolatedString, TextSegment};
use super::secrets::is_secret_name;

/// An expression of a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expression {
    /// Its bytes in the text.
    pub(super) span: Range<usize>,
    /// The secret it names, or what is wrong with it.
    pub(super) secret: Result<String, Wrong>,
    /// The word that replaces it.
    word: String,
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) help: &'static str,
}

/// A text whose expressions are replaced by words.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Masked {
    pub(super) text: String,
    pub(super) expressions: Vec<Expression>,
}

const FORM: &str = "write `${{ secrets.NAME }}`";

/// Masks a text.
pub(super) fn mask(text: &str) -> Masked {
    let prefix = unused_prefix(text);
    let mut masked = Masked { text: String::with_capacity(text.len()), expressions: Vec::new() };
    let mut at = 0;
    while let Some(open) = next_open(text, at) {
        masked.text.push_str(&text[at..open]);
        let rest = &text[open..];
        let close = match &rest[..3] {
            "${{" => "}}",
            "${%" => "%}",
            _ => "#}",
        };
        let end = rest[3..].find(close).map(|length| open + 3 + length + 2);
        let span = open..end.unwrap_or(text.len());
        at = span.end;
        let inside = &text[span.clone()];
        if end.is_some() && close == "#}" {
            // A comment is blanked; its lines remain.
            masked.text.extend(blank(inside));
            continue;
        }
        let secret = match end {
            None => Err(Wrong {
                message: format!("`{}` without its `{close}`", &rest[..3]),
                help: FORM,
            }),
            Some(_) if close == "%}" => Err(Wrong {
                message: "blocks `${% … %}` are not read".to_owned(),
                help: "only `${{ secrets.NAME }}` is; write the text that the block would produce",
            }),
            Some(_) if inside.contains(['\n', '\r']) => {
                Err(Wrong { message: "`${{ … }}` has more than one line".to_owned(), help: FORM })
            }
            Some(_) => secret(inside[3..inside.len() - 2].trim()),
        };
        let number = masked.expressions.len();
        let word = match inside.len().checked_sub(prefix.len()) {
            Some(width) if secret.is_ok() => format!("{prefix}{number:0>width$}"),
            // It is reported; the rest of the file is checked all the same.
            _ => String::new(),
        };
        if word.len() == inside.len() {
            masked.text.push_str(&word);
        } else if close == "}}" {
            masked.text.extend(blank(inside).map(|c| if c == ' ' { 'x' } else { c }));
        } else {
            masked.text.extend(blank(inside));
        }
        masked.expressions.push(Expression { span, secret, word });
    }
    masked.text.push_str(&text[at..]);
    masked
}

fn next_open(text: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let open = at + text[at..].find("${")?;
        if text[open + 2..].starts_with(['{', '%', '#']) {
            return Some(open);
        }
        at = open + 2;
    }
}

/// As many blanks as the text has bytes, with its line breaks.
fn blank(text: &str) -> impl Iterator<Item = char> + '_ {
    text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { char::from(byte) } else { ' ' })
}

/// A prefix of words that no word of the text has.
fn unused_prefix(text: &str) -> String {
    (0..)
        .map(|number| format!("Q{number}z"))
        .find(|prefix| !text.contains(prefix.as_str()))
        .expect("a text has an end, numbers have none")
}

/// The secret an expression names: `secrets.NAME`, `secrets["NAME"]` or `secrets['NAME']`.
fn secret(expression: &str) -> Result<String, Wrong> {
    let wrong = |message: String| Err(Wrong { message, help: FORM });
    let Some(rest) = expression.strip_prefix("secrets") else {
        return wrong(format!("`{expression}` is not defined: only `secrets` is"));
    };
    let name = match rest.trim_start().strip_prefix('.') {
        Some(name) => Some(name.trim_start()),
        None => ["\"", "'"].into_iter().find_map(|quote| {
            let inner = rest.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
            inner.strip_prefix(quote)?.strip_suffix(quote)
        }),
    };
    match name {
        Some(name) if is_secret_name(name) => Ok(name.to_owned()),
        _ => wrong(format!("`{expression}` names no secret")),
    }
}

impl Masked {
    /// The indexes of the expressions that occur in one of the trees: one in a YAML comment occurs
    /// in none. One walk, however many expressions there are.
    pub(super) fn standing_in(&self, nodes: &[&Node]) -> HashSet<usize> {
        let mut words = Words::default();
        for (at, expression) in self.expressions.iter().enumerate() {
            words.insert(&expression.word, at);
        }
        let without_word = self.expressions.iter().enumerate();
        let without_word = without_word.filter(|(_, expression)| expression.word.is_empty());
        let mut found: HashSet<usize> = without_word.map(|(at, _)| at).collect();
        for node in nodes {
            words.collect(node, &mut found);
        }
        found
    }
}

/// Words of a masked text, found by their common prefix.
struct Words<T> {
    by_word: HashMap<String, T>,
    lengths: BTreeSet<usize>,
    prefix: String,
}

impl<T> Default for Words<T> {
    fn default() -> Self {
        Self { by_word: HashMap::new(), lengths: BTreeSet::new(), prefix: String::new() }
    }
}

impl<T> Words<T> {
    /// Adds a word; an empty one is ignored.
    fn insert(&mut self, word: &str, value: T) {
        if let Some((prefix, _)) = word.split_once('z') {
            self.prefix = format!("{prefix}z");
            self.lengths.insert(word.len());
            self.by_word.insert(word.to_owned(), value);
        }
    }

    /// The first word in a text: where it begins, and its value.
    fn first(&self, text: &str) -> Option<(usize, &str, &T)> {
        if self.prefix.is_empty() {
            return None;
        }
        text.match_indices(&self.prefix).find_map(|(at, _)| {
            self.lengths.iter().find_map(|length| {
                let word = text.get(at..at + length)?;
                let (word, value) = self.by_word.get_key_value(word)?;
                Some((at, word.as_str(), value))
            })
        })
    }
}

impl Words<usize> {
    fn collect(&self, node: &Node, found: &mut HashSet<usize>) {
        match &node.kind {
            NodeKind::Table(entries) => {
                for (key, entry) in entries {
                    self.collect_text(key, found);
                    self.collect(&entry.node, found);
                }
            }
            NodeKind::Array(items) => items.iter().for_each(|item| self.collect(item, found)),
            NodeKind::String(text) => self.collect_text(&text.written, found),
            _ => {}
        }
    }

    fn collect_text(&self, mut text: &str, found: &mut HashSet<usize>) {
        while let Some((at, word, value)) = self.first(text) {
            found.insert(*value);
            text = &text[at + word.len()..];
        }
    }
}

/// An expression as written, and its secret, if it has one.
type ResolvedText = (String, Option<String>);

/// What the words of a masked text are replaced by.
#[derive(Default)]
pub(super) struct SecretValues {
    words: Words<ResolvedText>,
    /// Secrets by name, for `{secret: {name: …}}`.
    by_name: BTreeMap<String, String>,
}

impl SecretValues {
    /// An expression's value; `None` where it has none, which was reported.
    pub(super) fn insert(&mut self, expression: &Expression, written: &str, value: Option<String>) {
        self.words.insert(&expression.word, (written.to_owned(), value));
    }

    /// A secret's value, by name.
    pub(super) fn name(&mut self, name: &str, value: String) {
        self.by_name.insert(name.to_owned(), value);
    }

    /// Inserts the values everywhere below a node. Returns whether all were found.
    pub(super) fn put(&self, node: &mut Node) -> bool {
        if let Some(name) = secret_table(node) {
            let written = format!("${{{{ secrets.{name} }}}}");
            let value = self.by_name.get(&name).cloned();
            let found = value.is_some();
            let value = value.unwrap_or_else(|| written.clone());
            let pieces = vec![TextSegment {
                value: 0..value.len(),
                written: 0..written.len(),
                inserted: found,
            }];
            node.kind = NodeKind::String(InterpolatedString { value, written, pieces });
            return found;
        }
        match &mut node.kind {
            NodeKind::Table(entries) => {
                let put = entries.values_mut().map(|entry| self.put(&mut entry.node));
                put.fold(true, |all, one| all & one)
            }
            NodeKind::Array(items) => {
                items.iter_mut().map(|item| self.put(item)).fold(true, |all, one| all & one)
            }
            NodeKind::String(text) => self.put_text(text),
            _ => true,
        }
    }

    /// A text with its expressions as written in the file.
    fn unmasked(&self, mut text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        while let Some((at, word, (written, _))) = self.words.first(text) {
            out.push_str(&text[..at]);
            out.push_str(written);
            text = &text[at + word.len()..];
        }
        out.push_str(text);
        out
    }

    fn put_text(&self, text: &mut InterpolatedString) -> bool {
        if self.words.first(&text.written).is_none() {
            return true;
        }
        let mut complete = true;
        let (mut value, mut pieces) = (String::new(), Vec::new());
        let mut push = |part: &str, written: Range<usize>, inserted: bool| {
            let start = value.len();
            value.push_str(part);
            if !written.is_empty() || !part.is_empty() {
                pieces.push(TextSegment { value: start..value.len(), written, inserted });
            }
        };
        for piece in &text.pieces {
            let part = &text.value[piece.value.clone()];
            if piece.inserted || part.len() != piece.written.len() {
                push(part, piece.written.clone(), piece.inserted);
                continue;
            }
            let mut at = 0;
            while let Some((found, word, (written, secret))) = self.words.first(&part[at..]) {
                let (start, end) = (at + found, at + found + word.len());
                let place = |at: usize| piece.written.start + at;
                push(&part[at..start], place(at)..place(start), false);
                match secret {
                    Some(secret) => push(secret, place(start)..place(end), true),
                    None => {
                        complete = false;
                        push(written, place(start)..place(end), true);
                    }
                }
                at = end;
            }
            push(&part[at..], piece.written.start + at..piece.written.end, false);
        }
        text.written = self.unmasked(&text.written);
        text.value = value;
        text.pieces = pieces;
        complete
    }

    /// The positions of keys that contain an expression, and the expression.
    pub(super) fn in_keys(&self, node: &Node, out: &mut Vec<(Range<usize>, String)>) {
        match &node.kind {
            NodeKind::Table(entries) => {
                for (key, NodeEntry { key_span, node }) in entries {
                    if let Some((_, _, (written, _))) = self.words.first(key) {
                        out.push((key_span.clone(), written.clone()));
                    }
                    self.in_keys(node, out);
                }
            }
            NodeKind::Array(items) => items.iter().for_each(|item| self.in_keys(item, out)),
            _ => {}
        }
    }
}

/// The name in `{secret: {name: NAME}}`.
pub(super) fn secret_table(node: &Node) -> Option<String> {
    let table = node.table().filter(|table| table.len() == 1)?;
    let inner = table.get("secret")?.node.table().filter(|inner| inner.len() == 1)?;
    Some(inner.get("name")?.node.text()?.value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn masked_expression_keeps_its_length() {
        // Lines and lengths are unchanged; comments become blanks; a wrong expression is reported
        // and masked too.
        let text = "a: ${{ secrets.KEY }}\nb: ${# a\nb #}c\nd: ${{ env.X }} ${% if %}\n";
        let masked = mask(text);
        assert_eq!(masked.text.len(), text.len());
        assert_eq!(masked.text.lines().count(), text.lines().count());
        assert!(!masked.text.contains("${"), "{}", masked.text);
        let secrets: Vec<_> = masked.expressions.iter().map(|e| e.secret.clone()).collect();
        assert_eq!(secrets[0].as_deref(), Ok("KEY"));
        let told: Vec<_> = secrets[1..].iter().map(|s| s.clone().unwrap_err().message).collect();
        assert_eq!(
            told,
            ["`env.X` is not defined: only `secrets` is", "blocks `${% … %}` are not read"]
        );
        assert_eq!(mask("x: ${VAR}").expressions, [], "that is not one");
        let open = mask("x: ${{ secrets.A").expressions.remove(0);
        assert_eq!(open.secret.unwrap_err().message, "`${{` without its `}}`");
    }

    #[test]
    fn secret_reference_is_accepted_in_three_forms() {
        // Expressions are parsed as by minijinja; filters and other words are rejected.
        for (expression, expected) in [
            ("secrets.A_1", Some("A_1")),
            ("secrets[\"B\"]", Some("B")),
            ("secrets[ 'C' ]", Some("C")),
            ("secrets.a | upper", None),
            ("secrets", None),
            ("secrets.", None),
            ("secrets.1a", None),
            ("secretsx.a", None),
        ] {
            assert_eq!(secret(expression).ok().as_deref(), expected, "{expression}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_masked(text in "([a-c: \n\"'é]|\\$\\{\\{|\\$\\{%|\\$\\{#|\\}\\}|%\\}|#\\}|secrets\\.A){0,30}") {
            // No text causes a failure, a change of its length, or a lost line.
            let masked = mask(&text);
            prop_assert_eq!(masked.text.len(), text.len());
            prop_assert_eq!(masked.text.matches('\n').count(), text.matches('\n').count());
        }
    }
}
