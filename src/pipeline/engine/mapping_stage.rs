//! The mapping stage: reads records from the buffer, maps them to ops, looks up which messages were
//! delivered before, and sends batches through a bounded channel. Batches keep the order of the
//! buffer.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::warnings::UnmatchedWarnings;
use crate::buffer::{Buffer, Buffered, DeadLetter, Store};
use crate::call::{Call, CallKind};
use crate::clock;
use crate::config::sink::Unmatched;
use crate::mapping::{CompiledMapping, Input};
use crate::record::Record;
use crate::schedule::{ExternalUserId, Op};
use crate::telemetry::{SinkMetrics, TappedRecord};
use crate::usercom::{ExecutorObserver, PlanWarnings, Settings, plan_call};

/// Records in one batch at most.
const MAX_BATCH_RECORDS: usize = 256;

/// After this many calls the stage yields, so that other tasks of the thread run.
const MAX_CALLS_BETWEEN_YIELDS: usize = 256;

/// A call and the ops planned for it.
#[derive(Debug)]
pub(super) struct PlannedCall {
    pub(super) kind: CallKind,
    pub(super) ops: Vec<Op>,
    /// Two ids of one person, former id first: anonymous id and user id of a call that carries
    /// both, or the two ids of an alias.
    pub(super) identity_link: Option<(ExternalUserId, ExternalUserId)>,
    /// Deduplication key of the message; `None` if it has no id.
    pub(super) key: Option<String>,
    /// Whether the message was delivered before, or occurs earlier in the same record.
    pub(super) seen: bool,
}

/// The result of mapping a record.
#[derive(Debug)]
pub(super) enum MappingOutcome {
    /// Calls, at least one.
    Calls(Vec<PlannedCall>),
    /// No rule matched.
    Unmatched,
    /// It can never be delivered.
    Dead(Box<DeadLetter>),
}

/// A record and the result of its mapping.
#[derive(Debug)]
pub(super) struct MappedRecord {
    pub(super) buffered: Buffered,
    pub(super) outcome: MappingOutcome,
}

impl MappedRecord {
    /// How many calls were made of it.
    fn calls(&self) -> usize {
        match &self.outcome {
            MappingOutcome::Calls(calls) => calls.len(),
            MappingOutcome::Unmatched | MappingOutcome::Dead(_) => 0,
        }
    }
}

/// The settings and services of the stage.
pub(super) struct MappingStage {
    pub(super) sink: String,
    pub(super) plan: Arc<CompiledMapping>,
    pub(super) settings: Settings,
    pub(super) unmatched: Unmatched,
    pub(super) dedupe: bool,
    pub(super) store: Store,
    pub(super) metrics: SinkMetrics,
    pub(super) probe: Arc<dyn ExecutorObserver>,
    pub(super) unmatched_warnings: UnmatchedWarnings,
}

impl MappingStage {
    /// Maps batches until the buffer is closed and empty, or the receiver is dropped.
    pub(super) async fn run(
        mut self,
        buffer: Arc<dyn Buffer>,
        out: mpsc::Sender<Vec<MappedRecord>>,
    ) {
        while let Some(batch) = buffer.next(MAX_BATCH_RECORDS).await {
            let mut mapped = Vec::with_capacity(batch.len());
            let mut calls = 0;
            for buffered in batch {
                let one = self.prepare(buffered).await;
                calls += one.calls().max(1);
                if calls >= MAX_CALLS_BETWEEN_YIELDS {
                    calls = 0;
                    yield_now().await;
                }
                mapped.push(one);
            }
            if self.dedupe {
                self.mark_delivered_before(&mut mapped).await;
            }
            if out.send(mapped).await.is_err() {
                break;
            }
        }
        self.unmatched_warnings.flush(&self.sink);
    }

    async fn prepare(&mut self, mut buffered: Buffered) -> MappedRecord {
        let outcome = match &buffered.record.decode_error {
            Some(fault) => {
                let letter =
                    DeadLetter::new(&buffered.record, "undecodable", &**fault, clock::now());
                MappingOutcome::Dead(Box::new(letter))
            }
            None => self.outcome(&buffered).await,
        };
        if let MappingOutcome::Calls(_) = outcome {
            detach(&mut buffered.record.body);
            if let Some(meta) = &mut buffered.record.meta {
                detach(meta);
            }
        }
        MappedRecord { buffered, outcome }
    }

    /// Counts an unmatched record under the rule that came nearest.
    fn note_unmatched(&self, input: Input<'_>) {
        let activity = self.metrics.activity();
        if activity.examines_unmatched() {
            let nearest = self.plan.nearest_rule(input);
            activity
                .nearest()
                .add(nearest.as_ref().map_or("(there is no rule)", |near| &near.name), "");
        }
    }

    /// Shows a record to the viewers of the tap.
    fn tap(&self, record: &Record) {
        let tap = self.metrics.activity().tap();
        if tap.wants(record.body.len()) {
            tap.show(TappedRecord {
                body: record.body.clone(),
                meta: record.meta.clone(),
                location: record.origin.as_ref().map(|origin| origin.location.to_string()),
            });
        }
    }

    async fn outcome(&mut self, buffered: &Buffered) -> MappingOutcome {
        let record = &buffered.record;
        self.tap(record);
        let input = Input { body: &record.body, meta: record.meta.as_deref() };
        let mut mapped = match self.plan.map(input) {
            Ok(mapped) => mapped,
            Err(fault) => {
                let mut letter =
                    DeadLetter::new(record, fault.code.as_str(), fault.to_string(), clock::now());
                letter.rule = fault.rule;
                letter.field = fault.field;
                return MappingOutcome::Dead(Box::new(letter));
            }
        };
        for loss in &mapped.stats.losses {
            self.probe.conversion_failed(&loss.field, &loss.reason);
        }
        // Every loss is counted, also those without a description.
        for _ in mapped.stats.losses.len() as u64..mapped.stats.count() {
            self.metrics.conversion_failed();
        }
        if mapped.calls.is_empty() {
            if !mapped.matched {
                self.note_unmatched(input);
                let consequence = match self.unmatched {
                    Unmatched::Drop => "dropped",
                    Unmatched::DeadLetter => "put into the dead letters",
                };
                self.unmatched_warnings.unmatched(&self.sink, &self.plan, record, consequence);
            }
            if !mapped.matched && self.unmatched == Unmatched::DeadLetter {
                let letter = DeadLetter::new(record, "unmatched", "no rule wants it", clock::now());
                return MappingOutcome::Dead(Box::new(letter));
            }
            return MappingOutcome::Unmatched;
        }
        let now = clock::now();
        let mut notes = PlanWarnings::default();
        let mut calls = Vec::with_capacity(mapped.calls.len());
        let mut keys = DedupeKeys::default();
        for (number, mapped_call) in (1_usize..).zip(&mut mapped.calls) {
            // A record with very many messages must not block other sinks and sources.
            if number % MAX_CALLS_BETWEEN_YIELDS == 0 {
                yield_now().await;
            }
            let call = &mut mapped_call.call;
            call.timestamp = call.timestamp.or(record.event_time);
            match plan_call(call, &self.settings, now, &mut notes) {
                Ok(ops) => {
                    let own = !self.plan.is_preset(mapped_call.rule);
                    let (key, seen) = keys.name(call, record.transport_id.as_deref(), own);
                    let ops = ops.into_iter().collect();
                    calls.push(PlannedCall {
                        kind: call.kind,
                        ops,
                        identity_link: identity_link(call, &self.settings),
                        key,
                        seen,
                    });
                }
                Err(fault) => {
                    let mut letter = DeadLetter::new(record, fault.code, fault.reason, now);
                    letter.rule = Some(self.plan.rule_name(mapped_call.rule).to_owned());
                    letter.call = Some(call.to_json().to_string());
                    return MappingOutcome::Dead(Box::new(letter));
                }
            }
        }
        notes.report_to(&*self.probe);
        MappingOutcome::Calls(calls)
    }

    /// Looks up all keys of a batch at once. If the store fails, a message may be sent twice, which
    /// is better than a stop.
    async fn mark_delivered_before(&self, batch: &mut [MappedRecord]) {
        let mut calls: Vec<&mut PlannedCall> = batch
            .iter_mut()
            .filter_map(|mapped| match &mut mapped.outcome {
                MappingOutcome::Calls(calls) => Some(calls),
                MappingOutcome::Unmatched | MappingOutcome::Dead(_) => None,
            })
            .flatten()
            .filter(|call| call.key.is_some())
            .collect();
        let keys: Vec<String> = calls.iter().filter_map(|call| call.key.clone()).collect();
        match self.store.is_seen(&self.sink, keys).await {
            Ok(seen) => {
                for (call, seen) in calls.iter_mut().zip(seen) {
                    call.seen |= seen;
                }
            }
            Err(error) => {
                self.metrics.error("io_failed", "processing");
                tracing::warn!(%error, "the store could not be asked which messages were delivered before; a repeated one of this batch is sent again");
            }
        }
    }
}

/// Copies the bytes of a record. A line is a slice of the block it was read in; a record that waits
/// must not keep the whole block in memory.
fn detach(bytes: &mut Bytes) {
    *bytes = Bytes::copy_from_slice(bytes);
}

fn identity_link(call: &Call<'_>, settings: &Settings) -> Option<(ExternalUserId, ExternalUserId)> {
    let former = match call.kind {
        CallKind::Alias => &call.previous_id,
        _ => &call.anonymous_id,
    };
    match (former, &call.user_id) {
        (Some(anonymous), Some(user)) => {
            let (anonymous, user) =
                (settings.own_id(anonymous.trim()), settings.own_id(user.trim()));
            let two = !anonymous.is_empty() && !user.is_empty() && anonymous != user;
            two.then(|| (ExternalUserId::from(&*anonymous), ExternalUserId::from(&*user)))
        }
        _ => None,
    }
}

/// Deduplication keys of the calls of one record.
///
/// Several rules of a mapping may make calls of one message: then the call kind and a counter are
/// part of the key. In a batch of messages, two messages with one id are the same message.
///
/// A `#` in an id is doubled, so that the second call of message `a` (`a#1`) differs from the call
/// of a message with the id `a#1` (`a##1`).
#[derive(Default)]
struct DedupeKeys {
    /// How often each key was used again.
    uses: HashMap<String, u32>,
}

impl DedupeKeys {
    /// The key, and whether the record contains that message already.
    fn name(
        &mut self,
        call: &Call<'_>,
        transport_id: Option<&str>,
        by_own_rule: bool,
    ) -> (Option<String>, bool) {
        let id = match (&call.message_id, transport_id) {
            (Some(id), _) => format!("{}:{}", call.kind, escape_number_signs(id)),
            (None, Some(id)) => format!("transport:{}:{}", call.kind, escape_number_signs(id)),
            (None, None) => return (None, false),
        };
        match self.uses.entry(id) {
            Entry::Vacant(entry) => {
                let id = entry.key().clone();
                entry.insert(0);
                (Some(id), false)
            }
            Entry::Occupied(_) if call.message_id.is_some() && !by_own_rule => (None, true),
            Entry::Occupied(mut entry) => {
                *entry.get_mut() += 1;
                (Some(format!("{}#{}", entry.key(), entry.get())), false)
            }
        }
    }
}

/// An id in which every `#` is doubled.
fn escape_number_signs(id: &str) -> Cow<'_, str> {
    if id.contains('#') { Cow::Owned(id.replace('#', "##")) } else { Cow::Borrowed(id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_record_releases_its_read_block() {
        // Guarantees that a mapped record does not keep the block alive that it was read in.
        let block = Bytes::from(vec![b' '; 1 << 18]);
        let mut line = block.slice(10..20);
        detach(&mut line);
        assert!(block.is_unique());
        assert_eq!(line, block.slice(10..20));
    }

    fn call(message_id: Option<&str>) -> Call<'static> {
        let mut call = Call::new(CallKind::Track);
        call.message_id = message_id.map(|id| id.to_owned().into());
        call
    }

    #[test]
    fn ids_with_a_number_sign_get_distinct_keys() {
        // Guarantees that the second call of message `a` and the message `a#1` have two keys.
        let mut keys = DedupeKeys::default();
        let mut named = |id| keys.name(&call(Some(id)), None, true).0.unwrap();
        let all = [named("a"), named("a"), named("a#1"), named("a#"), named("a#"), named("a##1")];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
    }

    #[test]
    fn keys_of_100_000_messages_take_linear_time() {
        // Guarantees that making keys takes linear time.
        let mut keys = DedupeKeys::default();
        let begin = tokio::time::Instant::now();
        for n in 0..100_000 {
            let (key, seen) = keys.name(&call(Some(&n.to_string())), None, false);
            assert!(key.is_some() && !seen);
        }
        let (key, seen) = keys.name(&call(Some("7")), None, false);
        assert!(key.is_none() && seen);
        assert!(begin.elapsed() < std::time::Duration::from_secs(5));
    }
}
