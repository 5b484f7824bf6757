//! Compiled conditions.
//!
//! Null is the same as missing. String operators hold only for strings; a number never equals a
//! string. For a missing value only `not`, `not_in` and `exists = false` hold.

use std::borrow::Cow;
use std::cmp::Ordering;

use regex::Regex;

use super::eval_context::{EvalContext, PathRef};
use super::json::{self, JsonKind};
use crate::call::has_escapes;
use crate::coerce::number::Number;
use crate::suggest::distance;

/// A condition.
#[derive(Debug)]
pub(super) enum CompiledCondition {
    All(Vec<CompiledCondition>),
    Any(Vec<CompiledCondition>),
    None(Vec<CompiledCondition>),
    Test(PathTest),
}

/// The operators of one path; all of them must hold.
#[derive(Debug)]
pub(super) struct PathTest {
    pub(super) path: PathRef,
    pub(super) operators: Vec<Operator>,
}

/// A literal of a condition.
#[derive(Debug)]
pub(super) enum Literal {
    Bool(bool),
    Number(Number),
    Text(Box<str>),
}

/// One operator.
#[derive(Debug)]
pub(super) enum Operator {
    Exists(bool),
    Equals(Literal),
    Not(Literal),
    In(Vec<Literal>),
    NotIn(Vec<Literal>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Literal),
    Matches(Regex),
    Compare(Comparison, Literal),
}

/// The four comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Gt,
    Gte,
    Lt,
    Lte,
}

impl Comparison {
    fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Gt => order == Ordering::Greater,
            Self::Gte => order != Ordering::Less,
            Self::Lt => order == Ordering::Less,
            Self::Lte => order != Ordering::Greater,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Gt => "greater than",
            Self::Gte => "at least",
            Self::Lt => "less than",
            Self::Lte => "at most",
        }
    }
}

impl CompiledCondition {
    /// Whether the condition holds.
    pub(super) fn holds(&self, context: &EvalContext<'_, '_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(context)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(context)),
            Self::None(parts) => !parts.iter().any(|part| part.holds(context)),
            Self::Test(test) => {
                let value = context.get(&test.path);
                test.operators.iter().all(|operator| operator.holds(value))
            }
        }
    }

    /// How near the condition is to holding, from 0 to 1: the share of its parts that hold, where a
    /// value that is almost the wanted one counts in part. A typing slip comes out near.
    pub(super) fn nearness(&self, context: &EvalContext<'_, '_>) -> f64 {
        match self {
            Self::All(parts) => {
                let sum: f64 = parts.iter().map(|part| part.nearness(context)).sum();
                #[expect(clippy::cast_precision_loss, reason = "a condition has few parts")]
                let count = parts.len().max(1) as f64;
                sum / count
            }
            Self::Any(parts) => parts.iter().map(|part| part.nearness(context)).fold(0.0, f64::max),
            Self::None(_) => f64::from(u8::from(self.holds(context))),
            Self::Test(test) => test.nearness(context),
        }
    }

    /// A description of the first part that does not hold; `None` if the condition holds.
    pub(super) fn why_not(&self, context: &EvalContext<'_, '_>) -> Option<String> {
        match self {
            Self::All(parts) => parts.iter().find_map(|part| part.why_not(context)),
            Self::Any(parts) => {
                let reasons: Vec<_> = parts.iter().map(|part| part.why_not(context)).collect();
                let reasons: Option<Vec<_>> = reasons.into_iter().collect();
                reasons.map(|reasons| format!("none of `any` holds: {}", reasons.join("; ")))
            }
            Self::None(parts) => {
                let place = parts.iter().position(|part| part.holds(context))?;
                Some(format!("condition {} of `none` holds", place + 1))
            }
            Self::Test(test) => {
                let value = context.get(&test.path);
                let failed = test.operators.iter().find(|operator| !operator.holds(value))?;
                let found = value.map_or_else(|| "missing".to_owned(), json::excerpt);
                Some(format!("`{}` is {found}, {}", test.path.shown, failed.describe()))
            }
        }
    }
}

impl PathTest {
    fn nearness(&self, context: &EvalContext<'_, '_>) -> f64 {
        let value = context.get(&self.path);
        if self.operators.iter().all(|operator| operator.holds(value)) {
            return 1.0;
        }
        let Some(text) = string(value) else {
            return if value.is_some() { 0.2 } else { 0.0 };
        };
        let is_near = |literal: &Literal| matches!(literal, Literal::Text(wanted) if distance(&text, wanted).is_some());
        let near = self.operators.iter().any(|operator| match operator {
            Operator::Equals(literal) => is_near(literal),
            Operator::In(list) => list.iter().any(is_near),
            _ => false,
        });
        if near { 0.7 } else { 0.2 }
    }
}

impl Literal {
    fn equals(&self, raw: &str) -> bool {
        match (self, JsonKind::of(raw)) {
            (Self::Bool(literal), JsonKind::Bool) => *literal == (raw == "true"),
            (Self::Number(literal), JsonKind::Number) => {
                Number::parse(raw).and_then(|n| n.compare(*literal)) == Some(Ordering::Equal)
            }
            (Self::Text(literal), JsonKind::String) => is_text(raw, literal),
            _ => false,
        }
    }

    fn order(&self, raw: &str) -> Option<Ordering> {
        match (self, JsonKind::of(raw)) {
            (Self::Number(literal), JsonKind::Number) => Number::parse(raw)?.compare(*literal),
            (Self::Text(literal), JsonKind::String) => {
                Some(json::unescape(raw).as_ref().cmp(literal))
            }
            _ => None,
        }
    }

    fn is_contained_in(&self, raw: &str) -> bool {
        match (self, JsonKind::of(raw)) {
            (Self::Text(literal), JsonKind::String) => json::unescape(raw).contains(&**literal),
            (_, JsonKind::Array) => json::elements(raw)
                .is_some_and(|elements| elements.into_iter().any(|e| self.equals(e))),
            _ => false,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Bool(literal) => literal.to_string(),
            Self::Number(Number::Whole(whole)) => whole.to_string(),
            Self::Number(Number::Float(float)) => float.to_string(),
            Self::Text(literal) => format!("{literal:?}"),
        }
    }
}

/// Whether a JSON string has this value. Without escapes both have the same length.
fn is_text(raw: &str, text: &str) -> bool {
    match has_escapes(raw) {
        false => raw.len() == text.len() + 2 && &raw[1..raw.len() - 1] == text,
        true => json::unescape(raw) == text,
    }
}

fn string(raw: Option<&str>) -> Option<Cow<'_, str>> {
    raw.filter(|raw| JsonKind::of(raw) == JsonKind::String).map(json::unescape)
}

fn shown_list(literals: &[Literal]) -> String {
    let shown: Vec<_> = literals.iter().map(Literal::shown).collect();
    shown.join(", ")
}

impl Operator {
    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::Exists(wanted) => value.is_some() == *wanted,
            Self::Equals(literal) => value.is_some_and(|raw| literal.equals(raw)),
            Self::Not(literal) => !value.is_some_and(|raw| literal.equals(raw)),
            Self::In(list) => value.is_some_and(|raw| list.iter().any(|l| l.equals(raw))),
            Self::NotIn(list) => !value.is_some_and(|raw| list.iter().any(|l| l.equals(raw))),
            Self::StartsWith(start) => string(value).is_some_and(|t| t.starts_with(&**start)),
            Self::EndsWith(end) => string(value).is_some_and(|t| t.ends_with(&**end)),
            Self::Contains(literal) => value.is_some_and(|raw| literal.is_contained_in(raw)),
            Self::Matches(regex) => string(value).is_some_and(|t| regex.is_match(&t)),
            Self::Compare(order, literal) => {
                value.and_then(|raw| literal.order(raw)).is_some_and(|found| order.accepts(found))
            }
        }
    }

    /// A description of what the operator requires.
    fn describe(&self) -> String {
        match self {
            Self::Exists(true) => "must exist".into(),
            Self::Exists(false) => "must not exist".into(),
            Self::Equals(literal) => format!("must equal {}", literal.shown()),
            Self::Not(literal) => format!("must not equal {}", literal.shown()),
            Self::In(list) => format!("must be one of {}", shown_list(list)),
            Self::NotIn(list) => format!("must be none of {}", shown_list(list)),
            Self::StartsWith(start) => format!("must start with {start:?}"),
            Self::EndsWith(end) => format!("must end with {end:?}"),
            Self::Contains(literal) => format!("must contain {}", literal.shown()),
            Self::Matches(regex) => format!("must match {:?}", regex.as_str()),
            Self::Compare(order, literal) => {
                format!("must be {} {}", order.words(), literal.shown())
            }
        }
    }
}
