//! Conditions of `when`: from the table to what can be asked of slots.

use super::{Compiler, report};
use crate::coerce::number::Number;
use crate::config::fault::{ConfigPath, Target as Place};
use crate::config::mapping as table;
use crate::config::mapping::{ConditionValue, Operators, Scalar};
use crate::mapping::condition::{Ask, Condition, Literal, Order, Test};
use crate::mapping::path;

impl Compiler {
    /// Compiles a condition; `None` where it has faults.
    pub(super) fn condition(
        &mut self,
        at: &ConfigPath,
        condition: &table::Condition,
    ) -> Option<Condition> {
        let parts: Vec<_> =
            condition.0.iter().map(|(key, value)| self.entry(&at.key(key), key, value)).collect();
        parts.into_iter().collect::<Option<_>>().map(Condition::All)
    }

    fn entry(&mut self, at: &ConfigPath, key: &str, value: &ConditionValue) -> Option<Condition> {
        let group = matches!(key, "any" | "all" | "none");
        let ConditionValue::Group(parts) = value else {
            if group {
                let message = format!("`{key}` takes a list of conditions");
                let help = format!("write {key} = [{{ \".path\" = … }}, …]");
                self.value_fault(at, report("E0212", message).help(help));
                return None;
            }
            return self.test(at, key, value);
        };
        if !group {
            let message = format!("`{key}` is compared with a list of conditions");
            let help = "write { in = [ … ] } for one of several values";
            self.value_fault(at, report("E0212", message).help(help));
            return None;
        }
        if parts.is_empty() {
            let message = format!("`{key}` has no conditions");
            self.value_fault(at, report("E0212", message).help("take it out"));
            return None;
        }
        let parts: Vec<_> =
            parts.iter().enumerate().map(|(n, part)| self.condition(&at.index(n), part)).collect();
        let parts: Option<Vec<_>> = parts.into_iter().collect();
        parts.map(|parts| match key {
            "any" => Condition::Any(parts),
            "none" => Condition::None(parts),
            _ => Condition::All(parts),
        })
    }

    fn test(&mut self, at: &ConfigPath, key: &str, value: &ConditionValue) -> Option<Condition> {
        let path = match path::parse(key) {
            Ok(path) => self.resolve(at, key, &path, 0),
            Err(error) => {
                let code = if error.plain_text { "E0202" } else { "E0201" };
                let help = if error.plain_text {
                    format!("write `.{key}`, or `any`, `all` or `none` for a list of conditions")
                } else {
                    error.help.unwrap_or_default()
                };
                self.fault(at, Place::Key, report(code, error.message).help(help));
                None
            }
        };
        let asks = match value {
            ConditionValue::Equals(scalar) => Some(vec![Ask::Equals(literal(scalar))]),
            ConditionValue::Operators(operators) => self.operators(at, operators),
            ConditionValue::Group(_) => None,
        };
        Some(Condition::Test(Test { path: path?, asks: asks? }))
    }

    fn operators(&mut self, at: &ConfigPath, operators: &Operators) -> Option<Vec<Ask>> {
        let list = |list: &Vec<Scalar>| list.iter().map(literal).collect();
        let mut asks = Vec::new();
        asks.extend(operators.exists.map(Ask::Exists));
        asks.extend(operators.equals.iter().map(|s| Ask::Equals(literal(s))));
        asks.extend(operators.not.iter().map(|s| Ask::Not(literal(s))));
        asks.extend(operators.is_in.iter().map(|l| Ask::In(list(l))));
        asks.extend(operators.not_in.iter().map(|l| Ask::NotIn(list(l))));
        asks.extend(operators.starts_with.iter().map(|t| Ask::StartsWith(t.as_str().into())));
        asks.extend(operators.ends_with.iter().map(|t| Ask::EndsWith(t.as_str().into())));
        asks.extend(operators.contains.iter().map(|s| Ask::Contains(literal(s))));
        let mut sound = true;
        if let Some(pattern) = &operators.matches {
            match self.regex(&at.key("matches"), pattern) {
                Some(regex) => asks.push(Ask::Matches(regex)),
                None => sound = false,
            }
        }
        for (order, key, scalar) in [
            (Order::Gt, "gt", &operators.gt),
            (Order::Gte, "gte", &operators.gte),
            (Order::Lt, "lt", &operators.lt),
            (Order::Lte, "lte", &operators.lte),
        ] {
            let Some(scalar) = scalar else { continue };
            if let Scalar::Bool(_) = scalar {
                let message = format!("`{key}` compares numbers or text, not booleans");
                self.value_fault(&at.key(key), report("E0212", message));
                sound = false;
            }
            asks.push(Ask::Order(order, literal(scalar)));
        }
        if asks.is_empty() && sound {
            let help = "write { exists = true }, or another operator";
            self.value_fault(at, report("E0212", "no operator is given").help(help));
            return None;
        }
        sound.then_some(asks)
    }
}

fn literal(scalar: &Scalar) -> Literal {
    match scalar {
        Scalar::Bool(literal) => Literal::Bool(*literal),
        Scalar::Integer(literal) => Literal::Number(Number::Whole(i128::from(*literal))),
        Scalar::Float(literal) => Literal::Number(Number::Float(*literal)),
        Scalar::String(literal) => Literal::Text(literal.as_str().into()),
    }
}
