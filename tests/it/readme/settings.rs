//! What the pages say of settings is in the JSON Schema.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use regex::Regex;
use serde_json::Value;

use super::{Page, ROOT, pages};

/// The keys and words that a definition of the schema allows.
fn words(definition: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let lists = ["anyOf", "oneOf"].map(|list| definition[list].as_array());
    for part in lists.into_iter().flatten().flatten().chain([definition]) {
        found.extend(
            part["properties"].as_object().into_iter().flatten().map(|(key, _)| key.clone()),
        );
        let values = part["enum"].as_array().into_iter().flatten().chain(part.get("const"));
        found.extend(values.filter_map(|word| word.as_str().map(str::to_owned)));
    }
    found
}

#[test]
fn page_of_mapping_names_every_word_of_the_schema() {
    // Each key of rules and fields, each function, type, operator and codec is in `docs/mapping.md`.
    let schema = schema();
    let page = Page::read("docs/mapping.md").text;
    for name in
        ["Rule", "FieldSpec", "Case", "Function", "TargetType", "OnFailure", "Operators", "Codec"]
    {
        let words = words(&schema["$defs"][name]);
        assert!(!words.is_empty(), "{name}");
        for word in words {
            let named = Regex::new(&format!(r"`[^`\n]*\b{word}\b[^`\n]*`")).unwrap();
            assert!(named.is_match(&page), "`{word}` of {name} is not in docs/mapping.md");
        }
    }
}

/// The JSON Schema of pipeline files.
fn schema() -> Value {
    let path = Path::new(ROOT).join("schema/pipeline.schema.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The setting `path` in the schema of a component.
fn setting<'a>(schema: &'a Value, component: &'a Value, path: &[&str]) -> Option<&'a Value> {
    let Some((first, rest)) = path.split_first() else { return Some(component) };
    let mut open = vec![component];
    while let Some(node) = open.pop() {
        if let Some(name) = node["$ref"].as_str() {
            open.push(&schema["$defs"][name.trim_start_matches("#/$defs/")]);
        }
        for list in ["anyOf", "oneOf", "allOf"] {
            open.extend(node[list].as_array().into_iter().flatten());
        }
        let property = &node["properties"][*first];
        if !property.is_null()
            && let Some(found) = setting(schema, property, rest)
        {
            return Some(found);
        }
    }
    None
}

/// A number with its unit as pages write it, in the unit of the setting: bytes or seconds.
fn plain_number(number: &str, unit: &str) -> Option<u64> {
    let number: u64 = number.replace(',', "").parse().ok()?;
    let factor = match unit {
        "" | "s" => 1,
        "MiB" => 1 << 20,
        "h" => 3600,
        _ => return None,
    };
    Some(number * factor)
}

#[test]
fn settings_that_pages_name_are_in_the_schema() {
    // A setting in backticks, written with the table it is in, exists; a number in brackets after
    // it is its default.
    let schema = schema();
    let component = |name: &str| &schema["properties"][name]["additionalProperties"];
    let groups =
        "account|delivery|users|companies|request|buffer|dead_letters|decoding|offset|tls|api";
    let pattern = format!(r"`((?:{groups})(?:\.[a-z_]+)+)`(?:\s\((\d[\d,]*)\s?(\w*))?");
    let pattern = Regex::new(&pattern).unwrap();
    let (mut seen, mut wrong) = (0, Vec::new());
    for page in pages().iter().filter(|page| !page.path.ends_with("CHANGELOG.md")) {
        for found in pattern.captures_iter(&page.text) {
            seen += 1;
            let path: Vec<&str> = found[1].split('.').collect();
            let homes = [component("sinks"), component("sources"), &schema];
            let known: Vec<&Value> =
                homes.iter().filter_map(|home| setting(&schema, home, &path)).collect();
            let number = found.get(2).map(|number| number.as_str());
            let unit = found.get(3).map_or("", |unit| unit.as_str());
            let good = match number.and_then(|number| plain_number(number, unit)) {
                None => !known.is_empty(),
                Some(number) => known.iter().any(|home| home["default"].as_u64() == Some(number)),
            };
            if !good {
                wrong.push(format!("{}: {}", page.path.display(), &found[0]));
            }
        }
    }
    assert!(seen > 15, "{seen} settings");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
