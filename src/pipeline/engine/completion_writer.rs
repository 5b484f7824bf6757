//! Writes completed records to the buffer in groups, in a task of its own, so that a disk sync does
//! not block the engine.
//!
//! # Invariants
//! A record waits for others at most [`GROUP_INTERVAL`], and only while records complete faster
//! than that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::buffer::{Buffer, Completion};
use crate::sink::SinkError;

/// Completions that may wait for the writer.
const QUEUE_CAPACITY: usize = 4096;

/// Completions in one write at most.
const MAX_GROUP_RECORDS: usize = 1024;

/// Minimum time between the starts of two groups, unless the group is full: a sync costs the same
/// for one record and for a thousand.
const GROUP_INTERVAL: Duration = Duration::from_millis(10);

/// What one write has stored.
#[derive(Debug)]
pub(super) struct Committed {
    /// Number of records.
    pub(super) records: usize,
    /// Keys of messages that the store now has as delivered.
    pub(super) seen: Vec<String>,
}

/// Accepts completed records.
pub(super) struct CompletionWriter {
    queue: mpsc::Sender<Completion>,
}

impl CompletionWriter {
    /// Starts the writer; it ends when this handle is dropped.
    pub(super) fn start(
        tasks: &mut JoinSet<()>,
        buffer: Arc<dyn Buffer>,
    ) -> (Self, mpsc::Receiver<Committed>) {
        let (queue, settled) = mpsc::channel(QUEUE_CAPACITY);
        // The writer writes one group at a time and the engine reads reports whenever it has no
        // completion to send, so a small channel suffices.
        let (report, committed) = mpsc::channel(QUEUE_CAPACITY);
        tasks.spawn(write_groups(settled, buffer, report));
        (Self { queue }, committed)
    }

    /// Queues a completion.
    pub(super) async fn settle(&self, settled: Completion) -> Result<(), SinkError> {
        self.queue.send(settled).await.map_err(|_| SinkError::Storage("the writer ended".into()))
    }
}

async fn write_groups(
    mut settled: mpsc::Receiver<Completion>,
    buffer: Arc<dyn Buffer>,
    report: mpsc::Sender<Committed>,
) {
    let mut group = Vec::with_capacity(MAX_GROUP_RECORDS);
    let mut next = Instant::now();
    while settled.recv_many(&mut group, MAX_GROUP_RECORDS).await > 0 {
        gather(&mut settled, &mut group, next).await;
        next = Instant::now() + GROUP_INTERVAL;
        let records = group.len();
        let group = std::mem::take(&mut group);
        let seen = group.iter().flat_map(|record| record.seen.iter().cloned()).collect();
        if let Err(error) = buffer.settle(group).await {
            tracing::error!(%error, "the results of delivery could not be stored: the sink stops, and these records are delivered again after a restart");
            return;
        }
        if report.send(Committed { records, seen }).await.is_err() {
            return;
        }
    }
}

/// Fills a group until it is full, `until` has passed, or the channel is closed.
async fn gather(
    settled: &mut mpsc::Receiver<Completion>,
    group: &mut Vec<Completion>,
    until: Instant,
) {
    while group.len() < MAX_GROUP_RECORDS {
        let room = MAX_GROUP_RECORDS - group.len();
        match timeout_at(until, settled.recv_many(group, room)).await {
            Ok(more) if more > 0 => {}
            Ok(_) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::ack::Ack;
    use crate::buffer::{Buffered, MemoryBuffer, Store};
    use crate::config::sink::BufferConfig;
    use crate::record::Record;

    async fn settled(buffer: &MemoryBuffer) -> Completion {
        buffer.push(vec![Record::new("{}")]).await.unwrap();
        let Buffered { token, .. } = buffer.next(1).await.unwrap().pop().unwrap();
        Completion { token, ack: Ack::noop(), dead: Vec::new(), seen: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn single_completion_is_written_at_once() {
        // Guarantees that a single record is written at once, that records within the interval
        // after it are written together at its end, and that none is lost.
        let store = Store::in_memory().unwrap();
        let config = BufferConfig::default();
        let buffer = MemoryBuffer::new(&config, "crm", store, CancellationToken::new());
        let buffer = Arc::new(buffer);
        let mut tasks = JoinSet::new();
        let (completions, mut committed) =
            CompletionWriter::start(&mut tasks, Arc::<MemoryBuffer>::clone(&buffer));
        for _ in 0..2 {
            let begin = Instant::now();
            completions.settle(settled(&buffer).await).await.unwrap();
            assert_eq!(committed.recv().await.unwrap().records, 1);
            assert!(begin.elapsed() < GROUP_INTERVAL);
            for _ in 0..3 {
                sleep(GROUP_INTERVAL / 5).await;
                completions.settle(settled(&buffer).await).await.unwrap();
            }
            assert_eq!(committed.recv().await.unwrap().records, 3);
            assert!(begin.elapsed() >= GROUP_INTERVAL);
            sleep(GROUP_INTERVAL * 2).await;
        }
        completions.settle(settled(&buffer).await).await.unwrap();
        drop(completions);
        assert_eq!(committed.recv().await.unwrap().records, 1);
        assert!(committed.recv().await.is_none());
    }
}
