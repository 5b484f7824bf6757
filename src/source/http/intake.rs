//! From a request's items to records, and from what became of them to an answer.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::records::Item;
use super::reply::Refusal;
use crate::record::Record;
use crate::source::memory::Share;
use crate::source::metadata;
use crate::source::push::{NotTaken, Outcome, Push};

/// What is common to the records of a request.
pub(super) struct Consignment {
    pub(super) items: Vec<Item>,
    /// See [`Record::meta`].
    pub(super) meta: Bytes,
    /// The request's idempotency key.
    pub(super) key: Option<String>,
    /// The memory it takes.
    pub(super) share: Share,
}

/// The way into the pipeline, for as long as a request may wait.
pub(super) struct Intake {
    push: Push,
    timeout: Duration,
}

impl Intake {
    pub(super) fn new(out: mpsc::Sender<Record>, timeout: Duration) -> Self {
        Self { push: Push::new(out), timeout }
    }

    /// Sends the records and waits until all are settled.
    pub(super) async fn take(&self, consignment: Consignment) -> Result<Outcome, Refusal> {
        let Consignment { items, meta, key, share } = consignment;
        let record = |item: Item| {
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
        match timeout(self.timeout, self.push.take(records, share)).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(NotTaken::Busy)) => Err(Refusal::Busy),
            Ok(Err(NotTaken::Unsettled)) | Err(_) => Err(Refusal::Unsettled),
        }
    }

    /// Waits until every record that was sent has its verdict.
    pub(super) async fn landed(&self) {
        self.push.landed().await;
    }
}
