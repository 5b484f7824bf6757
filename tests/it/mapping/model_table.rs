//! Random records and random tables for the model. Records repeat and escape their keys; tables
//! draw from the whole grammar and are always sound.

use indexmap::IndexMap;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};
use usercom_sink::call::CallKind;
use usercom_sink::config::mapping::{
    Case, Condition, ConditionValue, FieldSpec, FieldValue, Function, OnFailure, Operators,
    PathOrPaths, Rule, Scalar, TargetType,
};

const KEYS: [&str; 4] = ["a", "b", "l", "k.x"];

/// A record as text, in which keys may be repeated, escaped, and surrounded by white space.
pub(super) fn record_text() -> impl Strategy<Value = String> {
    let scalar = select(vec![
        "null",
        "true",
        "false",
        "0",
        "1",
        "2",
        "1.0",
        "2.5",
        "-3",
        r#""""#,
        r#""a""#,
        r#""b c""#,
        r#"" A,b ""#,
        r#""1""#,
        r#""2.5""#,
        r#""yes""#,
        r#""\u0061\"ż""#,
        r#""[1,null]""#,
        r#""{""#,
    ]);
    let value = scalar.prop_map(str::to_owned).prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|l| format!("[{}]", l.join(" , "))),
            object(inner)
        ]
    });
    object(value)
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    vec((select(KEYS.to_vec()), any::<bool>(), value), 0..7).prop_map(|entries| {
        let entries = entries.into_iter().map(|(key, escaped, value)| {
            let key: String = match escaped {
                true => key.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect(),
                false => key.to_owned(),
            };
            format!("\"{key}\" : {value}")
        });
        format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
    })
}

fn steps() -> impl Strategy<Value = String> {
    let step = select(vec![".a", ".b", ".l", ".\"k.x\"", "[0]", "[1]", "[-1]", "[-2]"]);
    (select(vec![".a", ".b", ".l", ".\"k.x\""]), vec(step, 0..3))
        .prop_map(|(first, rest)| first.to_owned() + &rest.concat())
}

/// A path; from an element, also one that leads out of it.
fn path(inside: bool) -> BoxedStrategy<String> {
    let meta = steps().prop_map(|s| format!("%{}", &s[1..]));
    let here = prop_oneof![12 => steps(), 1 => Just(".".to_owned()), 1 => meta.boxed()];
    if inside {
        prop_oneof![3 => here, 1 => steps().prop_map(|s| format!("^{s}"))].boxed()
    } else {
        here.boxed()
    }
}

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        any::<bool>().prop_map(Scalar::Bool),
        (-3_i64..4).prop_map(Scalar::Integer),
        select(vec![1.0, 2.5]).prop_map(Scalar::Float),
        select(vec!["", "a", "b c", "1", "a\"ż"]).prop_map(|s| Scalar::String(s.into())),
    ]
}

fn operators() -> impl Strategy<Value = Operators> {
    let order =
        || scalar().prop_filter("booleans have no order", |s| !matches!(s, Scalar::Bool(_)));
    let text = || select(vec!["a", "b", "1", " "]).prop_map(str::to_owned);
    let one = |f: fn(&mut Operators, Scalar)| {
        scalar().prop_map(move |s| {
            let mut operators = Operators::default();
            f(&mut operators, s);
            operators
        })
    };
    let ordered = |f: fn(&mut Operators, Scalar)| {
        order().prop_map(move |s| {
            let mut operators = Operators::default();
            f(&mut operators, s);
            operators
        })
    };
    prop_oneof![
        any::<bool>().prop_map(|e| Operators { exists: Some(e), ..Default::default() }),
        one(|o, s| o.equals = Some(s)),
        one(|o, s| o.not = Some(s)),
        one(|o, s| o.contains = Some(s)),
        vec(scalar(), 0..3).prop_map(|l| Operators { is_in: Some(l), ..Default::default() }),
        vec(scalar(), 0..3).prop_map(|l| Operators { not_in: Some(l), ..Default::default() }),
        text().prop_map(|t| Operators { starts_with: Some(t), ..Default::default() }),
        text().prop_map(|t| Operators { ends_with: Some(t), ..Default::default() }),
        select(vec!["a", "^1", "\\d$", "."])
            .prop_map(|r| Operators { matches: Some(r.into()), ..Default::default() }),
        ordered(|o, s| o.gt = Some(s)),
        ordered(|o, s| o.gte = Some(s)),
        ordered(|o, s| o.lt = Some(s)),
        (order(), scalar()).prop_map(|(lte, not)| Operators {
            lte: Some(lte),
            not: Some(not),
            ..Default::default()
        }),
    ]
}

fn condition(inside: bool) -> BoxedStrategy<Condition> {
    let test = prop_oneof![
        scalar().prop_map(ConditionValue::Equals),
        operators().prop_map(|o| ConditionValue::Operators(Box::new(o))),
    ];
    let tests = vec((path(inside), test), 1..3)
        .prop_map(|tests| Condition(tests.into_iter().collect::<IndexMap<_, _>>()));
    tests
        .prop_recursive(2, 6, 3, |inner| {
            let groups = (select(vec!["any", "all", "none"]), vec(inner, 1..3));
            groups.prop_map(|(key, parts)| {
                Condition([(key.to_owned(), ConditionValue::Group(parts))].into_iter().collect())
            })
        })
        .boxed()
}

fn literal() -> impl Strategy<Value = Value> {
    select(vec![json!("x"), json!(1), json!(true), json!([1, "a"]), json!({ "a": { "b": 1 } })])
}

fn template(inside: bool) -> impl Strategy<Value = String> {
    let insertion = path(inside).prop_map(|p| format!("{{{{ {p} }}}}"));
    vec(prop_oneof![insertion, Just(" - ".to_owned())], 1..4).prop_map(|pieces| pieces.concat())
}

fn source(inside: bool, cases: bool) -> BoxedStrategy<FieldSpec> {
    let one = path(inside)
        .prop_map(|p| FieldSpec { path: Some(PathOrPaths::One(p)), ..Default::default() });
    let many = vec(path(inside), 1..4)
        .prop_map(|p| FieldSpec { path: Some(PathOrPaths::Many(p)), ..Default::default() });
    let value = literal().prop_map(|v| FieldSpec { value: Some(v), ..Default::default() });
    let template =
        template(inside).prop_map(|t| FieldSpec { template: Some(t), ..Default::default() });
    let plain = prop_oneof![5 => one, 2 => many, 1 => value, 1 => template];
    if !cases {
        return plain.boxed();
    }
    let case = (condition(inside), source(inside, false)).prop_map(|(when, spec)| Case {
        when: Some(when),
        path: spec.path,
        value: spec.value,
        template: spec.template,
    });
    let list = vec(case, 1..3).prop_map(|c| FieldSpec { cases: Some(c), ..Default::default() });
    prop_oneof![6 => plain, 1 => list].boxed()
}

fn text_steps(spec: FieldSpec) -> BoxedStrategy<FieldSpec> {
    let function = select(vec![
        Function::Trim,
        Function::Lowercase,
        Function::Uppercase,
        Function::Digits,
        Function::FirstWord,
        Function::ParseJson,
        Function::ToJson,
        Function::Get(".a".into()),
        Function::Get(".l[0]".into()),
        Function::Get(".".into()),
        Function::Capture("[a-z0-9]".into()),
        Function::Capture("(\\w)".into()),
        Function::Capture("(?P<a>\\w+)(?P<b>,)?".into()),
    ]);
    let types = vec![
        TargetType::String,
        TargetType::Integer,
        TargetType::Float,
        TargetType::Boolean,
        TargetType::Json,
        TargetType::List,
    ];
    let replace = select(vec![("a", "z"), ("(\\w)", "<$1>")]);
    let replace = vec(replace.prop_map(|(p, w)| (p.to_owned(), w.to_owned())), 1..3);
    let map = subsequence(vec![("a", json!(1)), ("1", json!("one")), ("true", json!([]))], 1..4);
    (
        weighted(0.1, select(vec![",", " "])),
        weighted(0.2, vec(function, 1..3)),
        weighted(0.1, replace),
        weighted(0.2, select(types)),
        weighted(0.1, (map, weighted(0.3, literal()))),
    )
        .prop_map(move |(split, then, replace, as_type, map)| {
            let (map, map_default) = map.unzip();
            let map: Option<Vec<(&str, Value)>> = map;
            FieldSpec {
                split: split.map(str::to_owned),
                then,
                replace,
                as_type,
                map: map.map(|m| m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
                map_default: map_default.flatten(),
                ..spec.clone()
            }
        })
        .boxed()
}

fn shapes(spec: FieldSpec, inside: bool, depth: u32) -> BoxedStrategy<FieldSpec> {
    let keys = || {
        subsequence(KEYS.to_vec(), 0..4)
            .prop_map(|keys| keys.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let (s1, s2, s3, s4) = (spec.clone(), spec.clone(), spec.clone(), spec.clone());
    let objects = (weighted(0.4, keys()), weighted(0.4, keys()), any::<bool>(), any::<bool>());
    let objects = objects.prop_map(move |(only, except, rename, flatten)| FieldSpec {
        only,
        except,
        rename: rename.then(|| [("a".to_owned(), "b".to_owned())].into_iter().collect()),
        flatten: flatten.then(|| "_".to_owned()),
        ..s1.clone()
    });
    let join = Just(FieldSpec { join: Some("+".into()), ..s2 });
    if depth == 0 {
        return prop_oneof![8 => Just(s4), 2 => objects, 1 => join].boxed();
    }
    // Inside `each` the caret is for rules with `foreach` only.
    let each = fields(inside, depth - 1)
        .prop_map(move |fields| FieldSpec { each: Some(fields), ..s3.clone() });
    prop_oneof![8 => Just(s4), 2 => objects, 1 => join, 1 => each].boxed()
}

fn field(inside: bool, depth: u32) -> BoxedStrategy<FieldValue> {
    let end = prop_oneof![
        4 => Just((None, false)),
        2 => literal().prop_map(|v| (Some(v), false)),
        1 => Just((None, true)),
    ];
    let spec = source(inside, true)
        .prop_flat_map(text_steps)
        .prop_flat_map(move |spec| shapes(spec, inside, depth));
    let on_failure = weighted(0.1, select(vec![OnFailure::DeadLetter, OnFailure::Drop]));
    let spec = (spec, end, on_failure).prop_map(|(spec, (default, required), on_failure)| {
        // A required field that is dropped is refused.
        let on_failure = on_failure.filter(|_| !required);
        FieldValue::Spec(Box::new(FieldSpec { default, required, on_failure, ..spec }))
    });
    prop_oneof![1 => path(inside).prop_map(FieldValue::Path), 2 => spec].boxed()
}

fn fields(inside: bool, depth: u32) -> BoxedStrategy<IndexMap<String, FieldValue>> {
    let spread =
        prop_oneof![field(inside, 0), vec(field(inside, 0), 1..3).prop_map(FieldValue::List),];
    let named = || weighted(0.4, field(inside, depth));
    (weighted(0.3, spread), named(), named(), named(), named())
        .prop_map(|(spread, x, a, p, q)| {
            let all = [("*", spread), ("x", x), ("a", a), ("b.p", p), ("b.a", q)];
            all.into_iter().filter_map(|(key, field)| Some((key.to_owned(), field?))).collect()
        })
        .boxed()
}

fn rule() -> impl Strategy<Value = Rule> {
    any::<bool>().prop_flat_map(|inside| {
        let id = prop_oneof![
            4 => Just(FieldValue::Spec(Box::new(FieldSpec { value: Some(json!("u")), ..Default::default() }))),
            1 => path(inside).prop_map(FieldValue::Path),
        ];
        (weighted(0.6, condition(inside)), path(false), any::<bool>(), id, fields(inside, 1)).prop_map(
            move |(when, foreach, stop, id, fields)| {
                let traits = fields.into_iter().map(|(key, field)| (format!("traits.{key}"), field));
                Rule {
                    name: None,
                    call: CallKind::Identify,
                    foreach: inside.then_some(foreach),
                    // Without a condition a rule that stops makes those after it unreachable.
                    stop: stop && when.is_some(),
                    when,
                    fields: std::iter::once(("user_id".to_owned(), id)).chain(traits).collect(),
                }
            },
        )
    })
}

/// A sound table.
pub(super) fn rules() -> impl Strategy<Value = Vec<Rule>> {
    vec(rule(), 1..4)
}
