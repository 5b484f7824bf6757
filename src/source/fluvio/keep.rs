//! The offset that the cluster keeps, beside the reading.
//!
//! Not here: how far everything is settled (`ledger`). One invariant: at most one offset is on its
//! way at a time, so that a lower one never comes after a higher one.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::cluster::ClusterError;
use super::lane::{Lane, Reading};
use super::ledger::Reached;
use super::start::Keeping;

/// How long the cluster may take to keep an offset.
const KEEP: Duration = Duration::from_secs(10);
/// How long it is left alone after it could not.
const REST: Duration = Duration::from_secs(1);
/// As much of a window is settled before its offset is kept, while there is more to read.
const PART: usize = 4;

/// What is kept, and what is being kept.
pub(super) struct Keeper {
    /// How far the cluster keeps what we read.
    pub(super) kept: Reached,
    task: JoinSet<Result<Reached, ClusterError>>,
    /// Not before this moment.
    after: Instant,
    /// When an offset was last sent, or the first record after a rest handed on.
    since: Instant,
    /// Whether the last attempt failed.
    failed: bool,
    /// Whether a beginning is written down that is not needed any more once an offset is kept.
    noted: bool,
}

impl Keeper {
    /// Nothing before `offset` needs to be kept.
    pub(super) fn new(offset: i64, noted: bool) -> Self {
        let now = Instant::now();
        let kept = Reached { offset, records: 0 };
        Self { kept, task: JoinSet::new(), after: now, since: now, failed: false, noted }
    }

    /// The end of what is on its way; waits for ever where nothing is.
    pub(super) async fn ended(&mut self) -> Result<Reached, ClusterError> {
        match self.task.join_next().await {
            None => std::future::pending().await,
            Some(Ok(kept)) => kept,
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Waits until nothing is on its way, whatever became of it.
    pub(super) async fn rest(&mut self) {
        while self.task.join_next().await.is_some() {}
    }
}

impl Lane {
    /// Begins to keep an offset where that is due.
    pub(super) fn start_keeping(&self, reading: &mut Reading) {
        let due = reading.ledger.reached();
        self.tell(reading, due);
        if self.keep_at(reading).is_some_and(|at| at <= Instant::now()) {
            self.send(reading, due);
        }
    }

    /// When an offset is to be kept, as things stand.
    pub(super) fn keep_at(&self, reading: &Reading) -> Option<Instant> {
        let keeper = &reading.keeper;
        let due = reading.ledger.reached();
        let is_due = due != keeper.kept && keeper.task.is_empty() && !reading.anew;
        if self.keeping == Keeping::Forgotten || !is_due {
            return None;
        }
        let settled = due.records.saturating_sub(keeper.kept.records);
        let part = u64::try_from((self.limit / PART).max(1)).unwrap_or(u64::MAX);
        let is_all =
            reading.ledger.open() == 0 && reading.is_drained() && reading.position >= reading.end;
        let is_much = settled >= part;
        let at = if is_all || is_much { keeper.after } else { keeper.since + self.interval };
        let held = reading.standing.held().filter(|_| !is_much).unwrap_or(at);
        Some(at.max(keeper.after).max(held))
    }

    fn send(&self, reading: &mut Reading, due: Reached) {
        let cluster = std::sync::Arc::clone(&self.cluster);
        let partition = self.address.partition;
        reading.keeper.since = Instant::now();
        reading.standing.keeping();
        reading.keeper.task.spawn(async move {
            let kept = timeout(KEEP, cluster.keep(partition, due.offset - 1)).await;
            let kept = kept.unwrap_or(Err(ClusterError::Passing("no answer in time".into())));
            kept.map(|()| due)
        });
    }

    /// What was on its way is kept, or is not.
    pub(super) async fn kept(&self, reading: &mut Reading, kept: Result<Reached, ClusterError>) {
        match kept {
            Ok(kept) => {
                reading.keeper.kept = kept;
                reading.standing.kept(kept.offset - 1);
                if std::mem::take(&mut reading.keeper.failed) {
                    let (topic, partition) = (&*self.address.topic, self.address.partition);
                    tracing::info!(topic, partition, "offsets are kept again");
                }
                if std::mem::take(&mut reading.keeper.noted)
                    && let Err(error) = self.notes.forget().await
                {
                    tracing::warn!(%error, "the written beginning could not be removed");
                }
            }
            Err(error) => {
                reading.standing.not_kept();
                reading.keeper.after = Instant::now() + REST;
                if !std::mem::replace(&mut reading.keeper.failed, true) {
                    tracing::warn!(
                        topic = &*self.address.topic,
                        partition = self.address.partition,
                        %error,
                        "an offset could not be kept; it is tried again, and reading goes on up to \
                         `max_in_flight` records"
                    );
                }
                self.cluster.disconnect().await;
            }
        }
    }

    /// At the end, keeps the offset of what has settled.
    pub(super) async fn keep_at_last(&self, reading: &mut Reading) {
        // An offset of a topic that is gone would mean something else in the next one.
        if self.keeping == Keeping::Forgotten || reading.anew {
            return;
        }
        let due = reading.ledger.reached();
        let kept = timeout(KEEP, async {
            if !reading.keeper.task.is_empty() {
                let kept = reading.keeper.ended().await;
                self.kept(reading, kept).await;
            }
            // A connection that broke meanwhile is no reason to look at records again.
            for _ in 0..2 {
                if reading.keeper.kept == due {
                    break;
                }
                self.send(reading, due);
                let kept = reading.keeper.ended().await;
                self.kept(reading, kept).await;
            }
        });
        if kept.await.is_err() || reading.keeper.kept != due {
            tracing::warn!(
                topic = &*self.address.topic,
                partition = self.address.partition,
                "the last offset could not be kept; the last records are looked at again"
            );
            return;
        }
        // Where no offset was ever kept, the beginning that is written down still counts.
        let in_peace = due.offset == reading.high && !reading.ledger.is_errored();
        if in_peace
            && !reading.keeper.noted
            && let Err(error) = self.notes.ended(due.offset).await
        {
            tracing::warn!(%error, "the end could not be written down");
        }
    }
}
