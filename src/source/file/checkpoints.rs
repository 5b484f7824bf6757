//! Stores the checkpoints of a file source: a row per file, and the number of the next generation.
//!
//! The row of a truncated file is kept under a key of its own, as long as a copy of its old content
//! may appear.
//!
//! # Invariants
//!
//! A generation's number is saved before the first record of that generation is sent, and is never
//! reused, so that the position of a record always means the same bytes, even where an inode is
//! reused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::claim::ClaimedRange;
use super::content::{ContentMark, ContentVersion};
use super::family::Family;
use super::identity::{FileHead, FileId, HeadFingerprint};
use crate::source::offset_tracker::StreamPosition;
use crate::source::{SharedCheckpoints, SourceError};

/// The key of the row with the next generation's number; the key of a file always contains a colon.
pub(super) const GENERATION_KEY: &str = "generation";

/// How long the row of a missing file is kept, in seconds: it may return, for example from a
/// backup.
const MISSING_ROW_SECS: i64 = 30 * 24 * 3600;
/// The most rows of missing files; beyond it, those that are missing longest are removed.
const MAX_MISSING_ROWS: usize = 10_000;
/// The most earlier lengths that are kept of one content.
const MAX_VERSIONS: usize = 24;

/// Rows to save; `None` removes one.
pub(super) type Rows = Vec<(FileId, Option<FileCheckpoint>)>;

/// The checkpoint of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileCheckpoint {
    pub(super) generation: u64,
    /// Everything before it is settled.
    pub(super) position: u64,
    /// Lines before the position, where they were counted.
    pub(super) lines: Option<u64>,
    pub(super) head: HeadFingerprint,
    /// For people only; files are found by identity.
    pub(super) path: String,
    /// When the file was first missing, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) left: Option<i64>,
    /// The device and inode in the `stream_id` of its records, where they were first read from
    /// another file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<FileId>,
    /// Whether another file yields the records of its content.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) copy: bool,
    /// The digest of what was read, settled or not. Rows of versions before 0.2 lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<ContentMark>,
    /// Its earlier lengths at which it was read to its end, with their digests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) versions: Vec<ContentVersion>,
    /// What may have been sent after the position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) claims: Vec<ClaimedRange>,
    /// The size of a compressed file that was read to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) packed: Option<u64>,
}

impl FileCheckpoint {
    /// Whether reading began but nothing was read, so that it does not identify any content.
    pub(super) fn has_read_nothing(&self) -> bool {
        let nothing = self.content.as_ref().is_some_and(|content| content.length == 0);
        nothing && self.position == 0 && self.claims.is_empty()
    }

    /// How far its content was read: the settled position, the end of its claims, the known length.
    pub(super) fn reach(&self) -> (u64, u64, u64) {
        let claimed = self.claims.last().map_or(0, |claim| claim.end);
        let length = self.content.as_ref().map_or(0, |content| content.length);
        (self.position, claimed, length)
    }

    pub(super) fn mark(&self) -> StreamPosition {
        StreamPosition { position: self.position, lines: self.lines }
    }

    /// Every known length of the content with its digest, the shortest first.
    pub(super) fn lengths(&self) -> impl Iterator<Item = (u64, &str)> {
        let versions = self.versions.iter().map(|v| (v.length, v.sha256.as_str()));
        let last = self.content.as_ref().map(|mark| (mark.length, mark.sha256.as_str()));
        versions.chain(last)
    }

    /// Records that the content was read to its end at this length.
    pub(super) fn add_version(versions: &mut Vec<ContentVersion>, mark: &ContentMark) {
        if mark.length == 0 || versions.last().is_some_and(|last| last.length >= mark.length) {
            return;
        }
        versions.push(ContentVersion { length: mark.length, sha256: mark.sha256.clone() });
        if versions.len() > MAX_VERSIONS {
            // Every second entry of the older half is removed: a backup most likely has a recent
            // length.
            let mut index = 0;
            versions.retain(|_| {
                index += 1;
                index > MAX_VERSIONS / 2 || index % 2 == 0
            });
        }
    }
}

/// The rows as they are saved.
pub(super) struct CheckpointStore {
    source: Arc<str>,
    checkpoints: SharedCheckpoints,
    rows: BTreeMap<FileId, FileCheckpoint>,
    /// Files whose rows differ from the saved ones.
    staged: BTreeSet<FileId>,
    next_generation: u64,
    /// `next_generation` as it is saved.
    saved_generation: u64,
    /// The files by the fingerprint of their beginning.
    beginnings: BTreeMap<HeadFingerprint, BTreeSet<FileId>>,
    /// The files by the log that their path belongs to.
    logs: BTreeMap<Arc<str>, BTreeSet<FileId>>,
    /// The files by the generation of their rows.
    generations: BTreeMap<u64, BTreeSet<FileId>>,
}

impl CheckpointStore {
    pub(super) async fn load(
        source: Arc<str>,
        checkpoints: SharedCheckpoints,
    ) -> Result<Self, SourceError> {
        let mut store = Self {
            source,
            checkpoints,
            rows: BTreeMap::new(),
            staged: BTreeSet::new(),
            next_generation: 0,
            saved_generation: 0,
            beginnings: BTreeMap::new(),
            logs: BTreeMap::new(),
            generations: BTreeMap::new(),
        };
        for (key, value) in store.checkpoints.load(&store.source).await? {
            store.take(&key, &value).map_err(|why| SourceError::Checkpoints {
                source_name: store.source.to_string(),
                why: format!("the row {key:?} cannot be read: {why}"),
            })?;
        }
        store.saved_generation = store.next_generation;
        // A number must not be reused where the counter was lost.
        let used = store.rows.values().map(|row| row.generation + 1).max();
        store.next_generation = store.next_generation.max(used.unwrap_or(0));
        Ok(store)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        if key == GENERATION_KEY {
            self.next_generation =
                value.parse().map_err(|_| format!("{value:?} is not a number"))?;
        } else {
            let mut row: FileCheckpoint = serde_json::from_str(value).map_err(|e| e.to_string())?;
            // The fingerprint of a short content covers all of it.
            if row.content.is_none() && row.position == row.head.length() {
                row.content = Some(row.head.content());
            }
            self.insert(key.parse()?, row);
        }
        Ok(())
    }

    fn insert(&mut self, id: FileId, row: FileCheckpoint) {
        let before = self.rows.get(&id);
        let as_before = before.is_some_and(|before| {
            before.head == row.head
                && before.path == row.path
                && before.generation == row.generation
        });
        if !as_before {
            self.remove(id);
            self.generations.entry(row.generation).or_default().insert(id);
            self.beginnings.entry(row.head.clone()).or_default().insert(id);
            let log = Family::of(row.path.as_ref()).key;
            self.logs.entry(log).or_default().insert(id);
        }
        self.rows.insert(id, row);
    }

    fn remove(&mut self, id: FileId) {
        let Some(row) = self.rows.remove(&id) else {
            return;
        };
        take_out(&mut self.generations, &row.generation, id);
        take_out(&mut self.beginnings, &row.head, id);
        take_out(&mut self.logs, &Family::of(row.path.as_ref()).key, id);
    }

    pub(super) fn row(&self, id: FileId) -> Option<&FileCheckpoint> {
        self.rows.get(&id)
    }

    /// The files whose rows may be of a content with this beginning.
    pub(super) fn alike(&self, head: &FileHead) -> Vec<FileId> {
        let lengths: BTreeSet<u64> = self.beginnings.keys().map(HeadFingerprint::length).collect();
        let known = lengths.into_iter().filter_map(|length| head.fingerprint_of(length));
        known.filter_map(|print| self.beginnings.get(&print)).flatten().copied().collect()
    }

    /// The files of a log whose rows know a longer beginning than this.
    pub(super) fn longer_than<'a>(
        &'a self,
        head: &'a FileHead,
        family: &Family,
    ) -> impl Iterator<Item = FileId> + 'a {
        let ids = self.logs.get(&family.key).into_iter().flatten().copied();
        ids.filter(|id| self.row(*id).is_some_and(|row| row.head.length() > head.length()))
    }

    /// The files whose rows are of this generation.
    pub(super) fn of_generation(
        &self,
        generation: u64,
    ) -> impl Iterator<Item = (FileId, &FileCheckpoint)> {
        let ids = self.generations.get(&generation).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.rows.get(id)?)))
    }

    /// Rows of the same generation in other files that were read further, the furthest first. This
    /// file may have reused the identity of a removed one.
    pub(super) fn further(&self, id: FileId) -> Vec<FileCheckpoint> {
        let Some(row) = self.row(id) else {
            return Vec::new();
        };
        let rows = self.of_generation(row.generation);
        let mut further: Vec<FileCheckpoint> = rows
            .filter(|(_, other)| other.reach() > row.reach())
            .map(|(other, found)| FileCheckpoint {
                origin: found.origin.or(Some(other)),
                left: None,
                ..found.clone()
            })
            .collect();
        further.sort_by_key(|row| std::cmp::Reverse(row.reach()));
        further
    }

    /// A number that no generation had before. Save it before its first record is sent.
    pub(super) fn new_generation(&mut self) -> u64 {
        self.next_generation += 1;
        self.next_generation - 1
    }

    /// Marks the rows of missing files, `now` in seconds since 1970, and returns the rows to save:
    /// those that are missing too long are removed.
    pub(super) fn sweep(
        &self,
        found: impl Fn(FileId) -> bool,
        now: i64,
    ) -> Vec<(FileId, Option<FileCheckpoint>)> {
        let mut missing: Vec<_> = self.rows.iter().filter(|(id, _)| !found(**id)).collect();
        missing.sort_by_key(|(_, row)| std::cmp::Reverse(row.left.unwrap_or(now)));
        let rows = missing.into_iter().enumerate();
        rows.map(|(n, (id, row))| match row.left {
            Some(left) if n >= MAX_MISSING_ROWS || now.saturating_sub(left) > MISSING_ROW_SECS => {
                (*id, None)
            }
            left => (*id, Some(FileCheckpoint { left: left.or(Some(now)), ..row.clone() })),
        })
        .collect()
    }

    /// Takes rows that are saved together with the next ones.
    pub(super) fn stage(&mut self, rows: Vec<(FileId, Option<FileCheckpoint>)>) {
        for (id, row) in rows {
            if self.rows.get(&id) != row.as_ref() {
                self.set(id, row);
                self.staged.insert(id);
            }
        }
    }

    /// Saves what changed.
    pub(super) async fn save(
        &mut self,
        rows: Vec<(FileId, Option<FileCheckpoint>)>,
    ) -> Result<(), SourceError> {
        let mut changed: BTreeMap<FileId, Option<FileCheckpoint>> =
            self.staged.iter().map(|id| (*id, self.rows.get(id).cloned())).collect();
        let differs = |(id, row): &(FileId, Option<FileCheckpoint>)| {
            self.staged.contains(id) || self.rows.get(id) != row.as_ref()
        };
        changed.extend(rows.into_iter().filter(differs));
        let mut changes = Vec::new();
        if self.saved_generation != self.next_generation {
            let number = self.next_generation.to_string();
            changes.push((GENERATION_KEY.to_owned(), Some(number)));
        }
        for (id, row) in &changed {
            let value = row.as_ref().map(|row| {
                serde_json::to_string(row).expect("a row is numbers and strings, which serialize")
            });
            changes.push((id.to_string(), value));
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.checkpoints.save(&self.source, changes).await?;
        self.saved_generation = self.next_generation;
        self.staged.clear();
        for (id, row) in changed {
            self.set(id, row);
        }
        Ok(())
    }

    fn set(&mut self, id: FileId, row: Option<FileCheckpoint>) {
        match row {
            Some(row) => self.insert(id, row),
            None => self.remove(id),
        }
    }
}

fn take_out<K: Ord>(index: &mut BTreeMap<K, BTreeSet<FileId>>, key: &K, id: FileId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Checkpoints;
    use async_trait::async_trait;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct MemoryCheckpoints(Mutex<BTreeMap<String, String>>);

    #[async_trait]
    impl Checkpoints for MemoryCheckpoints {
        async fn load(&self, _: &str) -> Result<Vec<(String, String)>, SourceError> {
            Ok(self.0.lock().clone().into_iter().collect())
        }

        async fn save(
            &self,
            _: &str,
            rows: Vec<(String, Option<String>)>,
        ) -> Result<(), SourceError> {
            assert!(!rows.is_empty(), "nothing changed, yet something is saved");
            for (key, value) in rows {
                let mut saved = self.0.lock();
                match value {
                    Some(value) => saved.insert(key, value),
                    None => saved.remove(&key),
                };
            }
            Ok(())
        }
    }

    fn row(generation: u64, left: Option<i64>) -> FileCheckpoint {
        FileCheckpoint {
            generation,
            position: 7,
            lines: Some(1),
            head: FileHead::default().fingerprint(),
            path: "a.log".into(),
            left,
            origin: None,
            copy: false,
            content: None,
            versions: Vec::new(),
            claims: Vec::new(),
            packed: None,
        }
    }

    async fn load(memory: &Arc<MemoryCheckpoints>) -> CheckpointStore {
        let memory = Arc::clone(memory) as SharedCheckpoints;
        CheckpointStore::load("app".into(), memory).await.unwrap()
    }

    #[tokio::test]
    async fn generation_number_is_never_reused() {
        // Numbers continue after a restart, also where the rows that used them are removed, and
        // where the counter is lost but a row is not.
        let memory = Arc::new(MemoryCheckpoints::default());
        let id: FileId = "1:2".parse().unwrap();
        let mut store = load(&memory).await;
        assert_eq!((store.new_generation(), store.new_generation()), (0, 1));
        store.save(vec![(id, Some(row(1, None)))]).await.unwrap();
        store.save(vec![(id, Some(row(1, None)))]).await.unwrap();
        store.save(vec![(id, None)]).await.unwrap();
        let mut store = load(&memory).await;
        assert!(store.row(id).is_none());
        assert_eq!(store.new_generation(), 2);
        store.save(vec![(id, Some(row(2, None)))]).await.unwrap();
        memory.0.lock().remove(GENERATION_KEY);
        assert_eq!(load(&memory).await.new_generation(), 3);
    }

    #[tokio::test]
    async fn checkpoints_of_long_missing_files_are_removed() {
        // The row of a missing file is marked first, removed after a month, and kept if the file is
        // found.
        let memory = Arc::new(MemoryCheckpoints::default());
        let ids: Vec<FileId> = ["1:1", "1:2", "1:3"].map(|id| id.parse().unwrap()).into();
        let mut store = load(&memory).await;
        let rows = vec![
            (ids[0], Some(row(0, None))),
            (ids[1], Some(row(1, Some(100)))),
            (ids[2], Some(row(2, None))),
        ];
        store.save(rows).await.unwrap();
        let now = 100 + MISSING_ROW_SECS;
        let swept = store.sweep(|id| id == ids[2], now);
        assert_eq!(swept, [(ids[0], Some(row(0, Some(now)))), (ids[1], Some(row(1, Some(100))))]);
        let swept = store.sweep(|id| id == ids[2], now + 1);
        assert_eq!(swept[1], (ids[1], None));
    }

    #[tokio::test]
    async fn checkpoints_of_version_0_1_are_read() {
        // A store of version 0.1 is read: no key was renamed, absent fields are unknown, and a
        // content that its fingerprint covers completely is known.
        let memory = Arc::new(MemoryCheckpoints::default());
        let print = r#"{"length":4,"sha256":"7d865e959b2466918c9863af"}"#;
        let rows = [
            ("generation", "7".to_owned()),
            (
                "64769:12",
                format!(
                    r#"{{"generation":3,"position":4,"lines":1,"head":{print},"path":"a.log"}}"#
                ),
            ),
            (
                "64769:13",
                format!(
                    r#"{{"generation":6,"position":900,"lines":null,"head":{print},"path":"b.log","left":1767225600}}"#
                ),
            ),
        ];
        memory.0.lock().extend(rows.map(|(key, row)| (key.to_owned(), row)));
        let mut store = load(&memory).await;
        let [a, b] = ["64769:12", "64769:13"].map(|id| store.row(id.parse().unwrap()).unwrap());
        assert_eq!((a.generation, a.position, a.lines, a.left), (3, 4, Some(1), None));
        assert_eq!((b.generation, b.position, b.lines, b.left), (6, 900, None, Some(1767225600)));
        assert_eq!(a.content.as_ref().unwrap().length, 4);
        assert!(b.content.is_none() && b.claims.is_empty() && b.origin.is_none());
        assert_eq!(store.new_generation(), 7);
    }
}
