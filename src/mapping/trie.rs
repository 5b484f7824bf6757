//! The trie of all paths that are read from one value, and the one pass that fills a numbered slot
//! for each.
//!
//! Not here: what is done with a slot. Invariant: a slot holds the trimmed JSON text of the last
//! value its path leads to, and nothing where there is none or it is null.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::json::Kind;
use super::path::Step;

/// What a path leads to: JSON text, or nothing.
pub(super) type Slot<'r> = Option<&'r str>;

/// The slots of one pass.
pub(super) type Slots<'r> = SmallVec<[Slot<'r>; 24]>;

#[derive(Debug, Default)]
struct Node {
    /// Where the value itself goes, if a path ends here.
    slot: Option<usize>,
    keys: Vec<(Box<[u8]>, usize)>,
    indices: Vec<(u32, usize)>,
    /// Counted from the end; 1 is the last element.
    from_end: Vec<(u32, usize)>,
    /// Every slot at or below this node: what a repeated key empties.
    below: Vec<usize>,
}

impl Node {
    fn has_children(&self) -> bool {
        !(self.keys.is_empty() && self.indices.is_empty() && self.from_end.is_empty())
    }

    fn key(&self, key: &[u8]) -> Option<usize> {
        if self.keys.len() <= 12 {
            let found = self.keys.iter().find(|(known, _)| **known == *key);
            return found.map(|(_, node)| *node);
        }
        let found = self.keys.binary_search_by(|(known, _)| (**known).cmp(key));
        found.ok().map(|n| self.keys[n].1)
    }
}

/// All paths read from one kind of value.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    slots: usize,
}

impl Default for Trie {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], slots: 0 }
    }
}

impl Trie {
    /// The slot of a path; the same path always gets the same one.
    pub(super) fn insert(&mut self, steps: &[Step]) -> usize {
        let mut at = 0;
        let mut way = vec![0];
        for step in steps {
            at = self.child(at, step);
            way.push(at);
        }
        if let Some(slot) = self.nodes[at].slot {
            return slot;
        }
        let slot = self.slots;
        self.slots += 1;
        self.nodes[at].slot = Some(slot);
        for node in way {
            self.nodes[node].below.push(slot);
        }
        slot
    }

    fn child(&mut self, at: usize, step: &Step) -> usize {
        let next = self.nodes.len();
        let node = &mut self.nodes[at];
        let found = match step {
            Step::Key(key) => {
                match node.keys.binary_search_by(|(k, _)| (**k).cmp(key.as_bytes())) {
                    Ok(n) => Some(node.keys[n].1),
                    Err(n) => {
                        node.keys.insert(n, (key.as_bytes().into(), next));
                        None
                    }
                }
            }
            Step::Index(index) => find_or_push(&mut node.indices, *index, next),
            Step::FromEnd(index) => find_or_push(&mut node.from_end, *index, next),
        };
        found.unwrap_or_else(|| {
            self.nodes.push(Node::default());
            next
        })
    }

    /// Whether no path is read at all.
    pub(super) fn is_empty(&self) -> bool {
        self.slots == 0
    }

    /// Walks a text once and fills the slots. Fails where the text is not one JSON value.
    pub(super) fn fill<'r>(&self, text: &'r str) -> Result<Slots<'r>, serde_json::Error> {
        let mut slots = Slots::from_elem(None, self.slots);
        if self.pass(text, &mut slots, Care::Fast).is_ok() {
            return Ok(slots);
        }
        // The fast pass reads scalars where it hopes for objects, and refuses numbers beyond f64
        // and half surrogate pairs there, which are valid JSON. The careful pass only skips them.
        slots.fill(None);
        self.pass(text, &mut slots, Care::Careful)?;
        Ok(slots)
    }

    fn pass<'r>(
        &self,
        text: &'r str,
        slots: &mut [Slot<'r>],
        care: Care,
    ) -> Result<(), serde_json::Error> {
        let mut de = serde_json::Deserializer::from_str(text);
        if self.is_empty() {
            serde::de::Deserialize::deserialize(&mut de).map(|_: IgnoredAny| ())?;
        } else {
            let walk = Walk { trie: self, node: 0, slots, care };
            walk.deserialize(&mut de)?;
        }
        de.end()
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    Fast,
    Careful,
}

/// The pass, standing at one value.
struct Walk<'t, 's, 'r> {
    trie: &'t Trie,
    node: usize,
    slots: &'s mut [Slot<'r>],
    care: Care,
}

impl<'t, 'r> Walk<'t, '_, 'r> {
    fn node(&self) -> &'t Node {
        &self.trie.nodes[self.node]
    }

    fn at(&mut self, node: usize) -> Walk<'t, '_, 'r> {
        Walk { trie: self.trie, node, slots: self.slots, care: self.care }
    }

    /// Takes a value that was skipped as a whole, then looks inside it if paths lead there.
    fn take(self, raw: &'r str) -> Result<(), serde_json::Error> {
        let node = self.node();
        let kind = Kind::of(raw);
        if let (Some(slot), true) = (node.slot, kind != Kind::Null) {
            self.slots[slot] = Some(raw);
        }
        if node.has_children() && matches!(kind, Kind::Object | Kind::Array) {
            let mut de = serde_json::Deserializer::from_str(raw);
            serde::Deserializer::deserialize_any(&mut de, self)?;
        }
        Ok(())
    }
}

impl<'r> DeserializeSeed<'r> for Walk<'_, '_, 'r> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'r>>(self, d: D) -> Result<(), D::Error> {
        let node = self.node();
        if node.slot.is_none() && self.care == Care::Fast {
            return d.deserialize_any(self);
        }
        let raw = <&'r RawValue as serde::Deserialize>::deserialize(d)?;
        self.take(raw.get()).map_err(D::Error::custom)
    }
}

impl<'r> Visitor<'r> for Walk<'_, '_, 'r> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'r>>(mut self, mut map: A) -> Result<(), A::Error> {
        let node = self.node();
        while let Some(child) = map.next_key_seed(ChildOf(node))? {
            let Some(child) = child else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            for slot in &self.trie.nodes[child].below {
                self.slots[*slot] = None;
            }
            map.next_value_seed(self.at(child))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'r>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let node = self.node();
        if !node.from_end.is_empty() {
            return self.visit_whole_seq(seq);
        }
        for index in 0_u32.. {
            let child = node.indices.iter().find(|(known, _)| *known == index);
            let more = match child {
                Some((_, child)) => seq.next_element_seed(self.at(*child))?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

impl<'r> Walk<'_, '_, 'r> {
    /// An array some of whose elements are counted from the end: its length is known only behind
    /// the last one.
    fn visit_whole_seq<A: SeqAccess<'r>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let node = self.node();
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element::<&'r RawValue>()? {
            elements.push(element.get());
        }
        let first = node.indices.iter().map(|(i, child)| (Some(*i as usize), *child));
        let last = node
            .from_end
            .iter()
            .map(|(i, child)| (elements.len().checked_sub(*i as usize), *child));
        for (place, child) in first.chain(last) {
            if let Some(raw) = place.and_then(|place| elements.get(place)) {
                self.at(child).take(raw).map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }
}

/// Reads a key and finds the child it leads to.
struct ChildOf<'t>(&'t Node);

impl<'r> DeserializeSeed<'r> for ChildOf<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'r>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_bytes(self)
    }
}

impl Visitor<'_> for ChildOf<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.key(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::path;

    fn read<'r>(paths: &[&str], text: &'r str) -> Vec<Slot<'r>> {
        let mut trie = Trie::default();
        let slots: Vec<_> =
            paths.iter().map(|p| trie.insert(&path::parse(p).unwrap().steps)).collect();
        let filled = trie.fill(text).unwrap();
        slots.into_iter().map(|slot| filled[slot]).collect()
    }

    #[test]
    fn parents_and_children_both() {
        // A path and one below it are both filled from one pass.
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
    fn a_repeated_key_empties_what_lay_below() {
        // The last of equal keys counts, whatever shape the earlier ones had.
        let got = read(&[".a.b", ".a.c"], r#"{"a":{"b":1,"c":2},"\u0061":{"b":null}}"#);
        assert_eq!(got, [None, None]);
        assert_eq!(read(&[".a.b"], r#"{"a":{"b":1},"a":5}"#), [None]);
        assert_eq!(read(&[".a.b"], r#"{"a":5,"a":{"b":1}}"#), [Some("1")]);
    }

    #[test]
    fn odd_scalars_on_the_way_are_skipped() {
        // A number beyond f64 or half a surrogate pair where a path hopes for an object is no fault.
        let text = r#"{"a":1e999,"c":"\ud800","b":{"x":2},"d":[1e999]}"#;
        assert_eq!(read(&[".a.x", ".c.x", ".b.x"], text), [None, None, Some("2")]);
        assert_eq!(read(&[".d[0].x", ".b.x"], text), [None, Some("2")]);
    }

    #[test]
    fn deep_nesting_is_skipped_without_stack() {
        // A hundred thousand nested arrays, beside the path and below it, neither crash nor fail.
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let text = format!(r#"{{"x":{deep},"a":{{"b":1}},"y":{deep}}}"#);
        let got = read(&[".a.b", ".y", ".x[0][0][-1]"], &text);
        assert_eq!(got[0], Some("1"));
        assert_eq!(got[1].map(str::len), Some(200_000));
        assert_eq!(got[2].map(str::len), Some(199_994));
    }

    #[test]
    fn trailing_garbage_fails() {
        // Text behind the value is a fault with its place, in either pass.
        let mut trie = Trie::default();
        trie.insert(&path::parse(".a").unwrap().steps);
        let error = trie.fill("{\"a\":1} x").unwrap_err().to_string();
        assert!(error.contains("line 1 column 9"), "{error}");
        assert!(Trie::default().fill("{} x").is_err());
    }
}
