//! Turns the items of a request into records, and their verdicts into a response.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::records::BodyRecord;
use super::reply::RequestError;
use crate::record::Record;
use crate::source::ingest::{IngestError, IngestOutcome, RequestIngest};
use crate::source::memory::MemoryReservation;
use crate::source::metadata;

/// What the records of a request share.
pub(super) struct IngestRequest {
    pub(super) items: Vec<BodyRecord>,
    /// See [`Record::meta`].
    pub(super) meta: Bytes,
    /// The request's idempotency key.
    pub(super) key: Option<String>,
    /// The memory that it holds.
    pub(super) reservation: MemoryReservation,
}

/// Sends records into the pipeline, with a time limit for each request.
pub(super) struct RecordIngest {
    push: RequestIngest,
    timeout: Duration,
}

impl RecordIngest {
    pub(super) fn new(out: mpsc::Sender<Record>, timeout: Duration) -> Self {
        Self { push: RequestIngest::new(out), timeout }
    }

    /// Sends the records and waits until all are settled.
    pub(super) async fn take(&self, request: IngestRequest) -> Result<IngestOutcome, RequestError> {
        let IngestRequest { items, meta, key, reservation } = request;
        let record = |item: BodyRecord| {
            let mut record = Record::new(item.body);
            record.meta = Some(metadata::merge(meta.clone(), item.meta));
            let place = match item.part {
                0 => item.number.to_string(),
                part => format!("{}.{part}", item.number),
            };
            record.transport_id = key.as_ref().map(|key| format!("{key}#{place}").into());
            record.decode_error = item.fault.map(Into::into);
            record
        };
        let records = items.into_iter().map(record).collect();
        match timeout(self.timeout, self.push.take(records, reservation)).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(IngestError::Full)) => Err(RequestError::Busy),
            Ok(Err(IngestError::Unacknowledged)) | Err(_) => Err(RequestError::Unsettled),
        }
    }

    /// Waits until every record that was sent has its verdict.
    pub(super) async fn wait_until_idle(&self) {
        self.push.wait_until_idle().await;
    }
}
