//! Reading files as they grow, in turns.
//!
//! The generations of one log are read in their order (`order`): in each round a file has a turn
//! only if all older ones are read to their end. Other files take turns.
//!
//! # Invariants
//!
//! A content is begun only after a search that began after the content was seen: what is older was
//! in the folder by then, and is read first.
//!
//! Each log has a turn of bounded length in each round, so that a busy one does not starve a quiet
//! one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::family::Family;
use super::file_set::{CloseReason, FileSet, Tails, UnreadableFiles};
use super::identify::{Identified, Patience, recheck};
use super::identity::FileId;
use super::offsets::FileOffsetTracker;
use super::order::{Logs, Order};
use super::scanner::{Found, GlobScanner};
use super::state::{State, Waits};
use super::stream::RestOfLine;
use super::tailer::{FileTailer, ReadStatus, Until};
use super::watcher::DirWatcher;
use crate::config::source::ReadFrom;
use crate::source::SourceError;
use crate::source::decode::Flush;

/// How often open files are looked at when nothing wakes the reader.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How often files are searched for when nothing wakes the reader.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time between two searches, however many names change.
const MIN_SEARCH_INTERVAL: Duration = Duration::from_millis(100);
/// The shortest pause once all is read, however much is written meanwhile.
const MIN_POLL_PAUSE: Duration = Duration::from_millis(10);
/// Bytes a log may take of a round.
const MAX_TURN_BYTES: u64 = 1 << 20;
/// How long a deleted file is kept open: its writer may not know yet.
const DELETED_FILE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a file that no pattern finds any more is kept open: likewise.
const RENAMED_FILE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the end of a rotated file is waited for: its writer may not know yet.
const LAST_LINE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long newer generations of a log wait for one that cannot be read.
const GENERATION_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Follow {
    pub(super) desk: FileSet,
    pub(super) tails: Tails,
    alarm: DirWatcher,
    searched: Option<Instant>,
    pub(super) order: Order,
    /// Whether the next search must not wait.
    pub(super) search_now: bool,
    names_changed: bool,
    /// Which log's turn is first in the next round.
    first: Option<Arc<str>>,
    /// Files that newer generations did not wait for any longer.
    overtaken: HashSet<FileId>,
}

/// How a round ended.
enum Round {
    /// At least one file has more.
    More,
    /// All is read.
    Quiet,
    Stopped,
}

impl Follow {
    pub(super) fn new(desk: FileSet, finder: &GlobScanner) -> Self {
        let mut alarm = DirWatcher::new();
        alarm.watch(finder.folders());
        Self {
            desk,
            tails: Tails::new(),
            alarm,
            searched: None,
            order: Order::default(),
            search_now: false,
            names_changed: false,
            first: None,
            overtaken: HashSet::new(),
        }
    }

    pub(super) async fn run(mut self, from: ReadFrom) -> Result<UnreadableFiles, SourceError> {
        loop {
            self.search_if_due(from).await;
            self.recheck().await;
            let identified = self.identify().await;
            let round = self.round().await;
            self.desk.save_claims(&mut self.tails).await;
            self.desk.save_if_due(self.tails.values_mut()).await;
            match round {
                Round::Stopped => break,
                Round::More => {}
                Round::Quiet if identified || self.search_now => {}
                Round::Quiet => self.rest().await,
            }
        }
        self.desk.finish(self.tails.into_values().collect()).await
    }

    async fn search_if_due(&mut self, from: ReadFrom) {
        self.names_changed |= self.alarm.names_changed();
        let pause = match (std::mem::take(&mut self.search_now), self.names_changed) {
            (true, _) => Duration::ZERO,
            (false, true) => MIN_SEARCH_INTERVAL,
            (false, false) => SEARCH_INTERVAL,
        };
        let (findings, from) = match self.searched {
            Some(at) if at.elapsed() < pause => return,
            // Whatever appears later is new, and wanted whole.
            Some(_) => (self.desk.find().await, ReadFrom::Beginning),
            None => (self.desk.first_find().await, from),
        };
        self.names_changed = false;
        let now = Instant::now();
        self.searched = Some(now);
        for tail in self.tails.values_mut() {
            tail.missing.get_or_insert(now);
            tail.searched();
        }
        for found in &findings.files {
            if let Some(tail) = self.tails.get_mut(&found.id) {
                tail.found(found);
            }
        }
        self.order.take(&findings.files, &self.tails);
        let known = |found: &Found| self.tails.contains_key(&found.id);
        let new: Vec<_> = findings.files.into_iter().filter(|found| !known(found)).collect();
        if new.is_empty() {
            self.order.note_unopened(&[], &self.tails);
            return;
        }
        let names: Vec<_> = new.iter().map(|f| (f.id, Family::of(&f.path))).collect();
        self.desk.common.progress.found(new.iter().map(|found| found.size).sum());
        self.desk.common.progress.found_files(new.len());
        let folders: Vec<_> = new
            .iter()
            .filter_map(|found| Some(found.path.parent()?.to_owned()))
            .filter(|folder| !folder.as_os_str().is_empty())
            .collect();
        self.alarm.watch(folders.into_iter());
        let opened = self.desk.open(new, from, &self.tails).await;
        self.tails.extend(opened.into_iter().map(|tail| (tail.id(), tail)));
        self.order.note_unopened(&names, &self.tails);
    }

    /// Looks whether files still hold what was read of them.
    async fn recheck(&mut self) {
        let (mut cut_off, mut unknown) = (Vec::new(), Vec::new());
        for (id, tail) in &mut self.tails {
            let checked = match recheck(tail) {
                Ok(true) => {
                    unknown.push(*id);
                    Ok(false)
                }
                Ok(false) => tail.is_cut_off().await,
                Err(error) => Err(error),
            };
            match checked {
                Ok(false) => {}
                Ok(true) => cut_off.push(*id),
                Err(error) => tail.report(Some(&error)),
            }
        }
        for id in unknown {
            self.order.put_back(id, &self.tails);
        }
        for id in cut_off {
            if let Some(mut tail) = self.tails.remove(&id) {
                self.lose(&mut tail).await;
                self.tails.insert(id, tail);
                self.order.put_back(id, &self.tails);
            }
        }
    }

    /// Finds out what unknown files are, as far as it is their turn. Whether some became known.
    async fn identify(&mut self) -> bool {
        let known = self.identify_known().await;
        self.join_missing().await;
        let begun = self.identify_in_turn().await;
        if known || begun {
            self.desk.save_surely(Vec::new()).await;
        }
        known || begun
    }

    /// Finds out which files hold what is known already, also out of turn.
    async fn identify_known(&mut self) -> bool {
        let mut some = false;
        for (_, ids) in self.order.logs(&self.tails) {
            for id in ids {
                if self.tails.get(&id).is_some_and(|tail| tail.is_to_be_compared(self.desk.losses))
                    && let Some(mut tail) = self.tails.remove(&id)
                {
                    some |= self.identify_one(&mut tail, Patience::OnlyKnown).await;
                    self.search_now |= tail.is_seen() && !tail.has_company();
                    self.tails.insert(id, tail);
                }
            }
        }
        some
    }

    /// Begins files, as far as it is their turn.
    async fn identify_in_turn(&mut self) -> bool {
        let mut some = false;
        let logs = self.order.logs(&self.tails);
        let sizes = sizes(&logs);
        for (_, ids) in logs {
            let mut waits = false;
            for id in ids {
                let Some(mut tail) = self.tails.remove(&id) else {
                    continue;
                };
                let may_begin = !waits && !self.order.is_short(&tail, GENERATION_TIMEOUT);
                if matches!(tail.state, State::Unknown(_)) && may_begin {
                    if !tail.has_company() && tail.size() > 0 {
                        self.search_now |= tail.is_seen();
                    } else if !self.waits_for_twin(&mut tail, &sizes).await {
                        some |= self.identify_one(&mut tail, Patience::Wait).await;
                    }
                }
                waits |= self.holds_up(&tail);
                self.tails.insert(id, tail);
            }
        }
        some
    }

    /// Finds out what a file is. Whether it is known now; that is to be saved.
    async fn identify_one(&mut self, tail: &mut FileTailer, patience: Patience) -> bool {
        let identified = self.desk.identify(tail, &mut self.tails, patience).await;
        tail.report(identified.as_ref().err());
        match identified {
            Ok(Identified::Yes(rows)) => {
                self.desk.book.stage(rows);
                true
            }
            Ok(Identified::NotYet) => false,
            Err(error) => {
                self.desk.trouble(tail.path(), &error.to_string());
                false
            }
        }
    }

    /// Whether newer generations of the same log have to wait for this one.
    fn holds_up(&mut self, tail: &FileTailer) -> bool {
        let waits = match &tail.state {
            State::Copy(_) => false,
            State::Unknown(unknown) => tail.size() > 0 && self.is_ahead(tail, unknown.waits),
            State::Reading(_) => tail.quiet_for().is_none() || !tail.has_company(),
        };
        if waits && tail.stuck_for().is_some_and(|stuck| stuck > GENERATION_TIMEOUT) {
            if self.overtaken.insert(tail.id()) {
                tracing::warn!(path = ?tail.path(), seconds = GENERATION_TIMEOUT.as_secs(), "the file cannot be read to its end; newer generations of the same log are read now, so records of one user may come out of order");
            }
            return false;
        }
        if !waits {
            self.overtaken.remove(&tail.id());
        }
        waits
    }

    /// Whether a file of which nothing is read yet comes before newer generations of its log.
    fn is_ahead(&self, tail: &FileTailer, waits: Option<Waits>) -> bool {
        match waits {
            None => true,
            Some(Waits::ForBytes) => false,
            Some(Waits::For(id)) => {
                let original = self.tails.get(&id).filter(|other| other.stream().is_some());
                let same_log = original.is_none_or(|other| other.family.key == tail.family.key);
                same_log && !self.overtaken.contains(&id)
            }
        }
    }

    /// Gives every log a turn, or as many as there is time for until checkpoints are to be saved.
    async fn round(&mut self) -> Round {
        let mut round = Round::Quiet;
        for (log, ids) in self.logs() {
            if self.desk.outlet.is_closed() {
                return Round::Stopped;
            }
            if self.desk.outlet.is_due() {
                // Those that had no turn come first next time, or a full channel would starve them.
                self.first = Some(log);
                return Round::More;
            }
            match self.log_round(&log, ids).await {
                Round::Quiet => {}
                Round::More => round = Round::More,
                Round::Stopped => return Round::Stopped,
            }
        }
        match self.desk.outlet.is_closed() {
            true => Round::Stopped,
            false => round,
        }
    }

    /// Gives the oldest file of a log that is not read to its end a turn.
    async fn log_round(&mut self, log: &str, ids: Vec<FileId>) -> Round {
        let mut older: Vec<(Arc<FileOffsetTracker>, u64)> = Vec::new();
        let has_live =
            ids.iter().filter_map(|id| self.tails.get(id)).any(|tail| tail.family.is_live);
        let last = ids.last().copied();
        for id in ids {
            let Some(mut tail) = self.tails.remove(&id) else {
                continue;
            };
            if let Some(stream) = tail.stream_mut() {
                let closed = self.desk.unsettled(log);
                stream.begin(|| closed.chain(older.iter().cloned()).collect());
            }
            let parting = self.turn(&mut tail, has_live || last != Some(id)).await;
            let waits = self.holds_up(&tail);
            older.extend(tail.stream().and_then(|stream| stream.unsettled()));
            match parting {
                TailAction::Cut => {
                    self.tails.insert(id, tail);
                    self.order.put_back(id, &self.tails);
                }
                TailAction::Over => {
                    self.order.remove(id);
                    self.desk.close(tail, CloseReason::Left);
                }
                _ => drop(self.tails.insert(id, tail)),
            }
            match parting {
                TailAction::Stopped => return Round::Stopped,
                TailAction::Busy | TailAction::Cut => return Round::More,
                TailAction::Stay if waits => return Round::Quiet,
                TailAction::Stay | TailAction::Over => {}
            }
        }
        Round::Quiet
    }

    async fn turn(&mut self, tail: &mut FileTailer, is_rotated: bool) -> TailAction {
        if tail.stream().is_none() {
            return self.part_unread(tail).await;
        }
        let turn = tail.turn(&self.desk.outlet, Until::MemoryBudget(MAX_TURN_BYTES)).await;
        tail.report(turn.as_ref().err());
        match turn {
            Ok(ReadStatus::Stopped) => TailAction::Stopped,
            Ok(ReadStatus::More | ReadStatus::Unclaimed) => TailAction::Busy,
            Ok(ReadStatus::Replaced) => {
                self.lose(tail).await;
                TailAction::Cut
            }
            Ok(ReadStatus::Quiet) | Err(_) => self.part(tail, is_rotated).await,
        }
    }

    /// Takes leave of a file that is read to its end, if its name is gone long enough.
    async fn part(&mut self, tail: &mut FileTailer, is_rotated: bool) -> TailAction {
        let outlet = &self.desk.outlet;
        let missing = tail.missing.map(|since| since.elapsed());
        let is_over = match (tail.is_gone(), tail.deleted) {
            (true, _) => tail.has_company(),
            (false, true) => missing.is_some_and(|missing| missing >= DELETED_FILE_TIMEOUT),
            (false, false) => missing.is_some_and(|missing| missing >= RENAMED_FILE_TIMEOUT),
        };
        let has_end = (is_rotated && !tail.family.is_live) || tail.is_finished();
        let rotated_for = tail.quiet_for().filter(|_| has_end);
        let is_final =
            rotated_for.is_some_and(|quiet| quiet >= LAST_LINE_TIMEOUT) && tail.has_rest();
        if !is_over && !is_final {
            return TailAction::Stay;
        }
        // No newline will ever come.
        match tail.send_rest(outlet, RestOfLine::IsLine, Flush::NewGeneration, None).await {
            ReadStatus::Stopped => TailAction::Stopped,
            ReadStatus::More | ReadStatus::Unclaimed | ReadStatus::Replaced => TailAction::Busy,
            ReadStatus::Quiet if is_over => TailAction::Over,
            ReadStatus::Quiet => TailAction::Stay,
        }
    }

    /// Takes leave of a file that is not read.
    async fn part_unread(&mut self, tail: &mut FileTailer) -> TailAction {
        let Some(missing) = tail.missing.map(|since| since.elapsed()) else {
            return TailAction::Stay;
        };
        if missing < DELETED_FILE_TIMEOUT {
            return TailAction::Stay;
        }
        if let State::Unknown(_) = tail.state {
            let found = self.desk.identify(tail, &mut self.tails, Patience::DecideNow).await;
            if let Ok(Identified::Yes(rows)) = found {
                self.desk.save_surely(rows).await;
                return TailAction::Stay;
            }
        }
        TailAction::Over
    }

    /// All logs, beginning with the one whose turn is first.
    fn logs(&mut self) -> Logs {
        let mut logs = self.order.logs(&self.tails);
        if let Some(first) = self.first.take() {
            let split = logs.partition_point(|(log, _)| *log < first);
            logs.rotate_left(split);
        }
        logs
    }

    /// Waits until something may have changed.
    async fn rest(&self) {
        let stop = &self.desk.outlet.stop;
        stop.run_until_cancelled(tokio::time::sleep(MIN_POLL_PAUSE)).await;
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.desk.outlet.out.closed() => {}
            () = self.alarm.rung() => {}
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
    }
}

/// How many files each log has.
fn sizes(logs: &Logs) -> HashMap<Arc<str>, usize> {
    logs.iter().map(|(log, ids)| (Arc::clone(log), ids.len())).collect()
}

/// What a turn leaves of a file.
#[derive(Clone, Copy)]
enum TailAction {
    /// All is read, or nothing can be read now.
    Stay,
    /// There is more.
    Busy,
    /// It does not hold any more what was read of it.
    Cut,
    /// It is closed.
    Over,
    Stopped,
}
