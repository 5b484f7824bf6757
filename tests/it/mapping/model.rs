//! The plan against a model: a mapper written the slow and plain way, on `serde_json::Value`, that
//! shares nothing with the plan but the table's types.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use usercom_sink::config::fault::ConfigPath;
use usercom_sink::config::mapping::{
    Condition, ConditionValue, FieldSpec, FieldValue, Function, OnFailure, Operators, PathOrPaths,
    Rule, Scalar, TargetType,
};
use usercom_sink::mapping::{CompiledMapping, Input};

use super::model_table::{record_text, rules};

/// What the model makes of a record: calls, failed conversions, missing map entries; or the code
/// of a fault.
type Outcome = Result<(Vec<Value>, u32, u32), &'static str>;

#[derive(Clone, Copy)]
struct View<'v> {
    record: &'v Value,
    meta: &'v Value,
    here: &'v Value,
}

#[derive(Default)]
struct Model {
    failed: u32,
    misses: u32,
    /// Set where the answer depends on how the record's text is laid out.
    unsure: bool,
}

enum Lost {
    Failed,
    Miss,
    Fault(&'static str),
}

type Step = Result<Option<Value>, Lost>;

fn get(view: View<'_>, path: &str) -> Option<Value> {
    let dotted = format!(".{}", &path[1..]);
    let (root, mut rest) = match path.as_bytes()[0] {
        b'^' => (view.record, &path[1..]),
        b'%' => (view.meta, &*dotted),
        _ => (view.here, path),
    };
    let mut at = root.clone();
    while rest.len() > 1 {
        if let Some(tail) = rest.strip_prefix('[') {
            let (index, tail) = tail.split_once(']').unwrap();
            let index: i64 = index.parse().unwrap();
            let list = at.as_array()?.clone();
            let len = i64::try_from(list.len()).unwrap();
            let place = if index < 0 { len + index } else { index };
            at = list.get(usize::try_from(place).ok()?)?.clone();
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix(".\"") {
            let (key, tail) = tail.split_once('"').unwrap();
            at = at.as_object()?.get(key)?.clone();
            rest = tail;
        } else {
            let tail = &rest[1..];
            let end = tail.find(['.', '[']).unwrap_or(tail.len());
            at = at.as_object()?.get(&tail[..end])?.clone();
            rest = &tail[end..];
        }
    }
    (!at.is_null()).then_some(at)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn same(value: &Value, scalar: &Scalar) -> bool {
    match scalar {
        Scalar::Bool(b) => value.as_bool() == Some(*b),
        Scalar::String(s) => value.as_str() == Some(s),
        Scalar::Integer(i) => value.as_f64() == Some(*i as f64),
        Scalar::Float(f) => value.as_f64() == Some(*f),
    }
}

fn order(value: &Value, scalar: &Scalar) -> Option<std::cmp::Ordering> {
    match scalar {
        Scalar::Bool(_) => None,
        Scalar::String(s) => Some(value.as_str()?.chars().cmp(s.chars())),
        Scalar::Integer(i) => value.as_f64()?.partial_cmp(&(*i as f64)),
        Scalar::Float(f) => value.as_f64()?.partial_cmp(f),
    }
}

fn asks_hold(value: Option<&Value>, o: &Operators) -> bool {
    let texts = value.and_then(Value::as_str);
    let cmp = |scalar: &Scalar| value.and_then(|v| order(v, scalar));
    o.exists.is_none_or(|e| e == value.is_some())
        && o.equals.iter().all(|s| value.is_some_and(|v| same(v, s)))
        && o.not.iter().all(|s| !value.is_some_and(|v| same(v, s)))
        && o.is_in.iter().all(|l| value.is_some_and(|v| l.iter().any(|s| same(v, s))))
        && o.not_in.iter().all(|l| !value.is_some_and(|v| l.iter().any(|s| same(v, s))))
        && o.starts_with.iter().all(|s| texts.is_some_and(|t| t.starts_with(s)))
        && o.ends_with.iter().all(|s| texts.is_some_and(|t| t.ends_with(s)))
        && o.matches
            .iter()
            .all(|r| texts.is_some_and(|t| regex::Regex::new(r).unwrap().is_match(t)))
        && o.contains.iter().all(|s| match (value, s) {
            (Some(Value::String(t)), Scalar::String(s)) => t.contains(s.as_str()),
            (Some(Value::Array(l)), s) => l.iter().any(|v| same(v, s)),
            _ => false,
        })
        && o.gt.iter().all(|s| cmp(s).is_some_and(|c| c.is_gt()))
        && o.gte.iter().all(|s| cmp(s).is_some_and(|c| c.is_ge()))
        && o.lt.iter().all(|s| cmp(s).is_some_and(|c| c.is_lt()))
        && o.lte.iter().all(|s| cmp(s).is_some_and(|c| c.is_le()))
}

fn holds(view: View<'_>, condition: &Condition) -> bool {
    condition.0.iter().all(|(key, value)| match (key.as_str(), value) {
        ("any", ConditionValue::Group(parts)) => parts.iter().any(|p| holds(view, p)),
        ("all", ConditionValue::Group(parts)) => parts.iter().all(|p| holds(view, p)),
        ("none", ConditionValue::Group(parts)) => parts.iter().all(|p| !holds(view, p)),
        (path, ConditionValue::Equals(s)) => get(view, path).is_some_and(|v| same(&v, s)),
        (path, ConditionValue::Operators(o)) => asks_hold(get(view, path).as_ref(), o),
        (_, ConditionValue::Group(_)) => unreachable!("never drawn"),
    })
}

impl Model {
    fn map(mut self, rules: &[Rule], record: &Value, meta: &Value) -> (Outcome, bool) {
        let mut calls = Vec::new();
        for rule in rules {
            let before = calls.len();
            let elements = match &rule.foreach {
                None => vec![record.clone()],
                Some(path) => {
                    let view = View { record, meta, here: record };
                    let found = get(view, path);
                    found.and_then(|v| v.as_array().cloned()).unwrap_or_default()
                }
            };
            for here in &elements {
                let view = View { record, meta, here };
                if rule.when.as_ref().is_some_and(|when| !holds(view, when)) {
                    continue;
                }
                match self.call(view, rule) {
                    Ok(call) => calls.push(call),
                    Err(code) => return (Err(code), self.unsure),
                }
            }
            if rule.stop && calls.len() > before {
                break;
            }
        }
        (Ok((calls, self.failed, self.misses)), self.unsure)
    }

    fn call(&mut self, view: View<'_>, rule: &Rule) -> Result<Value, &'static str> {
        let id = self.settle(view, &rule.fields["user_id"], id)?;
        let id = id.filter(|id| !id.as_str().unwrap().trim().is_empty());
        let traits = rule.fields.iter().filter_map(|(key, field)| {
            key.strip_prefix("traits.").map(|key| (key.to_owned(), field))
        });
        let fields = self.object(view, &traits.collect::<Vec<_>>())?;
        let mut call = json!({ "type": "identify", "userId": id.ok_or("no_identity")? });
        if !fields.is_empty() {
            call["traits"] = Value::Object(fields);
        }
        Ok(call)
    }

    fn object(
        &mut self,
        view: View<'_>,
        fields: &[(String, &FieldValue)],
    ) -> Result<Map<String, Value>, &'static str> {
        let mut object = Map::new();
        if let Some((_, spread)) = fields.iter().find(|(key, _)| key == "*") {
            let list = match spread {
                FieldValue::List(list) => list.iter().collect(),
                one => vec![*one],
            };
            for field in list {
                let entries = self.settle(view, field, |v| v.is_object().then_some(v))?;
                for (key, value) in entries.iter().filter_map(Value::as_object).flatten() {
                    if !value.is_null() {
                        object.insert(key.clone(), value.clone());
                    }
                }
            }
            // User.com takes `b_a` for `b.a`: the field of one name owns the other.
            let plain = |name: &str| name.replace(['_', '.'], "");
            object.retain(|key, _| {
                fields.iter().all(|(own, _)| own == key || plain(own) != plain(key))
            });
        }
        for (key, field) in fields.iter().filter(|(key, _)| key != "*") {
            let Some(value) = self.settle(view, field, Some)? else {
                // A name with a field of its own never comes from the spread.
                match key.split_once('.') {
                    None => _ = object.remove(key),
                    Some((top, rest)) => {
                        if let Some(Value::Object(below)) = object.get_mut(top) {
                            below.remove(rest);
                        }
                    }
                }
                continue;
            };
            match key.split_once('.') {
                None => object.insert(key.clone(), value),
                Some((top, rest)) => {
                    let below = object.entry(top.to_owned()).or_insert(json!({}));
                    if !below.is_object() {
                        *below = json!({});
                    }
                    below.as_object_mut().unwrap().insert(rest.to_owned(), value)
                }
            };
        }
        Ok(object)
    }

    /// A field's value, after counting, `default` and `required`.
    fn settle(
        &mut self,
        view: View<'_>,
        field: &FieldValue,
        finish: impl Fn(Value) -> Option<Value>,
    ) -> Result<Option<Value>, &'static str> {
        let spec = match field {
            FieldValue::Path(path) => {
                FieldSpec { path: Some(PathOrPaths::One(path.clone())), ..FieldSpec::default() }
            }
            FieldValue::Spec(spec) => (**spec).clone(),
            FieldValue::List(_) => unreachable!("only spreads are lists"),
        };
        let finish = |v: Option<Value>| v.map(|v| finish(v).ok_or(Lost::Failed)).transpose();
        let mut found = match self.value(view, &spec).and_then(finish) {
            Ok(found) => found,
            Err(Lost::Fault(code)) => return Err(code),
            Err(_) if spec.required || spec.on_failure == Some(OnFailure::DeadLetter) => {
                return Err("conversion_failed");
            }
            Err(Lost::Failed) => {
                self.failed += 1;
                None
            }
            Err(Lost::Miss) => {
                self.misses += 1;
                None
            }
        };
        // An empty id is missing too; ids are the only targets drawn whose text is wanted.
        if found.is_none() && spec.required {
            return Err("missing_required");
        }
        if found.is_none() && spec.default.is_some() {
            match finish(spec.default) {
                Ok(value) => found = value,
                Err(_) => self.failed += 1,
            }
        }
        Ok(found)
    }

    fn source(&mut self, view: View<'_>, spec: &FieldSpec) -> Option<Value> {
        if let Some(paths) = &spec.path {
            return match paths {
                PathOrPaths::One(path) => get(view, path),
                PathOrPaths::Many(paths) => paths.iter().find_map(|path| get(view, path)),
            };
        }
        if let Some(value) = &spec.value {
            return Some(value.clone());
        }
        if let Some(template) = &spec.template {
            return self.template(view, template);
        }
        let case = spec.cases.as_ref()?.iter();
        let mut case = case.filter(|c| c.when.as_ref().is_none_or(|w| holds(view, w)));
        let case = case.next()?;
        let inner = FieldSpec {
            path: case.path.clone(),
            value: case.value.clone(),
            template: case.template.clone(),
            ..FieldSpec::default()
        };
        self.source(view, &inner)
    }

    fn template(&mut self, view: View<'_>, template: &str) -> Option<Value> {
        let mut out = String::new();
        let mut found = !template.contains("{{");
        for (n, piece) in template.split("{{").enumerate() {
            let (path, rest) = match n {
                0 => ("", piece),
                _ => piece.split_once("}}").unwrap(),
            };
            if let Some(value) = (!path.is_empty()).then(|| get(view, path.trim())).flatten() {
                found = true;
                self.unsure |= value.is_object() || value.is_array();
                out += &text(&value).unwrap_or_default();
            }
            out += rest;
        }
        found.then_some(out.into())
    }

    fn value(&mut self, view: View<'_>, spec: &FieldSpec) -> Step {
        let Some(mut at) = self.source(view, spec) else {
            return Ok(None);
        };
        if let Some(separator) = &spec.split {
            let whole = text(&at).ok_or(Lost::Failed)?;
            let mut parts = Vec::new();
            for part in whole.split(separator.as_str()).filter(|_| !whole.is_empty()) {
                parts.extend(self.texts(part.into(), spec)?);
            }
            at = Value::Array(parts);
        } else {
            match self.texts(at, spec)? {
                Some(value) => at = value,
                None => return Ok(None),
            }
        }
        if let Some(to) = spec.as_type {
            match convert(to, at).ok_or(Lost::Failed)? {
                Value::Null => return Ok(None),
                value => at = value,
            }
        }
        if let Some(map) = &spec.map {
            let found = text(&at).and_then(|t| map.get(&t)).or(spec.map_default.as_ref());
            at = found.ok_or(Lost::Miss)?.clone();
        }
        if let Some(each) = &spec.each {
            let fields: Vec<_> = each.iter().map(|(k, v)| (k.clone(), v)).collect();
            let mut list = Vec::new();
            for here in at.as_array().ok_or(Lost::Failed)?.iter().filter(|v| !v.is_null()) {
                let made = self.object(View { here, ..view }, &fields).map_err(Lost::Fault)?;
                list.push(Value::Object(made));
            }
            at = Value::Array(list);
        }
        if let Some(separator) = &spec.join {
            let list = at.as_array().ok_or(Lost::Failed)?.iter().filter(|v| !v.is_null());
            let texts: Option<Vec<_>> = list.map(text).collect();
            at = texts.ok_or(Lost::Failed)?.join(separator).into();
        }
        shape(at, spec)
    }

    fn texts(&mut self, mut at: Value, spec: &FieldSpec) -> Step {
        for function in spec.then.iter().flatten() {
            if *function == Function::ToJson {
                self.unsure |= at.is_object() || at.is_array();
                at = at.to_string().into();
                continue;
            }
            if let Function::Get(path) = function {
                if !at.is_object() && !at.is_array() {
                    return Err(Lost::Failed);
                }
                let view = View { record: &at, meta: &Value::Null, here: &at };
                match get(view, path) {
                    Some(found) => at = found,
                    None => return Ok(None),
                }
                continue;
            }
            let Some(t) = text(&at) else {
                if *function == Function::ParseJson {
                    continue;
                }
                return Err(Lost::Failed);
            };
            let words: Vec<_> = t.split_whitespace().collect();
            at = match function {
                Function::Trim => t.trim().into(),
                Function::Lowercase => t.to_lowercase().into(),
                Function::Uppercase => t.to_uppercase().into(),
                Function::Digits => {
                    t.chars().filter(char::is_ascii_digit).collect::<String>().into()
                }
                Function::FirstWord => words.first().copied().unwrap_or("").into(),
                Function::ParseJson => serde_json::from_str(&t).map_err(|_| Lost::Failed)?,
                Function::Capture(pattern) => capture(pattern, &t).ok_or(Lost::Failed)?,
                other => unreachable!("{other:?} is never drawn"),
            };
            let may_vanish = matches!(function, Function::Digits | Function::FirstWord);
            if at.is_null() || (may_vanish && at == "") {
                return Ok(None);
            }
        }
        for (pattern, with) in spec.replace.iter().flatten() {
            let t = text(&at).ok_or(Lost::Failed)?;
            at = regex::Regex::new(pattern).unwrap().replace_all(&t, with).into();
        }
        Ok(Some(at))
    }
}

/// A value as an id: whole numbers as such, and no booleans.
fn id(value: Value) -> Option<Value> {
    match &value {
        Value::String(_) => Some(value),
        Value::Number(n) => {
            let f = n.as_f64()?;
            Some(if f.fract() == 0.0 { format!("{f:.0}") } else { n.to_string() }.into())
        }
        _ => None,
    }
}

fn capture(pattern: &str, text: &str) -> Option<Value> {
    let regex = regex::Regex::new(pattern).unwrap();
    let found = regex.captures(text)?;
    let names: Vec<_> = regex.capture_names().flatten().collect();
    if names.is_empty() {
        return Some(found.get(found.len() - 1)?.as_str().into());
    }
    let named = names.iter().filter_map(|name| Some((*name, found.name(name)?.as_str())));
    Some(named.map(|(name, text)| (name.to_owned(), Value::from(text))).collect())
}

fn convert(to: TargetType, at: Value) -> Option<Value> {
    let number = || match &at {
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.trim().parse::<f64>().ok().filter(|f| f.is_finite()),
        _ => None,
    };
    match to {
        TargetType::String => text(&at).map(Value::from),
        // Numbers drawn are small: a float holds them.
        TargetType::Integer => number()
            .filter(|f| f.fract() == 0.0)
            .and_then(|f| serde_json::from_str(&format!("{f:.0}")).ok()),
        TargetType::Float if at.is_number() => Some(at),
        TargetType::Float => number().map(Value::from),
        TargetType::Boolean => match text(&at)?.trim().to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" | "1.0" | "t" | "y" if at != "1.0" => Some(true.into()),
            "false" | "no" | "off" | "0" | "0.0" | "f" | "n" if at != "0.0" => Some(false.into()),
            _ => None,
        },
        TargetType::Json => match &at {
            Value::String(s) => serde_json::from_str(s).ok(),
            _ => Some(at),
        },
        TargetType::List if at.is_array() => Some(at),
        TargetType::List => Some(json!([at])),
        TargetType::Timestamp => unreachable!("never drawn"),
    }
}

fn shape(at: Value, spec: &FieldSpec) -> Step {
    let shapes = spec.only.is_some()
        || spec.except.is_some()
        || spec.rename.is_some()
        || spec.flatten.is_some();
    if !shapes {
        return Ok(Some(at));
    }
    let Value::Object(mut object) = at else {
        return Err(Lost::Failed);
    };
    if let Some(only) = &spec.only {
        object.retain(|key, _| only.contains(key));
    }
    if let Some(except) = &spec.except {
        object.retain(|key, _| !except.contains(key));
    }
    for (old, new) in spec.rename.iter().flatten() {
        if let Some(value) = object.remove(old) {
            object.insert(new.clone(), value);
        }
    }
    if let Some(separator) = &spec.flatten {
        object = flatten(&object, separator);
    }
    Ok(Some(Value::Object(object)))
}

fn flatten(object: &Map<String, Value>, separator: &str) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in object {
        match value {
            Value::Object(inner) => {
                let inner = flatten(inner, separator);
                out.extend(inner.into_iter().map(|(k, v)| (format!("{key}{separator}{k}"), v)));
            }
            other => _ = out.insert(key.clone(), other.clone()),
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, max_shrink_iters: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compiled_mapping_equals_the_model(rules in rules(), text in record_text(), meta in record_text()) {
        // Whatever the rules and the record, the plan makes the calls the model makes, counts the
        // same losses, or fails with the same code.
        let plan = CompiledMapping::compile(&ConfigPath::default(), &rules, None)
            .map_err(|faults| TestCaseError::fail(format!("{faults:?}")))?;
        let (record, known) = (serde_json::from_str(&text).unwrap(), serde_json::from_str(&meta).unwrap());
        let (expected, unsure) = Model::default().map(&rules, &record, &known);
        prop_assume!(!unsure);
        let input = Input { body: text.as_bytes(), meta: Some(meta.as_bytes()) };
        let found = match plan.map(input) {
            Err(fault) => Err(fault.code.as_str()),
            Ok(mapped) => {
                prop_assert_eq!(mapped.matched, !mapped.calls.is_empty());
                for (name, json) in mapped.calls.iter().flat_map(|c| c.call.fields.entries()) {
                    let valid = serde_json::from_str::<Value>(json).is_ok();
                    prop_assert!(valid && json != "null", "{name}: {json:?}");
                }
                let calls: Vec<_> = mapped.calls.iter().map(|c| c.call.to_json()).collect();
                Ok((calls, mapped.stats.conversions_failed, mapped.stats.map_misses))
            }
        };
        prop_assert_eq!(found, expected);
    }
}
