//! Every command in the README and in `docs/` runs, every output shown there is real, and the pages
//! agree with the code.
//!
//! A block of the language `sh` is run. A block of the language `shell` is shown only; its first line
//! is a comment that says what it needs. A block of the language `console` is one command with its
//! output. A block of the language `toml` is a whole pipeline file. Blocks of the language `bash`, in
//! docs/operating.md, are one session, which `deploy::walk` runs.

mod code;
mod links;
mod metrics;
mod settings;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use regex::Regex;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PORT: &str = "127.0.0.1:8765";
/// The length of the README that a newcomer reads to its end.
const MAX_README_BYTES: usize = 10 << 10;

/// A page of the documentation, read when the test runs.
struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn read(name: &str) -> Self {
        let path = Path::new(ROOT).join(name);
        let text = fs::read_to_string(&path).unwrap();
        Self { path, text }
    }
}

/// The pages in the root, and all of `docs/`.
fn pages() -> Vec<Page> {
    let mut names: Vec<String> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned).into();
    for entry in fs::read_dir(Path::new(ROOT).join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_some_and(|ending| ending == "md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    names.iter().map(|name| Page::read(name)).collect()
}

/// What the fenced blocks of a language hold, on all pages.
fn blocks(language: &str) -> Vec<String> {
    let mut found = Vec::new();
    for page in pages() {
        let mut lines = page.text.lines();
        while let Some(line) = lines.next() {
            if let Some(opened) = line.strip_prefix("```") {
                let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                if opened == language {
                    found.push(block.join("\n") + "\n");
                }
            }
        }
    }
    found
}

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

/// Where a reader would be: a checkout, with the program installed.
struct Checkout {
    dir: tempfile::TempDir,
    port: String,
}

impl Checkout {
    fn new() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let checkout = Self { dir: tempfile::tempdir().unwrap(), port: free };
        let dir = checkout.dir.path();
        fs::create_dir(dir.join("examples")).unwrap();
        for entry in fs::read_dir(Path::new(ROOT).join("examples")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let text = fs::read_to_string(&path).unwrap().replace(PORT, &checkout.port);
                fs::write(dir.join("examples").join(path.file_name().unwrap()), text).unwrap();
            }
        }
        let broken = include_str!("broken.toml");
        fs::write(dir.join("broken.toml"), broken).unwrap();
        checkout.install();
        checkout
    }

    /// Puts the built program on the path, and a `cargo` that runs it. A test cannot run the tests,
    /// nor build: for these `cargo` only looks whether what it is asked for is there.
    fn install(&self) {
        let bin = self.dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let program = env!("CARGO_BIN_EXE_usercom-sink");
        std::os::unix::fs::symlink(program, bin.join("usercom-sink")).unwrap();
        let script = format!(
            r#"#!/bin/sh
case "$1 $2" in
  "run --release") shift 3; exec usercom-sink "$@" ;;
  "run --example") test -f "{ROOT}/examples/$3.rs" ;;
  "bench --bench") test -f "{ROOT}/benches/$3.rs" || test -f "{ROOT}/benches/$3/main.rs" ;;
  "test "*) ;;
  *) echo "no such cargo command: $*" >&2; exit 1 ;;
esac
"#
        );
        fs::write(bin.join("cargo"), script).unwrap();
        fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs a script as a reader's shell would, and ends what it left in the background.
    fn run(&self, script: &str) -> Output {
        let script = script.replace(PORT, &self.port);
        let whole = format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\nset -e\n{script}");
        let path = std::env::var("PATH").unwrap();
        Command::new("bash")
            .args(["-c", &whole])
            .current_dir(self.dir.path())
            .env("PATH", format!("{}:{path}", self.dir.path().join("bin").display()))
            .env_remove("RUST_LOG")
            .output()
            .unwrap()
    }
}

#[test]
fn readme_is_short() {
    // The README has at most 10 KB; the rest is in `docs/`.
    let size = Page::read("README.md").text.len();
    assert!(size <= MAX_README_BYTES, "README.md has {size} bytes");
}

#[test]
fn readme_lists_every_command() {
    // Each command of `--help` has a row in the README's table.
    let output = Checkout::new().run("usercom-sink --help");
    let help = String::from_utf8(output.stdout).unwrap();
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands: Vec<&str> =
        commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert!(commands.len() >= 8, "{help}");
    let page = Page::read("README.md").text;
    let listed: BTreeSet<String> = rows(&page)
        .filter_map(|row| Some(row[0].strip_prefix('`')?.split([' ', '`']).next()?.to_owned()))
        .collect();
    for command in commands.into_iter().filter(|command| !["", "help"].contains(command)) {
        assert!(listed.contains(command), "README.md has no row for `{command}`");
    }
}

#[test]
fn every_command_runs() {
    // Each block of commands ends with success in a fresh checkout.
    let blocks = blocks("sh");
    assert!(blocks.len() >= 5, "{blocks:?}");
    for block in blocks {
        let output = Checkout::new().run(&block);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{stderr}");
    }
}

#[test]
fn shown_output_is_real() {
    // A command that is shown with its output prints that output.
    let blocks = blocks("console");
    assert!(blocks.len() >= 2, "{blocks:?}");
    for block in blocks {
        let (command, shown) = block.split_once('\n').unwrap();
        let command = command.strip_prefix("$ ").expect("a command first");
        let output = Checkout::new().run(command);
        let printed = [output.stdout, output.stderr].concat();
        assert_eq!(String::from_utf8(printed).unwrap().trim_end(), shown.trim_end(), "{command}");
    }
}

#[test]
fn block_that_is_not_run_says_what_it_needs() {
    // A block that no test runs names what is missing here.
    for block in blocks("shell") {
        assert!(block.starts_with("# needs "), "{block}");
    }
}

#[test]
fn output_of_demo_in_the_quick_start_is_real() {
    // The quick start shows what `demo` prints, but for the time it takes.
    let shown = blocks("text").into_iter().find(|block| block.starts_with("sink crm, ")).unwrap();
    let output = Checkout::new().run("cargo run --release -- demo");
    let printed = String::from_utf8(output.stdout).unwrap();
    let without_time = |text: &str| text.split_once('\n').unwrap().1.trim_end().to_owned();
    assert!(printed.starts_with("sink crm, "), "{printed}");
    assert_eq!(without_time(&printed), without_time(&shown));
}

#[test]
fn the_pipelines_shown_pass_their_own_tests() {
    // The pipelines shown have no fault, and their tests pass.
    let blocks = blocks("toml");
    assert!(blocks.len() >= 2, "{blocks:?}");
    for block in blocks {
        let absent_kinds = [
            ("fluvio", cfg!(feature = "fluvio")),
            ("kafka", cfg!(feature = "kafka")),
            ("vector", cfg!(feature = "vector")),
        ];
        let absent =
            |(kind, here): (&str, bool)| !here && block.contains(&format!("type = \"{kind}\""));
        if absent_kinds.into_iter().any(absent) {
            continue;
        }
        let checkout = Checkout::new();
        fs::write(checkout.dir.path().join("pipeline.toml"), &block).unwrap();
        let mut script = "export USERCOM_API_KEY=key\n\
            usercom-sink validate --no-environment -c pipeline.toml\n"
            .to_owned();
        if block.contains("[[tests]]") {
            script += "usercom-sink test -c pipeline.toml\n";
        }
        let output = checkout.run(&script);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{told}");
    }
}
