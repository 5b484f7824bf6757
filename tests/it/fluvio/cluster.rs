//! A Fluvio cluster in memory, with the traps of the real client: a commit means everything the
//! stream has yielded, waits for ever beside a `next` that was begun and not finished, and a stream
//! that was opened again knows nothing of what the one before it yielded.
//!
//! It checks what the reader promises: an offset is kept only when every record up to it is settled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::sync::Notify;
use usercom_sink::source::fluvio::cluster::{
    At, Cluster, ClusterError, Extent, Message, Stream, TopicWish, Until,
};

/// A cluster with one topic and one consumer.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
pub(crate) struct State {
    /// `None`: there is no topic.
    pub(crate) partitions: Option<Vec<Vec<Message>>>,
    /// The offsets the cluster keeps.
    pub(crate) kept: BTreeMap<u32, i64>,
    /// Offsets below are removed, by partition.
    pub(crate) oldest: BTreeMap<u32, i64>,
    /// What was settled; told by the test before it tells the reader.
    pub(crate) settled: BTreeSet<(u32, i64)>,
    /// Offsets below need not be settled: reading began behind them.
    pub(crate) begins: BTreeMap<u32, i64>,
    /// Nothing answers.
    pub(crate) down: bool,
    /// Grows when all connections are cut.
    epoch: u64,
    /// The next so many flushes fail.
    pub(crate) failing_flushes: usize,
    /// The ends that are told are behind the truth by so much.
    pub(crate) stale: i64,
    /// No ends are told at all.
    pub(crate) silent: bool,
    /// Offsets kept ahead of what was settled.
    pub(crate) wrong: Vec<(u32, i64)>,
    /// How often offsets were kept.
    pub(crate) flushes: usize,
    /// How often a stream was opened.
    pub(crate) opened: usize,
    /// How the topic was made.
    pub(crate) made: Option<TopicWish>,
    /// Offsets of these partitions are yielded by no stream: a SmartModule takes them out.
    pub(crate) filtered: BTreeSet<(u32, i64)>,
}

impl Fake {
    /// A topic with so many partitions.
    pub(crate) fn topic(partitions: usize) -> Self {
        let fake = Self::default();
        fake.state().partitions = Some(vec![Vec::new(); partitions]);
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    pub(crate) fn produce(&self, partition: u32, value: impl Into<String>) -> i64 {
        let value = value.into();
        let mut state = self.state();
        let log = &mut state.partitions.as_mut().unwrap()[partition as usize];
        let offset = log.len() as i64;
        log.push(Message {
            offset,
            timestamp: Some(1_767_225_600_000 + offset),
            key: None,
            value: value.into(),
        });
        drop(state);
        self.shared.changed.notify_waiters();
        offset
    }

    /// Every open stream breaks.
    pub(crate) fn cut(&self) {
        self.state().epoch += 1;
        self.shared.changed.notify_waiters();
    }

    /// Whether all there is has been settled and is kept.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.state();
        let logs = state.partitions.as_deref().unwrap_or_default();
        logs.iter().zip(0..).all(|(log, partition)| {
            let begin = state.begins.get(&partition).copied().unwrap_or(0);
            let end = log.len() as i64;
            let settled = (begin..end).all(|offset| state.settled.contains(&(partition, offset)));
            settled && (begin >= end || state.kept.get(&partition) == Some(&(end - 1)))
        })
    }
}

fn down() -> ClusterError {
    ClusterError::Passing("the cluster is down".into())
}

#[async_trait]
impl Cluster for Fake {
    async fn partitions(&self) -> Result<Option<u32>, ClusterError> {
        let state = self.state();
        if state.down {
            return Err(down());
        }
        Ok(state.partitions.as_ref().map(|partitions| u32::try_from(partitions.len()).unwrap()))
    }

    async fn create(&self, wish: &TopicWish) -> Result<(), ClusterError> {
        let mut state = self.state();
        if state.down {
            return Err(down());
        }
        state.partitions = Some(vec![Vec::new(); wish.partitions as usize]);
        state.made = Some(wish.clone());
        Ok(())
    }

    async fn kept(&self) -> Result<BTreeMap<u32, i64>, ClusterError> {
        let state = self.state();
        if state.down { Err(down()) } else { Ok(state.kept.clone()) }
    }

    async fn extents(&self) -> Result<BTreeMap<u32, Extent>, ClusterError> {
        let state = self.state();
        if state.down {
            return Err(down());
        }
        if state.silent {
            return Ok(BTreeMap::new());
        }
        let logs = state.partitions.iter().flatten().zip(0..);
        let extents = logs.map(|(log, partition)| {
            let start = state.oldest.get(&partition).copied().unwrap_or(0);
            (partition, Extent { start, end: (log.len() as i64 - state.stale).max(start) })
        });
        Ok(extents.collect())
    }

    async fn open(
        &self,
        partition: u32,
        at: At,
        until: Until,
    ) -> Result<Box<dyn Stream>, ClusterError> {
        let mut state = self.state();
        if state.down {
            return Err(down());
        }
        state.opened += 1;
        let next = match at {
            At::Kept => state.kept.get(&partition).expect("nothing is kept") + 1,
            At::Offset(offset) => offset,
        };
        let logs = state.partitions.as_ref().ok_or_else(down)?;
        let end = logs[partition as usize].len() as i64;
        Ok(Box::new(FakeStream {
            shared: Arc::clone(&self.shared),
            partition,
            next,
            until: (until == Until::PresentEnd).then_some(end),
            epoch: state.epoch,
            seen: -1,
            committed: -1,
            flushed: -1,
            begun: Arc::default(),
        }))
    }

    async fn disconnect(&self) {}
}

struct FakeStream {
    shared: Arc<Shared>,
    partition: u32,
    next: i64,
    until: Option<i64>,
    epoch: u64,
    seen: i64,
    committed: i64,
    flushed: i64,
    /// Whether a `next` was begun and not finished.
    begun: Arc<AtomicBool>,
}

impl FakeStream {
    fn look(&mut self) -> Option<Option<Result<Message, ClusterError>>> {
        let state = self.shared.state.lock().unwrap();
        if state.epoch != self.epoch || state.down {
            return Some(Some(Err(ClusterError::Passing("the connection broke".into()))));
        }
        let oldest = state.oldest.get(&self.partition).copied().unwrap_or(0);
        if self.next < oldest {
            return Some(Some(Err(ClusterError::Gone { next: oldest })));
        }
        if self.until.is_some_and(|until| self.next >= until) {
            return Some(None);
        }
        while state.filtered.contains(&(self.partition, self.next)) {
            self.next += 1;
        }
        let log = state.partitions.as_ref()?.get(self.partition as usize)?;
        let message = log.get(usize::try_from(self.next).unwrap())?.clone();
        self.next += 1;
        self.seen = self.seen.max(message.offset);
        Some(Some(Ok(message)))
    }

    /// The trap: beside a `next` that was not finished, nothing ever comes back.
    async fn lock(&self) {
        if self.begun.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Stream for FakeStream {
    async fn next(&mut self) -> Option<Result<Message, ClusterError>> {
        self.begun.store(true, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        loop {
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(yielded) = self.look() {
                self.begun.store(false, Ordering::SeqCst);
                return yielded;
            }
            changed.await;
        }
    }

    async fn commit(&mut self) -> Result<(), ClusterError> {
        self.lock().await;
        self.committed = self.seen;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ClusterError> {
        self.lock().await;
        if self.flushed >= self.committed {
            return Ok(());
        }
        let mut state = self.shared.state.lock().unwrap();
        if state.epoch != self.epoch || state.down {
            return Err(ClusterError::Passing("the connection broke".into()));
        }
        if state.failing_flushes > 0 {
            state.failing_flushes -= 1;
            return Err(ClusterError::Passing("the flush failed".into()));
        }
        let begin = state.begins.get(&self.partition).copied().unwrap_or(0);
        let begin = state.kept.get(&self.partition).map_or(begin, |kept| begin.max(kept + 1));
        let ahead = (begin..=self.committed).any(|offset| {
            let place = (self.partition, offset);
            !state.settled.contains(&place) && !state.filtered.contains(&place)
        });
        if ahead {
            state.wrong.push((self.partition, self.committed));
        }
        self.flushed = self.committed;
        let committed = self.committed;
        state.kept.insert(self.partition, committed);
        state.flushes += 1;
        Ok(())
    }
}
