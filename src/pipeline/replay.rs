//! Replay: sends dead letters through the pipeline again, like records of a source.
//!
//! # Invariants
//! A dead letter is deleted only after its record has a new final status, which may be a new dead
//! letter.

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::run::{BuiltPipeline, RunError, RunOptions, Shutdown};
use super::summary::Summary;
use crate::ack::{Ack, Verdict};
use crate::buffer::{DeadLetterFilter, Store, StoreError, StoredDeadLetter};
use crate::config::{Pipeline, SinkConfig};
use crate::record::Record;
use crate::sink::Destination;
use crate::source::{ReadMode, Source, SourceError};
use crate::telemetry::Metrics;

/// Dead letters read from the store at a time, and records in flight at most.
pub(super) const PAGE_SIZE: usize = 500;

/// The result of a replay.
#[derive(Debug)]
pub struct Replay {
    /// Dead letters sent through the pipeline.
    pub taken: u64,
    /// Of these, settled without a new dead letter.
    pub delivered: u64,
    /// Of these, still or again in the dead letters.
    pub kept: u64,
    /// The summary of the run.
    pub summary: Summary,
}

/// Sends the selected dead letters of some sinks again.
///
/// # Errors
///
/// Those of [`BuiltPipeline::run`].
pub async fn replay(
    pipeline: &Pipeline,
    sinks: &[String],
    filter: &DeadLetterFilter,
    store: &Store,
    stop: Shutdown,
) -> Result<Replay, RunError> {
    let mut pipeline = pipeline.clone();
    pipeline.sources.clear();
    pipeline.sinks.retain(|name, _| sinks.contains(name));
    for (name, SinkConfig::Usercom(sink)) in &mut pipeline.sinks {
        sink.inputs = vec![source_name(name)];
    }
    let mut taken = Vec::new();
    let before = letters(store, sinks).await?;
    for sink in sinks {
        taken.push((sink, chosen(store, sink, filter).await?));
    }
    let options = RunOptions {
        mode: ReadMode::Once,
        store: store.clone(),
        metrics: Metrics::default(),
        stop,
        destination: Destination::Account,
    };
    let mut built = BuiltPipeline::build(&pipeline, options).await?;
    let mut count = 0;
    for (sink, ids) in taken {
        count += ids.len() as u64;
        let source = DeadLetterSource { store: store.clone(), sink: sink.clone(), ids };
        built.add_source(&source_name(sink), "dead_letters", Box::new(source));
    }
    let summary = built.run().await?;
    let after = letters(store, sinks).await?;
    let gone = before.saturating_sub(after).min(count);
    Ok(Replay { taken: count, delivered: gone, kept: count - gone, summary })
}

/// A pipeline file cannot name a source like this.
fn source_name(sink: &str) -> String {
    format!("dead letters of {sink}")
}

async fn letters(store: &Store, sinks: &[String]) -> Result<u64, StoreError> {
    let mut sum = 0;
    for sink in sinks {
        sum += store.count_dead_letters(sink).await?.iter().map(|(_, n)| n).sum::<u64>();
    }
    Ok(sum)
}

/// The ids of the selected dead letters now: dead letters that are added during the replay are not
/// replayed in the same run.
pub(super) async fn chosen(
    store: &Store,
    sink: &str,
    filter: &DeadLetterFilter,
) -> Result<Vec<i64>, StoreError> {
    let mut ids = Vec::new();
    loop {
        let page = store.dead_letters(sink, filter.clone(), PAGE_SIZE, ids.len()).await?;
        if page.is_empty() {
            return Ok(ids);
        }
        ids.extend(page.iter().map(|letter| letter.id));
    }
}

struct DeadLetterSource {
    store: Store,
    sink: String,
    ids: Vec<i64>,
}

#[async_trait]
impl Source for DeadLetterSource {
    async fn run(
        self: Box<Self>,
        out: mpsc::Sender<Record>,
        stop: CancellationToken,
    ) -> Result<(), SourceError> {
        for ids in self.ids.chunks(PAGE_SIZE) {
            if stop.is_cancelled() {
                break;
            }
            send_again(&self.store, &self.sink, ids, &out).await.map_err(|error| {
                SourceError::Checkpoints {
                    source_name: source_name(&self.sink),
                    why: error.to_string(),
                }
            })?;
        }
        Ok(())
    }
}

/// What became of a page of dead letters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Resent {
    /// Those that were sent.
    pub(super) sent: u64,
    /// Of these, those with a new status, which are deleted.
    pub(super) settled: u64,
    /// Of these, those that were rejected, which are dead letters again.
    pub(super) rejected: u64,
}

/// Sends a page of dead letters into a sink and waits for their status.
pub(super) async fn send_again(
    store: &Store,
    sink: &str,
    ids: &[i64],
    out: &mpsc::Sender<Record>,
) -> Result<Resent, StoreError> {
    let filter = DeadLetterFilter { ids: Some(ids.to_vec()), ..DeadLetterFilter::default() };
    let page = store.dead_letters(sink, filter, ids.len(), 0).await?;
    store.note_replay(ids).await?;
    let mut resent = Resent::default();
    // Each record notifies once, so the channel is never full.
    let (verdicts, mut told) = mpsc::channel(page.len().max(1));
    for stored in page {
        let id = stored.id;
        let verdicts = verdicts.clone();
        let ack = Ack::new(move |verdict| {
            // Fails only if the receiver is gone; then the dead letter stays.
            verdicts.try_send((id, verdict)).ok();
        });
        if out.send(record(stored).with_ack(ack)).await.is_err() {
            break;
        }
        resent.sent += 1;
    }
    drop(verdicts);
    let mut settled = Vec::new();
    while let Some((id, verdict)) = told.recv().await {
        resent.rejected += u64::from(verdict == Verdict::Rejected);
        if verdict != Verdict::Errored {
            settled.push(id);
        }
    }
    resent.settled = settled.len() as u64;
    store.delete_dead_letters(&settled).await?;
    Ok(resent)
}

fn record(stored: StoredDeadLetter) -> Record {
    let letter = stored.letter;
    let mut record = Record::new(letter.record);
    record.meta = letter.meta;
    record.transport_id = letter.transport_id.map(Into::into);
    record
}
