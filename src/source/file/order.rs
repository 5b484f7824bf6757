//! The order in which the generations of each log are read.
//!
//! A content that was begun keeps its place: the number of its generation. Files that were not
//! begun come later, in the order in which they were found; those of one search are ordered by
//! names and times. The live file comes last until it is begun.
//!
//! # Invariants
//!
//! A file that was begun never comes after one that was not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::family::{self, Family};
use super::file_set::Tailers;
use super::identity::FileId;
use super::scanner::FoundFile;
use super::tailer::FileTailer;

/// The files of each log, oldest first.
pub(super) type LogFiles = Vec<(Arc<str>, Vec<FileId>)>;

/// Files in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct ReadOrder {
    ids: Vec<FileId>,
    /// The index of each file within its log, by names and times, at the last search.
    by_name: HashMap<FileId, usize>,
    /// Files that could not be opened, with their log, and since when.
    unopened: HashMap<FileId, (Family, Instant)>,
}

/// The place of a file within its log.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ReadRank {
    /// By generation.
    Begun(u64),
    /// By the order in which files were found.
    Rotated(usize),
    /// As `Rotated`, for the live file.
    Live(usize),
}

impl ReadOrder {
    /// Takes the result of a search. A new file comes before the next younger one that is not
    /// begun.
    pub(super) fn take(&mut self, found: &[FoundFile], tailers: &Tailers) {
        let present: HashSet<FileId> = found.iter().map(|found| found.id).collect();
        self.ids.retain(|id| present.contains(id) || tailers.contains_key(id));
        let mut known: HashSet<FileId> = self.ids.iter().copied().collect();
        let mut logs: BTreeMap<Arc<str>, Vec<(Family, &FoundFile)>> = BTreeMap::new();
        for found in found {
            let family = Family::of(&found.path);
            logs.entry(Arc::clone(&family.key)).or_default().push((family, found));
        }
        self.by_name.clear();
        for mut files in logs.into_values() {
            family::sort(&mut files, |(family, found)| family.age(family.is_live, found.changed));
            let mut new = Vec::new();
            for (place, (_, found)) in files.into_iter().enumerate() {
                self.by_name.insert(found.id, place);
                let is_begun =
                    tailers.get(&found.id).is_some_and(|tailer| tailer.generation().is_some());
                if known.insert(found.id) {
                    new.push(found.id);
                } else if !is_begun && let Some(here) = self.position(found.id) {
                    self.ids.splice(here..here, new.drain(..));
                }
            }
            self.ids.append(&mut new);
        }
    }

    /// Records which of the new files could not be opened.
    pub(super) fn note_unopened(&mut self, found: &[(FileId, Family)], tailers: &Tailers) {
        let mut before = std::mem::take(&mut self.unopened);
        for (id, family) in found.iter().filter(|(id, _)| !tailers.contains_key(id)) {
            let since = before.remove(id).map_or_else(Instant::now, |(_, since)| since);
            self.unopened.insert(*id, (family.clone(), since));
        }
    }

    /// Whether an older file of its log exists that cannot be opened yet. After `timeout` it is no
    /// longer waited for.
    pub(super) fn is_short(&self, tailer: &FileTailer, timeout: Duration) -> bool {
        let place = |id| self.position(id).unwrap_or(usize::MAX);
        self.unopened.iter().any(|(id, (family, since))| {
            let rank = unbegun(family.is_live, place(*id));
            let is_older = || rank < rank_of(tailer, place(tailer.id()));
            family.key == tailer.family.key && since.elapsed() < timeout && is_older()
        })
    }

    /// A begun file is unidentified again: it comes where its name says, or last where it has none.
    pub(super) fn requeue(&mut self, id: FileId, tailers: &Tailers) {
        self.remove(id);
        let log = tailers.get(&id).map(|tailer| &tailer.family.key);
        let place = self.by_name.get(&id);
        let is_younger = |other: &FileId| {
            let unbegun = tailers.get(other).filter(|tailer| tailer.generation().is_none());
            let same_log = unbegun.is_some_and(|tailer| Some(&tailer.family.key) == log);
            same_log && place.is_some() && self.by_name.get(other) > place
        };
        let here = self.ids.iter().position(is_younger).unwrap_or(self.ids.len());
        self.ids.insert(here, id);
    }

    /// The file is closed; another one may reuse its identity later.
    pub(super) fn remove(&mut self, id: FileId) {
        self.ids.retain(|other| *other != id);
    }

    /// Moves a file directly before another one.
    pub(super) fn move_before(&mut self, id: FileId, other: FileId) {
        self.remove(id);
        let here = self.position(other).unwrap_or(self.ids.len());
        self.ids.insert(here, id);
    }

    fn position(&self, id: FileId) -> Option<usize> {
        self.ids.iter().position(|other| *other == id)
    }

    /// The files of all logs in their order.
    pub(super) fn logs(&self, tailers: &Tailers) -> LogFiles {
        let places: HashMap<FileId, usize> =
            self.ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        let mut logs: BTreeMap<Arc<str>, Vec<(ReadRank, FileId)>> = BTreeMap::new();
        for (id, tailer) in tailers {
            let place = places.get(id).copied().unwrap_or(usize::MAX);
            logs.entry(Arc::clone(&tailer.family.key))
                .or_default()
                .push((rank_of(tailer, place), *id));
        }
        let sorted = logs.into_iter().map(|(log, mut files)| {
            files.sort();
            (log, files.into_iter().map(|(_, id)| id).collect())
        });
        sorted.collect()
    }
}

fn rank_of(tailer: &FileTailer, place: usize) -> ReadRank {
    match tailer.generation() {
        Some(generation) => ReadRank::Begun(generation),
        None => unbegun(tailer.family.is_live && tailer.missing.is_none(), place),
    }
}

fn unbegun(is_live: bool, place: usize) -> ReadRank {
    match is_live {
        true => ReadRank::Live(place),
        false => ReadRank::Rotated(place),
    }
}
