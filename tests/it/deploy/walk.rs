//! The commands of `docs/operating.md`, in its order, in one shell.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::{root, text};
use crate::support::TestDir;

const PAGE: &str = "docs/operating.md";

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let page = text(PAGE);
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(opened) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if opened == language {
                found.push(block.join("\n") + "\n");
            }
        }
    }
    found
}

#[test]
fn page_on_operating_followed_from_top_to_bottom_ends_well() {
    // Install, first pipeline, key, run, kill, backup, restore, move, send again, uninstall: each
    // command succeeds after those before it, in an empty folder.
    let blocks = blocks("bash");
    assert!(blocks.len() >= 10, "{}", blocks.len());
    let place = TestDir::new();
    let bin = place.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    symlink(env!("CARGO_BIN_EXE_usercom-sink"), bin.join("usercom-sink")).unwrap();
    let home = place.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let mut session = blocks.join("\n");
    // Both are held until both are chosen, so that they differ.
    let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    for (written, listener) in ["127.0.0.1:8765", "127.0.0.1:8686"].into_iter().zip(&free) {
        assert!(session.contains(written));
        session = session.replace(written, &listener.local_addr().unwrap().to_string());
    }
    drop(free);
    let script =
        format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\nset -euo pipefail\n{session}");
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("timeout")
        .args(["120", "bash", "-c", &script])
        .current_dir(&home)
        .env("PATH", format!("{}:{path}", bin.display()))
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let shown = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{}\n{shown}", output.status);
}

#[test]
fn command_that_no_test_runs_is_well_formed_and_names_files_that_exist() {
    // Blocks that need systemd, a cluster or a registry parse as shell, and what they name of this
    // repository is there.
    let blocks = blocks("shell");
    assert!(blocks.len() >= 5, "{}", blocks.len());
    for block in blocks {
        let parsed = Command::new("bash").args(["-n", "-c", &block]).output().unwrap();
        assert!(parsed.status.success(), "{block}\n{parsed:?}");
        for word in block.split_whitespace().filter(|word| word.starts_with("deploy/")) {
            assert!(root(word).exists(), "{word}");
        }
    }
}

#[test]
fn page_on_operating_explains_every_alert() {
    // The table of alerts has one row for each rule, and no other.
    let alerts = super::yaml("deploy/prometheus/alerts.yaml");
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    let rules: Vec<&str> = rules.iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    let page = text(PAGE);
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `UsercomSink"));
    let rows: Vec<String> =
        rows.map(|row| format!("UsercomSink{}", row.split_once('`').unwrap().0)).collect();
    assert_eq!(rows, rules);
}
