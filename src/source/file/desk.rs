//! What reading once and following have in common: finding, opening, closing, checkpoints.
//!
//! Not here: in which order files are read. One invariant: a file is handed out for reading only
//! after its generation is saved, and its row is dropped only after its last verdict.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::book::{Book, Row};
use super::finder::{Finder, Findings, Found};
use super::glance::Opening;
use super::identity::FileId;
use super::ledger::Ledger;
use super::tail::{Common, Outlet, Tail, blocking};
use crate::config::source::ReadFrom;
use crate::source::SourceError;

/// How often checkpoints are saved at most.
pub(super) const SAVE: Duration = Duration::from_secs(1);

/// What becomes of the row of a file that is no longer read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Everything was read; it may grow.
    Read,
    /// No pattern finds it any more.
    Left,
    /// It does not exist any more.
    Deleted,
}

/// A file that is no longer read, while records of it are in flight.
struct Closed {
    id: FileId,
    row: Row,
    ledger: Arc<Ledger>,
    farewell: Farewell,
}

pub(super) struct Desk {
    pub(super) common: Arc<Common>,
    pub(super) outlet: Outlet,
    finder: Arc<Finder>,
    book: Book,
    closed: Vec<Closed>,
    /// What could not be opened or looked at, and why: each is logged once.
    troubles: HashMap<PathBuf, String>,
}

impl Desk {
    pub(super) fn new(
        common: Arc<Common>,
        outlet: Outlet,
        finder: Arc<Finder>,
        book: Book,
    ) -> Self {
        Self { common, outlet, finder, book, closed: Vec::new(), troubles: HashMap::new() }
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
    pub(super) async fn first_find(&mut self) -> Result<Findings, SourceError> {
        let findings = self.find().await;
        for pattern in &findings.idle {
            tracing::warn!(source = %self.common.source, ?pattern, "no file is found for the pattern");
        }
        let now = crate::clock::now().as_second();
        let found: HashSet<FileId> = findings.files.iter().map(|found| found.id).collect();
        let rows = self.book.sweep(|id| found.contains(&id), now);
        self.book.save(rows).await?;
        Ok(findings)
    }

    /// Opens files and saves their generations. Those that cannot be opened are left out.
    pub(super) async fn open(
        &mut self,
        found: Vec<Found>,
        from: ReadFrom,
    ) -> Result<Vec<Tail>, SourceError> {
        let mut tails = Vec::with_capacity(found.len());
        for found in found {
            let path = found.path.clone();
            match self.open_one(found, from).await {
                Ok(tail) => {
                    self.troubles.remove(&path);
                    // A new file with the identity of a deleted one: the row is the new one's.
                    self.closed.retain(|closed| closed.id != tail.id());
                    tails.push(tail);
                }
                Err(error) => self.trouble(&path, &error.to_string()),
            }
        }
        self.book.save(rows(&tails)).await?;
        Ok(tails)
    }

    /// Begins a new generation of a file that was cut off or written over.
    pub(super) async fn restart(&mut self, tail: &mut Tail) -> Result<(), SourceError> {
        tail.restart(self.book.new_generation());
        self.book.save(vec![(tail.id(), Some(tail.row()))]).await
    }

    /// The file is not read any more.
    pub(super) fn close(&mut self, tail: &Tail, farewell: Farewell) {
        let mut row = tail.row();
        if farewell == Farewell::Left {
            row.left = Some(crate::clock::now().as_second());
        }
        self.closed.push(Closed {
            id: tail.id(),
            row,
            ledger: Arc::clone(tail.ledger()),
            farewell,
        });
    }

    /// Saves what was settled, if it is time.
    pub(super) async fn save_if_due<'a>(
        &mut self,
        open: impl IntoIterator<Item = &'a Tail>,
    ) -> Result<(), SourceError> {
        if !self.outlet.is_due() {
            return Ok(());
        }
        self.save(open).await
    }

    /// Ends: waits for every verdict, then saves for the last time.
    pub(super) async fn finish(mut self, open: Vec<Tail>) -> Result<Troubles, SourceError> {
        // The receiver must see the end, or it would wait for more while we wait for it.
        let flight = Arc::clone(&self.common.flight);
        drop(std::mem::replace(&mut self.outlet.out, closed_channel()));
        while tokio::time::timeout(SAVE, flight.landed()).await.is_err() {
            self.save(&open).await?;
        }
        self.save(&open).await?;
        Ok(self.troubles)
    }

    async fn save<'a>(
        &mut self,
        open: impl IntoIterator<Item = &'a Tail>,
    ) -> Result<(), SourceError> {
        let mut rows = rows(open);
        let mut landed = Vec::new();
        for closed in std::mem::take(&mut self.closed) {
            let idle = closed.ledger.is_idle();
            rows.push((closed.id, closed.row_now(idle)));
            match idle {
                true => landed.push(closed),
                false => self.closed.push(closed),
            }
        }
        let saved = self.book.save(rows).await;
        if saved.is_err() {
            self.closed.extend(landed);
        }
        self.outlet.due = Instant::now() + SAVE;
        saved
    }

    async fn open_one(&mut self, found: Found, from: ReadFrom) -> io::Result<Tail> {
        let opening = Opening {
            row: self.book.row(found.id).cloned(),
            path: found.path,
            id: found.id,
            from,
            limit: self.common.limit,
        };
        let opened = blocking(move || opening.open()).await?;
        let generation = match opened.generation {
            Some(generation) => generation,
            None => self.book.new_generation(),
        };
        Tail::start(Arc::clone(&self.common), opened, generation, found.size).await
    }

    fn trouble(&mut self, path: &PathBuf, why: &str) {
        if self.troubles.get(path).map(String::as_str) != Some(why) {
            tracing::warn!(?path, why, "the file cannot be opened");
            self.troubles.insert(path.clone(), why.to_owned());
        }
    }
}

/// What could not be read, and why.
pub(super) type Troubles = HashMap<PathBuf, String>;

impl Closed {
    /// The row to be saved; `None` once nothing is left to be remembered.
    fn row_now(&self, idle: bool) -> Option<Row> {
        if idle && self.farewell == Farewell::Deleted {
            return None;
        }
        let settled = self.ledger.mark();
        Some(Row { position: settled.position, lines: settled.lines, ..self.row.clone() })
    }
}

fn rows<'a>(tails: impl IntoIterator<Item = &'a Tail>) -> Vec<(FileId, Option<Row>)> {
    let rows = tails.into_iter().map(|tail| (tail.id(), Some(tail.row())));
    rows.collect()
}

/// The sender of a channel that nobody reads.
fn closed_channel() -> tokio::sync::mpsc::Sender<crate::record::Record> {
    tokio::sync::mpsc::channel(1).0
}
