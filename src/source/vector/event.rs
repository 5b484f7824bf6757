//! From an event to a record.
//!
//! Invariant: every event becomes a record; what cannot be one for User.com becomes a record with a
//! fault, and its neighbours never notice.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::generated::event::event_wrapper::Event;
use super::generated::event::{EventWrapper, Metadata, Metric, Value};
use super::value::{Json, Object};
use crate::record::{AckOn, Record};

/// An event as it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The event as JSON.
    pub body: Bytes,
    /// What Vector knew of it: `source_id`, `source_type`, `upstream`, for `%` paths. Vector's
    /// secrets are not read at all.
    pub meta: Option<Bytes>,
    /// Vector's own id of the event.
    pub id: Option<String>,
    /// Why it cannot be delivered.
    pub fault: Option<&'static str>,
}

impl Decoded {
    /// The record it is.
    pub(super) fn into_record(self, ack_on: AckOn) -> Record {
        let mut record = Record::new(self.body);
        record.meta = self.meta;
        record.transport_id = self.id.map(Into::into);
        record.fault = self.fault.map(Into::into);
        record.ack_on = ack_on;
        record
    }
}

/// Reads one event.
pub fn decode(wrapper: &EventWrapper) -> Decoded {
    match &wrapper.event {
        Some(Event::Log(log)) => {
            let body = match &log.value {
                Some(root) => written(&Json(root)),
                None => written(&Object(&log.fields)),
            };
            with_metadata(body, log.metadata_full.as_ref())
        }
        Some(Event::Trace(trace)) => {
            with_metadata(fields(&trace.fields), trace.metadata_full.as_ref())
        }
        Some(Event::Metric(metric)) => faulty(
            metric_json(metric),
            "a metric is no event of a user: send logs or traces here, or leave metrics out",
        ),
        None => faulty(Bytes::from_static(b"{}"), "an event of a kind that is not known here"),
    }
}

fn fields(fields: &BTreeMap<String, Value>) -> Bytes {
    written(&Object(fields))
}

fn written(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("values of events are JSON with text for keys").into()
}

fn with_metadata(body: Bytes, metadata: Option<&Metadata>) -> Decoded {
    let Some(metadata) = metadata else {
        return Decoded { body, meta: None, id: None, fault: None };
    };
    let id = Uuid::from_slice(&metadata.source_event_id).ok();
    let upstream = metadata.upstream_id.as_ref().map(|output| match &output.port {
        Some(port) => format!("{}.{port}", output.component),
        None => output.component.clone(),
    });
    let known = [
        ("source_id", metadata.source_id.as_deref()),
        ("source_type", metadata.source_type.as_deref()),
        ("upstream", upstream.as_deref()),
    ];
    let known: BTreeMap<_, _> =
        known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let meta = (!known.is_empty()).then(|| written(&known));
    Decoded { body, meta, id: id.map(|id| format!("vector/{id}")), fault: None }
}

fn faulty(body: Bytes, fault: &'static str) -> Decoded {
    Decoded { body, meta: None, id: None, fault: Some(fault) }
}

fn metric_json(metric: &Metric) -> Bytes {
    written(&json!({ "metric": metric.name, "namespace": metric.namespace }))
}
