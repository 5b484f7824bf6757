//! Answers of the cluster, taken in: what is new in them, what was cut off, what is missing.
//!
//! Not here: what to do where the connection broke or the topic is another one (`connect`). One
//! invariant: what is asked for next is behind the last record that came whole, or behind an offset
//! that the cluster itself told to be the end of a whole batch.

use super::cluster::{Answer, Batch, ClusterError, Wholeness};
use super::lane::{Fetched, Lane, Passage, Reading, Turn};
use crate::source::{ReadMode, SourceError};

/// The most that is asked for at once because of one batch, in bytes, unless `max_bytes` is more.
const LARGEST: u64 = 64 * 1024 * 1024;
/// What is asked for at least beside a batch.
const ROOM: u64 = 4096;
/// How often something has to be missing before more is asked for at once.
const PATIENT: u32 = 2;

/// What an answer came to.
#[derive(Debug, PartialEq, Eq)]
enum Missing {
    Nothing,
    /// What was asked for lies in a batch of this size, of which not enough came.
    Larger(u64),
    /// The answer begins behind what was asked for.
    Hole {
        at: i64,
    },
}

impl Lane {
    /// Takes an answer in, and asks for what follows.
    pub(super) async fn take_in(
        &self,
        reading: &mut Reading,
        answer: Option<Result<Answer, ClusterError>>,
    ) -> Result<Turn, SourceError> {
        let answer = match answer {
            None => {
                let why = "the connection ended".to_owned();
                return self.broke(reading, &ClusterError::Passing(why)).await;
            }
            Some(Err(error)) => return self.refused(reading, &error).await,
            Some(Ok(answer)) => answer,
        };
        reading.quiet_at = self.quiet_at();
        reading.end = answer.extent.end.max(reading.asked);
        let oldest = answer.extent.start;
        let before = reading.asked;
        let missing = match self.passage {
            Passage::All => sort(reading, answer.batches),
            Passage::Some => self.sort_passed(reading, answer),
        };
        if reading.asked > before {
            reading.misses = 0;
            reading.patience.renew();
            if reading.enlarged.take().is_some() {
                // One large batch is no reason to ask for so much from now on.
                reading.stream = None;
                return Ok(Turn::On);
            }
            return self.go_on(reading).await;
        }
        match missing {
            Missing::Nothing => self.go_on(reading).await,
            Missing::Larger(size) => self.enlarge(reading, size).await,
            Missing::Hole { .. } if oldest > reading.asked => {
                self.skip_to(reading, oldest);
                Ok(Turn::On)
            }
            Missing::Hole { at } => self.missed(reading, at).await,
        }
    }

    async fn go_on(&self, reading: &mut Reading) -> Result<Turn, SourceError> {
        let Some(stream) = reading.stream.as_mut() else {
            return Ok(Turn::On);
        };
        match stream.go_on(reading.asked).await {
            Ok(()) => Ok(Turn::On),
            // What came is handed on first; then a new stream is opened.
            Err(ClusterError::Passing(_)) => {
                reading.stream = None;
                Ok(Turn::On)
            }
            Err(error) => self.refused(reading, &error).await,
        }
    }

    /// Behind SmartModules an answer is taken as a whole.
    fn sort_passed(&self, reading: &mut Reading, answer: Answer) -> Missing {
        let from = reading.asked;
        let next = answer.batches.last().map(|batch| batch.next);
        let next = answer.looked_at.or(next).unwrap_or(from).max(from);
        let messages = answer.batches.into_iter().flat_map(|batch| batch.messages);
        let records = messages.enumerate().map(|(index, message)| Fetched::Record {
            message,
            from,
            index,
            behind: None,
        });
        reading.queue.extend(records);
        match reading.queue.back_mut() {
            Some(Fetched::Record { behind, .. }) => *behind = Some(next),
            _ => reading.queue.push_back(Fetched::Passed(next)),
        }
        reading.asked = next;
        Missing::Nothing
    }

    /// What was asked for needs a larger answer.
    async fn enlarge(&self, reading: &mut Reading, size: u64) -> Result<Turn, SourceError> {
        let asked = u64::from(reading.enlarged.or(self.max_bytes).unwrap_or(0));
        let needed = size.saturating_add(ROOM).max(asked.saturating_mul(2).min(LARGEST));
        let largest = LARGEST.max(u64::from(self.max_bytes.unwrap_or(0)));
        let (topic, partition) = (&*self.address.topic, self.address.partition);
        if needed > largest || asked >= largest {
            let why = format!(
                "the record at offset {} lies in a batch of {size} bytes, and at most {largest} \
                 are fetched at once: set `max_bytes` (a connector's `max-bytes`) to {needed}",
                reading.asked
            );
            return Err(self.failed(&ClusterError::Lasting(why)));
        }
        tracing::info!(
            topic,
            partition,
            offset = reading.asked,
            batch_bytes = size,
            "one batch is larger than `max_bytes`; it is fetched by itself"
        );
        reading.enlarged = Some(u32::try_from(needed).unwrap_or(u32::MAX));
        reading.stream = None;
        Ok(Turn::On)
    }

    /// What was asked for did not come, and is not gone: it is asked for again, for ever.
    async fn missed(&self, reading: &mut Reading, at: i64) -> Result<Turn, SourceError> {
        reading.misses += 1;
        if reading.misses >= PATIENT {
            let asked = reading.enlarged.or(self.max_bytes).unwrap_or(1024 * 1024);
            let most = u32::try_from(LARGEST).unwrap_or(u32::MAX).max(asked);
            reading.enlarged = Some(asked.saturating_mul(2).min(most));
        }
        let expected = reading.asked;
        let why = format!(
            "the record at offset {expected} did not come, but the one at {at}; it is asked for \
             again, and nothing behind it is read (more at once comes with `max_bytes`)"
        );
        if reading.misses >= PATIENT && self.mode == ReadMode::Follow {
            tracing::error!(
                topic = &*self.address.topic,
                partition = self.address.partition,
                offset = expected,
                came = at,
                max_bytes = reading.enlarged,
                "a record is missing"
            );
        }
        self.broke(reading, &ClusterError::Passing(why)).await
    }
}

/// Takes what is new from the batches.
fn sort(reading: &mut Reading, batches: Vec<Batch>) -> Missing {
    if batches.is_empty() {
        // Not even the head of a batch had room.
        return Missing::Larger(0);
    }
    for batch in batches {
        if batch.base > reading.asked {
            return Missing::Hole { at: batch.base };
        }
        for message in batch.messages {
            if message.offset == reading.asked {
                let (from, behind) = (message.offset, message.offset.saturating_add(1));
                reading.asked = behind;
                let behind = Some(behind);
                reading.queue.push_back(Fetched::Record { message, from, index: 0, behind });
            }
        }
        match batch.wholeness {
            Wholeness::Cut { size } if batch.next > reading.asked => return Missing::Larger(size),
            Wholeness::Cut { .. } => {}
            // By the cluster's own number nothing more is in it.
            Wholeness::Whole if batch.next > reading.asked => {
                reading.queue.push_back(Fetched::Passed(batch.next));
                reading.asked = batch.next;
            }
            Wholeness::Whole => {}
        }
    }
    Missing::Nothing
}
