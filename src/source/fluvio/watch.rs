//! Where the partitions of a topic end, asked for all of them at once: how far behind we are, and
//! whether somebody else keeps offsets where we do.
//!
//! Not here: reading. One invariant: what is compared with the cluster's answer did not change while
//! it was asked for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, ClusterError, Extent, Kept};
use crate::telemetry::SourceLag;

/// In every so many looks for somebody else, we hold back what we would keep.
const HELD: u64 = 6;
/// So long, where little is read. Where much is, two processes are never at the same place.
const HOLD: Duration = Duration::from_secs(2);

/// What is known of the partitions.
pub(super) struct Watch {
    cluster: Arc<dyn Cluster>,
    topic: Arc<str>,
    lag: SourceLag,
    standings: Mutex<BTreeMap<u32, Arc<Standing>>>,
    /// How often it was looked for somebody else.
    looks: AtomicU64,
}

/// How far one partition is; shared with its reader.
#[derive(Debug, Default)]
pub(super) struct Standing {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Inner {
    /// Everything before is settled.
    settled: i64,
    ours: Ours,
    /// What the cluster told when it was last asked, and what was ours then.
    told: Option<(Ours, Option<Kept>)>,
    /// Whether somebody else was told of.
    rivalled: bool,
    /// Nothing is kept before this moment.
    held: Option<Instant>,
}

/// What we had the cluster keep.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Ours {
    offset: Option<i64>,
    /// Grows whenever an offset is sent or kept.
    count: u64,
    is_on_its_way: bool,
}

impl Standing {
    /// Reading begins with this offset kept.
    pub(super) fn begin(&self, kept: Option<i64>) {
        let mut inner = self.inner();
        let count = inner.ours.count + 1;
        inner.ours = Ours { offset: kept, count, is_on_its_way: false };
        inner.told = None;
    }

    /// Everything before `offset` is settled.
    pub(super) fn settled(&self, offset: i64) {
        self.inner().settled = offset;
    }

    /// An offset is on its way.
    pub(super) fn keeping(&self) {
        let mut inner = self.inner();
        inner.ours.count += 1;
        inner.ours.is_on_its_way = true;
    }

    /// It is kept.
    pub(super) fn kept(&self, offset: i64) {
        let mut inner = self.inner();
        inner.ours.count += 1;
        inner.ours.offset = Some(offset);
        inner.ours.is_on_its_way = false;
    }

    /// It may be kept or not: nothing is known until the next one is.
    pub(super) fn not_kept(&self) {
        self.inner().ours.count += 1;
    }

    /// Before this moment no offset is sent.
    pub(super) fn held(&self) -> Option<Instant> {
        self.inner().held
    }

    fn hold(&self, until: Instant) {
        self.inner().held = Some(until);
    }

    fn ours(&self) -> Ours {
        self.inner().ours
    }

    /// What somebody else keeps, where that can be told for the first time. `before` was ours before
    /// the cluster was asked.
    fn rival(&self, before: Ours, told: Option<Kept>) -> Option<Kept> {
        let mut inner = self.inner();
        if inner.ours != before || before.is_on_its_way || inner.rivalled {
            return None;
        }
        let is_other = match inner.told {
            // Nothing was kept by us since: then nothing changed.
            Some((ours, last)) if ours == before => last != told,
            _ => told.map(|kept| kept.offset) != before.offset,
        };
        inner.told = Some((before, told));
        inner.rivalled = is_other && told.is_some();
        told.filter(|_| is_other)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    pub(super) fn new(cluster: Arc<dyn Cluster>, topic: Arc<str>, lag: SourceLag) -> Self {
        Self { cluster, topic, lag, standings: Mutex::default(), looks: AtomicU64::new(0) }
    }

    /// What there is of every partition.
    pub(super) async fn extents(&self) -> Result<BTreeMap<u32, Extent>, ClusterError> {
        let extents = self.cluster.extents().await;
        if extents.is_err() {
            // Streams live on without the connection that is asked.
            self.cluster.disconnect().await;
        }
        extents
    }

    /// From now on a partition's lag is told, and who keeps its offset is watched.
    pub(super) fn enter(&self, partition: u32, settled: i64, kept: Option<Kept>) -> Arc<Standing> {
        let standing = Arc::clone(self.standings().entry(partition).or_default());
        standing.begin(kept.map(|kept| kept.offset));
        standing.settled(settled);
        standing
    }

    /// Records that were removed before they were read.
    pub(super) fn removed(&self, partition: u32, records: u64) {
        self.lag.removed(&self.topic, number(partition), records);
    }

    /// Tells how far behind every partition is.
    pub(super) fn tell(&self, extents: &BTreeMap<u32, Extent>) {
        for (partition, standing) in &*self.standings() {
            let Some(extent) = extents.get(partition) else {
                continue;
            };
            let behind = extent.end - standing.inner().settled.max(extent.start);
            self.lag.set(&self.topic, number(*partition), u64::try_from(behind).unwrap_or(0));
        }
    }

    /// Tells of offsets that somebody else keeps in our place. Two that read the same end keep the
    /// same offsets at the same moments; so now and then we hold ours back, and look whether it is
    /// kept all the same.
    pub(super) async fn look_for_rivals(&self) {
        if self.looks.fetch_add(1, Ordering::Relaxed) % HELD == 1 {
            let until = Instant::now() + HOLD;
            self.standings().values().for_each(|standing| standing.hold(until));
            // Asked shortly before ours is kept again.
            sleep(HOLD - HOLD / 10).await;
        }
        let before: Vec<(u32, Arc<Standing>, Ours)> = self
            .standings()
            .iter()
            .map(|(partition, standing)| (*partition, Arc::clone(standing), standing.ours()))
            .collect();
        let Ok(kept) = self.cluster.kept().await else {
            return;
        };
        for (partition, standing, ours) in before {
            let Some(kept) = standing.rival(ours, kept.get(&partition).copied()) else {
                continue;
            };
            tracing::warn!(
                topic = &*self.topic,
                partition,
                ours = ours.offset,
                kept = kept.offset,
                "another process keeps offsets of the same consumer and partition: records are \
                 delivered by both; give each process its own `partitions`, or another `consumer`"
            );
        }
    }

    fn standings(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Standing>>> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(offset: i64, changed: u64) -> Option<Kept> {
        Some(Kept { offset, changed })
    }

    #[test]
    fn an_offset_that_moves_under_us_is_somebody_elses() {
        // What we keep ourselves is no rival, whenever it is seen; another offset is, and so is the
        // same one that was kept again while we kept nothing. It is told once.
        let standing = Standing::default();
        standing.begin(Some(9));
        assert_eq!(standing.rival(standing.ours(), kept(9, 1)), None);
        let before = standing.ours();
        standing.keeping();
        assert_eq!(standing.rival(before, kept(12, 2)), None, "it changed meanwhile");
        assert_eq!(standing.rival(standing.ours(), kept(12, 2)), None, "it is on its way");
        standing.kept(12);
        assert_eq!(standing.rival(standing.ours(), kept(12, 2)), None);
        assert_eq!(standing.rival(standing.ours(), kept(12, 2)), None);
        assert_eq!(standing.rival(standing.ours(), kept(12, 3)), kept(12, 3));
        assert_eq!(standing.rival(standing.ours(), kept(15, 4)), None, "it was told");
        let other = Standing::default();
        other.begin(None);
        assert_eq!(other.rival(other.ours(), None), None);
        assert_eq!(other.rival(other.ours(), kept(3, 1)), kept(3, 1));
    }
}
