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
use super::tail::{Tail, Turn, Until};
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
        self.tails
            .extend(opened.into_iter().map(|tail| (tail.id(), tail)));
        Ok(())
    }

    /// Gives every file a turn.
    async fn round(&mut self) -> Result<Round, SourceError> {
        let mut round = Round::Quiet;
        let mut over = Vec::new();
        for tail in self.tails.values_mut() {
            if self.desk.outlet.is_closed() {
                return Ok(Round::Stopped);
            }
            let turn = tail.turn(&self.desk.outlet, Until::Budget(TURN)).await;
            tail.report(turn.as_ref().err());
            match turn {
                Ok(Turn::Stopped) => return Ok(Round::Stopped),
                Ok(Turn::More) => round = Round::More,
                Ok(Turn::Replaced) => {
                    self.desk.restart(tail).await?;
                    round = Round::More;
                }
                Ok(Turn::Quiet) | Err(_) => over.extend(farewell(tail).map(|f| (tail.id(), f))),
            }
        }
        for (id, farewell) in over {
            if let Some(tail) = self.tails.remove(&id)
                && self.part(tail, farewell).await == Turn::Stopped
            {
                return Ok(Round::Stopped);
            }
        }
        match self.desk.outlet.is_closed() {
            true => Ok(Round::Stopped),
            false => Ok(round),
        }
    }

    /// Closes a file that is over.
    async fn part(&mut self, mut tail: Tail, farewell: Farewell) -> Turn {
        let turn = match farewell {
            // No newline will ever come.
            Farewell::Deleted => tail.send_rest(&self.desk.outlet).await,
            Farewell::Left | Farewell::Read => Turn::Quiet,
        };
        tracing::debug!(path = ?tail.path(), ?farewell, "a file is closed");
        self.desk.close(&tail, farewell);
        turn
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

/// Whether a file that is read to its end is over.
fn farewell(tail: &Tail) -> Option<Farewell> {
    let missing = tail.missing?.elapsed();
    match tail.deleted {
        true if missing >= AFTER_DELETION => Some(Farewell::Deleted),
        false if missing >= AFTER_RENAME => Some(Farewell::Left),
        _ => None,
    }
}
