//! As much of PromQL as is needed to find the metrics and labels that an expression names.

use std::collections::BTreeSet;

/// A metric, and the label matchers in its braces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) metric: String,
    /// Label, and what it is compared with.
    pub(super) matchers: Vec<(String, String)>,
}

/// What an expression names.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) selectors: Vec<Selector>,
    /// Labels of `by (…)`, `on (…)` and the like.
    pub(super) grouping: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

/// Words that stand before a list of labels.
const GROUPING: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Words between expressions.
const OPERATORS: &[&str] = &["and", "or", "unless", "bool", "offset"];

/// The names in an expression.
pub(super) fn names(expression: &str) -> Names {
    let tokens = tokens(expression);
    let mut found = Names::default();
    let mut at = 0;
    while at < tokens.len() {
        let Token::Word(word) = &tokens[at] else {
            at += 1;
            continue;
        };
        let next = tokens.get(at + 1);
        at += 1;
        if GROUPING.contains(&word.as_str()) {
            while tokens[at] != Token::Sign(')') {
                if let Token::Word(label) = &tokens[at] {
                    found.grouping.insert(label.clone());
                }
                at += 1;
            }
        } else if OPERATORS.contains(&word.as_str()) || next == Some(&Token::Sign('(')) {
            // An operator or a function.
        } else if matches!(next, Some(Token::Word(word)) if GROUPING.contains(&word.as_str())) {
            // An aggregation: `sum by (…) (…)`.
        } else {
            let mut matchers = Vec::new();
            if next == Some(&Token::Sign('{')) {
                while tokens[at] != Token::Sign('}') {
                    if let (Token::Word(label), Some(Token::Text(value))) = (
                        &tokens[at],
                        tokens[at + 1..].iter().find(|token| matches!(token, Token::Text(_))),
                    ) {
                        matchers.push((label.clone(), value.clone()));
                    }
                    at += 1;
                }
            }
            found.selectors.push(Selector { metric: word.clone(), matchers });
        }
    }
    found
}

/// Ranges (`[5m]`) and numbers are left out.
fn tokens(expression: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let length = if first == '"' {
            let end = rest[1..].find('"').expect("a string ends") + 1;
            found.push(Token::Text(rest[1..end].to_owned()));
            end + 1
        } else if first == '[' {
            rest.find(']').expect("a range ends") + 1
        } else if is_word(first) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            if !first.is_ascii_digit() {
                found.push(Token::Word(rest[..end].to_owned()));
            }
            end
        } else {
            found.push(Token::Sign(first));
            first.len_utf8()
        };
        rest = rest[length..].trim_start();
    }
    found
}

#[test]
fn expression_with_functions_and_grouping_yields_metrics_and_labels() {
    // Functions, operators, numbers and ranges are no metrics; labels are found where they stand.
    let names = names(
        r#"histogram_quantile(0.95, sum by (le, route) (rate(a_bucket{x="1", y=~"b|c"}[5m]))) > 10 and on (job) up == 0"#,
    );
    let matcher = |label: &str, value: &str| (label.to_owned(), value.to_owned());
    let expected = [
        Selector {
            metric: "a_bucket".into(),
            matchers: vec![matcher("x", "1"), matcher("y", "b|c")],
        },
        Selector { metric: "up".into(), matchers: Vec::new() },
    ];
    assert_eq!(names.selectors, expected);
    let grouping: Vec<_> = names.grouping.iter().map(String::as_str).collect();
    assert_eq!(grouping, ["job", "le", "route"]);
}
