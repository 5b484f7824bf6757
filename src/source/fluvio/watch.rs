//! Where the partitions of a topic end, asked for all of them at once, and how far behind we are.
//!
//! Not here: reading. One invariant: the ends told are those of the last answer; where none comes,
//! they stay, which makes windows smaller and loses nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::cluster::{Cluster, ClusterError, Extent};
use crate::telemetry::SourceLag;

/// How old an answer may be to be taken for another question.
const FRESH: Duration = Duration::from_millis(50);

/// How long a reader waits for an end, which it can do without.
const AT_ONCE: Duration = Duration::from_secs(2);

/// How far one partition is settled; shared with its reader.
pub(super) type Settled = Arc<AtomicI64>;

/// What is known of the ends.
pub(super) struct Watch {
    cluster: Arc<dyn Cluster>,
    topic: Arc<str>,
    lag: SourceLag,
    answer: tokio::sync::Mutex<Answer>,
    settled: Mutex<BTreeMap<u32, Settled>>,
}

#[derive(Default)]
struct Answer {
    asked: Option<Instant>,
    extents: BTreeMap<u32, Extent>,
}

impl Watch {
    pub(super) fn new(cluster: Arc<dyn Cluster>, topic: Arc<str>, lag: SourceLag) -> Self {
        Self {
            cluster,
            topic,
            lag,
            answer: tokio::sync::Mutex::default(),
            settled: Mutex::default(),
        }
    }

    /// What there is of every partition, asked now or a moment ago.
    pub(super) async fn extents(&self) -> Result<BTreeMap<u32, Extent>, ClusterError> {
        let mut answer = self.answer.lock().await;
        let fresh = |asked: Instant| asked.elapsed() < FRESH;
        if answer.extents.is_empty() || !answer.asked.is_some_and(fresh) {
            answer.asked = Some(Instant::now());
            match self.cluster.extents().await {
                Ok(extents) => answer.extents = extents,
                Err(error) => {
                    // Streams live on without the connection that is asked.
                    self.cluster.disconnect().await;
                    return Err(error);
                }
            }
        }
        Ok(answer.extents.clone())
    }

    /// The end of a partition, if it can be told at once.
    pub(super) async fn end(&self, partition: u32) -> Option<i64> {
        let extents = timeout(AT_ONCE, self.extents()).await.ok()?.ok()?;
        Some(extents.get(&partition)?.end)
    }

    /// From now on a partition's lag is told.
    pub(super) fn enter(&self, partition: u32) -> Settled {
        Arc::clone(self.settled().entry(partition).or_default())
    }

    /// Tells how far behind every partition is.
    pub(super) fn tell(&self, extents: &BTreeMap<u32, Extent>) {
        for (partition, settled) in &*self.settled() {
            let Some(extent) = extents.get(partition) else {
                continue;
            };
            let behind = extent.end - settled.load(Ordering::Relaxed).max(extent.start);
            let number = i32::try_from(*partition).unwrap_or(i32::MAX);
            self.lag.set(&self.topic, number, u64::try_from(behind).unwrap_or(0));
        }
    }

    fn settled(&self) -> MutexGuard<'_, BTreeMap<u32, Settled>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
