//! Reading files as they grow, in turns.
//!
//! Not here: lines. One invariant: each file has a turn of bounded length in each round, so that a
//! busy file does not starve a quiet one.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::alarm::Alarm;
use super::desk::{Desk, Farewell, Troubles};
use super::finder::Finder;
use super::identity::FileId;
use super::tail::{Outlet, Tail, Turn, Until};
use crate::config::source::ReadFrom;
use crate::source::SourceError;

/// How often open files are looked at when nothing wakes the reader.
const POLL: Duration = Duration::from_millis(250);
/// How often files are searched for when nothing wakes the reader.
const SEARCH: Duration = Duration::from_secs(1);
/// The shortest time between two searches, however many names change.
const SEARCH_AT_MOST: Duration = Duration::from_millis(100);
/// The shortest pause once all is read, however much is written meanwhile.
const BREATH: Duration = Duration::from_millis(10);
/// Bytes a file may take of a round.
const TURN: u64 = 1 << 20;
/// How long a deleted file is kept open: its writer may not know yet.
const AFTER_DELETION: Duration = Duration::from_secs(2);
/// How long a file that no pattern finds any more is kept open: likewise.
const AFTER_RENAME: Duration = Duration::from_secs(60);

pub(super) struct Follow {
    desk: Desk,
    tails: BTreeMap<FileId, Tail>,
    alarm: Alarm,
    searched: Option<Instant>,
    names_changed: bool,
    /// Whose turn is first in the next round.
    first: Option<FileId>,
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
    pub(super) fn new(desk: Desk, finder: &Finder) -> Self {
        let mut alarm = Alarm::new();
        alarm.watch(finder.folders());
        Self {
            desk,
            tails: BTreeMap::new(),
            alarm,
            searched: None,
            names_changed: false,
            first: None,
        }
    }

    pub(super) async fn run(mut self, from: ReadFrom) -> Result<Troubles, SourceError> {
        loop {
            self.search_if_due(from).await?;
            let round = self.round().await?;
            self.desk.save_if_due(self.tails.values()).await?;
            match round {
                Round::Stopped => break,
                Round::More => {}
                Round::Quiet => self.rest().await,
            }
        }
        self.desk.finish(self.tails.into_values().collect()).await
    }

    async fn search_if_due(&mut self, from: ReadFrom) -> Result<(), SourceError> {
        self.names_changed |= self.alarm.names_changed();
        let pause = match self.names_changed {
            true => SEARCH_AT_MOST,
            false => SEARCH,
        };
        let (findings, from) = match self.searched {
            Some(at) if at.elapsed() < pause => return Ok(()),
            // Whatever appears later is new, and wanted whole.
            Some(_) => (self.desk.find().await, ReadFrom::Beginning),
            None => (self.desk.first_find().await?, from),
        };
        self.names_changed = false;
        let now = Instant::now();
        self.searched = Some(now);
        for tail in self.tails.values_mut() {
            tail.missing.get_or_insert(now);
        }
        let mut new = Vec::new();
        for found in findings.files {
            if let Some(tail) = self.tails.get_mut(&found.id) {
                tail.missing = None;
                tail.rename(&found.path);
            } else {
                new.push(found);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let sizes = new.iter().map(|found| found.size).sum();
        self.desk.common.progress.found(sizes);
        let folders: Vec<_> = new
            .iter()
            .filter_map(|found| Some(found.path.parent()?.to_owned()))
            .filter(|folder| !folder.as_os_str().is_empty())
            .collect();
        self.alarm.watch(folders.into_iter());
        let opened = self.desk.open(new, from).await?;
        self.tails.extend(opened.into_iter().map(|tail| (tail.id(), tail)));
        Ok(())
    }

    /// Gives every file a turn, or as many as there is time for until checkpoints are to be saved.
    async fn round(&mut self) -> Result<Round, SourceError> {
        let mut round = Round::Quiet;
        for id in self.order() {
            let Some(tail) = self.tails.get_mut(&id) else {
                continue;
            };
            if self.desk.outlet.is_closed() {
                return Ok(Round::Stopped);
            }
            if self.desk.outlet.is_due() {
                // Those that had no turn come first next time, or a full channel would starve them.
                self.first = Some(id);
                return Ok(Round::More);
            }
            match turn(tail, &mut self.desk).await? {
                Parting::Stay => {}
                Parting::Busy => round = Round::More,
                Parting::Stopped => return Ok(Round::Stopped),
                Parting::Over(farewell) => {
                    self.desk.close(tail, farewell);
                    self.tails.remove(&id);
                }
            }
        }
        match self.desk.outlet.is_closed() {
            true => Ok(Round::Stopped),
            false => Ok(round),
        }
    }

    /// All files, beginning with the one whose turn is first.
    fn order(&mut self) -> Vec<FileId> {
        let mut ids: Vec<FileId> = self.tails.keys().copied().collect();
        if let Some(first) = self.first.take() {
            let split = ids.partition_point(|id| *id < first);
            ids.rotate_left(split);
        }
        ids
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

/// What a turn leaves of a file.
enum Parting {
    /// All is read.
    Stay,
    /// There is more.
    Busy,
    /// It is closed.
    Over(Farewell),
    Stopped,
}

async fn turn(tail: &mut Tail, desk: &mut Desk) -> Result<Parting, SourceError> {
    let turn = tail.turn(&desk.outlet, Until::Budget(TURN)).await;
    tail.report(turn.as_ref().err());
    Ok(match turn {
        Ok(Turn::Stopped) => Parting::Stopped,
        Ok(Turn::More) => Parting::Busy,
        Ok(Turn::Replaced) => {
            desk.restart(tail).await?;
            Parting::Busy
        }
        Ok(Turn::Quiet) | Err(_) => part(tail, &desk.outlet).await,
    })
}

/// Takes leave of a file that is read to its end, if its name is gone long enough.
async fn part(tail: &mut Tail, outlet: &Outlet) -> Parting {
    let Some(missing) = tail.missing.map(|since| since.elapsed()) else {
        return Parting::Stay;
    };
    match tail.deleted {
        true if missing >= AFTER_DELETION => {}
        false if missing >= AFTER_RENAME => return Parting::Over(Farewell::Left),
        _ => return Parting::Stay,
    }
    // No newline will ever come.
    match tail.send_rest(outlet).await {
        Turn::Stopped => Parting::Stopped,
        Turn::Quiet => Parting::Over(Farewell::Deleted),
        Turn::More | Turn::Replaced => Parting::Busy,
    }
}
