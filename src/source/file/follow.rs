//! Reads files as they grow, in turns.
//!
//! The generations of one log are read in their order (`order`): in each round a file has a turn
//! only if all older ones are read to their end. Files of other logs take turns.
//!
//! # Invariants
//!
//! Reading of a content begins only after a search that started after the content was seen: older
//! content was in the folder by then and is read first.
//!
//! Each log has a turn of bounded length in each round, so that a busy one does not starve a quiet
//! one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::family::Family;
use super::file_set::{CloseReason, FileSet, Tailers, UnreadableFiles};
use super::identify::{IdentifyMode, recheck};
use super::identity::FileId;
use super::offsets::FileOffsetTracker;
use super::order::{LogFiles, ReadOrder};
use super::scanner::{FoundFile, GlobScanner};
use super::state::IdentifyOutcome;
use super::state::{TailState, WaitReason};
use super::stream::RestOfLine;
use super::tailer::{FileTailer, ReadLimit, ReadStatus};
use super::watcher::DirWatcher;
use crate::config::source::ReadFrom;
use crate::source::SourceError;
use crate::source::decode::Flush;

/// How often open files are checked when no file system event arrives.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How often files are searched for when no file system event arrives.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time between two searches, however many names change.
const MIN_SEARCH_INTERVAL: Duration = Duration::from_millis(100);
/// The shortest pause once all is read, however much is written meanwhile.
const MIN_POLL_PAUSE: Duration = Duration::from_millis(10);
/// Bytes that a log may read in one round.
const MAX_TURN_BYTES: u64 = 1 << 20;
/// How long a deleted file is kept open: its writer may still have it open.
const DELETED_FILE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a file that no pattern finds any more is kept open: its writer may still have it open.
const RENAMED_FILE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for the end of a rotated file: its writer may still have it open.
const LAST_LINE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long newer generations of a log wait for one that cannot be read.
const GENERATION_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Follow {
    pub(super) files: FileSet,
    pub(super) tailers: Tailers,
    watcher: DirWatcher,
    searched: Option<Instant>,
    pub(super) order: ReadOrder,
    /// Whether the next search happens at once.
    pub(super) search_now: bool,
    names_changed: bool,
    /// The log that has the first turn in the next round.
    first: Option<Arc<str>>,
    /// Files that newer generations no longer wait for.
    no_longer_awaited: HashSet<FileId>,
}

/// How a round ended.
enum RoundOutcome {
    /// At least one file has more.
    More,
    /// All is read.
    AllRead,
    Stopped,
}

impl Follow {
    pub(super) fn new(files: FileSet, scanner: &GlobScanner) -> Self {
        let mut watcher = DirWatcher::new();
        watcher.watch(scanner.folders());
        Self {
            files,
            tailers: Tailers::new(),
            watcher,
            searched: None,
            order: ReadOrder::default(),
            search_now: false,
            names_changed: false,
            first: None,
            no_longer_awaited: HashSet::new(),
        }
    }

    pub(super) async fn run(mut self, from: ReadFrom) -> Result<UnreadableFiles, SourceError> {
        loop {
            self.search_if_due(from).await;
            self.recheck().await;
            let identified = self.identify().await;
            let round = self.round().await;
            self.files.save_claims(&mut self.tailers).await;
            self.files.save_if_due(self.tailers.values_mut()).await;
            match round {
                RoundOutcome::Stopped => break,
                RoundOutcome::More => {}
                RoundOutcome::AllRead if identified || self.search_now => {}
                RoundOutcome::AllRead => self.wait_for_change().await,
            }
        }
        self.files.finish(self.tailers.into_values().collect()).await
    }

    async fn search_if_due(&mut self, from: ReadFrom) {
        self.names_changed |= self.watcher.names_changed();
        let pause = match (std::mem::take(&mut self.search_now), self.names_changed) {
            (true, _) => Duration::ZERO,
            (false, true) => MIN_SEARCH_INTERVAL,
            (false, false) => SEARCH_INTERVAL,
        };
        let (scan, from) = match self.searched {
            Some(at) if at.elapsed() < pause => return,
            // Files that appear later are new and are read from their beginning.
            Some(_) => (self.files.scan().await, ReadFrom::Beginning),
            None => (self.files.first_scan().await, from),
        };
        self.names_changed = false;
        let now = Instant::now();
        self.searched = Some(now);
        for tailer in self.tailers.values_mut() {
            tailer.missing.get_or_insert(now);
            tailer.searched();
        }
        for found in &scan.files {
            if let Some(tailer) = self.tailers.get_mut(&found.id) {
                tailer.found(found);
            }
        }
        self.order.take(&scan.files, &self.tailers);
        let known = |found: &FoundFile| self.tailers.contains_key(&found.id);
        let new: Vec<_> = scan.files.into_iter().filter(|found| !known(found)).collect();
        if new.is_empty() {
            self.order.note_unopened(&[], &self.tailers);
            return;
        }
        let names: Vec<_> = new.iter().map(|f| (f.id, Family::of(&f.path))).collect();
        self.files.context.progress.found(new.iter().map(|found| found.size).sum());
        self.files.context.progress.found_files(new.len());
        let folders: Vec<_> = new
            .iter()
            .filter_map(|found| Some(found.path.parent()?.to_owned()))
            .filter(|folder| !folder.as_os_str().is_empty())
            .collect();
        self.watcher.watch(folders.into_iter());
        let opened = self.files.open(new, from, &self.tailers).await;
        self.tailers.extend(opened.into_iter().map(|tailer| (tailer.id(), tailer)));
        self.order.note_unopened(&names, &self.tailers);
    }

    /// Checks whether files still hold what was read of them.
    async fn recheck(&mut self) {
        let (mut cut_off, mut unknown) = (Vec::new(), Vec::new());
        for (id, tailer) in &mut self.tailers {
            let checked = match recheck(tailer) {
                Ok(true) => {
                    unknown.push(*id);
                    Ok(false)
                }
                Ok(false) => tailer.is_cut_off().await,
                Err(error) => Err(error),
            };
            match checked {
                Ok(false) => {}
                Ok(true) => cut_off.push(*id),
                Err(error) => tailer.report(Some(&error)),
            }
        }
        for id in unknown {
            self.order.requeue(id, &self.tailers);
        }
        for id in cut_off {
            if let Some(mut tailer) = self.tailers.remove(&id) {
                self.content_lost(&mut tailer).await;
                self.tailers.insert(id, tailer);
                self.order.requeue(id, &self.tailers);
            }
        }
    }

    /// Identifies files that may be read next. Returns whether some were identified.
    async fn identify(&mut self) -> bool {
        let known = self.identify_known().await;
        self.pair_missing().await;
        let begun = self.identify_in_turn().await;
        if known || begun {
            self.files.save_with_retry(Vec::new()).await;
        }
        known || begun
    }

    /// Identifies files with known content, also those whose turn has not come.
    async fn identify_known(&mut self) -> bool {
        let mut some = false;
        for (_, ids) in self.order.logs(&self.tailers) {
            for id in ids {
                if self
                    .tailers
                    .get(&id)
                    .is_some_and(|tailer| tailer.is_to_be_compared(self.files.losses))
                    && let Some(mut tailer) = self.tailers.remove(&id)
                {
                    some |= self.identify_one(&mut tailer, IdentifyMode::OnlyKnown).await;
                    self.search_now |= tailer.is_seen() && !tailer.peers_are_known();
                    self.tailers.insert(id, tailer);
                }
            }
        }
        some
    }

    /// Starts files whose turn has come.
    async fn identify_in_turn(&mut self) -> bool {
        let mut some = false;
        let logs = self.order.logs(&self.tailers);
        let sizes = sizes(&logs);
        for (_, ids) in logs {
            let mut waits = false;
            for id in ids {
                let Some(mut tailer) = self.tailers.remove(&id) else {
                    continue;
                };
                let may_begin = !waits && !self.order.is_short(&tailer, GENERATION_TIMEOUT);
                if matches!(tailer.state, TailState::Unknown(_)) && may_begin {
                    if !tailer.peers_are_known() && tailer.size() > 0 {
                        self.search_now |= tailer.is_seen();
                    } else if !self.waits_for_twin(&mut tailer, &sizes).await {
                        some |= self.identify_one(&mut tailer, IdentifyMode::Wait).await;
                    }
                }
                waits |= self.must_wait_for(&tailer);
                self.tailers.insert(id, tailer);
            }
        }
        some
    }

    /// Identifies a file. Returns whether it is identified, which must then be saved.
    async fn identify_one(&mut self, tailer: &mut FileTailer, patience: IdentifyMode) -> bool {
        let identified = self.files.identify(tailer, &mut self.tailers, patience).await;
        tailer.report(identified.as_ref().err());
        match identified {
            Ok(IdentifyOutcome::Yes(rows)) => {
                self.files.store.stage(rows);
                true
            }
            Ok(IdentifyOutcome::NotYet) => false,
            Err(error) => {
                self.files.trouble(tailer.path(), &error.to_string());
                false
            }
        }
    }

    /// Whether newer generations of the same log must wait for this one.
    fn must_wait_for(&mut self, tailer: &FileTailer) -> bool {
        let waits = match &tailer.state {
            TailState::Copy(_) => false,
            TailState::Unknown(unknown) => {
                tailer.size() > 0 && self.is_ahead(tailer, unknown.waits)
            }
            TailState::Reading(_) => tailer.quiet_for().is_none() || !tailer.peers_are_known(),
        };
        if waits && tailer.stuck_for().is_some_and(|stuck| stuck > GENERATION_TIMEOUT) {
            if self.no_longer_awaited.insert(tailer.id()) {
                tracing::warn!(source = %self.files.context.source, path = ?tailer.path(), seconds = GENERATION_TIMEOUT.as_secs(), "the file cannot be read to its end; newer generations of the same log are read now, so records of one user may be sent out of order");
            }
            return false;
        }
        if !waits {
            self.no_longer_awaited.remove(&tailer.id());
        }
        waits
    }

    /// Whether an unread file comes before newer generations of its log.
    fn is_ahead(&self, tailer: &FileTailer, waits: Option<WaitReason>) -> bool {
        match waits {
            None => true,
            Some(WaitReason::MoreBytes) => false,
            Some(WaitReason::OtherFile(id)) => {
                let original = self.tailers.get(&id).filter(|other| other.stream().is_some());
                let same_log = original.is_none_or(|other| other.family.key == tailer.family.key);
                same_log && !self.no_longer_awaited.contains(&id)
            }
        }
    }

    /// Gives every log a turn, until checkpoints are due.
    async fn round(&mut self) -> RoundOutcome {
        let mut round = RoundOutcome::AllRead;
        for (log, ids) in self.logs() {
            if self.files.output.is_closed() {
                return RoundOutcome::Stopped;
            }
            if self.files.output.is_due() {
                // Logs without a turn come first next time; otherwise a full channel would starve
                // them.
                self.first = Some(log);
                return RoundOutcome::More;
            }
            match self.log_round(&log, ids).await {
                RoundOutcome::AllRead => {}
                RoundOutcome::More => round = RoundOutcome::More,
                RoundOutcome::Stopped => return RoundOutcome::Stopped,
            }
        }
        match self.files.output.is_closed() {
            true => RoundOutcome::Stopped,
            false => round,
        }
    }

    /// Gives a turn to the oldest file of a log that is not read to its end.
    async fn log_round(&mut self, log: &str, ids: Vec<FileId>) -> RoundOutcome {
        let mut older: Vec<(Arc<FileOffsetTracker>, u64)> = Vec::new();
        let has_live =
            ids.iter().filter_map(|id| self.tailers.get(id)).any(|tailer| tailer.family.is_live);
        let last = ids.last().copied();
        for id in ids {
            let Some(mut tailer) = self.tailers.remove(&id) else {
                continue;
            };
            if let Some(stream) = tailer.stream_mut() {
                let closed = self.files.unsettled(log);
                stream.begin(|| closed.chain(older.iter().cloned()).collect());
            }
            let action = self.read_turn(&mut tailer, has_live || last != Some(id)).await;
            let waits = self.must_wait_for(&tailer);
            older.extend(tailer.stream().and_then(|stream| stream.unsettled()));
            match action {
                TailAction::Restart => {
                    self.tailers.insert(id, tailer);
                    self.order.requeue(id, &self.tailers);
                }
                TailAction::Close => {
                    self.order.remove(id);
                    self.files.close(tailer, CloseReason::Left);
                }
                _ => drop(self.tailers.insert(id, tailer)),
            }
            match action {
                TailAction::Stopped => return RoundOutcome::Stopped,
                TailAction::Busy | TailAction::Restart => return RoundOutcome::More,
                TailAction::Stay if waits => return RoundOutcome::AllRead,
                TailAction::Stay | TailAction::Close => {}
            }
        }
        RoundOutcome::AllRead
    }

    async fn read_turn(&mut self, tailer: &mut FileTailer, is_rotated: bool) -> TailAction {
        if tailer.stream().is_none() {
            return self.close_unread(tailer).await;
        }
        let turn = tailer.read_turn(&self.files.output, ReadLimit::Bytes(MAX_TURN_BYTES)).await;
        tailer.report(turn.as_ref().err());
        match turn {
            Ok(ReadStatus::Stopped) => TailAction::Stopped,
            Ok(ReadStatus::More | ReadStatus::AwaitingClaim) => TailAction::Busy,
            Ok(ReadStatus::Replaced) => {
                self.content_lost(tailer).await;
                TailAction::Restart
            }
            Ok(ReadStatus::AtEnd) | Err(_) => self.close_if_ended(tailer, is_rotated).await,
        }
    }

    /// Closes a file that is read to its end, if its name is missing long enough.
    async fn close_if_ended(&mut self, tailer: &mut FileTailer, is_rotated: bool) -> TailAction {
        let output = &self.files.output;
        let missing = tailer.missing.map(|since| since.elapsed());
        let is_over = match (tailer.is_gone(), tailer.deleted) {
            (true, _) => tailer.peers_are_known(),
            (false, true) => missing.is_some_and(|missing| missing >= DELETED_FILE_TIMEOUT),
            (false, false) => missing.is_some_and(|missing| missing >= RENAMED_FILE_TIMEOUT),
        };
        let has_end = (is_rotated && !tailer.family.is_live) || tailer.is_finished();
        let rotated_for = tailer.quiet_for().filter(|_| has_end);
        let is_final =
            rotated_for.is_some_and(|quiet| quiet >= LAST_LINE_TIMEOUT) && tailer.has_rest();
        if !is_over && !is_final {
            return TailAction::Stay;
        }
        // No newline will be appended any more.
        match tailer.send_rest(output, RestOfLine::IsLine, Flush::NewGeneration, None).await {
            ReadStatus::Stopped => TailAction::Stopped,
            ReadStatus::More | ReadStatus::AwaitingClaim | ReadStatus::Replaced => TailAction::Busy,
            ReadStatus::AtEnd if is_over => TailAction::Close,
            ReadStatus::AtEnd => TailAction::Stay,
        }
    }

    /// Closes a file that is not being read.
    async fn close_unread(&mut self, tailer: &mut FileTailer) -> TailAction {
        let Some(missing) = tailer.missing.map(|since| since.elapsed()) else {
            return TailAction::Stay;
        };
        if missing < DELETED_FILE_TIMEOUT {
            return TailAction::Stay;
        }
        if let TailState::Unknown(_) = tailer.state {
            let found =
                self.files.identify(tailer, &mut self.tailers, IdentifyMode::DecideNow).await;
            if let Ok(IdentifyOutcome::Yes(rows)) = found {
                self.files.save_with_retry(rows).await;
                return TailAction::Stay;
            }
        }
        TailAction::Close
    }

    /// All logs, beginning with the one whose turn is first.
    fn logs(&mut self) -> LogFiles {
        let mut logs = self.order.logs(&self.tailers);
        if let Some(first) = self.first.take() {
            let split = logs.partition_point(|(log, _)| *log < first);
            logs.rotate_left(split);
        }
        logs
    }

    /// Waits until something may have changed.
    async fn wait_for_change(&self) {
        let stop = &self.files.output.stop;
        stop.run_until_cancelled(tokio::time::sleep(MIN_POLL_PAUSE)).await;
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.files.output.out.closed() => {}
            () = self.watcher.changed() => {}
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
    }
}

/// The number of files of each log.
fn sizes(logs: &LogFiles) -> HashMap<Arc<str>, usize> {
    logs.iter().map(|(log, ids)| (Arc::clone(log), ids.len())).collect()
}

/// What to do with a file after its turn.
#[derive(Clone, Copy)]
enum TailAction {
    /// All is read, or nothing can be read now.
    Stay,
    /// There is more to read.
    Busy,
    /// It no longer holds what was read.
    Restart,
    /// It can be closed.
    Close,
    Stopped,
}
