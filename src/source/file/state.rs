//! What is known of an open file: it is read, a copy of one that is read, or not known yet.
//!
//! Not here: finding out (`identify`). One invariant: what a copy's row calls settled is settled in
//! the content that it shares.

use tokio::time::Instant;

use super::book::Row;
use super::claim::Claim;
use super::content::ContentMark;
use super::glance::Stamp;
use super::identity::FileId;
use super::stream::Stream;
use crate::source::watermark::Mark;

/// What is known of a file.
pub(super) enum State {
    /// Nothing yet, or no more: its content has to be compared with what is known.
    Unknown(Unknown),
    /// It is read.
    Reading(Box<Stream>),
    /// Another file yields all that it holds.
    Copy(Box<Copy>),
}

/// A file whose content is not known.
pub(super) struct Unknown {
    /// Since when it is the same.
    pub(super) since: Instant,
    pub(super) stamp: Option<Stamp>,
    /// What it held when it was the same as a content that is known. It may hold that no more.
    pub(super) same_to: Option<ContentMark>,
    /// What it waits for, once it was looked at.
    pub(super) waits: Option<Waits>,
}

/// What a file waits for before it can be told what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// It is empty, or too short: newer generations need not wait.
    ForBytes,
    /// Another file, which holds the same, is read first.
    For(FileId),
}

impl Unknown {
    pub(super) fn new(same_to: Option<ContentMark>) -> Self {
        Self { since: Instant::now(), stamp: None, same_to, waits: None }
    }
}

/// A file that holds what another one does.
pub(super) struct Copy {
    pub(super) generation: u64,
    pub(super) stamp: Stamp,
    /// All that it holds.
    pub(super) content: ContentMark,
    /// Whether it held all that the other one did.
    pub(super) whole: bool,
    pub(super) row: Row,
}

impl Copy {
    /// Its row says what is settled of the content that it shares.
    pub(super) fn follow(&mut self, settled: Mark, claims: &[Claim]) {
        let settled = match settled.position <= self.content.length {
            true => settled,
            false => Mark { position: self.content.length, lines: None },
        };
        self.row.position = settled.position;
        self.row.lines = settled.lines;
        let open = claims.iter().filter(|claim| claim.end > settled.position);
        self.row.claims = open.copied().collect();
    }
}

/// Whether the other files in the folder of a file are those of a time when it held what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    Unknown,
    /// Since the file was seen, a search is on its way.
    Awaited,
    Known,
}

impl Company {
    /// What is known of it in the next round.
    pub(super) fn next(self, just_searched: bool) -> Self {
        match self {
            Self::Unknown => Self::Awaited,
            Self::Awaited if just_searched => Self::Known,
            company => company,
        }
    }
}
