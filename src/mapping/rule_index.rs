//! An index of rules by the string that they compare one path with.
//!
//! In most tables nearly every rule compares the same path (`.type`) with a string. One lookup then
//! finds the rules that may match, so a hundred rules cost as much as one.
//!
//! # Invariants
//! A rule that is not a candidate does not match.

use super::condition::{CompiledCondition, Literal, Operator};
use super::eval_context::{EvalContext, PathRef, PathScope};
use super::json::{self, JsonKind};
use super::rule::CompiledRule;
use crate::call::FixedKeyMap;

/// With fewer rules on a path it is faster to test each.
const MIN_INDEXED_RULES: usize = 4;

/// The indices of rules by the string they require at one path.
#[derive(Debug, Default)]
pub(super) struct RuleIndex {
    path: Option<PathRef>,
    by_text: FixedKeyMap<Vec<usize>>,
    /// Rules that require no string at that path.
    others: Vec<usize>,
}

impl RuleIndex {
    /// Chooses the path that most rules compare with a string.
    pub(super) fn of(rules: &[CompiledRule]) -> Self {
        let required: Vec<Vec<(&PathRef, Vec<&str>)>> = rules.iter().map(required).collect();
        let count = |slot: usize| {
            required
                .iter()
                .filter(|required| required.iter().any(|(path, _)| path.slot == slot))
                .count()
        };
        let paths = required.iter().flatten().map(|(path, _)| *path);
        let best = paths.max_by_key(|path| count(path.slot));
        let Some(path) = best.filter(|path| count(path.slot) >= MIN_INDEXED_RULES) else {
            return Self { others: (0..rules.len()).collect(), ..Self::default() };
        };
        let mut made = Self { path: Some(path.clone()), ..Self::default() };
        for (rule, required) in required.iter().enumerate() {
            match required.iter().find(|(required, _)| required.slot == path.slot) {
                Some((_, texts)) => texts.iter().for_each(|text| made.add(text, rule)),
                None => made.others.push(rule),
            }
        }
        made
    }

    fn add(&mut self, text: &str, rule: usize) {
        match self.by_text.get_mut(text.as_bytes()) {
            Some(rules) if rules.last() == Some(&rule) => {}
            Some(rules) => rules.push(rule),
            None => self.by_text.insert(text.as_bytes(), vec![rule]),
        }
    }

    /// The rules that may match, in file order.
    pub(super) fn candidates(&self, context: &EvalContext<'_, '_>) -> impl Iterator<Item = usize> {
        let text = self.path.as_ref().and_then(|path| context.get(path));
        let text = text.filter(|raw| JsonKind::of(raw) == JsonKind::String).map(json::unescape);
        let named = text.and_then(|text| self.by_text.get(text.as_bytes()));
        let mut named = named.map(Vec::as_slice).unwrap_or_default().iter().copied().peekable();
        let mut others = self.others.iter().copied().peekable();
        std::iter::from_fn(move || match (named.peek(), others.peek()) {
            (Some(a), Some(b)) if a < b => named.next(),
            (Some(_), None) => named.next(),
            _ => others.next(),
        })
    }
}

/// Paths of the record where a rule requires one of some strings.
fn required(rule: &CompiledRule) -> Vec<(&PathRef, Vec<&str>)> {
    // With `foreach` the condition is tested on elements.
    let parts = match &rule.when {
        Some(CompiledCondition::All(parts)) if rule.foreach.is_none() => parts.as_slice(),
        _ => &[],
    };
    let tests = parts.iter().filter_map(|part| match part {
        CompiledCondition::Test(test) if test.path.scope == PathScope::Record => Some(test),
        _ => None,
    });
    tests.filter_map(|test| Some((&test.path, test.operators.iter().find_map(texts)?))).collect()
}

/// The strings of which an operator requires one.
fn texts(operator: &Operator) -> Option<Vec<&str>> {
    match operator {
        Operator::Equals(literal) => Some(vec![text(literal)?]),
        Operator::In(literals) => literals.iter().map(text).collect(),
        _ => None,
    }
}

fn text(literal: &Literal) -> Option<&str> {
    match literal {
        Literal::Text(text) => Some(text),
        Literal::Bool(_) | Literal::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::fault::ConfigPath;
    use crate::mapping::{CompiledMapping, Input};

    fn plan(whens: &[&str]) -> CompiledMapping {
        let rules: Vec<String> = whens
            .iter()
            .map(|when| {
                format!(
                    "[[mapping]]\ncall = \"track\"\nwhen = {when}\n\
                     fields = {{ user_id = \".u\", event = {{ value = \"e\" }} }}\n"
                )
            })
            .collect();
        #[derive(serde::Deserialize)]
        struct Table {
            mapping: Vec<crate::config::mapping::Rule>,
        }
        let table: Table = toml::from_str(&rules.concat()).unwrap();
        CompiledMapping::compile(&ConfigPath::default(), &table.mapping, None).unwrap()
    }

    #[test]
    fn candidates_fire_as_if_every_rule_was_tested() {
        // The rules that fire, and their order, are the same as without the index.
        let whens = [
            r#"{ ".kind" = "a" }"#,
            r#"{ ".kind" = { in = ["b", "a", "b"] }, ".x" = 1 }"#,
            r#"{ ".x" = 1 }"#,
            r#"{ ".kind" = "b\n" }"#,
            r#"{ any = [{ ".kind" = "c" }, { ".kind" = "a" }] }"#,
            r#"{ ".kind" = { exists = true, equals = "a" } }"#,
            r#"{ ".kind" = { in = ["d", 7] } }"#,
            r#"{ ".kind" = 7 }"#,
        ];
        let plan = plan(&whens);
        assert!(plan.dispatch.path.is_some());
        for (record, expected) in [
            (r#"{"u":"u","kind":"a","x":1}"#, vec![0, 1, 2, 4, 5]),
            (r#"{"u":"u","kind":"\u0061"}"#, vec![0, 4, 5]),
            (r#"{"u":"u","kind":"b\n"}"#, vec![3]),
            (r#"{"u":"u","kind":"b","x":1}"#, vec![1, 2]),
            (r#"{"u":"u","kind":7}"#, vec![6, 7]),
            (r#"{"u":"u","kind":"d"}"#, vec![6]),
            (r#"{"u":"u","x":1}"#, vec![2]),
            (r#"{"u":"u","kind":null}"#, vec![]),
        ] {
            let input = Input { body: record.as_bytes(), meta: None };
            let fired: Vec<_> =
                plan.map(input).unwrap().calls.iter().map(|call| call.rule.0).collect();
            assert_eq!(fired, expected, "{record}");
            let traces = plan.explain(input).rules;
            let explained: Vec<_> =
                traces.iter().enumerate().filter(|(_, rule)| rule.fired).collect();
            assert_eq!(explained.iter().map(|(n, _)| *n).collect::<Vec<_>>(), expected, "{record}");
        }
    }
}
