//! What is known of an open file: it is read, a copy of one that is read, or not identified yet.
//!
//! # Invariants
//!
//! The settled position in a copy's row is settled in the content that it shares.

use tokio::time::Instant;

use super::checkpoints::FileCheckpoint;
use super::checkpoints::Rows;
use super::claim::ClaimedRange;
use super::content::ContentMark;
use super::identity::{FileHead, FileId};
use super::read::FileStat;
use super::stream::Stream;
use crate::source::offset_tracker::StreamPosition;

/// What is known of a file.
pub(super) enum TailState {
    /// Its content must be compared with known contents.
    Unknown(Unknown),
    /// It is read.
    Reading(Box<Stream>),
    /// Another file yields all of its content.
    Copy(Box<Copy>),
}

impl TailState {
    /// Its stream, if it is read.
    pub(super) fn into_stream(self) -> Option<Box<Stream>> {
        match self {
            Self::Reading(stream) => Some(stream),
            Self::Unknown(_) | Self::Copy(_) => None,
        }
    }
}

/// A file whose content is not identified.
pub(super) struct Unknown {
    /// Since when it is unchanged.
    pub(super) since: Instant,
    pub(super) stamp: Option<FileStat>,
    /// The beginning of its text at the last read.
    pub(super) head: FileHead,
    pub(super) peers: PeerSearch,
    /// When it was last compared with known contents.
    pub(super) compared: Option<Compared>,
    /// Its content when it equalled a known content. It may have changed since.
    pub(super) same_to: Option<ContentMark>,
    /// What it waits for, if anything.
    pub(super) waits: Option<WaitReason>,
}

/// The file and the known contents at a comparison: without a change, comparing again gives the
/// same result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) stamp: FileStat,
    /// How many contents had been lost by their files.
    pub(super) losses: u64,
}

/// What a file waits for before it can be identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitReason {
    /// It is empty or too short: newer generations need not wait for it.
    MoreBytes,
    /// Another file with the same content is read first.
    OtherFile(FileId),
}

impl Unknown {
    pub(super) fn new(same_to: Option<ContentMark>) -> Self {
        Self {
            since: Instant::now(),
            stamp: None,
            head: FileHead::default(),
            peers: PeerSearch::NotStarted,
            compared: None,
            same_to,
            waits: None,
        }
    }

    /// Records the present state of the file.
    pub(super) fn note_stamp(&mut self, stamp: FileStat) {
        if self.stamp != Some(stamp) {
            self.since = Instant::now();
            if self.stamp.is_some_and(|before| before.size() > stamp.size()) {
                self.peers = PeerSearch::NotStarted;
            }
            self.stamp = Some(stamp);
        }
    }

    /// Records how its text begins.
    pub(super) fn note_head(&mut self, head: &FileHead) {
        if !head.continues(&self.head) {
            self.peers = PeerSearch::NotStarted;
        }
        if self.peers == PeerSearch::NotStarted && !head.is_empty() {
            self.peers = PeerSearch::Pending;
        }
        self.head = head.clone();
    }
}

/// A file with the same content as another one.
pub(super) struct Copy {
    pub(super) generation: u64,
    pub(super) stamp: FileStat,
    /// The digest of all that it holds.
    pub(super) content: ContentMark,
    /// Whether it held all that the other one did.
    pub(super) whole: bool,
    pub(super) row: FileCheckpoint,
}

impl Copy {
    /// Updates its row with the settled position of the content that it shares.
    pub(super) fn follow(&mut self, settled: StreamPosition, claims: &[ClaimedRange]) {
        let settled = match settled.position <= self.content.length {
            true => settled,
            false => StreamPosition { position: self.content.length, lines: None },
        };
        self.row.position = settled.position;
        self.row.lines = settled.lines;
        let open = claims.iter().filter(|claim| claim.end > settled.position);
        self.row.claims = open.copied().collect();
    }
}

/// Whether the folder was searched completely after a content was seen. All older content was in
/// the folder by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerSearch {
    NotStarted,
    /// The next search completes it.
    Pending,
    Done,
}

impl PeerSearch {
    /// A search that started after the content was seen has ended.
    pub(super) fn searched(&mut self) {
        if *self == Self::Pending {
            *self = Self::Done;
        }
    }
}

/// The result of identifying a file.
pub(super) enum IdentifyOutcome {
    /// It is identified; with the rows to save.
    Yes(Rows),
    NotYet,
}
