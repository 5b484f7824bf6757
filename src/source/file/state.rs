//! What is known of an open file: it is read, a copy of one that is read, or not known yet.
//!
//! # Invariants
//!
//! What a copy's row calls settled is settled in the content that it shares.

use tokio::time::Instant;

use super::checkpoints::FileCheckpoint;
use super::claim::ClaimedRange;
use super::content::ContentMark;
use super::identity::{FileHead, FileId};
use super::read::FileStat;
use super::stream::Stream;
use crate::source::offset_tracker::StreamPosition;

/// What is known of a file.
pub(super) enum TailState {
    /// Nothing yet, or no more: its content has to be compared with what is known.
    Unknown(Unknown),
    /// It is read.
    Reading(Box<Stream>),
    /// Another file yields all that it holds.
    Copy(Box<Copy>),
}

impl TailState {
    /// What is read of it, if it is read.
    pub(super) fn into_stream(self) -> Option<Box<Stream>> {
        match self {
            Self::Reading(stream) => Some(stream),
            Self::Unknown(_) | Self::Copy(_) => None,
        }
    }
}

/// A file whose content is not known.
pub(super) struct Unknown {
    /// Since when it is the same.
    pub(super) since: Instant,
    pub(super) stamp: Option<FileStat>,
    /// The beginning of its text, as of the last look.
    pub(super) head: FileHead,
    pub(super) peers: PeerSearch,
    /// When it was compared last with what is known.
    pub(super) compared: Option<Compared>,
    /// What it held when it was the same as a content that is known. It may hold that no more.
    pub(super) same_to: Option<ContentMark>,
    /// What it waits for, once it was looked at.
    pub(super) waits: Option<WaitReason>,
}

/// A state of the file and of what is known, which were compared: again would give the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) stamp: FileStat,
    /// How many contents had been lost by their files.
    pub(super) losses: u64,
}

/// What a file waits for before it can be told what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitReason {
    /// It is empty, or too short: newer generations need not wait.
    MoreBytes,
    /// Another file, which holds the same, is read first.
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

    /// Notes how the file is now.
    pub(super) fn note_stamp(&mut self, stamp: FileStat) {
        if self.stamp != Some(stamp) {
            self.since = Instant::now();
            if self.stamp.is_some_and(|before| before.size() > stamp.size()) {
                self.peers = PeerSearch::NotStarted;
            }
            self.stamp = Some(stamp);
        }
    }

    /// Notes how its text begins.
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

/// A file that holds what another one does.
pub(super) struct Copy {
    pub(super) generation: u64,
    pub(super) stamp: FileStat,
    /// All that it holds.
    pub(super) content: ContentMark,
    /// Whether it held all that the other one did.
    pub(super) whole: bool,
    pub(super) row: FileCheckpoint,
}

impl Copy {
    /// Its row says what is settled of the content that it shares.
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

/// Whether what was in the folder when a content was seen is known: all that is older than it was
/// there then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerSearch {
    NotStarted,
    /// The next search tells.
    Pending,
    Done,
}

impl PeerSearch {
    /// A search is done that began after the content was seen.
    pub(super) fn searched(&mut self) {
        if *self == Self::Pending {
            *self = Self::Done;
        }
    }
}
