//! Conditions of `when`: from the table to what can be asked of slots.

use super::{Compiler, report};
use crate::coerce::number::Number;
use crate::config::fault::{ConfigPath, Target as FaultTarget};
use crate::config::mapping as table;
use crate::config::mapping::{ConditionValue, Operators, Scalar};
use crate::mapping::condition::{Comparison, CompiledCondition, Literal, Operator, PathTest};
use crate::mapping::path;

impl Compiler {
    /// Compiles a condition; `None` where it has faults.
    pub(super) fn condition(
        &mut self,
        at: &ConfigPath,
        condition: &table::Condition,
    ) -> Option<CompiledCondition> {
        let parts: Vec<_> =
            condition.0.iter().map(|(key, value)| self.entry(&at.key(key), key, value)).collect();
        parts.into_iter().collect::<Option<_>>().map(CompiledCondition::All)
    }

    fn entry(
        &mut self,
        at: &ConfigPath,
        key: &str,
        value: &ConditionValue,
    ) -> Option<CompiledCondition> {
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
            "any" => CompiledCondition::Any(parts),
            "none" => CompiledCondition::None(parts),
            _ => CompiledCondition::All(parts),
        })
    }

    fn test(
        &mut self,
        at: &ConfigPath,
        key: &str,
        value: &ConditionValue,
    ) -> Option<CompiledCondition> {
        let path = match path::parse(key) {
            Ok(path) => self.resolve(at, key, &path, 0),
            Err(error) => {
                let code = if error.plain_text { "E0202" } else { "E0201" };
                let help = if error.plain_text {
                    let meant = path::meant_path(key);
                    format!("write `{meant}`, or `any`, `all` or `none` for a list of conditions")
                } else {
                    error.help.unwrap_or_default()
                };
                self.fault(at, FaultTarget::Key, report(code, error.message).help(help));
                None
            }
        };
        let operators = match value {
            ConditionValue::Equals(scalar) => Some(vec![Operator::Equals(literal(scalar))]),
            ConditionValue::Operators(operators) => self.operators(at, operators),
            ConditionValue::Group(_) => None,
        };
        Some(CompiledCondition::Test(PathTest { path: path?, operators: operators? }))
    }

    fn operators(&mut self, at: &ConfigPath, given: &Operators) -> Option<Vec<Operator>> {
        let list = |list: &Vec<Scalar>| list.iter().map(literal).collect();
        let mut operators = Vec::new();
        operators.extend(given.exists.map(Operator::Exists));
        operators.extend(given.equals.iter().map(|s| Operator::Equals(literal(s))));
        operators.extend(given.not.iter().map(|s| Operator::Not(literal(s))));
        operators.extend(given.is_in.iter().map(|l| Operator::In(list(l))));
        operators.extend(given.not_in.iter().map(|l| Operator::NotIn(list(l))));
        operators.extend(given.starts_with.iter().map(|t| Operator::StartsWith(t.as_str().into())));
        operators.extend(given.ends_with.iter().map(|t| Operator::EndsWith(t.as_str().into())));
        operators.extend(given.contains.iter().map(|s| Operator::Contains(literal(s))));
        let mut sound = true;
        if let Some(pattern) = &given.matches {
            match self.regex(&at.key("matches"), pattern) {
                Some(regex) => operators.push(Operator::Matches(regex)),
                None => sound = false,
            }
        }
        for (order, key, scalar) in [
            (Comparison::Gt, "gt", &given.gt),
            (Comparison::Gte, "gte", &given.gte),
            (Comparison::Lt, "lt", &given.lt),
            (Comparison::Lte, "lte", &given.lte),
        ] {
            let Some(scalar) = scalar else { continue };
            if let Scalar::Bool(_) = scalar {
                let message = format!("`{key}` compares numbers or text, not booleans");
                self.value_fault(&at.key(key), report("E0212", message));
                sound = false;
            }
            operators.push(Operator::Compare(order, literal(scalar)));
        }
        if operators.is_empty() && sound {
            let help = "write { exists = true }, or another operator";
            self.value_fault(at, report("E0212", "no operator is given").help(help));
            return None;
        }
        sound.then_some(operators)
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
