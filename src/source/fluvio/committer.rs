//! The state of the commits of one partition.

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cluster::ClusterError;
use super::commit_window::SettledTo;

/// What is committed, and what is being committed.
pub(super) struct OffsetCommitter {
    /// How far the cluster has stored our offset.
    pub(super) committed: SettledTo,
    pub(super) task: JoinSet<Result<SettledTo, ClusterError>>,
    /// No commit before this moment.
    pub(super) after: Instant,
    /// When an offset was last sent, or when the first record after an idle time was forwarded.
    pub(super) since: Instant,
    /// Whether the last attempt failed.
    pub(super) failed: bool,
    /// Whether a start note is stored locally that is removed once an offset is committed.
    pub(super) noted: bool,
}

impl OffsetCommitter {
    /// Nothing before `offset` must be committed.
    pub(super) fn new(offset: i64, noted: bool) -> Self {
        let now = Instant::now();
        let kept = SettledTo { offset, records: 0 };
        Self { committed: kept, task: JoinSet::new(), after: now, since: now, failed: false, noted }
    }

    /// The result of the commit in progress; waits for ever where there is none.
    pub(super) async fn finished(&mut self) -> Result<SettledTo, ClusterError> {
        match self.task.join_next().await {
            None => std::future::pending().await,
            Some(Ok(kept)) => kept,
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Waits until no commit is in progress, whatever its result.
    pub(super) async fn wait_idle(&mut self) {
        while self.task.join_next().await.is_some() {}
    }
}
