//! Generates `Connector.toml`, which describes the connector to Fluvio's tools, from the same
//! schema that pipeline files are checked with. It is in `connector/`, next to a package that
//! contains only that program: `cdk` takes the first target of the package it finds.
//!
//! # Invariants
//!
//! The file uses only what OpenAPI schemas support, so alternatives and recursive definitions are
//! described in text and not constrained.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::assemble::NON_SINK_KEYS;
use crate::config::pipeline_schema;

/// How deep tables are described.
const MAX_TABLE_DEPTH: usize = 4;
/// The version of Fluvio's client that the connector is built with.
const FLUVIO_VERSION: &str = "0.50.1";

/// The text of `Connector.toml`.
pub fn connector_package_text() -> String {
    let schema = pipeline_schema();
    let mut out = String::from(
        "# Made by `usercom-sink schema --connector > connector/Connector.toml`; a test keeps it current.\n\n",
    );
    let package = [
        ("name", env!("CARGO_PKG_NAME")),
        ("group", "user-com"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("apiVersion", "0.1.0"),
        ("fluvio", FLUVIO_VERSION),
        ("description", env!("CARGO_PKG_DESCRIPTION")),
        ("license", env!("CARGO_PKG_LICENSE")),
        ("visibility", "private"),
    ];
    out.push_str("[package]\n");
    for (key, value) in package {
        line(&mut out, key, &value.into());
    }
    out.push_str("\n[direction]\ndest = true\n\n[deployment]\nbinary = \"usercom-connector\"\n\n");
    out.push_str("[custom]\nname = \"usercom\"\ntype = \"object\"\n");
    let writer = TomlWriter { schema };
    let sink = writer.tagged("SinkConfig", "usercom");
    let required: Vec<Value> =
        required(sink).into_iter().filter(|key| *key != "inputs" && *key != "type").collect();
    line(&mut out, "required", &required.into());
    let root = schema.as_object().expect("a schema is an object");
    let fluvio = writer.tagged("SourceConfig", "fluvio");
    let ours = NON_SINK_KEYS.iter().filter_map(|key| {
        let property = [root, fluvio].iter().find_map(|table| table.get("properties")?.get(*key));
        Some((*key, property?))
    });
    let of_sink = properties(sink).filter(|(key, _)| !matches!(*key, "inputs" | "type"));
    writer.properties(&mut out, "custom", of_sink.chain(ours), 1);
    out
}

struct TomlWriter<'a> {
    schema: &'a Value,
}

impl<'a> TomlWriter<'a> {
    /// The alternative of a definition with a `type`.
    fn tagged(&self, name: &str, kind: &str) -> &'a Map<String, Value> {
        let all =
            self.schema.get("$defs").and_then(|defs| defs.get(name)?.get("oneOf")?.as_array());
        let is_meant = |table: &&Map<String, Value>| {
            table.get("properties").and_then(|of| of.get("type")?.get("const"))
                == Some(&kind.into())
        };
        let mut tables = all.into_iter().flatten().filter_map(Value::as_object);
        tables.find(is_meant).expect("the schema has this type")
    }

    /// The plain schema behind references, and whether it is the only alternative.
    fn plain(&self, property: &'a Value) -> Option<&'a Map<String, Value>> {
        let object = property.as_object()?;
        if let Some(name) = object.get("$ref").and_then(Value::as_str) {
            let name = name.strip_prefix("#/$defs/")?;
            return self.plain(self.schema.get("$defs")?.get(name)?);
        }
        for word in ["anyOf", "oneOf"] {
            if let Some(alternatives) = object.get(word).and_then(Value::as_array) {
                let mut real =
                    alternatives.iter().filter(|it| it.get("type") != Some(&"null".into()));
                return match (real.next(), real.next()) {
                    (Some(only), None) => self.plain(only),
                    // Words with their own descriptions are an enumeration.
                    _ if alternatives.iter().all(|it| it.get("const").is_some()) => {
                        alternatives.first()?.as_object()
                    }
                    _ => None,
                };
            }
        }
        Some(object)
    }

    fn properties(
        &self,
        out: &mut String,
        at: &str,
        of: impl Iterator<Item = (&'a str, &'a Value)>,
        depth: usize,
    ) {
        for (key, property) in of {
            let at = format!("{at}.properties.{key}");
            write!(out, "\n[{at}]\n").expect("writing to a string does not fail");
            line(out, "title", &title(key).into());
            let plain = self.plain(property);
            let described = property.get("description").or_else(|| plain?.get("description"));
            if let Some(description) = described.and_then(Value::as_str) {
                line(out, "description", &description.replace('\n', " ").into());
            }
            let Some(plain) = plain else {
                continue;
            };
            let Some(kind) = kind(plain) else {
                continue;
            };
            line(out, "type", &kind.into());
            if key == "api_key" {
                line(out, "format", &"password".into());
            }
            match kind {
                "array" => out.push_str("items = {}\n"),
                "object" if depth < MAX_TABLE_DEPTH => {
                    let required = required(plain);
                    if !required.is_empty() {
                        line(out, "required", &required.into());
                    }
                    self.inner(out, &at, plain, depth + 1);
                }
                _ => {}
            }
        }
    }

    fn inner(&self, out: &mut String, at: &str, plain: &'a Map<String, Value>, depth: usize) {
        let of: Vec<_> = properties(plain).collect();
        self.properties(out, at, of.into_iter(), depth);
    }
}

fn properties(of: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    let properties = of.get("properties").and_then(Value::as_object);
    properties.into_iter().flatten().map(|(key, property)| (key.as_str(), property))
}

fn required(schema: &Map<String, Value>) -> Vec<Value> {
    schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// The one type of a schema, ignoring `null`.
fn kind(schema: &Map<String, Value>) -> Option<&str> {
    match schema.get("type")? {
        Value::String(kind) => Some(kind),
        Value::Array(kinds) => {
            let mut kinds = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
            kinds.next().filter(|_| kinds.next().is_none())
        }
        _ => None,
    }
}

/// `rate_limit_num` is "Rate limit num".
fn title(key: &str) -> String {
    let mut title = key.replace('_', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

/// A key and a value, in TOML.
fn line(out: &mut String, key: &str, value: &Value) {
    let value = toml::Value::try_from(value).expect("a schema's words are TOML");
    writeln!(out, "{key} = {value}").expect("writing to a string does not fail");
}
