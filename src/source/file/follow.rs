//! Reading files as they grow, in turns.
//!
//! The generations of one log are read in their order: in each round a file has a turn only if all
//! older ones are read to their end. Other files take turns.
//!
//! Not here: lines. One invariant: each log has a turn of bounded length in each round, so that a
//! busy one does not starve a quiet one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::alarm::Alarm;
use super::desk::{Desk, Farewell, Tails, Troubles};
use super::family;
use super::finder::Finder;
use super::identify::{Identified, Lost, Patience, Rows, recheck};
use super::identity::FileId;
use super::ledger::Ledger;
use super::state::{State, Waits};
use super::stream::RestOfLine;
use super::tail::{Tail, Turn, Until};
use crate::config::source::ReadFrom;
use crate::source::SourceError;
use crate::source::decode::Flush;

/// How often open files are looked at when nothing wakes the reader.
const POLL: Duration = Duration::from_millis(250);
/// How often files are searched for when nothing wakes the reader.
const SEARCH: Duration = Duration::from_secs(1);
/// The shortest time between two searches, however many names change.
const SEARCH_AT_MOST: Duration = Duration::from_millis(100);
/// The shortest pause once all is read, however much is written meanwhile.
const BREATH: Duration = Duration::from_millis(10);
/// Bytes a log may take of a round.
const TURN: u64 = 1 << 20;
/// How long a deleted file is kept open: its writer may not know yet.
const AFTER_DELETION: Duration = Duration::from_secs(2);
/// How long a file that no pattern finds any more is kept open: likewise.
const AFTER_RENAME: Duration = Duration::from_secs(60);
/// How long the end of a rotated file is waited for: its writer may not know yet.
const AFTER_ROTATION: Duration = Duration::from_secs(5);
/// How long newer generations of a log wait for one that cannot be read.
const GENERATION_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Follow {
    desk: Desk,
    tails: Tails,
    alarm: Alarm,
    searched: Option<Instant>,
    /// Whether files were searched for in this round.
    just_searched: bool,
    /// Whether the next search must not wait.
    search_now: bool,
    names_changed: bool,
    /// Which log's turn is first in the next round.
    first: Option<Arc<str>>,
    /// Contents that their file does not hold any more.
    lost: Vec<(Box<super::stream::Stream>, Lost)>,
    /// Files that newer generations did not wait for any longer.
    overtaken: std::collections::HashSet<FileId>,
}

/// How a round ended.
enum Round {
    /// At least one file has more.
    More,
    /// All is read.
    Quiet,
    Stopped,
}

/// The generations of each log, oldest first.
type Logs = Vec<(Arc<str>, Vec<FileId>)>;

impl Follow {
    pub(super) fn new(desk: Desk, finder: &Finder) -> Self {
        let mut alarm = Alarm::new();
        alarm.watch(finder.folders());
        Self {
            desk,
            tails: Tails::new(),
            alarm,
            searched: None,
            just_searched: false,
            search_now: false,
            names_changed: false,
            first: None,
            lost: Vec::new(),
            overtaken: std::collections::HashSet::new(),
        }
    }

    pub(super) async fn run(mut self, from: ReadFrom) -> Result<Troubles, SourceError> {
        loop {
            self.search_if_due(from).await;
            self.find_heirs().await;
            let identified = self.identify().await;
            let round = self.round().await;
            self.desk.save_claims(&mut self.tails).await;
            self.desk.save_if_due(self.tails.values_mut()).await;
            match round {
                Round::Stopped => break,
                Round::More => {}
                Round::Quiet if identified || self.search_now || !self.lost.is_empty() => {}
                Round::Quiet => self.rest().await,
            }
        }
        for (stream, lost) in std::mem::take(&mut self.lost) {
            self.desk.close_lost(stream, lost.family, lost.head, lost.path);
        }
        self.desk.finish(self.tails.into_values().collect()).await
    }

    async fn search_if_due(&mut self, from: ReadFrom) {
        self.names_changed |= self.alarm.names_changed();
        self.just_searched = false;
        // What was cut off may have been copied before.
        let now = std::mem::take(&mut self.search_now) || !self.lost.is_empty();
        let pause = match (now, self.names_changed) {
            (true, _) => Duration::ZERO,
            (false, true) => SEARCH_AT_MOST,
            (false, false) => SEARCH,
        };
        let (findings, from) = match self.searched {
            Some(at) if at.elapsed() < pause => return,
            // Whatever appears later is new, and wanted whole.
            Some(_) => (self.desk.find().await, ReadFrom::Beginning),
            None => (self.desk.first_find().await, from),
        };
        self.names_changed = false;
        self.just_searched = true;
        let now = Instant::now();
        self.searched = Some(now);
        for tail in self.tails.values_mut() {
            tail.missing.get_or_insert(now);
        }
        let mut new = Vec::new();
        for found in findings.files {
            match self.tails.get_mut(&found.id) {
                Some(tail) => tail.found(&found),
                None => new.push(found),
            }
        }
        if new.is_empty() {
            return;
        }
        self.desk.common.progress.found(new.iter().map(|found| found.size).sum());
        let folders: Vec<_> = new
            .iter()
            .filter_map(|found| Some(found.path.parent()?.to_owned()))
            .filter(|folder| !folder.as_os_str().is_empty())
            .collect();
        self.alarm.watch(folders.into_iter());
        let opened = self.desk.open(new, from, &self.tails).await;
        self.tails.extend(opened.into_iter().map(|tail| (tail.id(), tail)));
    }

    /// Finds the copies in which what was cut off goes on.
    async fn find_heirs(&mut self) {
        for (stream, lost) in std::mem::take(&mut self.lost) {
            let path = lost.path.clone();
            match self.desk.bequeath(stream, lost, &mut self.tails).await {
                Ok(rows) => drop(self.desk.save_surely(rows).await),
                Err(error) => {
                    tracing::warn!(path, %error, "copies of a file that was cut off cannot be read; what it held and was not read is lost unless one can be read later")
                }
            }
        }
    }

    /// Finds out what unknown files are, as far as it is their turn. Whether some became known.
    async fn identify(&mut self) -> bool {
        let mut rows = Rows::new();
        let mut unsaved = Vec::new();
        for (_, ids) in self.logs() {
            let mut waits = false;
            for id in ids {
                let Some(mut tail) = self.tails.remove(&id) else {
                    continue;
                };
                if let Err(error) = recheck(&mut tail) {
                    tail.report(Some(&error));
                }
                match &tail.state {
                    State::Unknown(_) if waits => {}
                    // It may have been renamed, or copied and cut off, since it was found.
                    State::Unknown(_)
                        if !self.just_searched && tail.missing.is_none() && !tail.is_as_found() =>
                    {
                        self.search_now = true;
                    }
                    State::Unknown(_) => {
                        let (tails, patience) = (&mut self.tails, Patience::Wait);
                        let found = self.desk.identify(&mut tail, tails, &unsaved, patience).await;
                        tail.report(found.as_ref().err());
                        match found {
                            Ok(Identified::Yes(more)) => {
                                rows.extend(more);
                                unsaved.push(tail.text_head().clone());
                            }
                            Ok(Identified::NotYet) => {}
                            Err(error) => self.desk.trouble(tail.path(), &error.to_string()),
                        }
                    }
                    State::Reading(_) | State::Copy(_) => {}
                }
                waits |= self.holds_up(&tail);
                self.tails.insert(id, tail);
            }
        }
        let some = !rows.is_empty();
        if some {
            self.desk.save_surely(rows).await;
        }
        some
    }

    /// Whether newer generations of the same log have to wait for this one.
    fn holds_up(&mut self, tail: &Tail) -> bool {
        let waits = match &tail.state {
            State::Copy(_) => false,
            State::Unknown(unknown) => tail.size() > 0 && self.is_ahead(tail, unknown.waits),
            State::Reading(_) => tail.quiet_for().is_none(),
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
    fn is_ahead(&self, tail: &Tail, waits: Option<Waits>) -> bool {
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
        let mut older: Vec<(Arc<Ledger>, u64)> = Vec::new();
        let unopened = self.desk.unopened_for(log).is_some_and(|since| since < GENERATION_TIMEOUT);
        let last = ids.last().copied();
        for id in ids {
            let Some(mut tail) = self.tails.remove(&id) else {
                continue;
            };
            if unopened && tail.family.is_live && tail.is_fresh() {
                // An older generation is there and cannot be opened yet.
                self.tails.insert(id, tail);
                return Round::Quiet;
            }
            if tail.needs_search(self.just_searched) {
                self.search_now = true;
                self.tails.insert(id, tail);
                return Round::Quiet;
            }
            if let Some(stream) = tail.stream_mut() {
                let closed = self.desk.unsettled(log);
                stream.begin(|| closed.chain(older.iter().cloned()).collect());
            }
            let parting = self.turn(&mut tail, last != Some(id)).await;
            let waits = self.holds_up(&tail);
            older.extend(tail.stream().and_then(|stream| stream.unsettled()));
            match parting {
                Parting::Over => self.desk.close(tail, Farewell::Left),
                _ => drop(self.tails.insert(id, tail)),
            }
            match parting {
                Parting::Stopped => return Round::Stopped,
                Parting::Busy => return Round::More,
                Parting::Stay if waits => return Round::Quiet,
                Parting::Stay | Parting::Over => {}
            }
        }
        Round::Quiet
    }

    async fn turn(&mut self, tail: &mut Tail, is_rotated: bool) -> Parting {
        if tail.stream().is_none() {
            return self.part_unread(tail).await;
        }
        let turn = tail.turn(&self.desk.outlet, Until::Budget(TURN)).await;
        tail.report(turn.as_ref().err());
        match turn {
            Ok(Turn::Stopped) => Parting::Stopped,
            Ok(Turn::More | Turn::Unclaimed) => Parting::Busy,
            Ok(Turn::Replaced) => {
                self.replaced(tail);
                Parting::Busy
            }
            Ok(Turn::Quiet) | Err(_) => self.part(tail, is_rotated).await,
        }
    }

    /// The file was cut off or written over: what it held may go on in a copy, and what it holds now
    /// is unknown.
    fn replaced(&mut self, tail: &mut Tail) {
        if tail.stream().is_some_and(|stream| stream.fed() == 0) {
            // Nothing was read of what it held: that is found in its copy like any other file.
            tail.forget();
            self.search_now = true;
            return;
        }
        tracing::info!(path = ?tail.path(), "the file was cut off or written anew; it is read from its beginning");
        let lost = tail.as_lost();
        if let Some(stream) = tail.forget() {
            self.lost.push((stream, lost));
        }
    }

    /// Takes leave of a file that is read to its end, if its name is gone long enough.
    async fn part(&mut self, tail: &mut Tail, is_rotated: bool) -> Parting {
        let outlet = &self.desk.outlet;
        let missing = tail.missing.map(|since| since.elapsed());
        let is_over = missing.is_some_and(|missing| match tail.deleted {
            true => missing >= AFTER_DELETION,
            false => missing >= AFTER_RENAME,
        });
        let rotated_for = tail.quiet_for().filter(|_| is_rotated && !tail.family.is_live);
        let is_final = rotated_for.is_some_and(|quiet| quiet >= AFTER_ROTATION) && tail.has_rest();
        if !is_over && !is_final {
            return Parting::Stay;
        }
        // No newline will ever come.
        match tail.send_rest(outlet, RestOfLine::IsLine, Flush::NewGeneration, None).await {
            Turn::Stopped => Parting::Stopped,
            Turn::More | Turn::Unclaimed | Turn::Replaced => Parting::Busy,
            Turn::Quiet if is_over => Parting::Over,
            Turn::Quiet => Parting::Stay,
        }
    }

    /// Takes leave of a file that is not read.
    async fn part_unread(&mut self, tail: &mut Tail) -> Parting {
        let Some(missing) = tail.missing.map(|since| since.elapsed()) else {
            return Parting::Stay;
        };
        if missing < AFTER_DELETION {
            return Parting::Stay;
        }
        if let State::Unknown(_) = tail.state {
            let found = self.desk.identify(tail, &mut self.tails, &[], Patience::DecideNow).await;
            if let Ok(Identified::Yes(rows)) = found {
                self.desk.save_surely(rows).await;
                return Parting::Stay;
            }
        }
        Parting::Over
    }

    /// All logs, beginning with the one whose turn is first.
    fn logs(&mut self) -> Logs {
        let mut logs: BTreeMap<Arc<str>, Vec<&Tail>> = BTreeMap::new();
        for tail in self.tails.values() {
            logs.entry(Arc::clone(&tail.family.key)).or_default().push(tail);
        }
        let mut logs: Logs = logs
            .into_iter()
            .map(|(log, mut files)| {
                family::sort(&mut files, |tail| tail.age());
                (log, behind_originals(&files))
            })
            .collect();
        if let Some(first) = self.first.take() {
            let split = logs.partition_point(|(log, _)| *log < first);
            logs.rotate_left(split);
        }
        logs
    }

    /// Waits until something may have changed.
    async fn rest(&self) {
        let stop = &self.desk.outlet.stop;
        stop.run_until_cancelled(tokio::time::sleep(BREATH)).await;
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.desk.outlet.out.closed() => {}
            () = self.alarm.rung() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// Files in their order, but each that waits for a later one that is read right behind that one.
fn behind_originals(files: &[&Tail]) -> Vec<FileId> {
    let mut ids: Vec<FileId> = files.iter().map(|tail| tail.id()).collect();
    let is_read = |id| files.iter().any(|tail| tail.id() == id && tail.stream().is_some());
    for tail in files.iter().rev() {
        let place = |id| ids.iter().position(|other| *other == id);
        if let (Some(here), Some(there)) =
            (place(tail.id()), tail.waits_for().filter(|id| is_read(*id)).and_then(place))
            && here < there
        {
            ids[here..=there].rotate_left(1);
        }
    }
    ids
}

/// What a turn leaves of a file.
#[derive(Clone, Copy)]
enum Parting {
    /// All is read, or nothing can be read now.
    Stay,
    /// There is more.
    Busy,
    /// It is closed.
    Over,
    Stopped,
}
