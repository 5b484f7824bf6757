//! The order in which the generations of each log are read.
//!
//! A content that was begun has its place for ever: the number of its generation. What is not begun
//! comes later, in the order in which it was found; what one search finds is ordered by names and
//! times. The file that is written to comes last until it is begun.
//!
//! # Invariants
//!
//! A file that was begun is never behind one that was not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::desk::Tails;
use super::family::{self, Family};
use super::finder::Found;
use super::identity::FileId;
use super::tail::Tail;

/// The files of each log, oldest first.
pub(super) type Logs = Vec<(Arc<str>, Vec<FileId>)>;

/// Files in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Order {
    ids: Vec<FileId>,
}

/// The place of a file within its log.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// By generation.
    Begun(u64),
    /// By the order in which files were found.
    Rotated(usize),
    /// As `Rotated`: the file that is written to.
    Live(usize),
}

impl Order {
    /// Takes what a search found. A new file comes before the next younger one that is not begun.
    pub(super) fn take(&mut self, found: &[Found], tails: &Tails) {
        let present: HashSet<FileId> = found.iter().map(|found| found.id).collect();
        self.ids.retain(|id| present.contains(id) || tails.contains_key(id));
        let mut known: HashSet<FileId> = self.ids.iter().copied().collect();
        let mut logs: BTreeMap<Arc<str>, Vec<(Family, &Found)>> = BTreeMap::new();
        for found in found {
            let family = Family::of(&found.path);
            logs.entry(Arc::clone(&family.key)).or_default().push((family, found));
        }
        for mut files in logs.into_values() {
            family::sort(&mut files, |(family, found)| family.age(family.is_live, found.changed));
            let mut new = Vec::new();
            for (_, found) in files {
                let is_begun = tails.get(&found.id).is_some_and(|tail| tail.generation().is_some());
                if known.insert(found.id) {
                    new.push(found.id);
                } else if !is_begun && let Some(here) = self.position(found.id) {
                    self.ids.splice(here..here, new.drain(..));
                }
            }
            self.ids.append(&mut new);
        }
    }

    /// The file comes last of those that are not begun.
    pub(super) fn move_to_end(&mut self, id: FileId) {
        self.ids.retain(|other| *other != id);
        self.ids.push(id);
    }

    /// The file comes right before another one.
    pub(super) fn move_before(&mut self, id: FileId, other: FileId) {
        self.ids.retain(|known| *known != id);
        let here = self.position(other).unwrap_or(self.ids.len());
        self.ids.insert(here, id);
    }

    fn position(&self, id: FileId) -> Option<usize> {
        self.ids.iter().position(|other| *other == id)
    }

    /// The files of all logs in their order.
    pub(super) fn logs(&self, tails: &Tails) -> Logs {
        let places: HashMap<FileId, usize> =
            self.ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        let mut logs: BTreeMap<Arc<str>, Vec<(Rank, FileId)>> = BTreeMap::new();
        for (id, tail) in tails {
            let place = places.get(id).copied().unwrap_or(usize::MAX);
            logs.entry(Arc::clone(&tail.family.key)).or_default().push((rank(tail, place), *id));
        }
        let sorted = logs.into_iter().map(|(log, mut files)| {
            files.sort();
            (log, files.into_iter().map(|(_, id)| id).collect())
        });
        sorted.collect()
    }
}

fn rank(tail: &Tail, place: usize) -> Rank {
    match tail.generation() {
        Some(generation) => Rank::Begun(generation),
        None if tail.family.is_live && tail.missing.is_none() => Rank::Live(place),
        None => Rank::Rotated(place),
    }
}
