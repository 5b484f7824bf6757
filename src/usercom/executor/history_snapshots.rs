//! Snapshots of histories, stored while records of their users may have been sent before.
//!
//! Entries are reduced to what a comparison needs, each is counted once however often a page shows
//! it, and the size of all snapshots together is bounded: what is removed is read again.

use std::collections::{BTreeMap, HashMap, HashSet};

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

use super::history_zone::HistoryZone;
use crate::deliver::Request;
use crate::usercom::endpoint::events::{has_zone, moment, written_time};
use crate::usercom::profile_cache::hash;

/// Bytes of entries stored of all histories together, unless one alone is larger: 32 MiB.
const KEPT_BYTES: usize = 32 << 20;

/// Bytes that are counted per entry in addition to its text.
const ENTRY_OVERHEAD: usize = 128;

/// The kind of list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum HistoryKind {
    /// Events.
    Events,
    /// Page views.
    Views,
}

/// The key of a history.
#[derive(Debug, Clone, Copy)]
pub(super) struct HistoryKey<'a> {
    pub(super) kind: HistoryKind,
    /// The user's external id.
    pub(super) user: &'a str,
}

/// One history, as far as it was read.
#[derive(Debug)]
pub(super) struct Snapshot {
    entries: Vec<Value>,
    /// Entries with an id, to recognise those that are shown again.
    shown: HashSet<u64>,
    pub(super) pages: usize,
    pub(super) bytes: usize,
    /// The request for the next page; `None` at the end.
    pub(super) next: Option<Request>,
    /// Pages that were asked for: some servers lead from the last one back to the first.
    asked: HashSet<String>,
    order: HistoryOrder,
    /// The status with which User.com refused to show it.
    pub(super) refused: Option<u16>,
    /// Events that arrived in this run and are not in the snapshot, by fingerprint.
    since: HashMap<u64, u32>,
}

/// The order of the list according to the entries read so far.
#[derive(Debug)]
enum HistoryOrder {
    Unknown,
    /// Each entry is as old as the one before it or older; the time of the last one.
    NewestFirst(i64),
    /// Any other order, also times that cannot be compared.
    Other,
}

impl Snapshot {
    /// A history of which nothing was read yet.
    pub(super) fn unread(first: Request) -> Self {
        Self {
            entries: Vec::new(),
            shown: HashSet::new(),
            pages: 0,
            bytes: 0,
            asked: HashSet::from([first.path.clone()]),
            next: Some(first),
            order: HistoryOrder::Unknown,
            refused: None,
            since: HashMap::new(),
        }
    }

    /// Adds a page. Pages overlap if entries arrived meanwhile.
    pub(super) fn add(&mut self, entries: Vec<Value>) {
        self.pages += 1;
        for entry in entries {
            self.order = self.order.after(&entry);
            let text = entry.to_string();
            // Two equal entries without an id may be two events.
            if entry["id"].is_null() || self.shown.insert(hash(&text)) {
                self.bytes += text.len() + ENTRY_OVERHEAD;
                self.entries.push(reduced(entry));
            }
        }
    }

    /// The next page is this one, unless it was asked for before.
    pub(super) fn continue_with(&mut self, next: Option<Request>) {
        self.next = next.filter(|next| self.asked.insert(next.path.clone()));
    }

    /// In a list that begins with the newest: the oldest time that was read.
    pub(super) fn reaches_back_to(&self) -> Option<i64> {
        match self.order {
            HistoryOrder::NewestFirst(oldest) => Some(oldest),
            HistoryOrder::Unknown | HistoryOrder::Other => None,
        }
    }

    /// How many of this kind arrived in this run after the snapshot was taken.
    pub(super) fn arrived_since(&self, fingerprint: u64) -> u32 {
        self.since.get(&fingerprint).copied().unwrap_or_default()
    }

    /// An entry that is the one to be found, beyond the `known` ones of its kind.
    pub(super) fn find(
        &self,
        known: u32,
        zone: &HistoryZone,
        offset: &(dyn Fn(&Value) -> Option<i64> + Sync),
    ) -> Option<usize> {
        let matches: Vec<(usize, i64)> = self
            .entries
            .iter()
            .enumerate()
            .filter_map(|(n, entry)| Some((n, offset(entry)?)))
            .filter(|(_, offset)| zone.allows(*offset))
            .collect();
        // If one matches to the second, others in other zones are different events.
        let exact = matches.iter().any(|(_, offset)| *offset == 0);
        let mut fitting = matches.iter().filter(|(_, offset)| !exact || *offset == 0);
        let (found, offset) = fitting.nth(usize::try_from(known).unwrap_or(usize::MAX))?;
        zone.learn(*offset);
        Some(*found)
    }

    /// Records that an entry was matched to a record.
    pub(super) fn use_up(&mut self, entry: usize) {
        self.entries.swap_remove(entry);
    }
}

impl HistoryOrder {
    fn after(&self, entry: &Value) -> Self {
        let value = written_time(entry);
        let time = moment(value).filter(|_| has_zone(value)).map(|at| at.as_second());
        match (self, time) {
            (Self::Unknown, Some(time)) => Self::NewestFirst(time),
            (Self::NewestFirst(last), Some(time)) if time <= *last => Self::NewestFirst(time),
            _ => Self::Other,
        }
    }
}

/// What comparisons use.
fn reduced(mut entry: Value) -> Value {
    const COMPARED: [&str; 8] =
        ["name", "event", "timestamp", "created_at", "data", "page_path", "path", "url"];
    if let Some(fields) = entry.as_object_mut() {
        fields.retain(|name, _| COMPARED.contains(&name.as_str()));
    }
    entry
}

/// The stored histories of all users.
#[derive(Debug, Default)]
pub(super) struct Snapshots(Mutex<CachedSnapshots>);

#[derive(Debug, Default)]
struct CachedSnapshots {
    by_place: HashMap<(HistoryKind, Box<str>), (u64, Snapshot)>,
    /// The same in the order of their last use.
    by_use: BTreeMap<u64, (HistoryKind, Box<str>)>,
    uses: u64,
    bytes: usize,
}

impl CachedSnapshots {
    fn remove(&mut self, key: &(HistoryKind, Box<str>)) -> Option<Snapshot> {
        let (used, snapshot) = self.by_place.remove(key)?;
        self.by_use.remove(&used);
        self.bytes -= snapshot.bytes;
        Some(snapshot)
    }
}

impl Snapshots {
    /// Takes a history out. Return it with [`keep`](Self::keep).
    pub(super) fn take(&self, place: HistoryKey<'_>) -> Option<Snapshot> {
        self.kept().remove(&(place.kind, place.user.into()))
    }

    /// Stores a history, and removes those unused for longest if there are too many.
    pub(super) fn keep(&self, place: HistoryKey<'_>, snapshot: Snapshot) {
        let mut kept = self.kept();
        let key = (place.kind, Box::<str>::from(place.user));
        kept.uses += 1;
        let used = kept.uses;
        kept.bytes += snapshot.bytes;
        kept.by_use.insert(used, key.clone());
        kept.by_place.insert(key, (used, snapshot));
        while kept.bytes > KEPT_BYTES && kept.by_place.len() > 1 {
            let Some((_, oldest)) = kept.by_use.first_key_value() else { break };
            let oldest = oldest.clone();
            kept.remove(&oldest);
        }
    }

    /// Records that a record of this kind arrived and is in no snapshot.
    pub(super) fn arrived(&self, place: HistoryKey<'_>, fingerprint: u64) {
        let mut kept = self.kept();
        if let Some((_, snapshot)) = kept.by_place.get_mut(&(place.kind, place.user.into())) {
            *snapshot.since.entry(fingerprint).or_default() += 1;
        }
    }

    /// Removes the histories when the first record comes that cannot have been sent before: all
    /// that may have been sent came before it.
    pub(super) fn forget(&self, place: HistoryKey<'_>) {
        let mut kept = self.kept();
        if !kept.by_place.is_empty() {
            kept.remove(&(place.kind, place.user.into()));
        }
    }

    fn kept(&self) -> MutexGuard<'_, CachedSnapshots> {
        self.0.lock()
    }
}
