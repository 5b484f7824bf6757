//! Which module of `src/` may import which: imports follow the flow of a record.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// A top-level module, and the modules it must not import.
pub(crate) const FORBIDDEN_IMPORTS: &[(&str, &[&str])] = &[
    (
        "call",
        &[
            "mapping", "schedule", "usercom", "deliver", "buffer", "pipeline", "source", "cli",
            "emulator", "config",
        ],
    ),
    (
        "coerce",
        &[
            "call", "mapping", "schedule", "usercom", "deliver", "buffer", "pipeline", "source",
            "cli", "emulator", "config", "record", "ack",
        ],
    ),
    (
        "mapping",
        &["schedule", "usercom", "deliver", "buffer", "pipeline", "source", "cli", "emulator"],
    ),
    (
        "schedule",
        &[
            "mapping", "usercom", "deliver", "buffer", "pipeline", "source", "cli", "emulator",
            "config",
        ],
    ),
    ("usercom", &["mapping", "buffer", "pipeline", "source", "cli", "emulator"]),
    (
        "deliver",
        &[
            "mapping", "schedule", "usercom", "buffer", "pipeline", "source", "cli", "emulator",
            "call",
        ],
    ),
    (
        "buffer",
        &["mapping", "schedule", "usercom", "deliver", "pipeline", "cli", "emulator", "call"],
    ),
    (
        "source",
        &[
            "mapping", "schedule", "usercom", "deliver", "buffer", "pipeline", "cli", "emulator",
            "call",
        ],
    ),
    (
        "emulator",
        &[
            "mapping", "schedule", "usercom", "deliver", "buffer", "pipeline", "source", "cli",
            "call", "config", "record", "ack", "sink",
        ],
    ),
    (
        "config",
        &[
            "mapping", "schedule", "usercom", "deliver", "buffer", "pipeline", "source", "cli",
            "emulator",
        ],
    ),
    (
        "telemetry",
        &[
            "mapping", "schedule", "usercom", "deliver", "buffer", "pipeline", "source", "cli",
            "emulator", "api",
        ],
    ),
    (
        "api",
        &["mapping", "schedule", "usercom", "deliver", "pipeline", "source", "cli", "emulator"],
    ),
    ("pipeline", &["cli", "emulator"]),
];

/// All Rust files below a folder.
pub(crate) fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn modules_import_only_what_layering_allows() {
    // No module imports a forbidden module; comments may name it.
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (module, forbidden) in FORBIDDEN_IMPORTS {
        let files = sources(&src.join(module));
        assert!(!files.is_empty(), "there is no module `{module}`");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for (n, line) in code.enumerate() {
                for import in *forbidden {
                    if line.contains(&format!("crate::{import}::")) {
                        wrong.push(format!("{}: {n}: {line}", file.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is done in one file only: the code that does it, and the file.
const ONE_HOME: &[(&str, &str)] = &[
    (r"damerau_levenshtein\(", "suggest.rs"),
    (r#""\*{3}""#, "redact/mod.rs"),
    (r"listener\.accept\(\)\.await (?:\{|\?)", "listener.rs"),
    (r"02[xX]\}", "(the crate hex)"),
    (r"\bPoisonError\b", "(parking_lot)"),
];

#[test]
fn shared_helpers_have_one_home() {
    // Suggestions, redaction, accepting connections, hexadecimal text and locks are written once.
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in sources(&src) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (pattern, home) in ONE_HOME {
            if Regex::new(pattern).unwrap().is_match(code) && file != src.join(home) {
                wrong.push(format!("{}: `{pattern}` belongs into {home}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
