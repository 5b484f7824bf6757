//! What reading once and following have in common: finding, opening, closing, checkpoints.
//!
//! # Invariants
//!
//! A file is read only after its generation is saved, and its row is dropped only after its last
//! verdict.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::checkpoints::{CheckpointStore, FileCheckpoint};
use super::claim::Claim;
use super::family::Family;
use super::identity::{FileHead, FileId};
use super::offsets::FileOffsetTracker;
use super::read::{OpenFile, OpenRequest};
use super::scanner::{Findings, Found, GlobScanner};
use super::state::{State, Unknown};
use super::stream::{Common, Outlet, Stream};
use super::tailer::{FileTailer, blocking};
use crate::config::source::ReadFrom;
use crate::source::SourceError;
use crate::source::offset_tracker::StreamPosition;

/// How often checkpoints are saved at most.
pub(super) const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest and the longest pause before a save that failed is tried again.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long saving for the last time is tried.
const LAST_SAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The files that are open.
pub(super) type Tails = BTreeMap<FileId, FileTailer>;

/// What becomes of the row of a file that is no longer read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// Everything was read; it may grow.
    Read,
    /// It is not found any more, or does not hold it any more.
    Left,
}

/// A content that is no longer read, while records of it are in flight.
pub(super) struct Closed {
    pub(super) id: FileId,
    pub(super) stream: Box<Stream>,
    pub(super) family: Family,
    head: FileHead,
    path: String,
    packed: Option<u64>,
    /// Since when it is gone, in seconds of the epoch.
    left: Option<i64>,
}

pub(super) struct FileSet {
    pub(super) common: Arc<Common>,
    pub(super) outlet: Outlet,
    finder: Arc<GlobScanner>,
    pub(super) book: CheckpointStore,
    pub(super) closed: Vec<Closed>,
    /// Rows that are to be saved with the next ones.
    notes: Vec<(FileId, Option<FileCheckpoint>)>,
    /// What could not be opened or looked at, and why: each is logged once.
    failure_history: UnreadableFiles,
    /// Saves that failed, one after the other.
    failures: u32,
    /// Contents that were lost by the file that held them.
    pub(super) losses: u64,
}

impl FileSet {
    pub(super) fn new(
        common: Arc<Common>,
        outlet: Outlet,
        finder: Arc<GlobScanner>,
        book: CheckpointStore,
    ) -> Self {
        Self {
            common,
            outlet,
            finder,
            book,
            closed: Vec::new(),
            notes: Vec::new(),
            failure_history: HashMap::new(),
            failures: 0,
            losses: 0,
        }
    }

    /// Looks for files.
    pub(super) async fn find(&mut self) -> Findings {
        let finder = Arc::clone(&self.finder);
        let findings = match blocking(move || Ok(finder.find())).await {
            Ok(findings) => findings,
            Err(error) => {
                tracing::error!(%error, "the search for files failed");
                Findings::default()
            }
        };
        for (path, why) in &findings.unreadable {
            self.trouble(path, why);
        }
        findings
    }

    /// The first search: patterns without a file are told, rows of files that are gone swept.
    pub(super) async fn first_find(&mut self) -> Findings {
        let findings = self.find().await;
        for pattern in &findings.idle {
            tracing::warn!(source = %self.common.source, ?pattern, "no file is found for the pattern");
        }
        let now = crate::clock::now().as_second();
        let found: HashSet<FileId> = findings.files.iter().map(|found| found.id).collect();
        let rows = self.book.sweep(|id| found.contains(&id), now);
        self.save_surely(rows).await;
        findings
    }

    /// Opens files. Those that cannot be opened are left out; those whose checkpoint still holds go
    /// on there, the others are unknown.
    pub(super) async fn open(
        &mut self,
        found: Vec<Found>,
        from: ReadFrom,
        tails: &Tails,
    ) -> Vec<FileTailer> {
        let mut opened = Vec::with_capacity(found.len());
        for found in found {
            let opening = OpenRequest {
                row: self.book.row(found.id).cloned(),
                further: self.book.further(found.id),
                path: found.path.clone(),
                id: found.id,
                fingerprint: self.common.fingerprint,
            };
            match blocking(move || opening.open()).await {
                Ok(file) => {
                    self.failure_history.remove(&found.path);
                    opened.push((found, file));
                }
                Err(error) => self.trouble(&found.path, &error.to_string()),
            }
        }
        let leaders = leaders(&opened, tails, &self.closed);
        let logs = opened.iter().map(|(found, _)| Family::of(&found.path).key);
        let logs: Vec<_> =
            logs.chain(tails.values().map(|tail| Arc::clone(&tail.family.key))).collect();
        let mut ready = Vec::with_capacity(opened.len());
        for (found, mut file) in opened {
            let known = file.known.take();
            let mut tail = FileTailer::new(&self.common, file, &found, from);
            if known.as_ref().is_some_and(|(row, _)| row.has_read_nothing()) {
                // Its identity may be that of a file that is gone: it is compared with the others.
                tail.want_whole();
            } else if let Some((row, content)) = known {
                if leaders.get(&row.generation) == Some(&found.id) {
                    let row_path = row.path.clone();
                    self.join_log(&mut tail, row.generation, &row_path, &logs);
                    // What is in flight of an earlier turn of the file is settled by its own ledger.
                    if let Err(error) = self.resume(&mut tail, row, content).await {
                        self.trouble(&found.path, &error.to_string());
                        continue;
                    }
                } else {
                    tail.state = State::Unknown(Unknown::new(row.content));
                }
            }
            ready.push(tail);
        }
        ready
    }

    /// A file of a known content is an older part of the log that the content was read in, though
    /// its own name is none of that log's: a copy that was put aside, say. `logs` are those of all
    /// files, once a file.
    pub(super) fn join_log(
        &self,
        tail: &mut FileTailer,
        generation: u64,
        path: &str,
        logs: &[Arc<str>],
    ) {
        let own = &tail.family.key;
        let is_alone = logs.iter().filter(|log| *log == own).count() < 2;
        let others = self.book.of_generation(generation).map(|(_, row)| row.path.as_str());
        let joined = [path]
            .into_iter()
            .chain(others)
            .map(|path| Family::of(path.as_ref()).put_aside())
            .find(|family| family.key != *own && logs.contains(&family.key));
        if let (true, Some(family)) = (is_alone, joined) {
            tail.family = family;
        }
    }

    async fn resume(
        &mut self,
        tail: &mut FileTailer,
        row: FileCheckpoint,
        content: Option<super::content::Running>,
    ) -> std::io::Result<()> {
        let id = tail.id();
        let now_closed = self
            .closed
            .iter()
            .position(|closed| closed.id == id && closed.stream.generation == row.generation);
        match now_closed {
            // It was closed a moment ago: it goes on as if it had not been.
            Some(index) => {
                let stream = self.closed.swap_remove(index).stream;
                tail.read_as(*stream).await
            }
            None => tail.read_as(Stream::resume(&self.common, id, row, content)).await,
        }
    }

    /// The file is not read any more.
    pub(super) fn close(&mut self, tail: FileTailer, reason: CloseReason) {
        let now = crate::clock::now().as_second();
        let left = (reason == CloseReason::Left).then_some(now);
        let (id, family, packed) = (tail.id(), tail.family.clone(), tail.packed());
        let (head, path, state) = tail.into_parts();
        match state {
            State::Reading(stream) => {
                self.closed.push(Closed { id, stream, family, head, path, packed, left });
            }
            State::Copy(copy) => {
                self.notes.push((id, Some(FileCheckpoint { left, path, ..copy.row })));
            }
            State::Unknown(_) => {}
        }
    }

    /// The identity of a file that is closed belongs to another one now: the rows of the former are
    /// no longer saved under it.
    pub(super) fn free_id(&mut self, id: FileId) -> Vec<(FileId, Option<FileCheckpoint>)> {
        let mut rows = Vec::new();
        for closed in self.closed.iter_mut().filter(|closed| closed.id == id) {
            closed.id = FileId::of_lost(closed.stream.generation);
            rows.push((closed.id, Some(closed.row())));
        }
        self.notes.retain(|(noted, _)| *noted != id);
        rows
    }

    /// Saves what was settled, if it is time. Storage that fails is tried again later.
    pub(super) async fn save_if_due<'a>(
        &mut self,
        open: impl IntoIterator<Item = &'a mut FileTailer>,
    ) {
        if !self.outlet.is_due() {
            return;
        }
        let saved = self.save(open).await;
        self.report_save(saved.err());
    }

    /// Saves the claims that are wanted, and hands them out.
    pub(super) async fn save_claims(&mut self, tails: &mut Tails) {
        let mut standings = Standings::new();
        let mut rows = Vec::new();
        for tail in tails.values_mut() {
            if tail.stream().is_some_and(Stream::wants_claim)
                && let Some(row) = tail.row()
            {
                standings.insert(row.generation, (row.mark(), row.claims.clone()));
                rows.push((tail.id(), Some(row)));
            }
        }
        if rows.is_empty() {
            return;
        }
        rows.extend(tails.values_mut().filter_map(|tail| copy_row(tail, &standings)));
        if self.save_surely(rows).await {
            let wanting = tails.values_mut().filter_map(FileTailer::stream_mut);
            wanting.filter(|stream| stream.wants_claim()).for_each(Stream::grant_claim);
        }
    }

    /// As [`save_claims`](Self::save_claims), of one file.
    pub(super) async fn save_claim(&mut self, tail: &mut FileTailer) {
        let row = tail.row();
        if self.save_surely(vec![(tail.id(), row)]).await
            && let Some(stream) = tail.stream_mut()
        {
            stream.grant_claim();
        }
    }

    /// Saves rows, however often it has to be tried. `false` where the run was stopped first.
    pub(super) async fn save_surely(
        &mut self,
        rows: Vec<(FileId, Option<FileCheckpoint>)>,
    ) -> bool {
        let mut pause = RETRY_PAUSES.0;
        loop {
            let saved = self.book.save(rows.clone()).await;
            let done = saved.is_ok();
            self.report_save(saved.err());
            if done {
                return true;
            }
            let rest = tokio::time::sleep(pause);
            if self.outlet.stop.run_until_cancelled(rest).await.is_none() {
                return false;
            }
            pause = (pause * 2).min(RETRY_PAUSES.1);
        }
    }

    fn report_save(&mut self, failure: Option<SourceError>) {
        let Some(error) = failure else {
            if self.failures > 0 {
                tracing::info!(source = %self.common.source, "checkpoints are saved again");
            }
            self.failures = 0;
            return;
        };
        self.failures += 1;
        if self.failures.is_power_of_two() {
            tracing::warn!(
                %error,
                failures = self.failures,
                "checkpoints cannot be saved; nothing is lost, reading waits where it must, and it is tried again; check the disk of `data_dir`"
            );
        }
    }

    /// Ends: waits for every verdict, then saves for the last time.
    pub(super) async fn finish(
        mut self,
        mut open: Vec<FileTailer>,
    ) -> Result<UnreadableFiles, SourceError> {
        // The receiver must see the end, or it would wait for more while we wait for it.
        let flight = Arc::clone(&self.common.flight);
        drop(std::mem::replace(&mut self.outlet.out, closed_channel()));
        while tokio::time::timeout(SAVE_INTERVAL, flight.wait_until_idle()).await.is_err() {
            let saved = self.save(&mut open).await;
            self.report_save(saved.err());
        }
        let end = Instant::now() + LAST_SAVE_TIMEOUT;
        while let Err(error) = self.save(&mut open).await {
            if Instant::now() > end {
                return Err(error);
            }
            self.report_save(Some(error));
            tokio::time::sleep(RETRY_PAUSES.0).await;
        }
        Ok(self.failure_history)
    }

    async fn save<'a>(
        &mut self,
        open: impl IntoIterator<Item = &'a mut FileTailer>,
    ) -> Result<(), SourceError> {
        let mut rows = std::mem::take(&mut self.notes);
        let notes = rows.len();
        let mut standings = Standings::new();
        let mut copies = Vec::new();
        for tail in open {
            if let State::Copy(_) = tail.state {
                copies.push(tail);
                continue;
            }
            if let (Some(stream), Some(row)) = (tail.stream().map(|s| s.generation), tail.row()) {
                standings.insert(stream, (row.mark(), row.claims.clone()));
                rows.push((tail.id(), Some(row)));
            }
        }
        let mut wait_until_idle = Vec::new();
        for mut closed in std::mem::take(&mut self.closed) {
            let row = closed.row();
            let standing = (row.mark(), row.claims.clone());
            standings.entry(row.generation).or_insert(standing);
            rows.push((closed.id, Some(row)));
            match closed.stream.is_settled() && closed.stream.is_released() {
                true => wait_until_idle.push(closed),
                false => self.closed.push(closed),
            }
        }
        rows.extend(copies.into_iter().filter_map(|tail| copy_row(tail, &standings)));
        let kept: Vec<_> = rows[..notes].to_vec();
        let saved = self.book.save(rows).await;
        if saved.is_err() {
            self.closed.extend(wait_until_idle);
            self.notes.extend(kept);
        }
        self.outlet.due = Instant::now() + SAVE_INTERVAL;
        saved
    }

    /// Ledgers of closed contents of a log that are not settled, and how far they must be.
    pub(super) fn unsettled<'a>(
        &'a self,
        log: &'a str,
    ) -> impl Iterator<Item = (Arc<FileOffsetTracker>, u64)> + 'a {
        let older = self.closed.iter().filter(move |closed| &*closed.family.key == log);
        older.filter_map(|closed| closed.stream.unsettled())
    }

    pub(super) fn trouble(&mut self, path: &Path, why: &str) {
        if self.failure_history.get(path).is_none_or(|known| known != why) {
            tracing::warn!(?path, why, "the file cannot be opened");
            self.failure_history.insert(path.to_owned(), why.to_owned());
        }
    }
}

/// Of each generation that several files are known to hold, the file that is read: the one that was
/// read furthest. None of those that are open already.
fn leaders(opened: &[(Found, OpenFile)], tails: &Tails, closed: &[Closed]) -> HashMap<u64, FileId> {
    let mut taken: HashSet<u64> = tails.values().filter_map(FileTailer::generation).collect();
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

/// How far each generation is settled, and what is claimed of it.
type Standings = HashMap<u64, (StreamPosition, Vec<Claim>)>;

/// The row of a copy, which says what is settled of the content that it shares.
fn copy_row(
    tail: &mut FileTailer,
    standings: &Standings,
) -> Option<(FileId, Option<FileCheckpoint>)> {
    let State::Copy(copy) = &mut tail.state else {
        return None;
    };
    let (mark, claims) = standings.get(&copy.generation)?;
    copy.follow(*mark, claims);
    Some((tail.id(), tail.row()))
}

/// What could not be read, and why.
pub(super) type UnreadableFiles = HashMap<PathBuf, String>;

impl Closed {
    pub(super) fn row(&mut self) -> FileCheckpoint {
        let row = self.stream.row(self.id, &self.head, &self.path);
        FileCheckpoint { left: self.left, packed: self.packed, ..row }
    }
}

/// The sender of a channel without a receiver.
fn closed_channel() -> tokio::sync::mpsc::Sender<crate::record::Record> {
    tokio::sync::mpsc::channel(1).0
}
