//! A pipeline file as a tree in which every value has the byte range where it was written. TOML,
//! JSON and YAML become the same tree.
//!
//! # Invariants
//!
//! Every span is within the text of the file that its node names.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use indexmap::map::Entry as Slot;

use super::fault::{ConfigPath, Fault, Segment, Target};
use super::text::{InterpolatedString, SourceMap};

/// The largest pipeline file read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The format of a pipeline file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.1.
    Toml,
    /// Strict JSON.
    Json,
    /// YAML 1.2, one document.
    Yaml,
}

/// The text of one pipeline file and its name in messages.
#[derive(Debug, Clone)]
pub struct SourceText {
    /// The name shown in messages: the path as the user gave it.
    pub name: String,
    /// The folder from which relative paths in it start. Empty for the working directory.
    pub folder: PathBuf,
    /// Its format.
    pub format: Format,
    /// The whole text.
    pub text: String,
}

impl SourceText {
    /// A text under a name; the name's ending decides the format: `.json`, `.yaml` or `.yml`, and
    /// TOML for every other. A byte order mark at the start is removed.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let name = name.into();
        let text = text.into();
        let ending = Path::new(&name)
            .extension()
            .map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        let format = match ending.as_deref() {
            Some("json") => Format::Json,
            Some("yaml" | "yml") => Format::Yaml,
            _ => Format::Toml,
        };
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        };
        Self { name, folder: PathBuf::new(), format, text }
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// A report with one fault, `E0001`, if the file cannot be read, is not UTF-8, or is larger
    /// than 16 MiB.
    pub fn read(path: &Path) -> Result<Self, super::Report> {
        let name = path.display().to_string();
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
        let why = match read {
            Ok(_) if text.len() as u64 <= MAX_FILE_BYTES => {
                let folder = path.parent().unwrap_or(Path::new("")).to_owned();
                return Ok(Self { folder, ..Self::new(name, text) });
            }
            Ok(_) => "it is larger than 16 MiB".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(super::Report::unplaced("E0001", format!("cannot read {name}: {why}"), None))
    }
}

/// A value and its position.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The index of its file.
    pub(crate) file: usize,
    /// Its bytes in that file.
    pub(crate) span: Range<usize>,
    /// Its kind.
    pub(crate) kind: NodeKind,
}

/// The kind of a node.
#[derive(Debug, Clone)]
pub(crate) enum NodeKind {
    /// Keys and values in file order.
    Table(IndexMap<String, NodeEntry>),
    /// Values.
    Array(Vec<Node>),
    /// A string, before and after interpolation.
    String(InterpolatedString),
    /// An integer in the range of `i64` or `u64`.
    Integer(i128),
    /// A finite number.
    Float(f64),
    /// true or false.
    Bool(bool),
    /// JSON's and YAML's null.
    Null,
}

/// The facts of a sink's account.
const ACCOUNT: &str = "account";

/// A value under a key.
#[derive(Debug, Clone)]
pub(crate) struct NodeEntry {
    /// The bytes of the key in the value's file.
    pub(crate) key_span: Range<usize>,
    /// The value.
    pub(crate) node: Node,
}

impl Node {
    /// An empty table without a position.
    pub(crate) fn empty_table() -> Self {
        Self { file: 0, span: 0..0, kind: NodeKind::Table(IndexMap::new()) }
    }

    /// The value's entries, if it is a table.
    pub(crate) fn table(&self) -> Option<&IndexMap<String, NodeEntry>> {
        match &self.kind {
            NodeKind::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value's entries, if it is a table.
    pub(crate) fn table_mut(&mut self) -> Option<&mut IndexMap<String, NodeEntry>> {
        match &mut self.kind {
            NodeKind::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value under a key, if this is a table that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.table()?.get(key).map(|entry| &entry.node)
    }

    /// The string, if it is one.
    pub(crate) fn text(&self) -> Option<&InterpolatedString> {
        match &self.kind {
            NodeKind::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value at a path.
    pub(crate) fn at(&self, path: &ConfigPath) -> Option<&Node> {
        path.0.iter().try_fold(self, |node, step| node.step(step))
    }

    fn step(&self, step: &Segment) -> Option<&Node> {
        match (step, &self.kind) {
            (Segment::Key(key), NodeKind::Table(entries)) => {
                entries.get(key).map(|entry| &entry.node)
            }
            (Segment::Index(index), NodeKind::Array(items)) => items.get(*index),
            _ => None,
        }
    }

    /// The value at a path, mutably.
    pub(crate) fn at_mut(&mut self, path: &[Segment]) -> Option<&mut Node> {
        path.iter().try_fold(self, |node, step| match (step, &mut node.kind) {
            (Segment::Key(key), NodeKind::Table(entries)) => {
                entries.get_mut(key).map(|entry| &mut entry.node)
            }
            (Segment::Index(index), NodeKind::Array(items)) => items.get_mut(*index),
            _ => None,
        })
    }

    /// Turns a number without a fraction into an integer.
    pub(crate) fn make_whole(&mut self) {
        if let NodeKind::Float(number) = self.kind
            && number.fract() == 0.0
        {
            #[expect(clippy::cast_possible_truncation, reason = "it saturates, far out of range")]
            let whole = number as i128;
            self.kind = NodeKind::Integer(whole);
        }
    }
}

/// Every file of a pipeline and their merged tree.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// The files; nodes name them by index.
    pub(crate) files: Vec<SourceText>,
    /// The root table.
    pub(crate) root: Node,
}

/// Finds the positions of a document's faults. Consecutive faults of one string reuse its offset
/// map.
pub(crate) struct NodeLocations<'a> {
    document: &'a Document,
    last: Option<(*const Node, Option<SourceMap>)>,
}

impl NodeLocations<'_> {
    /// The file and bytes that a fault points at. A path that does not exist points at its nearest
    /// existing parent.
    pub(crate) fn of(&mut self, path: &ConfigPath, target: &Target) -> (usize, Range<usize>) {
        let mut node = &self.document.root;
        let mut key_span = None;
        let mut complete = true;
        for step in &path.0 {
            let Some(next) = node.step(step) else {
                complete = false;
                break;
            };
            key_span = match step {
                Segment::Key(key) => node
                    .table()
                    .and_then(|entries| entries.get(key))
                    .map(|entry| entry.key_span.clone()),
                Segment::Index(_) => None,
            };
            node = next;
        }
        let span = match target {
            Target::Key => key_span.unwrap_or_else(|| node.span.clone()),
            // What is missing in a table is shown at the table's name.
            Target::Value if !complete => key_span.unwrap_or_else(|| node.span.clone()),
            Target::Value => node.span.clone(),
            Target::Part(part) => self.part(node, part).unwrap_or_else(|| node.span.clone()),
        };
        (node.file, span)
    }

    fn part(&mut self, node: &Node, part: &Range<usize>) -> Option<Range<usize>> {
        let text = node.text()?;
        let source = self.document.files.get(node.file)?;
        let raw = source.text.get(node.span.clone())?;
        if self.last.as_ref().is_none_or(|(last, _)| !std::ptr::eq(*last, node)) {
            self.last = Some((node, SourceMap::new(raw, &text.written)));
        }
        let (_, map) = self.last.as_ref()?;
        let within = text.locate(map.as_ref()?, part)?;
        Some(node.span.start + within.start..node.span.start + within.end)
    }
}

impl Document {
    /// The positions of its faults.
    pub(crate) fn places(&self) -> NodeLocations<'_> {
        NodeLocations { document: self, last: None }
    }

    /// Merges the trees of several files: `sources` and `sinks` by name, `tests` appended,
    /// everything else must be in one file only. A later file may set the `account` of a sink, if it
    /// sets nothing else of it: that is what `probe --write` writes.
    pub(crate) fn merge(files: Vec<SourceText>, trees: Vec<Node>) -> (Self, Vec<Duplicate>) {
        let mut duplicates = Vec::new();
        let mut trees = trees.into_iter();
        let mut root = trees.next().unwrap_or_else(Node::empty_table);
        for tree in trees {
            if let (Some(into), NodeKind::Table(from)) = (root.table_mut(), tree.kind) {
                merge_root(into, from, &mut duplicates);
            }
        }
        (Self { files, root }, duplicates)
    }
}

/// A name that a later file repeats. It has no path of its own: the path is that of the first one.
#[derive(Debug)]
pub(crate) struct Duplicate {
    /// The fault at the first one.
    pub(crate) fault: Fault,
    /// The file of the second one.
    pub(crate) file: usize,
    /// The bytes of the second one.
    pub(crate) span: Range<usize>,
}

fn merge_root(
    into: &mut IndexMap<String, NodeEntry>,
    from: IndexMap<String, NodeEntry>,
    duplicates: &mut Vec<Duplicate>,
) {
    for (key, entry) in from {
        let path = ConfigPath::default().key(&key);
        match into.entry(key) {
            Slot::Vacant(slot) => {
                slot.insert(entry);
            }
            Slot::Occupied(mut slot) => {
                let joined = matches!(slot.key().as_str(), "sources" | "sinks" | "tests");
                // Every file may name its schema for editors.
                if slot.key() == "$schema" {
                    continue;
                }
                match (&mut slot.get_mut().node.kind, entry.node.kind) {
                    (NodeKind::Table(old), NodeKind::Table(new)) if joined => {
                        merge_names(old, new, &path, duplicates);
                    }
                    (NodeKind::Array(old), NodeKind::Array(new)) if joined => old.extend(new),
                    _ => duplicates.push(Duplicate::new(
                        path,
                        entry.node.file,
                        entry.key_span,
                        "write it in one file only",
                    )),
                }
            }
        }
    }
}

fn merge_names(
    old: &mut IndexMap<String, NodeEntry>,
    new: IndexMap<String, NodeEntry>,
    path: &ConfigPath,
    duplicates: &mut Vec<Duplicate>,
) {
    for (name, entry) in new {
        match old.entry(name) {
            Slot::Vacant(slot) => {
                slot.insert(entry);
            }
            Slot::Occupied(mut slot) if is_account_only(path, &entry.node) => {
                merge_account(&mut slot.get_mut().node, entry.node);
            }
            Slot::Occupied(slot) => duplicates.push(Duplicate::new(
                path.key(slot.key()),
                entry.node.file,
                entry.key_span,
                "give one of them another name",
            )),
        }
    }
}

/// Whether a node is a sink's table with its `account` and nothing else.
fn is_account_only(section: &ConfigPath, node: &Node) -> bool {
    *section == ConfigPath::default().key("sinks")
        && node.table().is_some_and(|sink| sink.len() == 1 && sink.contains_key(ACCOUNT))
}

/// Puts the `account` of a sink's table into the table of an earlier file, key by key. The later
/// file wins, so that newly written facts replace older ones.
fn merge_account(sink: &mut Node, later: Node) {
    let (Some(sink), NodeKind::Table(later)) = (sink.table_mut(), later.kind) else {
        return;
    };
    for (key, entry) in later {
        match sink.entry(key) {
            Slot::Vacant(slot) => {
                slot.insert(entry);
            }
            Slot::Occupied(mut slot) => {
                // What is no table is a fault of its own.
                if let (Some(known), NodeKind::Table(facts)) =
                    (slot.get_mut().node.table_mut(), entry.node.kind)
                {
                    known.extend(facts);
                }
            }
        }
    }
}

impl Duplicate {
    fn new(path: ConfigPath, file: usize, span: Range<usize>, help: &str) -> Self {
        Self {
            fault: Fault {
                code: "E0003",
                message: format!("`{path}` is already in another file"),
                path,
                target: Target::Key,
                help: Some(help.to_owned()),
            },
            file,
            span,
        }
    }
}
