//! The records of one partition as its server sends them.
//!
//! Not here: which of them are new, and what is missing (`intake`). One invariant: a batch whose
//! bytes are not all there is told as cut; one whose bytes are there and do not make up its records
//! is an error, never a shorter batch.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use fluvio::consumer::{ConsumerConfig, SmartModuleInvocation};
use fluvio::dataplane::core::Decoder;
use fluvio::dataplane::record::{
    BATCH_HEADER_SIZE, BATCH_PREAMBLE_SIZE, Batch as RawBatch, RawRecords, Record,
};
use fluvio::{
    Compression, Isolation, SmartModuleContextData, SmartModuleExtraParams,
    SmartModuleInvocationWasm, SmartModuleKind,
};
use fluvio_socket::{AsyncResponse, VersionedSerialSocket};
use fluvio_spu_schema::server::stream_fetch::{
    CHAIN_SMARTMODULE_API, DefaultStreamFetchRequest, DefaultStreamFetchResponse,
};
use fluvio_spu_schema::server::update_offset::{OffsetUpdate, UpdateOffsetsRequest};
use futures::StreamExt;

use super::cluster::{Answer, Batch, ClusterError, Extent, Message, Stream, Wholeness};
use super::link::Link;
use super::refusal::{checked, within};
use crate::config::source::FluvioTransform;

/// What is asked for at once, at least, where SmartModules work: what they make of one batch and is
/// larger than the answer may be is passed over by the cluster without a word.
const TRANSFORMED: i32 = 64 * 1024 * 1024;
/// The number of a schema, which some batches have before their records.
const SCHEMA: usize = 4;

/// Answers that come one by one.
pub(super) struct Fetching {
    stream: AsyncResponse<DefaultStreamFetchRequest>,
    socket: VersionedSerialSocket,
    /// The server's number of this stream, once it has told.
    number: Option<u32>,
    /// What came together with the last answer and is told after it.
    refused: VecDeque<ClusterError>,
    /// The connection belongs to it.
    _link: Arc<Link>,
}

impl Fetching {
    pub(super) async fn open(
        link: Arc<Link>,
        partition: u32,
        from: i64,
        max_bytes: Option<u32>,
        transforms: &[FluvioTransform],
    ) -> Result<Self, ClusterError> {
        let usual = ConsumerConfig::builder().build().map_err(|error| {
            ClusterError::Lasting(format!("the client's own settings: {error:#}"))
        })?;
        let bytes = max_bytes.and_then(|bytes| i32::try_from(bytes).ok());
        let mut bytes = bytes.unwrap_or(usual.max_bytes);
        let socket = link.socket(partition).await?;
        if !transforms.is_empty() {
            bytes = bytes.max(TRANSFORMED);
            let version = socket.lookup_version::<DefaultStreamFetchRequest>().unwrap_or(0);
            if version < CHAIN_SMARTMODULE_API {
                let why = "this cluster is too old for `transforms`: it would leave them out";
                return Err(ClusterError::Lasting(why.into()));
            }
        }
        let request = DefaultStreamFetchRequest::builder()
            .topic(link.topic.clone())
            .partition(partition)
            .fetch_offset(from)
            .isolation(Isolation::ReadCommitted)
            .max_bytes(bytes)
            .smartmodules(smartmodules(transforms))
            .build()
            .expect("all parts of the request are given");
        let stream = Link::ask(&socket, request).await?;
        Ok(Self { stream, socket, number: None, refused: VecDeque::new(), _link: link })
    }

    fn answer(&mut self, told: DefaultStreamFetchResponse) -> Result<Answer, ClusterError> {
        self.number = Some(told.stream_id);
        let partition = told.partition;
        let refused = checked(&partition.error_code);
        let batches = partition.records.batches.iter().map(batch).collect::<Result<Vec<_>, _>>()?;
        if batches.is_empty() {
            refused?;
        } else {
            self.refused.extend(refused.err());
        }
        Ok(Answer {
            batches,
            extent: Extent {
                start: partition.log_start_offset.max(0),
                end: partition.high_watermark,
            },
            looked_at: Some(partition.next_filter_offset).filter(|next| *next > 0),
        })
    }
}

#[async_trait]
impl Stream for Fetching {
    async fn next(&mut self) -> Option<Result<Answer, ClusterError>> {
        if let Some(refused) = self.refused.pop_front() {
            return Some(Err(refused));
        }
        match self.stream.next().await? {
            Ok(told) => Some(self.answer(told)),
            Err(error) => Some(Err(ClusterError::Passing(error.to_string()))),
        }
    }

    async fn go_on(&mut self, from: i64) -> Result<(), ClusterError> {
        let Some(session_id) = self.number else {
            return Ok(());
        };
        let offsets = vec![OffsetUpdate { offset: from, session_id }];
        let told = within(self.socket.send_receive(UpdateOffsetsRequest { offsets })).await?;
        match told.status.first().map(|status| &status.error) {
            None => Ok(()),
            Some(code) => checked(code),
        }
    }
}

fn smartmodules(transforms: &[FluvioTransform]) -> Vec<SmartModuleInvocation> {
    let transforms = transforms.iter().map(|transform| {
        let with: BTreeMap<_, _> =
            transform.with.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        SmartModuleInvocation {
            wasm: SmartModuleInvocationWasm::Predefined(transform.uses.clone()),
            kind: SmartModuleKind::Generic(SmartModuleContextData::None),
            params: SmartModuleExtraParams::from(with),
            name: Some(transform.uses.clone()),
        }
    });
    transforms.collect()
}

/// One batch.
fn batch(raw: &RawBatch<RawRecords>) -> Result<Batch, ClusterError> {
    let broken = |why: &dyn std::fmt::Display| {
        ClusterError::Passing(format!("the batch at offset {} is broken: {why}", raw.base_offset))
    };
    let size = BATCH_PREAMBLE_SIZE + usize::try_from(raw.batch_len).unwrap_or(0);
    let schema = if raw.header.has_schema() { SCHEMA } else { 0 };
    let due = size.saturating_sub(BATCH_PREAMBLE_SIZE + BATCH_HEADER_SIZE + schema);
    let there = &raw.records().0;
    let is_whole = there.len() >= due;
    let compression = raw.get_compression().map_err(|error| broken(&error))?;
    let data = match (compression, is_whole) {
        (Compression::None, _) => there.clone(),
        // Half of something compressed is nothing.
        (_, false) => Bytes::new(),
        (compression, true) => compression
            .uncompress(there)
            .map_err(|error| broken(&error))?
            .ok_or_else(|| broken(&"its compression is not known"))?
            .into(),
    };
    let messages = messages(raw, data, is_whole).map_err(|why| broken(&why))?;
    let wholeness = match is_whole {
        true => Wholeness::Whole,
        false => Wholeness::Cut { size: u64::try_from(size).unwrap_or(u64::MAX) },
    };
    Ok(Batch { base: raw.base_offset, next: raw.computed_last_offset(), wholeness, messages })
}

/// The records of a batch; of one that is cut, those that are whole.
fn messages(
    raw: &RawBatch<RawRecords>,
    mut data: Bytes,
    is_whole: bool,
) -> Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    if data.len() < size_of::<i32>() {
        // A batch may be without records, where SmartModules took all of them out.
        return Ok(messages);
    }
    let count = data.get_i32();
    let since = Some(raw.get_base_timestamp()).filter(|since| *since > 0);
    for offset in (raw.base_offset..).take(usize::try_from(count).unwrap_or(0)) {
        let mut record = Record::default();
        if let Err(error) = record.decode(&mut data, 0) {
            if is_whole {
                return Err(format!("record {offset} cannot be decoded: {error}"));
            }
            break;
        }
        let timestamp = since.map(|since| since + record.get_header().get_timestamp_delta());
        messages.push(message(offset, timestamp, record));
    }
    Ok(messages)
}

fn message(offset: i64, timestamp: Option<i64>, record: Record) -> Message {
    let key = record.key.as_deref().cloned();
    Message { offset, timestamp, key, value: Bytes::clone(&record.value) }
}
