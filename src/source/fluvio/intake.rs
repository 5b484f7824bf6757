//! Takes responses of the cluster in: what is new in them, what was truncated, what is missing.
//!
//! # Invariants
//!
//! The next request starts after the last record that was received whole, or after an offset that
//! the cluster itself reported as the end of a whole batch.

use super::cluster::{Batch, ClusterError, Completeness, FetchResponse};
use super::partition_reader::{Filtering, PartitionReader, QueueItem, ReaderState, ReaderStep};
use crate::source::{ReadMode, SourceError};

/// The largest response that is requested because of one batch, in bytes, unless `max_bytes` is
/// larger.
const MAX_FETCH_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes that are requested in addition to the size of a batch.
const FETCH_OVERHEAD_BYTES: u64 = 4096;
/// How often records must be missing before a larger response is requested.
const MIN_MISSES: u32 = 2;

/// What is missing in a response.
#[derive(Debug, PartialEq, Eq)]
enum FetchGap {
    Nothing,
    /// The requested record is in a batch of this size, which was not received far enough.
    Larger(u64),
    /// The response begins after the requested offset.
    Hole {
        at: i64,
    },
}

impl PartitionReader {
    /// Takes a response in and requests what follows.
    pub(super) async fn accept(
        &self,
        reading: &mut ReaderState,
        answer: Option<Result<FetchResponse, ClusterError>>,
    ) -> Result<ReaderStep, SourceError> {
        let answer = match answer {
            None => {
                let why = "the connection ended".to_owned();
                return self.retry(reading, &ClusterError::Transient(why)).await;
            }
            Some(Err(error)) => return self.handle_error(reading, &error).await,
            Some(Ok(answer)) => answer,
        };
        reading.quiet_at = self.quiet_at();
        reading.end = answer.offset_range.end.max(reading.next_fetch);
        let oldest = answer.offset_range.start;
        let before = reading.next_fetch;
        let missing = match self.filtering {
            Filtering::Unfiltered => queue_new(reading, answer.batches),
            Filtering::SmartModules => self.queue_filtered(reading, answer),
        };
        if reading.next_fetch > before {
            reading.misses = 0;
            reading.retry.renew();
            if reading.enlarged.take().is_some() {
                // One large batch must not enlarge all later requests.
                reading.stream = None;
                return Ok(ReaderStep::Continue);
            }
            return self.request_next(reading).await;
        }
        match missing {
            FetchGap::Nothing => self.request_next(reading).await,
            FetchGap::Larger(size) => self.enlarge_fetch(reading, size).await,
            FetchGap::Hole { .. } if oldest > reading.next_fetch => {
                self.skip_to(reading, oldest);
                Ok(ReaderStep::Continue)
            }
            FetchGap::Hole { at } => self.retry_missing(reading, at).await,
        }
    }

    async fn request_next(&self, reading: &mut ReaderState) -> Result<ReaderStep, SourceError> {
        let Some(stream) = reading.stream.as_mut() else {
            return Ok(ReaderStep::Continue);
        };
        match stream.request_next(reading.next_fetch).await {
            Ok(()) => Ok(ReaderStep::Continue),
            // What was received is forwarded first; then a new stream is opened.
            Err(ClusterError::Transient(_)) => {
                reading.stream = None;
                Ok(ReaderStep::Continue)
            }
            Err(error) => self.handle_error(reading, &error).await,
        }
    }

    /// With SmartModules a response is taken as a whole.
    fn queue_filtered(&self, reading: &mut ReaderState, answer: FetchResponse) -> FetchGap {
        let from = reading.next_fetch;
        let next = answer.batches.last().map(|batch| batch.next);
        let next = answer.scanned_to.or(next).unwrap_or(from).max(from);
        let messages = answer.batches.into_iter().flat_map(|batch| batch.messages);
        let records = messages.enumerate().map(|(index, message)| QueueItem::Record {
            message,
            from,
            index,
            commit_offset: None,
        });
        reading.queue.extend(records);
        match reading.queue.back_mut() {
            Some(QueueItem::Record { commit_offset, .. }) => *commit_offset = Some(next),
            _ => reading.queue.push_back(QueueItem::Skip(next)),
        }
        reading.next_fetch = next;
        FetchGap::Nothing
    }

    /// The requested record needs a larger response.
    async fn enlarge_fetch(
        &self,
        reading: &mut ReaderState,
        size: u64,
    ) -> Result<ReaderStep, SourceError> {
        let fetch_bytes = u64::from(reading.enlarged.or(self.max_bytes).unwrap_or(0));
        let needed = size
            .saturating_add(FETCH_OVERHEAD_BYTES)
            .max(fetch_bytes.saturating_mul(2).min(MAX_FETCH_BYTES));
        let largest = MAX_FETCH_BYTES.max(u64::from(self.max_bytes.unwrap_or(0)));
        let (topic, partition) = (&*self.address.topic, self.address.partition);
        if needed > largest || fetch_bytes >= largest {
            let why = format!(
                "the record at offset {} is in a batch of {size} bytes, and one response is \
                 limited to {largest} bytes: set `max_bytes` (a connector's `max-bytes`) to \
                 {needed}",
                reading.next_fetch
            );
            return Err(self.failed(&ClusterError::Permanent(why)));
        }
        tracing::info!(
            topic,
            partition,
            offset = reading.next_fetch,
            batch_bytes = size,
            "one batch is larger than `max_bytes`; it is fetched alone, nothing need be done"
        );
        reading.enlarged = Some(u32::try_from(needed).unwrap_or(u32::MAX));
        reading.stream = None;
        Ok(ReaderStep::Continue)
    }

    /// The requested record was not received and was not removed: it is requested again, without a
    /// limit.
    async fn retry_missing(
        &self,
        reading: &mut ReaderState,
        at: i64,
    ) -> Result<ReaderStep, SourceError> {
        reading.misses += 1;
        if reading.misses >= MIN_MISSES {
            let fetch_bytes = reading.enlarged.or(self.max_bytes).unwrap_or(1024 * 1024);
            let most = u32::try_from(MAX_FETCH_BYTES).unwrap_or(u32::MAX).max(fetch_bytes);
            reading.enlarged = Some(fetch_bytes.saturating_mul(2).min(most));
        }
        let expected = reading.next_fetch;
        let why = format!(
            "the record at offset {expected} was not received, but the one at {at} was; it is \
             requested again, and nothing after it is read (a larger `max_bytes` may help)"
        );
        if reading.misses >= MIN_MISSES && self.mode == ReadMode::Follow {
            tracing::error!(
                topic = &*self.address.topic,
                partition = self.address.partition,
                offset = expected,
                received = at,
                max_bytes = reading.enlarged,
                "a record is missing"
            );
        }
        self.retry(reading, &ClusterError::Transient(why)).await
    }
}

/// Takes what is new from the batches.
fn queue_new(reading: &mut ReaderState, batches: Vec<Batch>) -> FetchGap {
    if batches.is_empty() {
        // Not even the header of a batch had room.
        return FetchGap::Larger(0);
    }
    for batch in batches {
        if batch.base > reading.next_fetch {
            return FetchGap::Hole { at: batch.base };
        }
        for message in batch.messages {
            if message.offset == reading.next_fetch {
                let (from, commit_offset) = (message.offset, message.offset.saturating_add(1));
                reading.next_fetch = commit_offset;
                let commit_offset = Some(commit_offset);
                reading.queue.push_back(QueueItem::Record {
                    message,
                    from,
                    index: 0,
                    commit_offset,
                });
            }
        }
        match batch.completeness {
            Completeness::Truncated { size } if batch.next > reading.next_fetch => {
                return FetchGap::Larger(size);
            }
            Completeness::Truncated { .. } => {}
            // According to the cluster nothing more is in it.
            Completeness::Complete if batch.next > reading.next_fetch => {
                reading.queue.push_back(QueueItem::Skip(batch.next));
                reading.next_fetch = batch.next;
            }
            Completeness::Complete => {}
        }
    }
    FetchGap::Nothing
}
