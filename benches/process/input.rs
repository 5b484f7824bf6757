//! What is fed in: files of records made from the mix, as long as wanted.
//!
//! The mix is repeated with new message ids, so that nothing counts as sent before, and with as
//! many users as asked for. Invariant: the same file for the same wish.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::mix;

/// Where inputs, stores and pipeline files go; removed at the end.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    /// Where the records come from, for the report.
    pub(crate) source: &'static str,
    mix: Vec<String>,
}

/// Whose records they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Users {
    /// Those of the mix, a new set of them for each repetition.
    ByTheMix,
    /// Each record a user of its own.
    OneEach,
}

/// A file of records.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// How many lines it has.
    pub(crate) lines: usize,
    /// How long it is.
    pub(crate) bytes: usize,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let (source, text) = mix::records();
        let mix = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        let dir = tempfile::Builder::new().prefix("usercom-sink-bench-").tempdir();
        Self { dir: dir.expect("the temporary directory can be written"), source, mix }
    }

    /// A path in the bench's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the mix over and over until there are so many lines.
    pub(crate) fn input(&self, name: &str, lines: usize, users: Users) -> Input {
        let all: Vec<&str> = self.mix.iter().map(String::as_str).collect();
        self.write(name, &all, lines, users)
    }

    /// The same with records of these types only.
    pub(crate) fn input_of(&self, name: &str, types: &[&str], lines: usize) -> Input {
        let wanted =
            |line: &&str| types.iter().any(|t| line.contains(&format!("\"type\":\"{t}\"")));
        let some: Vec<&str> = self.mix.iter().map(String::as_str).filter(wanted).collect();
        self.write(name, &some, lines, Users::OneEach)
    }

    fn write(&self, name: &str, mix: &[&str], lines: usize, users: Users) -> Input {
        let path = self.path(name);
        let file = File::create(&path).expect("the temporary directory can be written");
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let mut bytes = 0;
        let mut line = String::new();
        for n in 0..lines {
            let salt = match users {
                Users::ByTheMix => n / mix.len(),
                Users::OneEach => n,
            };
            line.clear();
            salted(mix[n % mix.len()], n, salt, &mut line);
            out.write_all(line.as_bytes()).expect("there is room for the input");
            bytes += line.len();
        }
        out.flush().expect("there is room for the input");
        Input { path, lines, bytes }
    }

    /// Writes a pipeline file that reads an input into User.com at `base`, with a store of its own
    /// that is new. Returns its path.
    pub(crate) fn pipeline(&self, input: &Path, base: &str, sink: &str) -> Pipeline {
        let store = self.path("store");
        if store.exists() {
            std::fs::remove_dir_all(&store).expect("the last store is ours to remove");
        }
        let text = format!(
            "data_dir = {store:?}\n\
             [sources.file]\ntype = \"file\"\ninclude = [{input:?}]\nread_from = \"beginning\"\n\
             decoding.codec = \"json\"\n\
             [sinks.crm]\ntype = \"usercom\"\ninputs = [\"file\"]\nendpoint = {base:?}\n\
             api_key = \"bench\"\n{sink}\n"
        );
        let path = self.path("pipeline.toml");
        std::fs::write(&path, text).expect("the temporary directory can be written");
        Pipeline { path, store }
    }
}

/// A pipeline file and its store.
pub(crate) struct Pipeline {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its `data_dir`.
    pub(crate) store: PathBuf,
}

impl Pipeline {
    /// What the store takes on disk, in bytes.
    pub(crate) fn stored(&self) -> u64 {
        let files = std::fs::read_dir(&self.store).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }
}

/// A line with its message id made new, and its users' ids too.
fn salted(line: &str, message: usize, user: usize, out: &mut String) {
    let mut rest = line;
    while let Some(at) = rest.find("Id\":\"") {
        let (before, after) = rest.split_at(at + "Id\":\"".len());
        out.push_str(before);
        let name = before.trim_end_matches("Id\":\"").rsplit('"').next().unwrap_or_default();
        match name {
            "message" => push_number(out, message),
            "user" | "anonymous" => push_number(out, user),
            _ => {}
        }
        rest = after;
    }
    out.push_str(rest);
    out.push('\n');
}

fn push_number(out: &mut String, n: usize) {
    out.push_str(&n.to_string());
    out.push('-');
}
