//! The names and words of the project: one type name for one idea, and plain words.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use super::layering::sources;

/// Type names that are declared in two files, and why.
const DECLARED_TWICE: &[(&str, &str)] = &[
    ("Client", "a Fluvio client; a client in the simulator of throttles"),
    ("Completion", "of a command line while a file is recovered; of a record in a buffer"),
    ("ConnectorCommand", "the command, and what a build without the connector has in its place"),
    ("Latency", "measured by telemetry; injected by the emulator"),
    ("Metadata", "of a record; the generated message of Vector's protocol"),
    ("OpenRequest", "a request without an answer; a request to open a file"),
    ("Step", "of two simulations in tests"),
    ("Throttled", "the decision; a transport in tests that is throttled"),
    ("Unit", "of a size or a duration; of decoded text"),
];

/// Words that the project's vocabulary replaces, in halves so that this file does not have them.
const PRIVATE_WORDS: &[(&str, &str)] = &[
    ("cl", "erk"),
    ("beq", "uest"),
    ("err", "and"),
    ("post", "man"),
    ("sciss", "ors"),
    ("gl", "ance"),
    ("fare", "well"),
    ("mort", "gage"),
    ("no", "body"),
    ("some", "body"),
    ("who", "ever"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn type_names_are_declared_once() {
    // A name leads to one definition; the exceptions are listed, and every exception is one.
    let declared =
        Regex::new(r"(?m)^\s*(?:pub(?:\([a-z]+\))? )?(?:struct|enum|trait) (\w+)").unwrap();
    let mut homes: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    for file in sources(&root().join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        for found in declared.captures_iter(&text) {
            homes.entry(found[1].to_owned()).or_default().insert(file.clone());
        }
    }
    assert!(homes.len() > 300, "{} types", homes.len());
    homes.retain(|_, files| files.len() > 1);
    let found: BTreeSet<&str> = homes.keys().map(String::as_str).collect();
    let allowed: BTreeSet<&str> = DECLARED_TWICE.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, allowed, "{homes:#?}");
    assert!(allowed.len() < 15);
}

/// All text files of a folder, or the file itself.
fn texts(path: &Path) -> Vec<PathBuf> {
    const ENDINGS: [&str; 9] = ["rs", "md", "toml", "json", "html", "css", "js", "yaml", "snap"];
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        return entries.flat_map(|entry| texts(&entry)).collect();
    }
    let is_text = path.extension().is_some_and(|e| ENDINGS.iter().any(|ending| e == *ending));
    if is_text { vec![path.to_owned()] } else { Vec::new() }
}

#[test]
fn private_words_stand_nowhere() {
    // Code, documentation, messages and tests use the field's words.
    let words: Vec<String> =
        PRIVATE_WORDS.iter().map(|(first, second)| format!("{first}{second}")).collect();
    let words = Regex::new(&format!(r"(?i)\b(?:{})\b", words.join("|"))).unwrap();
    let places = [
        "src",
        "tests/it",
        "benches",
        "examples",
        "docs",
        "deploy",
        "schema",
        "connector",
        "fuzz",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "Cargo.toml",
    ];
    let mut wrong = Vec::new();
    let mut read = 0;
    for file in places.iter().flat_map(|place| texts(&root().join(place))) {
        if file
            .components()
            .any(|part| part.as_os_str() == "target" || part.as_os_str() == "generated")
        {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        read += 1;
        for (n, line) in text.lines().enumerate().filter(|(_, line)| words.is_match(line)) {
            wrong.push(format!("{}:{}: {line}", file.display(), n + 1));
        }
    }
    assert!(read > 500, "{read} files");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
