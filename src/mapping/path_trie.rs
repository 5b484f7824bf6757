//! The trie of all paths that are read from one value, and their extraction from a text.
//!
//! The scan selects the values of top-level keys. Nested values are expanded when they are read, so
//! a record that no rule matches is scanned only once.
//!
//! # Invariants
//! A slot holds the JSON text of the last value at its path; it is empty if there is none or it is
//! null.

use std::cell::Cell;

use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::json::JsonKind;
use super::path::PathStep;
use super::scan::{self, KeySelector};
use crate::call::{self, FixedKeyMap};

/// The JSON text at a path, if there is any.
pub(super) type Extracted<'r> = Option<&'r str>;

const ROOT: usize = 0;

#[derive(Debug, Default)]
struct TrieNode {
    /// The slot of the value itself, if it has one.
    slot: Option<usize>,
    keys: FixedKeyMap<usize>,
    indices: Vec<(u32, usize)>,
    /// Counted from the end; 1 is the last element.
    from_end: Vec<(u32, usize)>,
    /// Every slot at or below this node.
    below: Vec<usize>,
}

/// When a slot is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// By the scan of the text.
    Eager,
    /// When the value of this node, which has a slot, is expanded.
    Lazy(usize),
}

/// All paths that are read from one value.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<TrieNode>,
    slots: Vec<Fill>,
}

impl Default for Trie {
    fn default() -> Self {
        Self { nodes: vec![TrieNode::default()], slots: Vec::new() }
    }
}

impl Trie {
    /// The slot of a path; equal paths have the same slot.
    pub(super) fn insert(&mut self, steps: &[PathStep]) -> usize {
        let mut at = ROOT;
        let mut nodes = vec![ROOT];
        for step in steps {
            at = self.child(at, step);
            nodes.push(at);
        }
        // The scan selects keys only; an index at the top level needs the whole value.
        if matches!(steps.first(), Some(PathStep::Index(_) | PathStep::FromEnd(_))) {
            self.add_slot(&nodes[..1]);
        }
        if nodes.len() > 2 {
            self.add_slot(&nodes[..2]);
        }
        self.add_slot(&nodes)
    }

    /// The slot of the last of these nodes, which lead from the root to it.
    fn add_slot(&mut self, nodes: &[usize]) -> usize {
        let (at, above) = nodes.split_last().map_or((ROOT, &[][..]), |(at, above)| (*at, above));
        if let Some(slot) = self.nodes[at].slot {
            return slot;
        }
        let slot = self.slots.len();
        let holder = above.iter().rev().find(|node| self.nodes[**node].slot.is_some());
        let filled = holder.map_or(Fill::Eager, |node| Fill::Lazy(*node));
        // Slots below this node that were filled from the same value are now filled from this one.
        for inner in &self.nodes[at].below {
            if self.slots[*inner] == filled {
                self.slots[*inner] = Fill::Lazy(at);
            }
        }
        self.slots.push(filled);
        self.nodes[at].slot = Some(slot);
        for node in nodes {
            self.nodes[*node].below.push(slot);
        }
        slot
    }

    fn child(&mut self, at: usize, step: &PathStep) -> usize {
        let next = self.nodes.len();
        let node = &mut self.nodes[at];
        let found = match step {
            PathStep::Key(key) => {
                let found = node.keys.get(key.as_bytes()).copied();
                if found.is_none() {
                    node.keys.insert(key.as_bytes(), next);
                }
                found
            }
            PathStep::Index(index) => find_or_push(&mut node.indices, *index, next),
            PathStep::FromEnd(index) => find_or_push(&mut node.from_end, *index, next),
        };
        found.unwrap_or_else(|| {
            self.nodes.push(TrieNode::default());
            next
        })
    }

    /// Whether no path is read.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

fn find_or_push(list: &mut Vec<(u32, usize)>, index: u32, next: usize) -> Option<usize> {
    let found = list.iter().find(|(known, _)| *known == index);
    if let Some((_, node)) = found {
        return Some(*node);
    }
    list.push((index, next));
    None
}

/// The values at the paths of a trie in one text.
#[derive(Debug)]
pub(super) struct ExtractedPaths<'t, 'r> {
    trie: &'t Trie,
    text: &'r str,
    /// The range of each value in the text; an empty range for none.
    values: SmallVec<[Cell<(u32, u32)>; 16]>,
    /// Nodes whose values were expanded.
    expanded: Cell<ExpandedNodes>,
}

/// A bit set of expanded nodes, for the first 128 nodes.
#[derive(Debug, Clone, Copy, Default)]
struct ExpandedNodes(u128);

impl ExpandedNodes {
    /// Adds a node; returns whether it was in the set. Nodes from 128 on never are: to expand one
    /// again costs only time.
    fn insert(&mut self, node: usize) -> bool {
        let bit = u32::try_from(node).ok().and_then(|node| 1_u128.checked_shl(node)).unwrap_or(0);
        let known = self.0 & bit != 0;
        self.0 |= bit;
        known
    }
}

impl<'t, 'r> ExtractedPaths<'t, 'r> {
    /// Empty slots for a text that is not scanned yet.
    pub(super) fn new(trie: &'t Trie, text: &'r str) -> Self {
        let values = SmallVec::from_elem(Cell::new((0, 0)), trie.slots.len());
        Self { trie, text, values, expanded: Cell::default() }
    }

    /// Scans the text once. Fails if it is not one JSON value.
    pub(super) fn fill(&self) -> Result<(), serde_json::Error> {
        if u32::try_from(self.text.len()).is_err() {
            return Err(serde::de::Error::custom("longer than 4 GiB"));
        }
        if let Some(slot) = self.trie.nodes[ROOT].slot {
            let whole: &'r RawValue = serde_json::from_str(self.text)?;
            self.set(slot, whole.get());
            return Ok(());
        }
        scan::scan(self.text, &mut &*self).map(drop)
    }

    /// The value of a slot.
    pub(super) fn get(&self, slot: usize) -> Extracted<'r> {
        if let Fill::Lazy(node) = *self.trie.slots.get(slot)? {
            self.open(node);
        }
        let (start, end) = self.values.get(slot)?.get();
        self.text.get(start as usize..end as usize).filter(|raw| !raw.is_empty())
    }

    fn open(&self, node: usize) {
        let mut expanded = self.expanded.get();
        let known = expanded.insert(node);
        self.expanded.set(expanded);
        if known {
            return;
        }
        if let Some(raw) = self.trie.nodes[node].slot.and_then(|slot| self.get(slot)) {
            self.expand(node, raw);
        }
    }

    /// Sets the value of a slot, which is a slice of the text.
    fn set(&self, slot: usize, raw: &'r str) {
        let Some(value) = self.values.get(slot) else {
            return;
        };
        let start = raw.as_ptr().addr().wrapping_sub(self.text.as_ptr().addr());
        let range = (u32::try_from(start), u32::try_from(start.wrapping_add(raw.len())));
        value.set(match range {
            (Ok(start), Ok(end)) if JsonKind::of(raw) != JsonKind::Null => (start, end),
            _ => (0, 0),
        });
    }

    /// Fills the slots below a node from its value.
    fn expand(&self, node: usize, raw: &'r str) {
        let node = &self.trie.nodes[node];
        match JsonKind::of(raw) {
            JsonKind::Object if !node.keys.is_empty() => {
                for (name, value) in call::entries(raw) {
                    if let Some(child) = node.keys.get(name.as_bytes()) {
                        self.take(*child, value);
                    }
                }
            }
            JsonKind::Array if !node.from_end.is_empty() => {
                let elements: Vec<&'r str> = call::elements(raw).collect();
                for (index, child) in &node.indices {
                    self.take_some(*child, elements.get(*index as usize));
                }
                for (index, child) in &node.from_end {
                    let place = elements.len().checked_sub(*index as usize);
                    self.take_some(*child, place.and_then(|place| elements.get(place)));
                }
            }
            JsonKind::Array if !node.indices.is_empty() => {
                for (n, value) in (0_u32..).zip(call::elements(raw)) {
                    if let Some((_, child)) = node.indices.iter().find(|(index, _)| *index == n) {
                        self.take(*child, value);
                    }
                }
            }
            _ => {}
        }
    }

    fn take_some(&self, node: usize, value: Option<&&'r str>) {
        if let Some(value) = value {
            self.take(node, value);
        }
    }

    /// Sets the value of a node that has a slot; expands that of one without.
    fn take(&self, node: usize, value: &'r str) {
        match self.trie.nodes[node].slot {
            Some(slot) => self.set(slot, value),
            None => {
                // Of equal keys the last value counts.
                for slot in &self.trie.nodes[node].below {
                    self.values[*slot].set((0, 0));
                }
                self.expand(node, value);
            }
        }
    }
}

impl<'r> KeySelector<'r> for &ExtractedPaths<'_, 'r> {
    type Key = usize;

    fn key(&self, name: &[u8]) -> Option<usize> {
        let child = self.trie.nodes[ROOT].keys.get(name)?;
        self.trie.nodes[*child].slot
    }

    fn take(&mut self, slot: usize, raw: &'r str) {
        self.set(slot, raw);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::path;

    fn read<'r>(paths: &[&str], text: &'r str) -> Vec<Extracted<'r>> {
        let mut trie = Trie::default();
        let slots: Vec<_> =
            paths.iter().map(|p| trie.insert(&path::parse(p).unwrap().steps)).collect();
        let filled = ExtractedPaths::new(&trie, text);
        filled.fill().unwrap();
        slots.into_iter().map(|slot| filled.get(slot)).collect()
    }

    #[test]
    fn path_and_path_below_it_are_both_extracted() {
        // A path and one below it are both extracted in one scan.
        let got = read(
            &[".user", ".user.id", ".", ".list[-1].x", ".list[0]", ".list[-5]", ".none"],
            r#"{ "user" : {"id":7} , "list":[1,{"x":"y"}]}"#,
        );
        assert_eq!(got[0], Some(r#"{"id":7}"#));
        assert_eq!(got[1], Some("7"));
        assert!(got[2].unwrap().starts_with("{ \"user\""));
        assert_eq!(got[3], Some("\"y\""));
        assert_eq!(got[4], Some("1"));
        assert_eq!(got[5], None);
        assert_eq!(got[6], None);
    }

    #[test]
    fn repeated_key_replaces_values_below_it() {
        // Of equal keys the last value counts, whatever kind the earlier ones had.
        let got = read(&[".a.b", ".a.c"], r#"{"a":{"b":1,"c":2},"\u0061":{"b":null}}"#);
        assert_eq!(got, [None, None]);
        assert_eq!(read(&[".a.b"], r#"{"a":{"b":1},"a":5}"#), [None]);
        assert_eq!(read(&[".a.b"], r#"{"a":5,"a":{"b":1}}"#), [Some("1")]);
    }

    #[test]
    fn scalars_no_parser_accepts_are_skipped() {
        // A number beyond f64 or a lone surrogate where a path expects an object is not an error.
        let text = r#"{"a":1e999,"c":"\ud800","b":{"x":2},"d":[1e999]}"#;
        assert_eq!(read(&[".a.x", ".c.x", ".b.x"], text), [None, None, Some("2")]);
        assert_eq!(read(&[".d[0].x", ".b.x"], text), [None, Some("2")]);
    }

    #[test]
    fn deep_nesting_is_skipped_without_stack() {
        // A hundred thousand nested arrays, next to the path and below it, neither crash nor fail.
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let text = format!(r#"{{"x":{deep},"a":{{"b":1}},"y":{deep}}}"#);
        let got = read(&[".a.b", ".y", ".x[0][0][-1]"], &text);
        assert_eq!(got[0], Some("1"));
        assert_eq!(got[1].map(str::len), Some(200_000));
        assert_eq!(got[2].map(str::len), Some(199_994));
    }

    #[test]
    fn trailing_text_is_an_error() {
        // Text after the value is an error with its position.
        let mut trie = Trie::default();
        trie.insert(&path::parse(".a").unwrap().steps);
        let error = ExtractedPaths::new(&trie, "{\"a\":1} x").fill().unwrap_err().to_string();
        assert!(error.contains("line 1 column 9"), "{error}");
        assert!(ExtractedPaths::new(&Trie::default(), "{} x").fill().is_err());
    }
}
