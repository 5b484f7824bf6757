//! The settler: writes settled records down in groups, beside the engine, so that a sync to disk
//! holds up nobody.
//!
//! Invariant: a record waits for others at most [`REST`], and only while records come that fast.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::buffer::{Buffer, Completion};
use crate::sink::SinkError;

/// Records handed over and not yet picked up, at most.
const QUEUE: usize = 4096;

/// Records written down together, at most.
const GROUP: usize = 1024;

/// The least time from the start of one group to the next, unless the group is full: syncs cost
/// the same for one record and for a thousand.
const REST: Duration = Duration::from_millis(10);

/// What has been written down.
#[derive(Debug)]
pub(super) struct Committed {
    /// How many records.
    pub(super) records: usize,
    /// Keys of messages the store now knows as delivered.
    pub(super) seen: Vec<String>,
}

/// Takes settled records.
pub(super) struct Settler {
    queue: mpsc::Sender<Completion>,
}

impl Settler {
    /// Starts the writer; it ends when the settler is dropped.
    pub(super) fn start(
        tasks: &mut JoinSet<()>,
        buffer: Arc<dyn Buffer>,
    ) -> (Self, mpsc::Receiver<Committed>) {
        let (queue, settled) = mpsc::channel(QUEUE);
        // One group is written at a time, so one report is under way for each the engine has not
        // read yet; the engine reads them whenever it has nothing to hand over.
        let (report, committed) = mpsc::channel(QUEUE);
        tasks.spawn(write_groups(settled, buffer, report));
        (Self { queue }, committed)
    }

    /// Hands a record over.
    pub(super) async fn settle(&self, settled: Completion) -> Result<(), SinkError> {
        self.queue.send(settled).await.map_err(|_| SinkError::Storage("the writer ended".into()))
    }
}

async fn write_groups(
    mut settled: mpsc::Receiver<Completion>,
    buffer: Arc<dyn Buffer>,
    report: mpsc::Sender<Committed>,
) {
    let mut group = Vec::with_capacity(GROUP);
    let mut next = Instant::now();
    while settled.recv_many(&mut group, GROUP).await > 0 {
        gather(&mut settled, &mut group, next).await;
        next = Instant::now() + REST;
        let records = group.len();
        let group = std::mem::take(&mut group);
        let seen = group.iter().flat_map(|record| record.seen.iter().cloned()).collect();
        if let Err(error) = buffer.settle(group).await {
            tracing::error!(%error, "settled records could not be written down");
            return;
        }
        if report.send(Committed { records, seen }).await.is_err() {
            return;
        }
    }
}

/// Adds to a group until it is full, its time has come, or nothing more will come.
async fn gather(
    settled: &mut mpsc::Receiver<Completion>,
    group: &mut Vec<Completion>,
    until: Instant,
) {
    while group.len() < GROUP {
        let room = GROUP - group.len();
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
    async fn one_that_comes_alone_does_not_wait() {
        // A record after a rest is written down at once; those that follow within the rest wait for
        // its end and are written down together, none is left.
        let store = Store::in_memory().unwrap();
        let config = BufferConfig::default();
        let buffer = MemoryBuffer::new(&config, "crm", store, CancellationToken::new());
        let buffer = Arc::new(buffer);
        let mut tasks = JoinSet::new();
        let (settler, mut committed) =
            Settler::start(&mut tasks, Arc::<MemoryBuffer>::clone(&buffer));
        for _ in 0..2 {
            let begin = Instant::now();
            settler.settle(settled(&buffer).await).await.unwrap();
            assert_eq!(committed.recv().await.unwrap().records, 1);
            assert!(begin.elapsed() < REST);
            for _ in 0..3 {
                sleep(REST / 5).await;
                settler.settle(settled(&buffer).await).await.unwrap();
            }
            assert_eq!(committed.recv().await.unwrap().records, 3);
            assert!(begin.elapsed() >= REST);
            sleep(REST * 2).await;
        }
        settler.settle(settled(&buffer).await).await.unwrap();
        drop(settler);
        assert_eq!(committed.recv().await.unwrap().records, 1);
        assert!(committed.recv().await.is_none());
    }
}
