//! What this machine stores about the start of a partition, and where its reading starts.

use super::cluster::{ClusterError, CommittedOffset};
use crate::source::{SharedCheckpoints, SourceError};

/// Where a reader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StartPosition {
    /// The offset that is read next.
    pub(super) position: i64,
    /// Whether an earlier process may have sent the first records.
    pub(super) redelivery: Redelivery,
    /// The committed offset.
    pub(super) kept: Option<CommittedOffset>,
}

/// Whether an end offset below the committed one is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndTrust {
    /// It may be a temporary error.
    Unconfirmed,
    /// It was reported several times.
    Confirmed,
}

/// Whether records may have been sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Redelivery {
    /// By an earlier process that did not commit its offset.
    Possible,
    /// No process can have sent them.
    None,
}

/// Whether offsets are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OffsetCommits {
    /// They are.
    Enabled,
    /// They are not.
    Disabled,
}

/// What is stored on this machine about one partition.
pub(super) struct LocalStartState {
    checkpoints: SharedCheckpoints,
    source: String,
    key: String,
}

/// What a note says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartNote {
    /// Reading began here, and no offset was committed yet.
    Began(i64),
    /// The last reader ended here, with everything before it settled and committed.
    Ended(i64),
}

impl LocalStartState {
    pub(super) fn new(checkpoints: SharedCheckpoints, source: &str, key: String) -> Self {
        Self { checkpoints, source: source.to_owned(), key }
    }

    pub(super) async fn read(&self) -> Result<Option<StartNote>, SourceError> {
        let rows = self.checkpoints.load(&self.source).await?;
        let row = rows.into_iter().find(|(key, _)| *key == self.key);
        Ok(row.and_then(|(_, note)| {
            let (word, offset) = note.split_once(' ')?;
            let offset = offset.parse().ok()?;
            match word {
                "began" => Some(StartNote::Began(offset)),
                "ended" => Some(StartNote::Ended(offset)),
                _ => None,
            }
        }))
    }

    async fn write(&self, note: Option<StartNote>) -> Result<(), SourceError> {
        let text = note.map(|note| match note {
            StartNote::Began(offset) => format!("began {offset}"),
            StartNote::Ended(offset) => format!("ended {offset}"),
        });
        self.checkpoints.save(&self.source, vec![(self.key.clone(), text)]).await
    }

    /// Reading begins at `offset`, and no offset is committed yet.
    pub(super) async fn reading_began(&self, offset: i64) -> Result<(), SourceError> {
        self.write(Some(StartNote::Began(offset))).await
    }

    /// An offset is committed and counts from now on.
    pub(super) async fn clear(&self) -> Result<(), SourceError> {
        self.write(None).await
    }

    /// Everything before `offset` is settled and committed, and nothing after it was forwarded.
    pub(super) async fn reading_ended(&self, offset: i64) -> Result<(), SourceError> {
        self.write(Some(StartNote::Ended(offset))).await
    }
}

/// Why no start position was found.
#[derive(Debug)]
pub(super) enum StartError {
    /// The cluster did not answer.
    Cluster(ClusterError),
    /// The partition ends before the committed offset.
    EndsEarlier(ClusterError),
    /// It could not be stored locally.
    LocalState(SourceError),
}

impl From<ClusterError> for StartError {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

impl From<SourceError> for StartError {
    fn from(error: SourceError) -> Self {
        Self::LocalState(error)
    }
}
