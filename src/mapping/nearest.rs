//! Which rule came nearest to a record that none matched: the likely place of a typing error.

use super::condition::{CompiledCondition, PathTest};
use super::eval_context::{EvalContext, SourceZone};
use super::json;
use super::path_trie::ExtractedPaths;
use super::rule::CompiledRule;
use super::{CompiledMapping, Input, text};

/// The share that a path which is there counts for, where its value does not fit.
const PRESENT: f64 = 0.5;

/// The rule that came nearest to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nearest<'m> {
    /// Its name.
    pub rule: &'m str,
    /// The first path whose condition does not hold, as the table writes it.
    pub path: &'m str,
}

impl CompiledMapping {
    /// The rule of which the most conditions hold for a record that no rule matched; of several the
    /// first. `None` if there is no rule with a condition, or if nothing of any holds.
    pub fn nearest_rule(&self, input: Input<'_>) -> Option<Nearest<'_>> {
        let record = ExtractedPaths::new(&self.record, text(input.body, "record").ok()?);
        record.fill().ok()?;
        let given = input.meta.filter(|_| !self.meta.is_empty());
        let given = given.map(|meta| text(meta, "metadata")).transpose().ok()?;
        let meta = ExtractedPaths::new(&self.meta, given.unwrap_or_default());
        if given.is_some() {
            meta.fill().ok()?;
        }
        let zone = SourceZone::new(input.meta);
        let context = EvalContext { record: &record, meta: &meta, element: None, zone: &zone };
        let scored = self.rules.iter().filter_map(|rule| near(rule, &context));
        // `max_by` takes the last of equals.
        let best = scored.rev().max_by(|(a, _), (b, _)| a.total_cmp(b));
        best.filter(|(score, _)| *score > 0.0).map(|(_, nearest)| nearest)
    }
}

/// How near a rule comes, from 0 to 1.
fn near<'m>(rule: &'m CompiledRule, context: &EvalContext<'_, '_>) -> Option<(f64, Nearest<'m>)> {
    let found = |score: f64, path: &'m str| (score, Nearest { rule: &rule.name, path });
    let Some(foreach) = &rule.foreach else {
        let when = rule.when.as_ref()?;
        return Some(found(score(when, context), failed_path(when, context)?));
    };
    let elements = context.get(&foreach.path).and_then(json::elements).unwrap_or_default();
    let Some(first) = elements.first().filter(|_| rule.when.is_some()) else {
        return Some(found(0.0, &foreach.path.shown));
    };
    let slots = ExtractedPaths::new(&foreach.trie, first);
    slots.fill().ok()?;
    let context = EvalContext { element: Some(&slots), ..*context };
    let when = rule.when.as_ref()?;
    Some(found(score(when, &context), failed_path(when, &context)?))
}

fn score(when: &CompiledCondition, context: &EvalContext<'_, '_>) -> f64 {
    match when {
        CompiledCondition::All(parts) => {
            #[expect(clippy::cast_precision_loss, reason = "a share of a few conditions")]
            let of = |sum: f64| sum / parts.len().max(1) as f64;
            of(parts.iter().map(|part| score(part, context)).sum())
        }
        CompiledCondition::Any(parts) => {
            parts.iter().map(|part| score(part, context)).fold(0.0, f64::max)
        }
        // What must not hold says little about what a record is.
        CompiledCondition::None(_) => 0.0,
        CompiledCondition::Test(test) => test_score(test, context),
    }
}

fn test_score(test: &PathTest, context: &EvalContext<'_, '_>) -> f64 {
    match (context.get(&test.path), test.holds(context)) {
        (Some(_), true) => 1.0,
        (Some(_), false) => PRESENT,
        (None, _) => 0.0,
    }
}

fn failed_path<'m>(when: &'m CompiledCondition, context: &EvalContext<'_, '_>) -> Option<&'m str> {
    match when {
        CompiledCondition::All(parts) | CompiledCondition::Any(parts) => {
            parts.iter().find_map(|part| failed_path(part, context))
        }
        CompiledCondition::None(parts) => {
            let part = parts.iter().find(|part| part.holds(context))?;
            first_path(part)
        }
        CompiledCondition::Test(test) => (!test.holds(context)).then_some(&*test.path.shown),
    }
}

fn first_path(when: &CompiledCondition) -> Option<&str> {
    match when {
        CompiledCondition::All(parts)
        | CompiledCondition::Any(parts)
        | CompiledCondition::None(parts) => parts.iter().find_map(first_path),
        CompiledCondition::Test(test) => Some(&test.path.shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fault::ConfigPath;
    use crate::config::mapping::Rule;

    fn mapping(rules: serde_json::Value) -> CompiledMapping {
        let rules: Vec<Rule> = serde_json::from_value(rules).unwrap();
        CompiledMapping::compile(&ConfigPath::default(), &rules, None).unwrap()
    }

    #[test]
    fn nearest_rule_is_the_one_with_most_conditions_held() {
        // Guarantees that a typing error in a value or in a path leads to its rule and its path.
        let fields = serde_json::json!({ "user_id": ".id" });
        let table = mapping(serde_json::json!([
            { "name": "signup", "call": "identify", "fields": fields,
              "when": { ".kind": "signup", ".user.id": { "exists": true } } },
            { "name": "order", "call": "track", "fields": { "user_id": ".id", "event": ".e" },
              "when": { ".kind": "order", ".total": { "gt": 0 } } },
        ]));
        let near = |body: &str| {
            let input = Input { body: body.as_bytes(), meta: None };
            assert!(table.map(input).unwrap().calls.is_empty());
            table.nearest_rule(input).map(|near| (near.rule.to_owned(), near.path.to_owned()))
        };
        let found = |rule: &str, path: &str| Some((rule.to_owned(), path.to_owned()));
        assert_eq!(near(r#"{"kind":"sign-up","user":{"id":1}}"#), found("signup", ".kind"));
        assert_eq!(near(r#"{"kind":"order","totl":5}"#), found("order", ".total"));
        assert_eq!(near(r#"{"other":1}"#), None);
    }
}
