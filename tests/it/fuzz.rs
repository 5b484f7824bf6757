//! The corpora of the fuzz targets, as plain tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use usercom_sink::fuzz::{TARGETS, run};

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(path)
}

/// Names of the files in a folder, without their endings.
fn names(path: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder(path)).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// An input, cut off, with one byte changed, and with a stretch doubled, at some places of it.
fn damaged(input: &[u8]) -> Vec<Vec<u8>> {
    let mut found = vec![input.to_vec()];
    let step = (input.len() / 24).max(1);
    for at in (0..input.len()).step_by(step) {
        found.push(input[..at].to_vec());
        for byte in [0, b'"', b'{', b'\n', b'\\', 0xff] {
            let mut changed = input.to_vec();
            changed[at] = byte;
            found.push(changed);
        }
        let end = (at + 7).min(input.len());
        found.push([&input[..end], &input[at..]].concat());
    }
    found
}

#[test]
fn corpus_of_every_target_finds_no_fault() {
    // Each hand-written input, and damaged copies of it, keep what the target promises.
    for (name, target) in TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(folder("corpus").join(name)).unwrap() {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            for damaged in damaged(&input) {
                let outcome = std::panic::catch_unwind(|| target(&damaged));
                assert!(outcome.is_ok(), "{}: {}", path.display(), damaged.escape_ascii());
            }
            inputs += 1;
        }
        assert!(inputs >= 8, "{name} has {inputs} inputs");
        // No input at all is an input too.
        run(name, &[]);
    }
}

#[test]
fn every_target_has_a_file_a_corpus_and_a_row() {
    // What `cargo fuzz` builds are the targets of the crate, each with a corpus and a description.
    let mut known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    // Without its feature the crate does not have this one.
    known.insert("grpc_body".into());
    assert_eq!(names("fuzz_targets"), known);
    assert_eq!(names("corpus"), known);
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    let manifest: toml::Table = toml::from_str(&manifest).unwrap();
    let bins = manifest["bin"].as_array().unwrap().iter();
    let bins: BTreeSet<String> = bins.map(|bin| bin["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(bins, known);
    let page = fs::read_to_string(folder("README.md")).unwrap();
    for name in &known {
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
        let file = folder("fuzz_targets").join(format!("{name}.rs"));
        assert!(fs::read_to_string(file).unwrap().contains(&format!("run(\"{name}\", data)")));
    }
}
