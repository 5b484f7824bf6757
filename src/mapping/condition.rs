//! Conditions, compiled: whether they hold, and which part of them does not.
//!
//! Null is the same as missing. Text operators hold for strings only; a number is never equal to a
//! string. Where a path is missing only `not`, `not_in` and `exists = false` hold.

use std::borrow::Cow;
use std::cmp::Ordering;

use regex::Regex;

use super::env::{Env, Ref};
use super::json::{self, Kind};
use crate::call::has_escapes;
use crate::coerce::number::Number;

/// A condition.
#[derive(Debug)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    None(Vec<Condition>),
    Test(Test),
}

/// What is asked of one path; every question must be answered with yes.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) path: Ref,
    pub(super) asks: Vec<Ask>,
}

/// A literal, ready to compare.
#[derive(Debug)]
pub(super) enum Literal {
    Bool(bool),
    Number(Number),
    Text(Box<str>),
}

/// One operator.
#[derive(Debug)]
pub(super) enum Ask {
    Exists(bool),
    Equals(Literal),
    Not(Literal),
    In(Vec<Literal>),
    NotIn(Vec<Literal>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Literal),
    Matches(Regex),
    Order(Order, Literal),
}

/// The four comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Gt,
    Gte,
    Lt,
    Lte,
}

impl Order {
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

impl Condition {
    /// Whether the condition holds.
    pub(super) fn holds(&self, env: &Env<'_, '_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(env)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(env)),
            Self::None(parts) => !parts.iter().any(|part| part.holds(env)),
            Self::Test(test) => {
                let value = env.get(&test.path);
                test.asks.iter().all(|ask| ask.holds(value))
            }
        }
    }

    /// The first part that does not hold, in words; `None` where the condition holds.
    pub(super) fn why_not(&self, env: &Env<'_, '_>) -> Option<String> {
        match self {
            Self::All(parts) => parts.iter().find_map(|part| part.why_not(env)),
            Self::Any(parts) => {
                let reasons: Vec<_> = parts.iter().map(|part| part.why_not(env)).collect();
                let reasons: Option<Vec<_>> = reasons.into_iter().collect();
                reasons.map(|reasons| format!("none of `any` holds: {}", reasons.join("; ")))
            }
            Self::None(parts) => {
                let place = parts.iter().position(|part| part.holds(env))?;
                Some(format!("condition {} of `none` holds", place + 1))
            }
            Self::Test(test) => {
                let value = env.get(&test.path);
                let failed = test.asks.iter().find(|ask| !ask.holds(value))?;
                let found = value.map_or_else(|| "missing".to_owned(), json::excerpt);
                Some(format!("`{}` is {found}, {}", test.path.shown, failed.demand()))
            }
        }
    }
}

impl Literal {
    fn equals(&self, raw: &str) -> bool {
        match (self, Kind::of(raw)) {
            (Self::Bool(literal), Kind::Bool) => *literal == (raw == "true"),
            (Self::Number(literal), Kind::Number) => {
                Number::parse(raw).and_then(|n| n.compare(*literal)) == Some(Ordering::Equal)
            }
            (Self::Text(literal), Kind::String) => is_text(raw, literal),
            _ => false,
        }
    }

    fn order(&self, raw: &str) -> Option<Ordering> {
        match (self, Kind::of(raw)) {
            (Self::Number(literal), Kind::Number) => Number::parse(raw)?.compare(*literal),
            (Self::Text(literal), Kind::String) => Some(json::unescape(raw).as_ref().cmp(literal)),
            _ => None,
        }
    }

    fn is_contained_in(&self, raw: &str) -> bool {
        match (self, Kind::of(raw)) {
            (Self::Text(literal), Kind::String) => json::unescape(raw).contains(&**literal),
            (_, Kind::Array) => json::elements(raw)
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

/// Whether a JSON string is this text. Without an escape in it, it is as long as its text.
fn is_text(raw: &str, text: &str) -> bool {
    match has_escapes(raw) {
        false => raw.len() == text.len() + 2 && &raw[1..raw.len() - 1] == text,
        true => json::unescape(raw) == text,
    }
}

fn string(raw: Option<&str>) -> Option<Cow<'_, str>> {
    raw.filter(|raw| Kind::of(raw) == Kind::String).map(json::unescape)
}

fn shown_list(literals: &[Literal]) -> String {
    let shown: Vec<_> = literals.iter().map(Literal::shown).collect();
    shown.join(", ")
}

impl Ask {
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
            Self::Order(order, literal) => {
                value.and_then(|raw| literal.order(raw)).is_some_and(|found| order.accepts(found))
            }
        }
    }

    /// What the operator asks for, in words.
    fn demand(&self) -> String {
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
            Self::Order(order, literal) => {
                format!("must be {} {}", order.words(), literal.shown())
            }
        }
    }
}
