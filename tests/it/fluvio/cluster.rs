//! A Fluvio cluster in memory, with the traps of the real one.
//!
//! Records lie in batches. An answer begins with the batch that holds what was asked for, is cut
//! off where it is full, amid a batch and amid a record, and names the whole batch all the same.
//! Behind SmartModules all there is comes as one batch, whose records are counted from its first
//! offset, however many were taken out or made of one. A committed offset survives its topic.
//!
//! It checks what the reader promises: an offset is committed only when every record up to it is
//! settled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::sync::Notify;
use usercom_sink::source::fluvio::cluster::{
    Batch, Cluster, ClusterError, CommittedOffset, Completeness, FetchResponse, Message, NewTopic,
    OffsetRange, RecordStream,
};

/// What stands before the records of a batch, in bytes.
const HEAD: usize = 61;
/// What stands before a record, in bytes.
const RECORD_HEAD: usize = 10;
/// What the client asks for where nothing is set.
const USUAL: u32 = 1024 * 1024;

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

/// What SmartModules do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transform {
    /// They take out what is `filtered`.
    Filter,
    /// They make so many records of each.
    Multiply(usize),
}

#[derive(Default)]
pub(crate) struct State {
    /// `None`: there is no topic.
    pub(crate) partitions: Option<Vec<Vec<Message>>>,
    /// How many records lie in one batch; 0 is 1.
    pub(crate) batch: usize,
    /// Whether batches are compressed: half of one is nothing.
    pub(crate) compressed: bool,
    /// The offsets the cluster keeps.
    pub(crate) kept: BTreeMap<u32, i64>,
    /// Offsets below are removed, by partition.
    pub(crate) oldest: BTreeMap<u32, i64>,
    /// What was settled; told by the test before it tells the reader.
    pub(crate) settled: BTreeSet<(u32, i64)>,
    /// Offsets below need not be settled: reading began after them.
    pub(crate) begins: BTreeMap<u32, i64>,
    /// Nothing answers.
    pub(crate) down: bool,
    /// Grows when all connections are cut.
    epoch: u64,
    /// Grows when the topic is deleted.
    generation: u64,
    /// The next so many attempts to commit an offset fail.
    pub(crate) failing_keeps: usize,
    /// The next so many answers begin a batch too late.
    pub(crate) holes: usize,
    /// The ends that the controller reports are lower than the real end by this number.
    pub(crate) stale: i64,
    /// The controller reports no ends at all.
    pub(crate) silent: bool,
    /// The end a server reports is lower than the real end by this number.
    pub(crate) lagging: i64,
    /// Offsets committed ahead of what was settled.
    pub(crate) wrong: Vec<(u32, i64)>,
    /// How often offsets were committed.
    pub(crate) keeps: usize,
    /// How often a stream was opened.
    pub(crate) opened: usize,
    /// The most that was asked for at once.
    pub(crate) most_bytes: u32,
    /// How the topic was made.
    pub(crate) made: Option<NewTopic>,
    /// What SmartModules do, where there are some.
    pub(crate) transform: Option<Transform>,
    /// What SmartModules take out.
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
        let time = 1_767_225_600_000 + state.generation as i64 * 1_000_000;
        let log = &mut state.partitions.as_mut().unwrap()[partition as usize];
        let offset = log.len() as i64;
        log.push(Message {
            offset,
            timestamp: Some(time + offset),
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

    /// The topic is deleted, and created again at once.
    pub(crate) fn make_anew(&self) {
        let mut state = self.state();
        state.generation += 1;
        let count = state.partitions.as_ref().map_or(0, Vec::len);
        state.partitions = Some(vec![Vec::new(); count]);
        state.settled.clear();
        state.begins.clear();
        state.oldest.clear();
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Whether all there is has been settled and is kept.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.state();
        let logs = state.partitions.as_deref().unwrap_or_default();
        logs.iter().zip(0..).all(|(log, partition)| {
            let begin = state.begins.get(&partition).copied().unwrap_or(0);
            let end = log.len() as i64;
            let settled = (begin..end).all(|offset| state.is_done(partition, offset));
            settled && (begin >= end || state.kept.get(&partition) == Some(&(end - 1)))
        })
    }
}

impl State {
    fn is_done(&self, partition: u32, offset: i64) -> bool {
        let place = (partition, offset);
        let is_removed = self.oldest.get(&partition).is_some_and(|oldest| offset < *oldest);
        is_removed || self.settled.contains(&place) || self.filtered.contains(&place)
    }

    fn extent(&self, partition: u32) -> Option<OffsetRange> {
        let log = self.partitions.as_ref()?.get(partition as usize)?;
        let start = self.oldest.get(&partition).copied().unwrap_or(0);
        Some(OffsetRange { start, end: log.len() as i64 })
    }

    /// The batches from that which holds `from`, as they are stored.
    fn stored(&self, partition: u32, from: i64) -> Option<Vec<Vec<Message>>> {
        let log = self.partitions.as_ref()?.get(partition as usize)?;
        let length = self.batch.max(1);
        let skipped = usize::try_from(from).unwrap() / length;
        let batches: Vec<_> = log.chunks(length).skip(skipped).map(<[Message]>::to_vec).collect();
        (!batches.is_empty()).then_some(batches)
    }

    /// The answer to a question from `from` on; `None` where there is nothing yet.
    fn answer(&mut self, partition: u32, from: i64, max_bytes: u32) -> Option<FetchResponse> {
        let extent = self.extent(partition)?;
        if from >= extent.end {
            return None;
        }
        let mut stored = self.stored(partition, from)?;
        if self.holes > 0 && stored.len() > 1 {
            self.holes -= 1;
            stored.remove(0);
        }
        if let Some(transform) = self.transform {
            return self.transformed(transform, partition, stored, extent);
        }
        let mut room = max_bytes as usize;
        let mut batches = Vec::new();
        for messages in stored {
            let Some(left) = room.checked_sub(HEAD) else {
                break;
            };
            let size: usize = messages.iter().map(|m| RECORD_HEAD + m.value.len()).sum();
            let (base, next) = (messages[0].offset, messages[messages.len() - 1].offset + 1);
            if size <= left {
                batches.push(Batch { base, next, completeness: Completeness::Complete, messages });
                room = left - size;
                continue;
            }
            let mut left = left;
            let fits = |message: &Message| {
                let size = RECORD_HEAD + message.value.len();
                left = left.saturating_sub(size);
                left > 0
            };
            let messages = match self.compressed {
                true => Vec::new(),
                false => messages.into_iter().take_while(fits).collect(),
            };
            let completeness = Completeness::Truncated { size: (HEAD + size) as u64 };
            batches.push(Batch { base, next, completeness, messages });
            break;
        }
        Some(FetchResponse { batches, offset_range: extent, scanned_to: None })
    }

    fn transformed(
        &self,
        transform: Transform,
        partition: u32,
        stored: Vec<Vec<Message>>,
        extent: OffsetRange,
    ) -> Option<FetchResponse> {
        let base = stored[0][0].offset;
        let next = stored.last()?.last()?.offset + 1;
        let passed = stored.into_iter().flatten().flat_map(|message| {
            let count = match transform {
                Transform::Filter => {
                    usize::from(!self.filtered.contains(&(partition, message.offset)))
                }
                Transform::Multiply(count) => count,
            };
            std::iter::repeat_n(message, count)
        });
        let messages: Vec<_> = passed
            .zip(base..)
            .map(|(message, counted)| {
                // The key tells the test what it was.
                let key = Some(message.offset.to_string().into());
                Message { offset: counted, key, ..message }
            })
            .collect();
        if messages.is_empty() {
            return None;
        }
        let batches = vec![Batch { base, next, completeness: Completeness::Complete, messages }];
        Some(FetchResponse { batches, offset_range: extent, scanned_to: Some(next) })
    }
}

fn down() -> ClusterError {
    ClusterError::Transient("the cluster is down".into())
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

    async fn create(&self, wish: &NewTopic) -> Result<(), ClusterError> {
        let mut state = self.state();
        if state.down {
            return Err(down());
        }
        state.partitions = Some(vec![Vec::new(); wish.partitions as usize]);
        state.made = Some(wish.clone());
        Ok(())
    }

    async fn committed(&self) -> Result<BTreeMap<u32, CommittedOffset>, ClusterError> {
        let state = self.state();
        if state.down {
            return Err(down());
        }
        let changed = state.keeps as u64;
        let told = |(partition, offset): (&u32, &i64)| {
            (*partition, CommittedOffset { offset: *offset, changed })
        };
        Ok(state.kept.iter().map(told).collect())
    }

    async fn offset_ranges(&self) -> Result<BTreeMap<u32, OffsetRange>, ClusterError> {
        let state = self.state();
        if state.down {
            return Err(down());
        }
        if state.silent {
            return Ok(BTreeMap::new());
        }
        let count = state.partitions.as_ref().map_or(0, Vec::len);
        let extents = (0..u32::try_from(count).unwrap()).filter_map(|partition| {
            let OffsetRange { start, end } = state.extent(partition)?;
            Some((partition, OffsetRange { start, end: (end - state.stale).max(start) }))
        });
        Ok(extents.collect())
    }

    async fn offset_range(&self, partition: u32) -> Result<OffsetRange, ClusterError> {
        let state = self.state();
        if state.down {
            return Err(down());
        }
        let OffsetRange { start, end } = state.extent(partition).ok_or_else(down)?;
        Ok(OffsetRange { start, end: (end - state.lagging).max(start) })
    }

    async fn open(
        &self,
        partition: u32,
        from: i64,
        max_bytes: Option<u32>,
    ) -> Result<Box<dyn RecordStream>, ClusterError> {
        let mut state = self.state();
        if state.down {
            return Err(down());
        }
        let max_bytes = max_bytes.unwrap_or(USUAL);
        state.opened += 1;
        state.most_bytes = state.most_bytes.max(max_bytes);
        Ok(Box::new(FakeStream {
            shared: Arc::clone(&self.shared),
            partition,
            from: Some(from),
            max_bytes,
            epoch: state.epoch,
            generation: state.generation,
        }))
    }

    async fn commit(&self, partition: u32, offset: i64) -> Result<(), ClusterError> {
        // It takes a moment, in which a reader may continue.
        tokio::task::yield_now().await;
        let mut state = self.state();
        if state.down {
            return Err(down());
        }
        if state.failing_keeps > 0 {
            state.failing_keeps -= 1;
            return Err(ClusterError::Transient("it could not be kept".into()));
        }
        let begin = state.begins.get(&partition).copied().unwrap_or(0);
        if (begin..=offset).any(|offset| !state.is_done(partition, offset)) {
            state.wrong.push((partition, offset));
        }
        state.kept.insert(partition, offset);
        state.keeps += 1;
        Ok(())
    }

    async fn delete_committed(&self, partition: u32) -> Result<(), ClusterError> {
        let mut state = self.state();
        if state.down {
            return Err(down());
        }
        state.kept.remove(&partition);
        Ok(())
    }

    async fn disconnect(&self) {}
}

struct FakeStream {
    shared: Arc<Shared>,
    partition: u32,
    /// What is asked for; `None`: nothing, until the last answer is taken.
    from: Option<i64>,
    max_bytes: u32,
    epoch: u64,
    generation: u64,
}

impl FakeStream {
    fn look(&mut self) -> Option<Result<FetchResponse, ClusterError>> {
        let mut state = self.shared.state.lock().unwrap();
        if state.epoch != self.epoch || state.down {
            return Some(Err(ClusterError::Transient("the connection broke".into())));
        }
        if state.generation != self.generation {
            return Some(Err(ClusterError::Deleted));
        }
        let from = self.from?;
        let oldest = state.oldest.get(&self.partition).copied().unwrap_or(0);
        if from < oldest {
            return Some(Err(ClusterError::OffsetOutOfRange { next: oldest }));
        }
        let answer = state.answer(self.partition, from, self.max_bytes)?;
        self.from = None;
        Some(Ok(answer))
    }
}

#[async_trait]
impl RecordStream for FakeStream {
    async fn next(&mut self) -> Option<Result<FetchResponse, ClusterError>> {
        let shared = Arc::clone(&self.shared);
        loop {
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(yielded) = self.look() {
                return Some(yielded);
            }
            changed.await;
        }
    }

    async fn request_next(&mut self, from: i64) -> Result<(), ClusterError> {
        self.from = Some(from);
        Ok(())
    }
}
