//! Reads the records of one partition as its server sends them.
//!
//! # Invariants
//!
//! A batch whose bytes are incomplete is returned as truncated; one whose bytes are complete but do
//! not decode is an error, never a shorter batch.

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

use super::cluster::{
    Batch, ClusterError, Completeness, FetchResponse, Message, OffsetRange, RecordStream,
};
use super::connections::ClusterConnections;
use super::errors::{checked, socket_call};
use crate::config::source::FluvioTransform;

/// The smallest response size that is requested with SmartModules: where their output for one batch
/// is larger than the response may be, the cluster skips that output silently.
const MIN_TRANSFORM_BYTES: i32 = 64 * 1024 * 1024;
/// The size of a schema id, which some batches contain before their records.
const SCHEMA_ID_BYTES: usize = 4;

/// Responses that arrive one after the other.
pub(super) struct FetchStream {
    stream: AsyncResponse<DefaultStreamFetchRequest>,
    socket: VersionedSerialSocket,
    /// The server's id of this stream, once it is known.
    number: Option<u32>,
    /// Errors that arrived together with the last response and are returned after it.
    handle_error: VecDeque<ClusterError>,
    /// Keeps the connections alive while the stream is used.
    _link: Arc<ClusterConnections>,
}

impl FetchStream {
    pub(super) async fn open(
        connections: Arc<ClusterConnections>,
        partition: u32,
        from: i64,
        max_bytes: Option<u32>,
        transforms: &[FluvioTransform],
    ) -> Result<Self, ClusterError> {
        let usual = ConsumerConfig::builder().build().map_err(|error| {
            ClusterError::Permanent(format!("the client's own settings: {error:#}"))
        })?;
        let bytes = max_bytes.and_then(|bytes| i32::try_from(bytes).ok());
        let mut bytes = bytes.unwrap_or(usual.max_bytes);
        let socket = connections.socket(partition).await?;
        if !transforms.is_empty() {
            bytes = bytes.max(MIN_TRANSFORM_BYTES);
            let version = socket.lookup_version::<DefaultStreamFetchRequest>().unwrap_or(0);
            if version < CHAIN_SMARTMODULE_API {
                let why = "this cluster is too old for `transforms`: it would ignore them";
                return Err(ClusterError::Permanent(why.into()));
            }
        }
        let request = DefaultStreamFetchRequest::builder()
            .topic(connections.topic.clone())
            .partition(partition)
            .fetch_offset(from)
            .isolation(Isolation::ReadCommitted)
            .max_bytes(bytes)
            .smartmodules(smartmodules(transforms))
            .build()
            .expect("all parts of the request are given");
        let stream = ClusterConnections::ask(&socket, request).await?;
        Ok(Self { stream, socket, number: None, handle_error: VecDeque::new(), _link: connections })
    }

    fn response(
        &mut self,
        told: DefaultStreamFetchResponse,
    ) -> Result<FetchResponse, ClusterError> {
        self.number = Some(told.stream_id);
        let partition = told.partition;
        let handle_error = checked(&partition.error_code);
        let batches = partition.records.batches.iter().map(batch).collect::<Result<Vec<_>, _>>()?;
        if batches.is_empty() {
            handle_error?;
        } else {
            self.handle_error.extend(handle_error.err());
        }
        Ok(FetchResponse {
            batches,
            offset_range: OffsetRange {
                start: partition.log_start_offset.max(0),
                end: partition.high_watermark,
            },
            scanned_to: Some(partition.next_filter_offset).filter(|next| *next > 0),
        })
    }
}

#[async_trait]
impl RecordStream for FetchStream {
    async fn next(&mut self) -> Option<Result<FetchResponse, ClusterError>> {
        if let Some(handle_error) = self.handle_error.pop_front() {
            return Some(Err(handle_error));
        }
        match self.stream.next().await? {
            Ok(told) => Some(self.response(told)),
            Err(error) => Some(Err(ClusterError::Transient(error.to_string()))),
        }
    }

    async fn request_next(&mut self, from: i64) -> Result<(), ClusterError> {
        let Some(session_id) = self.number else {
            return Ok(());
        };
        let offsets = vec![OffsetUpdate { offset: from, session_id }];
        let told = socket_call(self.socket.send_receive(UpdateOffsetsRequest { offsets })).await?;
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
        ClusterError::Transient(format!("the batch at offset {} is broken: {why}", raw.base_offset))
    };
    let size = BATCH_PREAMBLE_SIZE + usize::try_from(raw.batch_len).unwrap_or(0);
    let schema = if raw.header.has_schema() { SCHEMA_ID_BYTES } else { 0 };
    let due = size.saturating_sub(BATCH_PREAMBLE_SIZE + BATCH_HEADER_SIZE + schema);
    let there = &raw.records().0;
    let is_whole = there.len() >= due;
    let compression = raw.get_compression().map_err(|error| broken(&error))?;
    let data = match (compression, is_whole) {
        (Compression::None, _) => there.clone(),
        // A truncated compressed block cannot be decompressed.
        (_, false) => Bytes::new(),
        (compression, true) => compression
            .uncompress(there)
            .map_err(|error| broken(&error))?
            .ok_or_else(|| broken(&"its compression is unknown"))?
            .into(),
    };
    let messages = messages(raw, data, is_whole).map_err(|why| broken(&why))?;
    let completeness = match is_whole {
        true => Completeness::Complete,
        false => Completeness::Truncated { size: u64::try_from(size).unwrap_or(u64::MAX) },
    };
    Ok(Batch { base: raw.base_offset, next: raw.computed_last_offset(), completeness, messages })
}

/// The records of a batch; of a truncated one, those that are whole.
fn messages(
    raw: &RawBatch<RawRecords>,
    mut data: Bytes,
    is_whole: bool,
) -> Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    if data.len() < size_of::<i32>() {
        // A batch may hold no records where SmartModules filtered all of them.
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
