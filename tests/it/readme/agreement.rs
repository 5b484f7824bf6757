//! What the pages say of the code is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::Regex;
use serde_json::Value;
use usercom_sink::call::CallKind;
use usercom_sink::telemetry::Metrics;

use super::{Page, ROOT, pages};
use crate::layering::{FORBIDDEN_IMPORTS, sources};

/// The length of the README that a newcomer reads to its end.
const MAX_README_BYTES: usize = 10 << 10;

fn src() -> PathBuf {
    Path::new(ROOT).join("src")
}

/// The cells of each row of the tables of a page, without the backticks.
fn rows(text: &str) -> impl Iterator<Item = Vec<String>> {
    text.lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<String>>())
}

/// Backticked words of a text that match `pattern` whole.
fn quoted(text: &str, pattern: &str) -> BTreeSet<String> {
    let pattern = Regex::new(&format!("`({pattern})`")).unwrap();
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

#[test]
fn readme_is_short() {
    // The README has at most 10 KB; the rest is in `docs/`.
    let size = Page::read("README.md").text.len();
    assert!(size <= MAX_README_BYTES, "README.md has {size} bytes");
}

#[test]
fn every_ignored_test_is_explained_in_contributing() {
    // Each test that is ignored has its name in CONTRIBUTING.md, and each name there is a test.
    let ignored = Regex::new(r"#\[ignore[^\]]*\]\s*(?:async )?fn (\w+)").unwrap();
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests", "benches"] {
        for file in sources(&Path::new(ROOT).join(folder)) {
            let text = fs::read_to_string(file).unwrap();
            tests.extend(ignored.captures_iter(&text).map(|found| found[1].to_owned()));
        }
    }
    assert!(tests.len() > 20, "{tests:?}");
    let page = Page::read("CONTRIBUTING.md").text;
    let section = page.split("\n## ").find(|part| part.starts_with("Ignored tests")).unwrap();
    let named: BTreeSet<String> = rows(section).flat_map(|row| quoted(&row[0], r"\w+")).collect();
    assert_eq!(named, tests);
}

/// Names in the code that are registered as metrics, without the `_total` of counters.
fn registered_metrics() -> BTreeSet<String> {
    let call = Regex::new(r#"\bregister(?:ed)?\(\s*(?:\w+,\s*)?"([a-z_]+)""#).unwrap();
    let mut names = BTreeSet::new();
    for file in sources(&src()) {
        let text = fs::read_to_string(file).unwrap();
        names.extend(call.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    names
}

/// The metrics that a process shows, with their labels but those of every metric.
fn rendered_metrics() -> BTreeMap<String, BTreeSet<String>> {
    let metrics = Metrics::default();
    let sink = metrics.sink("crm");
    sink.call(CallKind::Track);
    sink.request("GET", "users/");
    sink.response(200, "users/", Duration::from_millis(1));
    let source = metrics.source("app", "kafka");
    source.refused("no_room");
    source.unwanted("metric");
    source.lag().set("t", 0, 1);
    source.lag().removed("t", 0, 1);
    let sample = Regex::new(r"^(\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? ").unwrap();
    let label = Regex::new(r#"(\w+)=""#).unwrap();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in metrics.render().lines().filter(|line| !line.starts_with('#')) {
        let parts = sample.captures(line).unwrap();
        let labels = label.captures_iter(parts.get(2).map_or("", |labels| labels.as_str()));
        let labels = labels.map(|found| found[1].to_owned());
        let labels = labels.filter(|name| !name.starts_with("component_") && name != "le");
        found.entry(parts[1].to_owned()).or_default().extend(labels);
    }
    found
}

#[test]
fn page_of_metrics_names_every_metric_with_its_labels() {
    // `docs/metrics.md` has a row for each metric that the code registers, and no other.
    let row = Regex::new(r"^`([a-z_]+)(?:\{([a-z_,]+)\})?`$").unwrap();
    let mut documented = BTreeMap::new();
    for cells in rows(&Page::read("docs/metrics.md").text) {
        if let Some(parts) = row.captures(&cells[0]) {
            let labels = parts.get(2).map_or("", |labels| labels.as_str());
            let labels = labels.split(',').filter(|name| !name.is_empty()).map(str::to_owned);
            documented.insert(parts[1].to_owned(), labels.collect::<BTreeSet<_>>());
        }
    }
    let base = |name: &String| name.strip_suffix("_total").unwrap_or(name).to_owned();
    let names: BTreeSet<String> = documented.keys().map(base).collect();
    let mut known = registered_metrics();
    let rendered = rendered_metrics();
    known.extend(rendered.keys().map(base));
    assert_eq!(names, known);
    for (name, labels) in rendered {
        assert_eq!(documented.get(&name), Some(&labels), "labels of {name}");
    }
}

/// The modules of `src/`, and the modules that each one imports.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let lib = fs::read_to_string(src().join("lib.rs")).unwrap();
    let module = Regex::new(r"(?m)^(?:pub )?mod (\w+);").unwrap();
    let modules: BTreeSet<String> =
        module.captures_iter(&lib).map(|found| found[1].to_owned()).collect();
    let import = Regex::new(r"\bcrate::(\w+)").unwrap();
    let mut found = BTreeMap::new();
    for name in &modules {
        let folder = src().join(name);
        let files =
            if folder.is_dir() { sources(&folder) } else { vec![src().join(format!("{name}.rs"))] };
        let mut imported = BTreeSet::new();
        for file in files {
            let text = fs::read_to_string(file).unwrap();
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                imported.extend(import.captures_iter(line).map(|found| found[1].to_owned()));
            }
        }
        imported.retain(|other| other != name && modules.contains(other));
        found.insert(name.clone(), imported);
    }
    found
}

#[test]
fn table_of_modules_agrees_with_the_imports() {
    // `docs/architecture.md` lists every module after all that it imports; what it allows is what
    // the code does, and nothing that the layering test forbids.
    let page = Page::read("docs/architecture.md").text;
    let section = page.split("\n## ").find(|part| part.starts_with("Modules")).unwrap();
    let imports = imports();
    let mut above = BTreeSet::new();
    for row in rows(section).filter(|row| row.len() == 3) {
        let Some(name) = quoted(&row[0], r"\w+").pop_first() else { continue };
        let real = imports.get(&name).unwrap_or_else(|| panic!("there is no module `{name}`"));
        let allowed = quoted(&row[1], r"\w+");
        assert!(allowed.is_subset(&above), "`{name}` stands above a module that it imports");
        let more: Vec<_> = real.difference(&allowed).collect();
        assert!(more.is_empty(), "`{name}` imports {more:?} too");
        for (_, forbidden) in FORBIDDEN_IMPORTS.iter().filter(|(module, _)| *module == name) {
            let wrong: Vec<_> =
                forbidden.iter().filter(|other| allowed.contains(**other)).collect();
            assert!(wrong.is_empty(), "`{name}` must not import {wrong:?}");
        }
        above.insert(name);
    }
    let all: BTreeSet<String> = imports.into_keys().collect();
    assert_eq!(above, all);
}

#[test]
fn files_and_types_that_pages_name_exist() {
    // A path of the repository in backticks exists, and a type in the architecture is declared.
    let path = r"(?:src|tests|benches|docs|schema|connector|examples|deploy|fuzz|\.ci|\.github)(?:/[\w.-]+)+/?|[A-Z]+\.md";
    let (mut seen, mut missing) = (0, Vec::new());
    for page in pages().iter().filter(|page| !page.path.ends_with("CHANGELOG.md")) {
        for name in quoted(&page.text, path) {
            seen += 1;
            if !Path::new(ROOT).join(&name).exists() {
                missing.push(format!("{}: {name}", page.path.display()));
            }
        }
    }
    assert!(seen > 30, "{seen} paths");
    let declared = Regex::new(r"\b(?:struct|enum|trait|type) (\w+)").unwrap();
    let mut types = BTreeSet::new();
    for file in sources(&src()) {
        let text = fs::read_to_string(file).unwrap();
        types.extend(declared.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    let architecture = Page::read("docs/architecture.md").text;
    let unknown = quoted(&architecture, r"(?:[A-Z][a-z]+)+");
    missing.extend(unknown.into_iter().filter(|name| !types.contains(name)));
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

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

#[test]
fn page_of_failed_records_names_every_reason() {
    // `docs/failed-records.md` has a row for each reason that a dead letter can have.
    let page = Page::read("docs/failed-records.md").text;
    let section = page.split("\n## ").flat_map(|part| part.split("\n### "));
    let section = section.into_iter().find(|part| part.starts_with("Reasons")).unwrap();
    let documented: BTreeSet<String> =
        rows(section).flat_map(|row| quoted(&row[0], r"\w+")).collect();
    let places = [
        ("mapping/error.rs", r#"Self::\w+ => "(\w+)""#),
        ("usercom/profile", r#"PlanError::new\(\s*"(\w+)""#),
        ("pipeline/engine", r#"DeadLetter::new\([^;"]*"(\w+)""#),
        ("pipeline/engine", r#"\bword(?:: | = )[^;"]*"(\w+)""#),
    ];
    let mut known = BTreeSet::from(["status_400".to_owned()]);
    for (place, pattern) in places {
        let pattern = Regex::new(pattern).unwrap();
        let path = src().join(place);
        let files = if path.is_dir() { sources(&path) } else { vec![path] };
        let before = known.len();
        for file in files {
            let text = fs::read_to_string(file).unwrap();
            known.extend(pattern.captures_iter(&text).map(|found| found[1].to_owned()));
        }
        assert!(known.len() > before, "no reason in {place}");
    }
    assert_eq!(documented, known);
}

/// The JSON Schema of pipeline files.
fn schema() -> Value {
    let path = Path::new(ROOT).join("schema/pipeline.schema.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Whether the schema of a component has the setting `path`.
fn has_setting(schema: &Value, component: &Value, path: &[&str]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    let mut open = vec![component];
    while let Some(node) = open.pop() {
        if let Some(name) = node["$ref"].as_str() {
            open.push(&schema["$defs"][name.trim_start_matches("#/$defs/")]);
        }
        for list in ["anyOf", "oneOf", "allOf"] {
            open.extend(node[list].as_array().into_iter().flatten());
        }
        let property = &node["properties"][*first];
        if !property.is_null() && has_setting(schema, property, rest) {
            return true;
        }
    }
    false
}

#[test]
fn settings_that_pages_name_are_in_the_schema() {
    // A setting in backticks, written with the table it is in, exists.
    let schema = schema();
    let component = |name: &str| &schema["properties"][name]["additionalProperties"];
    let groups = "delivery|users|companies|request|buffer|dead_letters|decoding|offset|tls|api";
    let (mut seen, mut missing) = (0, Vec::new());
    for page in pages().iter().filter(|page| !page.path.ends_with("CHANGELOG.md")) {
        for name in quoted(&page.text, &format!(r"(?:{groups})(?:\.[a-z_]+)+")) {
            seen += 1;
            let path: Vec<&str> = name.split('.').collect();
            let homes = [component("sinks"), component("sources"), &schema];
            if !homes.iter().any(|home| has_setting(&schema, home, &path)) {
                missing.push(format!("{}: {name}", page.path.display()));
            }
        }
    }
    assert!(seen > 15, "{seen} settings");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn codes_that_pages_name_are_in_the_code() {
    // An error or warning code on a page is one that the program can report.
    let code = Regex::new(r"\b[EW]\d{4}\b").unwrap();
    let mut known = BTreeSet::new();
    for file in sources(&src()) {
        let text = fs::read_to_string(file).unwrap();
        known.extend(code.find_iter(&text).map(|found| found.as_str().to_owned()));
    }
    for page in pages() {
        for found in code.find_iter(&page.text) {
            let (found, page) = (found.as_str(), page.path.display());
            assert!(known.contains(found), "{page} names {found}");
        }
    }
}
