//! The settings of the mapping table: rules, field values, conditions. `mapping::compile` compiles
//! them.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::CallKind;

/// One rule of the mapping table: a record that matches `when` makes one call.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The rule's name, as `explain`, dead letters and logs show it. Default: `rule N`, counted
    /// from 1.
    #[serde(default)]
    pub name: Option<String>,
    /// Which call the rule makes.
    pub call: CallKind,
    /// The condition. Default: every record.
    #[serde(default)]
    pub when: Option<Condition>,
    /// Path of an array; the rule runs once for each element. Inside, `when` included, `.` is the
    /// element and `^.x` reads the record. Default: once for the record.
    #[serde(default)]
    pub foreach: Option<String>,
    /// Whether later rules are skipped once this one matched. Default: false.
    #[serde(default)]
    pub stop: bool,
    /// The fields of the call, by target: `user_id`, `anonymous_id`, `message_id`, `timestamp`,
    /// `event`, `name`, `category`, `group_id`, `previous_id`, `user_key`, `traits.X`,
    /// `properties.X`, `context.X`, `traits.*`, `properties.*`, `context.*`.
    pub fields: IndexMap<String, FieldValue>,
}

/// The value of a target: a path, or a table with a source and steps. A list of these is allowed
/// for the spreads `traits.*`, `properties.*` and `context.*`; later ones win.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum FieldValue {
    /// A path, with its leading dot: `.user.id`.
    Path(String),
    // Before `Spec`: a struct would take a list for its fields in order.
    /// A list, for spreads.
    List(Vec<FieldValue>),
    /// A table with one source (`path`, `value`, `template` or `cases`) and its steps.
    Spec(Box<FieldSpec>),
}

/// The source and the steps of a value, in this order: source, `split`, `then`, `replace`, `as`,
/// `map`, `each`, `join`, `only`, `except`, `rename`, `flatten`, `default`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FieldSpec {
    /// Source: one path, or several of which the first that is present and not null wins.
    pub path: Option<PathOrPaths>,
    /// Source: a literal.
    pub value: Option<Value>,
    /// Source: text with `{{ .path }}` insertions. A missing path inserts nothing; if every path
    /// is missing, the field is missing.
    pub template: Option<String>,
    /// Source: the first case whose `when` matches.
    pub cases: Option<Vec<Case>>,
    /// Splits text at this separator into a list.
    pub split: Option<String>,
    /// Functions, in order.
    pub then: Option<Vec<Function>>,
    /// Regular expression replacements `[pattern, replacement]`, in order.
    pub replace: Option<Vec<(String, String)>>,
    /// Converts to a type. A value that cannot be converted is handled by `on_failure`.
    #[serde(rename = "as")]
    pub as_type: Option<TargetType>,
    /// strptime format of the text for `as = "timestamp"` and the target `timestamp`, including
    /// `%Q` for a named zone. Default: every unambiguous format, such as RFC 3339, RFC 2822, the
    /// formats of JavaScript, Go, Java, Apache and MongoDB, digits of a calendar date (`20240521`),
    /// and epoch seconds, milliseconds, microseconds or nanoseconds by size. Dates whose order of
    /// day and month is ambiguous (`5/6/2024`) need a format.
    pub format: Option<String>,
    /// The IANA time zone of times without a zone: `Europe/Warsaw`. For `as = "timestamp"` and the
    /// target `timestamp`. Default: the source's `timezone`, else UTC.
    pub timezone: Option<String>,
    /// What happens where a step fails: a value that `as` cannot convert, a value that `map` does
    /// not contain, a function that does not apply. Each failure is counted, logged and shown by
    /// `explain`. Default: `dead_letter` for the target `timestamp` and for `required` fields, else
    /// `drop`. A `timestamp` with a `default` uses that.
    pub on_failure: Option<OnFailure>,
    /// Maps value to value. Keys are compared with the value's text.
    pub map: Option<IndexMap<String, Value>>,
    /// The result for a value that `map` does not contain. Default: the field is dropped and
    /// counted.
    pub map_default: Option<Value>,
    /// For arrays: the shape of every element; paths are relative to the element.
    pub each: Option<IndexMap<String, FieldValue>>,
    /// For arrays: joins the elements as strings with this separator.
    pub join: Option<String>,
    /// For objects: keeps only these keys.
    pub only: Option<Vec<String>>,
    /// For objects: removes these keys.
    pub except: Option<Vec<String>>,
    /// For objects: renames keys, old to new.
    pub rename: Option<IndexMap<String, String>>,
    /// For objects: flattens nested objects, joining names with this separator.
    pub flatten: Option<String>,
    /// The value of a missing field.
    pub default: Option<Value>,
    /// Whether a record without this field goes to the dead letters. Default: false.
    pub required: bool,
}

/// One path or several.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PathOrPaths {
    /// One path.
    One(String),
    /// Several; the first that is present and not null wins.
    Many(Vec<String>),
}

/// One case of `cases`: a condition and one source.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The condition. Default: always, for the last case.
    #[serde(default)]
    pub when: Option<Condition>,
    /// Source: a path, or several.
    #[serde(default)]
    pub path: Option<PathOrPaths>,
    /// Source: a literal.
    #[serde(default)]
    pub value: Option<Value>,
    /// Source: a template.
    #[serde(default)]
    pub template: Option<String>,
}

/// What happens to a field whose value is missing because a step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The record goes to the dead letters, with the rule, the field and the reason. Nothing of it is
    /// sent.
    DeadLetter,
    /// For the target `timestamp` only: the call gets the present time, or the time that the source
    /// knows for the record (Kafka and Fluvio do).
    Now,
    /// The field is dropped, or gets its `default`; the rest of the call is sent.
    Drop,
}

/// A function of `then`: a name, `{ get = "..." }` or `{ capture = "..." }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// Removes white space at both ends: `" Ann "` -> `"Ann"`.
    Trim,
    /// Changes text to lower case: `"Ann"` -> `"ann"`.
    Lowercase,
    /// Changes text to upper case: `"pl"` -> `"PL"`.
    Uppercase,
    /// Changes the first letter to upper case and keeps the rest: `"ann"` -> `"Ann"`.
    Capitalize,
    /// Removes everything but digits: `"+48 600-100"` -> `"48600100"`.
    Digits,
    /// Takes the first word: `"Ann Maria Nowak"` -> `"Ann"`.
    FirstWord,
    /// Takes all words but the first: `"Ann Maria Nowak"` -> `"Maria Nowak"`.
    RestWords,
    /// Computes the SHA-256 of the text in hexadecimal: `"abc"` ->
    /// `"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"`.
    Sha256,
    /// Takes the host of a URL: `"https://shop.example/a?b=1"` -> `"shop.example"`.
    UrlHost,
    /// Takes the path of a URL: `"https://shop.example/a?b=1"` -> `"/a"`.
    UrlPath,
    /// Decodes percent-encoding: `"a%40b.example"` -> `"a@b.example"`.
    UrlDecode,
    /// Parses JSON text into a value: `"{\"a\":1}"` -> `{"a":1}`.
    ParseJson,
    /// Writes the value as JSON text: `{"a":1}` -> `"{\"a\":1}"`.
    ToJson,
    /// Parses a query string into an object. Of a URL, or a path with a query, the query is used:
    /// `"/p?a=1"` -> `{"a":"1"}`.
    ParseQuery,
    /// Makes lower case letters, digits and hyphens: `"Summer Sale 2026"` -> `"summer-sale-2026"`.
    Slug,
    /// Reads a path of an object or a list from `parse_json`, `parse_query` or `capture`: `{ get =
    /// ".utm.source" }`: `{"utm":{"source":"ads"}}` -> `"ads"`. With a path that does not exist the
    /// field is missing.
    Get(#[schemars(description = "The path, with its leading dot.")] String),
    /// Returns what a regular expression matches: `{ capture = "order (\\d+)" }`: `"order 17"` ->
    /// `"17"`. With named groups an object of those that matched, with one group its text, without
    /// groups the matched text. Text that does not match is a failure.
    Capture(#[schemars(description = "The regular expression (unanchored).")] String),
}

/// A type of `as`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetType {
    /// Text: `17` -> `"17"`.
    String,
    /// A whole number: `"17"` -> `17`.
    Integer,
    /// A number: `"1.5"` -> `1.5`.
    Float,
    /// `true` or `false`; reads yes/no, on/off and 1/0 too: `"yes"` -> `true`.
    Boolean,
    /// A time, written as RFC 3339 in UTC: `1767225600` -> `"2026-01-01T00:00:00Z"`.
    Timestamp,
    /// Any JSON value; text is parsed: `"[1]"` -> `[1]`.
    Json,
    /// A list; a single value becomes a list of one: `"a"` -> `["a"]`.
    List,
}

/// A condition: every entry must match. Keys are paths, or `any`, `all`, `none` with a list of
/// conditions. A value is compared for equality; a table contains operators.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Condition(pub IndexMap<String, ConditionValue>);

/// What a condition tests, or the list of conditions under `any`, `all`, `none`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ConditionValue {
    /// Conditions, under `any`, `all` and `none`.
    Group(Vec<Condition>),
    /// Operators; all must match.
    Operators(Box<Operators>),
    /// A literal: equality.
    Equals(Scalar),
}

/// A literal a path is compared with.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// true or false.
    Bool(bool),
    /// Whole number.
    Integer(i64),
    /// Number.
    Float(f64),
    /// Text.
    String(String),
}

/// Operators of a condition. All that are given must match.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Operators {
    /// Whether the path exists and is not null.
    pub exists: Option<bool>,
    /// Equality.
    pub equals: Option<Scalar>,
    /// Inequality; also matches where the path is missing.
    pub not: Option<Scalar>,
    /// The value is one of these.
    #[serde(rename = "in")]
    pub is_in: Option<Vec<Scalar>>,
    /// The value is none of these; also matches where the path is missing.
    pub not_in: Option<Vec<Scalar>>,
    /// Text starts with this.
    pub starts_with: Option<String>,
    /// Text ends with this.
    pub ends_with: Option<String>,
    /// Text contains this, or a list has this element.
    pub contains: Option<Scalar>,
    /// Text matches this regular expression (unanchored).
    pub matches: Option<String>,
    /// Greater than; numbers by value, text by code point.
    pub gt: Option<Scalar>,
    /// Greater than or equal.
    pub gte: Option<Scalar>,
    /// Less than.
    pub lt: Option<Scalar>,
    /// Less than or equal.
    pub lte: Option<Scalar>,
}
