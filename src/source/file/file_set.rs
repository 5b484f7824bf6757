//! The files of a source: finding, opening, closing and checkpointing them, for both read modes.
//!
//! # Invariants
//!
//! A file is read only after its generation is saved, and its row is removed only after its last
//! verdict.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::checkpoints::{CheckpointStore, FileCheckpoint};
use super::claim::ClaimedRange;
use super::family::Family;
use super::identity::{FileHead, FileId};
use super::offsets::FileOffsetTracker;
use super::read::{OpenFile, OpenRequest};
use super::scanner::{FoundFile, GlobScanner, ScanResult};
use super::state::{TailState, Unknown};
use super::stream::{RecordOutput, SourceContext, Stream};
use super::tailer::{FileTailer, blocking};
use crate::backoff::Backoff;
use crate::config::source::ReadFrom;
use crate::source::SourceError;
use crate::source::offset_tracker::StreamPosition;

/// The interval between two saves of checkpoints.
pub(super) const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// The first and the longest pause before a failed save is repeated.
const SAVE_RETRY_PAUSES: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(5));
/// How long the last save is tried.
const LAST_SAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The open files.
pub(super) type Tailers = BTreeMap<FileId, FileTailer>;

/// Why a file is closed, which decides about its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// Everything was read; it may grow.
    Read,
    /// It is missing, or no longer holds its content.
    Left,
}

/// A content that is no longer read, while records of it are in flight.
pub(super) struct ClosedFile {
    pub(super) id: FileId,
    pub(super) stream: Box<Stream>,
    pub(super) family: Family,
    head: FileHead,
    path: String,
    packed: Option<u64>,
    /// Since when it is missing, in seconds since 1970.
    left: Option<i64>,
}

pub(super) struct FileSet {
    pub(super) context: Arc<SourceContext>,
    pub(super) output: RecordOutput,
    scanner: Arc<GlobScanner>,
    pub(super) store: CheckpointStore,
    pub(super) closed: Vec<ClosedFile>,
    /// Rows that are saved together with the next ones.
    pending_rows: Vec<(FileId, Option<FileCheckpoint>)>,
    /// What could not be opened, and why: each is logged once.
    unreadable: UnreadableFiles,
    /// Consecutive failed saves.
    failures: u32,
    /// How many contents were lost by the file that held them.
    pub(super) losses: u64,
}

impl FileSet {
    pub(super) fn new(
        context: Arc<SourceContext>,
        output: RecordOutput,
        scanner: Arc<GlobScanner>,
        store: CheckpointStore,
    ) -> Self {
        Self {
            context,
            output,
            scanner,
            store,
            closed: Vec::new(),
            pending_rows: Vec::new(),
            unreadable: HashMap::new(),
            failures: 0,
            losses: 0,
        }
    }

    /// Searches for files.
    pub(super) async fn scan(&mut self) -> ScanResult {
        let scanner = Arc::clone(&self.scanner);
        let scan = match blocking(move || Ok(scanner.scan())).await {
            Ok(scan) => scan,
            Err(error) => {
                tracing::error!(source = %self.context.source, %error, "the search for files failed; it is tried again");
                ScanResult::default()
            }
        };
        for (path, why) in &scan.unreadable {
            self.trouble(path, why);
        }
        scan
    }

    /// The first search: patterns without a file are logged, and rows of missing files are marked
    /// or removed.
    pub(super) async fn first_scan(&mut self) -> ScanResult {
        let scan = self.scan().await;
        for pattern in &scan.idle {
            tracing::warn!(source = %self.context.source, ?pattern, "no file matches the pattern; check `include` if files should exist already");
        }
        let now = crate::clock::now().as_second();
        let found: HashSet<FileId> = scan.files.iter().map(|found| found.id).collect();
        let rows = self.store.sweep(|id| found.contains(&id), now);
        self.save_with_retry(rows).await;
        scan
    }

    /// Opens files and skips those that cannot be opened. Files whose content matches their
    /// checkpoint continue there, the others are unidentified.
    pub(super) async fn open(
        &mut self,
        found: Vec<FoundFile>,
        from: ReadFrom,
        tailers: &Tailers,
    ) -> Vec<FileTailer> {
        let mut opened = Vec::with_capacity(found.len());
        for found in found {
            let opening = OpenRequest {
                row: self.store.row(found.id).cloned(),
                further: self.store.further(found.id),
                path: found.path.clone(),
                id: found.id,
                fingerprint: self.context.fingerprint,
            };
            match blocking(move || opening.open()).await {
                Ok(file) => {
                    self.unreadable.remove(&found.path);
                    opened.push((found, file));
                }
                Err(error) => self.trouble(&found.path, &error.to_string()),
            }
        }
        let leaders = leaders(&opened, tailers, &self.closed);
        let logs = opened.iter().map(|(found, _)| Family::of(&found.path).key);
        let logs: Vec<_> =
            logs.chain(tailers.values().map(|tailer| Arc::clone(&tailer.family.key))).collect();
        let mut ready = Vec::with_capacity(opened.len());
        for (found, mut file) in opened {
            let known = file.known.take();
            let mut tailer = FileTailer::new(&self.context, file, &found, from);
            if known.as_ref().is_some_and(|(row, _)| row.has_read_nothing()) {
                // It may have reused the identity of a removed file, so it is compared with known
                // contents.
                tailer.read_from_start();
            } else if let Some((row, content)) = known {
                if leaders.get(&row.generation) == Some(&found.id) {
                    let row_path = row.path.clone();
                    self.join_log(&mut tailer, row.generation, &row_path, &logs);
                    // Records in flight of an earlier turn of the file settle through its own
                    // tracker.
                    if let Err(error) = self.resume(&mut tailer, row, content).await {
                        self.trouble(&found.path, &error.to_string());
                        continue;
                    }
                } else {
                    tailer.state = TailState::Unknown(Unknown::new(row.content));
                }
            }
            ready.push(tailer);
        }
        ready
    }

    /// Adds a file of known content to the log in which that content was read, where its own name
    /// belongs to no other log: for example a copy under another name. `logs` contains the log of
    /// every file, once per file.
    pub(super) fn join_log(
        &self,
        tailer: &mut FileTailer,
        generation: u64,
        path: &str,
        logs: &[Arc<str>],
    ) {
        let own = &tailer.family.key;
        let is_alone = logs.iter().filter(|log| *log == own).count() < 2;
        let others = self.store.of_generation(generation).map(|(_, row)| row.path.as_str());
        let joined = [path]
            .into_iter()
            .chain(others)
            .map(|path| Family::of(path.as_ref()).put_aside())
            .find(|family| family.key != *own && logs.contains(&family.key));
        if let (true, Some(family)) = (is_alone, joined) {
            tailer.family = family;
        }
    }

    async fn resume(
        &mut self,
        tailer: &mut FileTailer,
        row: FileCheckpoint,
        content: Option<super::content::RunningDigest>,
    ) -> std::io::Result<()> {
        let id = tailer.id();
        let now_closed = self
            .closed
            .iter()
            .position(|closed| closed.id == id && closed.stream.generation == row.generation);
        match now_closed {
            // It was closed a moment ago and continues with the same stream.
            Some(index) => {
                let stream = self.closed.swap_remove(index).stream;
                tailer.attach_new(*stream).await
            }
            None => tailer.attach_new(Stream::resume(&self.context, id, row, content)).await,
        }
    }

    /// Closes a file.
    pub(super) fn close(&mut self, tailer: FileTailer, reason: CloseReason) {
        let now = crate::clock::now().as_second();
        let left = (reason == CloseReason::Left).then_some(now);
        let (id, family, packed) = (tailer.id(), tailer.family.clone(), tailer.packed());
        let (head, path, state) = tailer.into_parts();
        match state {
            TailState::Reading(stream) => {
                self.closed.push(ClosedFile { id, stream, family, head, path, packed, left });
            }
            TailState::Copy(copy) => {
                self.pending_rows.push((id, Some(FileCheckpoint { left, path, ..copy.row })));
            }
            TailState::Unknown(_) => {}
        }
    }

    /// Another file has reused the identity of a closed one: the rows of the closed one are saved
    /// under another key.
    pub(super) fn release_id(&mut self, id: FileId) -> Vec<(FileId, Option<FileCheckpoint>)> {
        let mut rows = Vec::new();
        for closed in self.closed.iter_mut().filter(|closed| closed.id == id) {
            closed.id = FileId::of_lost(closed.stream.generation);
            rows.push((closed.id, Some(closed.row())));
        }
        self.pending_rows.retain(|(noted, _)| *noted != id);
        rows
    }

    /// Saves what was settled, if it is time. A failed save is repeated later.
    pub(super) async fn save_if_due<'a>(
        &mut self,
        open: impl IntoIterator<Item = &'a mut FileTailer>,
    ) {
        if !self.output.is_due() {
            return;
        }
        let saved = self.save(open).await;
        self.report_save(saved.err());
    }

    /// Saves the requested claims and grants them.
    pub(super) async fn save_claims(&mut self, tailers: &mut Tailers) {
        let mut settled_states = SettledStates::new();
        let mut rows = Vec::new();
        for tailer in tailers.values_mut() {
            if tailer.stream().is_some_and(Stream::wants_claim)
                && let Some(row) = tailer.row()
            {
                settled_states.insert(row.generation, (row.mark(), row.claims.clone()));
                rows.push((tailer.id(), Some(row)));
            }
        }
        if rows.is_empty() {
            return;
        }
        rows.extend(tailers.values_mut().filter_map(|tailer| copy_row(tailer, &settled_states)));
        if self.save_with_retry(rows).await {
            let wanting = tailers.values_mut().filter_map(FileTailer::stream_mut);
            wanting.filter(|stream| stream.wants_claim()).for_each(Stream::grant_claim);
        }
    }

    /// As [`save_claims`](Self::save_claims), of one file.
    pub(super) async fn save_claim(&mut self, tailer: &mut FileTailer) {
        let row = tailer.row();
        if self.save_with_retry(vec![(tailer.id(), row)]).await
            && let Some(stream) = tailer.stream_mut()
        {
            stream.grant_claim();
        }
    }

    /// Saves rows, repeating it until it succeeds. `false` where the run was stopped first.
    pub(super) async fn save_with_retry(
        &mut self,
        rows: Vec<(FileId, Option<FileCheckpoint>)>,
    ) -> bool {
        let mut backoff = Backoff::new(SAVE_RETRY_PAUSES.0, SAVE_RETRY_PAUSES.1);
        loop {
            let saved = self.store.save(rows.clone()).await;
            let done = saved.is_ok();
            self.report_save(saved.err());
            if done {
                return true;
            }
            if !backoff.wait(&self.output.stop).await {
                return false;
            }
        }
    }

    fn report_save(&mut self, failure: Option<SourceError>) {
        let Some(error) = failure else {
            if self.failures > 0 {
                tracing::info!(source = %self.context.source, "checkpoints are saved again");
            }
            self.failures = 0;
            return;
        };
        self.failures += 1;
        if self.failures.is_power_of_two() {
            tracing::warn!(
                %error,
                failures = self.failures,
                "checkpoints cannot be saved; nothing is lost: it is tried again, and reading \
                 waits where it must; check the disk of `data_dir`"
            );
        }
    }

    /// Waits for every verdict, then saves for the last time.
    pub(super) async fn finish(
        mut self,
        mut open: Vec<FileTailer>,
    ) -> Result<UnreadableFiles, SourceError> {
        // The receiver must see the end of the channel; otherwise both sides would wait for each
        // other.
        let in_flight = Arc::clone(&self.context.in_flight);
        drop(std::mem::replace(&mut self.output.out, closed_channel()));
        while tokio::time::timeout(SAVE_INTERVAL, in_flight.wait_until_idle()).await.is_err() {
            let saved = self.save(&mut open).await;
            self.report_save(saved.err());
        }
        let end = Instant::now() + LAST_SAVE_TIMEOUT;
        while let Err(error) = self.save(&mut open).await {
            if Instant::now() > end {
                return Err(error);
            }
            self.report_save(Some(error));
            tokio::time::sleep(SAVE_RETRY_PAUSES.0).await;
        }
        Ok(self.unreadable)
    }

    async fn save<'a>(
        &mut self,
        open: impl IntoIterator<Item = &'a mut FileTailer>,
    ) -> Result<(), SourceError> {
        let mut rows = std::mem::take(&mut self.pending_rows);
        let pending_rows = rows.len();
        let mut settled_states = SettledStates::new();
        let mut copies = Vec::new();
        for tailer in open {
            if let TailState::Copy(_) = tailer.state {
                copies.push(tailer);
                continue;
            }
            if let (Some(stream), Some(row)) = (tailer.stream().map(|s| s.generation), tailer.row())
            {
                settled_states.insert(stream, (row.mark(), row.claims.clone()));
                rows.push((tailer.id(), Some(row)));
            }
        }
        let mut settled_files = Vec::new();
        for mut closed in std::mem::take(&mut self.closed) {
            let row = closed.row();
            let standing = (row.mark(), row.claims.clone());
            settled_states.entry(row.generation).or_insert(standing);
            rows.push((closed.id, Some(row)));
            match closed.stream.is_settled() && closed.stream.is_released() {
                true => settled_files.push(closed),
                false => self.closed.push(closed),
            }
        }
        rows.extend(copies.into_iter().filter_map(|tailer| copy_row(tailer, &settled_states)));
        let kept: Vec<_> = rows[..pending_rows].to_vec();
        let saved = self.store.save(rows).await;
        if saved.is_err() {
            self.closed.extend(settled_files);
            self.pending_rows.extend(kept);
        }
        self.output.due = Instant::now() + SAVE_INTERVAL;
        saved
    }

    /// Trackers of closed contents of a log that are not settled, and how far they must be.
    pub(super) fn unsettled<'a>(
        &'a self,
        log: &'a str,
    ) -> impl Iterator<Item = (Arc<FileOffsetTracker>, u64)> + 'a {
        let older = self.closed.iter().filter(move |closed| &*closed.family.key == log);
        older.filter_map(|closed| closed.stream.unsettled())
    }

    pub(super) fn trouble(&mut self, path: &Path, why: &str) {
        if self.unreadable.get(path).is_none_or(|known| known != why) {
            tracing::warn!(source = %self.context.source, ?path, why, "the file cannot be opened and is skipped; check its permissions");
            self.unreadable.insert(path.to_owned(), why.to_owned());
        }
    }
}

/// For each generation that several files hold, the file that is read: the one that was read
/// furthest. Generations of open files are excluded.
fn leaders(
    opened: &[(FoundFile, OpenFile)],
    tailers: &Tailers,
    closed: &[ClosedFile],
) -> HashMap<u64, FileId> {
    let mut taken: HashSet<u64> = tailers.values().filter_map(FileTailer::generation).collect();
    let of_others = closed.iter().filter(|closed| opened.iter().all(|(f, _)| f.id != closed.id));
    taken.extend(of_others.map(|closed| closed.stream.generation));
    let mut leaders: HashMap<u64, (bool, u64, u64, FileId)> = HashMap::new();
    for (found, file) in opened {
        let Some((row, _)) = &file.known else {
            continue;
        };
        if taken.contains(&row.generation) {
            continue;
        }
        let length = row.content.as_ref().map_or(0, |content| content.length);
        let rank = (!row.copy, row.position, length, found.id);
        let best = leaders.entry(row.generation).or_insert(rank);
        *best = rank.max(*best);
    }
    leaders.into_iter().map(|(generation, (.., id))| (generation, id)).collect()
}

/// How far each generation is settled, and its claims.
type SettledStates = HashMap<u64, (StreamPosition, Vec<ClaimedRange>)>;

/// The row of a copy, with the settled position of the content that it shares.
fn copy_row(
    tailer: &mut FileTailer,
    settled_states: &SettledStates,
) -> Option<(FileId, Option<FileCheckpoint>)> {
    let TailState::Copy(copy) = &mut tailer.state else {
        return None;
    };
    let (mark, claims) = settled_states.get(&copy.generation)?;
    copy.follow(*mark, claims);
    Some((tailer.id(), tailer.row()))
}

/// Files that could not be read, and why.
pub(super) type UnreadableFiles = HashMap<PathBuf, String>;

impl ClosedFile {
    pub(super) fn row(&mut self) -> FileCheckpoint {
        let row = self.stream.row(self.id, &self.head, &self.path);
        FileCheckpoint { left: self.left, packed: self.packed, ..row }
    }
}

/// The sender of a channel without a receiver.
fn closed_channel() -> tokio::sync::mpsc::Sender<crate::record::Record> {
    tokio::sync::mpsc::channel(1).0
}
