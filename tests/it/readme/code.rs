//! What the pages say of files, modules, tests, reasons and codes is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex::Regex;

use super::{Page, ROOT, pages, quoted, rows, src};
use crate::layering::{FORBIDDEN_IMPORTS, sources};

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
