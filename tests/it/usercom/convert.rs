//! Every type against every kind of value.

use serde_json::{Value, json};
use usercom_sink::usercom::{Cardinality, ValueType, convert};

fn one() -> ValueType {
    ValueType::Fixed { choices: vec!["Gold".into(), "Silver".into()], many: Cardinality::One }
}

fn many() -> ValueType {
    ValueType::Fixed { choices: vec!["Gold".into(), "Silver".into()], many: Cardinality::Many }
}

/// What comes out; `null` where nothing does.
fn out(value: &Value, kind: &ValueType) -> Value {
    match convert(&value.to_string(), kind) {
        Ok(json) => serde_json::from_str(json.as_str()).unwrap(),
        Err(_) => Value::Null,
    }
}

#[test]
fn every_type_converts_or_rejects_every_value() {
    // Rows: the value, then what boolean, date, datetime, fixed, float, integer, json, string make
    // of it; null = left out.
    let none = Value::Null;
    let rows: Vec<(Value, [Value; 8])> = vec![
        (
            json!("123"),
            [
                none.clone(),
                json!("1970-01-01"),
                json!("1970-01-01T00:02:03+00:00"),
                none.clone(),
                json!(123),
                json!(123),
                json!("123"),
                json!("123"),
            ],
        ),
        (
            json!("gold"),
            [
                none.clone(),
                none.clone(),
                none.clone(),
                json!("Gold"),
                none.clone(),
                none.clone(),
                json!("gold"),
                json!("gold"),
            ],
        ),
        (
            json!(7),
            [
                none.clone(),
                json!("1970-01-01"),
                json!("1970-01-01T00:00:07+00:00"),
                none.clone(),
                json!(7),
                json!(7),
                json!(7),
                json!("7"),
            ],
        ),
        (
            json!(1.5),
            [
                none.clone(),
                json!("1970-01-01"),
                json!("1970-01-01T00:00:01.5+00:00"),
                none.clone(),
                json!(1.5),
                none.clone(),
                json!(1.5),
                json!("1.5"),
            ],
        ),
        (
            json!(true),
            [
                json!(true),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                json!(true),
                json!("true"),
            ],
        ),
        (
            json!(null),
            [
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
            ],
        ),
        (
            json!(["Gold"]),
            [
                none.clone(),
                none.clone(),
                none.clone(),
                json!("Gold"),
                none.clone(),
                none.clone(),
                json!(["Gold"]),
                json!("[\"Gold\"]"),
            ],
        ),
        (
            json!({"a": 1}),
            [
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                json!({"a": 1}),
                json!("{\"a\":1}"),
            ],
        ),
    ];
    let kinds = [
        ValueType::Boolean,
        ValueType::Date,
        ValueType::DateTime,
        one(),
        ValueType::Float,
        ValueType::Integer,
        ValueType::Json,
        ValueType::String,
    ];
    for (value, expected) in rows {
        for (kind, expected) in kinds.iter().zip(expected) {
            assert_eq!(out(&value, kind), expected, "{value} as {kind:?}");
        }
    }
}

#[test]
fn boolean_words_are_converted() {
    // Booleans are read from the usual words and from 0 and 1, nothing else.
    for yes in [json!("yes"), json!("ON"), json!(" True "), json!("1"), json!(1)] {
        assert_eq!(out(&yes, &ValueType::Boolean), json!(true), "{yes}");
    }
    for no in [json!("no"), json!("off"), json!("FALSE"), json!("0"), json!(0)] {
        assert_eq!(out(&no, &ValueType::Boolean), json!(false), "{no}");
    }
    for neither in [json!(2), json!("maybe"), json!("")] {
        assert_eq!(out(&neither, &ValueType::Boolean), Value::Null, "{neither}");
    }
}

#[test]
fn timestamps_in_every_format_are_converted() {
    // A date is the day as written; a datetime is the instant, in UTC.
    for (given, date, datetime) in [
        (json!("2024-02-29"), json!("2024-02-29"), json!("2024-02-29T00:00:00+00:00")),
        (
            json!("2024-02-29T23:30:00-05:00"),
            json!("2024-02-29"),
            json!("2024-03-01T04:30:00+00:00"),
        ),
        (json!("2024-02-29 12:00:00"), json!("2024-02-29"), json!("2024-02-29T12:00:00+00:00")),
        (json!("2016-08-03T12:00:00Z"), json!("2016-08-03"), json!("2016-08-03T12:00:00+00:00")),
        (json!(1_470_225_600), json!("2016-08-03"), json!("2016-08-03T12:00:00+00:00")),
        (json!(1_470_225_600_000_i64), json!("2016-08-03"), json!("2016-08-03T12:00:00+00:00")),
        (json!("1470225600000000"), json!("2016-08-03"), json!("2016-08-03T12:00:00+00:00")),
        (
            json!(1_470_225_600_000_000_000_i64),
            json!("2016-08-03"),
            json!("2016-08-03T12:00:00+00:00"),
        ),
        (
            json!("Wed, 03 Aug 2016 12:00:00 +0000"),
            json!("2016-08-03"),
            json!("2016-08-03T12:00:00+00:00"),
        ),
        (json!("2024-02-30"), Value::Null, Value::Null),
        (json!("soon"), Value::Null, Value::Null),
    ] {
        assert_eq!(out(&given, &ValueType::Date), date, "{given}");
        assert_eq!(out(&given, &ValueType::DateTime), datetime, "{given}");
    }
}

#[test]
fn numbers_keep_their_value() {
    // Whole numbers are not made by rounding, and large ones keep their digits.
    for (given, integer, float) in [
        (json!(" 12 "), json!(12), json!(12)),
        (json!("12.0"), json!(12), json!(12.0)),
        (json!(-0.0), json!(0), json!(-0.0)),
        (json!("-3"), json!(-3), json!(-3)),
        (json!("-3.0"), json!(-3), json!(-3.0)),
        (json!("1e3"), json!(1000), json!(1000.0)),
        (
            json!(9_223_372_036_854_775_807_i64),
            json!(9_223_372_036_854_775_807_i64),
            json!(9_223_372_036_854_775_807_i64),
        ),
        (json!("1,5"), Value::Null, Value::Null),
        (json!("NaN"), Value::Null, Value::Null),
        (json!("inf"), Value::Null, Value::Null),
        (json!(""), Value::Null, Value::Null),
    ] {
        assert_eq!(out(&given, &ValueType::Integer), integer, "{given}");
        assert_eq!(out(&given, &ValueType::Float), float, "{given}");
    }
}

#[test]
fn choice_is_matched_to_its_declared_spelling() {
    // A choice is found whatever its case, several only where several are allowed.
    assert_eq!(out(&json!(" SILVER "), &one()), json!("Silver"));
    assert_eq!(out(&json!("bronze"), &one()), Value::Null);
    assert_eq!(out(&json!(["gold", "silver"]), &one()), Value::Null);
    assert_eq!(out(&json!(["gold", "silver"]), &many()), json!(["Gold", "Silver"]));
    assert_eq!(out(&json!("gold"), &many()), json!(["Gold"]));
    assert_eq!(out(&json!(["gold", "bronze"]), &many()), Value::Null);
    let undeclared = ValueType::Fixed { choices: Vec::new(), many: Cardinality::One };
    assert_eq!(out(&json!("x"), &undeclared), json!("x"));
}

#[test]
fn string_is_truncated_at_a_character() {
    // 255 characters stay, whatever their size in bytes.
    let long = json!("ü".repeat(300));
    assert_eq!(out(&long, &ValueType::String), json!("ü".repeat(255)));
}

proptest::proptest! {
    #[test]
    fn conversion_never_panics(text in ".*", number in proptest::num::f64::ANY) {
        // Any text and number converts or is an error; what comes out is JSON.
        for value in [json!(text), json!(number), json!([text]), json!({"k": text})] {
            for kind in [
                ValueType::Boolean, ValueType::Date, ValueType::DateTime, one(), many(),
                ValueType::Float, ValueType::Integer, ValueType::Json, ValueType::String,
            ] {
                if let Ok(json) = convert(&value.to_string(), &kind) {
                    serde_json::from_str::<Value>(json.as_str()).unwrap();
                }
            }
        }
    }
}
