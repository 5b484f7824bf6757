//! Intake: from buffered records to planned ops. Pulls from the buffer, maps, asks the store which
//! messages were delivered before, and hands batches on through a bounded channel.
//!
//! It decides nothing about order or delivery: batches leave in the order the buffer gave them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::yield_now;

use crate::buffer::{Buffer, Buffered, DeadLetter, Store};
use crate::call::{Call, CallKind};
use crate::clock;
use crate::config::sink::Unmatched;
use crate::mapping::{Input, Plan};
use crate::plan::{Op, OwnId};
use crate::telemetry::SinkMetrics;
use crate::usercom::{Notes, Probe, Settings, plan_call};

/// Records a batch holds at most.
const BATCH: usize = 256;

/// Calls planned in one go: after so many, other tasks of this thread get their turn.
const CALLS_BETWEEN_YIELDS: usize = 256;

/// One call, planned.
#[derive(Debug)]
pub(super) struct PlannedCall {
    pub(super) kind: CallKind,
    pub(super) ops: Vec<Op>,
    /// The id that goes over into another, and that other: anonymous id and user id where a call
    /// carries both, the two of an alias.
    pub(super) login: Option<(OwnId, OwnId)>,
    /// Names the message for deduplication; `None` where it has no id.
    pub(super) key: Option<String>,
    /// Whether the message was delivered before, or stands earlier in the same record.
    pub(super) seen: bool,
}

/// What a record came to.
#[derive(Debug)]
pub(super) enum Meaning {
    /// Calls, at least one.
    Calls(Vec<PlannedCall>),
    /// No rule wants it.
    Unmatched,
    /// It can never be delivered.
    Dead(Box<DeadLetter>),
}

/// A record with its meaning.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) buffered: Buffered,
    pub(super) meaning: Meaning,
}

impl Prepared {
    /// How many calls it came to.
    fn calls(&self) -> usize {
        match &self.meaning {
            Meaning::Calls(calls) => calls.len(),
            Meaning::Unmatched | Meaning::Dead(_) => 0,
        }
    }
}

/// What intake needs to know.
pub(super) struct Intake {
    pub(super) sink: String,
    pub(super) plan: Arc<Plan>,
    pub(super) settings: Settings,
    pub(super) unmatched: Unmatched,
    pub(super) dedupe: bool,
    pub(super) store: Store,
    pub(super) metrics: SinkMetrics,
    pub(super) probe: Arc<dyn Probe>,
}

impl Intake {
    /// Prepares batches until the buffer is closed and empty, or nobody takes them.
    pub(super) async fn run(self, buffer: Arc<dyn Buffer>, out: mpsc::Sender<Vec<Prepared>>) {
        while let Some(batch) = buffer.next(BATCH).await {
            let mut prepared = Vec::with_capacity(batch.len());
            let mut calls = 0;
            for buffered in batch {
                let one = self.prepare(buffered).await;
                calls += one.calls().max(1);
                if calls >= CALLS_BETWEEN_YIELDS {
                    calls = 0;
                    yield_now().await;
                }
                prepared.push(one);
            }
            if self.dedupe {
                self.mark_seen(&mut prepared).await;
            }
            if out.send(prepared).await.is_err() {
                return;
            }
        }
    }

    async fn prepare(&self, mut buffered: Buffered) -> Prepared {
        let meaning = match &buffered.record.decode_error {
            Some(fault) => {
                let letter =
                    DeadLetter::new(&buffered.record, "undecodable", &**fault, clock::now());
                Meaning::Dead(Box::new(letter))
            }
            None => self.meaning(&buffered).await,
        };
        if let Meaning::Calls(_) = meaning {
            keep_alone(&mut buffered.record.body);
            if let Some(meta) = &mut buffered.record.meta {
                keep_alone(meta);
            }
        }
        Prepared { buffered, meaning }
    }

    async fn meaning(&self, buffered: &Buffered) -> Meaning {
        let record = &buffered.record;
        let input = Input { body: &record.body, meta: record.meta.as_deref() };
        let mut mapped = match self.plan.map(input) {
            Ok(mapped) => mapped,
            Err(fault) => {
                let mut letter =
                    DeadLetter::new(record, fault.code.as_str(), fault.to_string(), clock::now());
                letter.rule = fault.rule;
                letter.field = fault.field;
                return Meaning::Dead(Box::new(letter));
            }
        };
        for loss in &mapped.stats.losses {
            self.probe.conversion_failed(&loss.field, &loss.reason);
        }
        // Each is counted, those too that are not described.
        for _ in mapped.stats.losses.len() as u64..mapped.stats.count() {
            self.metrics.conversion_failed();
        }
        if mapped.calls.is_empty() {
            if !mapped.matched && self.unmatched == Unmatched::DeadLetter {
                let letter = DeadLetter::new(record, "unmatched", "no rule wants it", clock::now());
                return Meaning::Dead(Box::new(letter));
            }
            return Meaning::Unmatched;
        }
        let now = clock::now();
        let mut notes = Notes::default();
        let mut calls = Vec::with_capacity(mapped.calls.len());
        let mut keys = KeyNames::default();
        for (number, mapped_call) in (1_usize..).zip(&mut mapped.calls) {
            // A record of very many messages must not hold up the other sinks and sources.
            if number % CALLS_BETWEEN_YIELDS == 0 {
                yield_now().await;
            }
            let call = &mut mapped_call.call;
            call.timestamp = call.timestamp.or(record.event_time);
            match plan_call(call, &self.settings, now, &mut notes) {
                Ok(ops) => {
                    let own = !self.plan.is_preset(mapped_call.rule);
                    let (key, seen) = keys.name(call, record.transport_id.as_deref(), own);
                    let ops = ops.into_iter().collect();
                    calls.push(PlannedCall { kind: call.kind, ops, login: login(call), key, seen });
                }
                Err(fault) => {
                    let mut letter = DeadLetter::new(record, fault.code, fault.reason, now);
                    letter.rule = Some(self.plan.rule_name(mapped_call.rule).to_owned());
                    letter.call = Some(call.to_json().to_string());
                    return Meaning::Dead(Box::new(letter));
                }
            }
        }
        notes.tell(&*self.probe);
        Meaning::Calls(calls)
    }

    /// Asks the store for all keys of a batch at once. A store that cannot answer now costs a
    /// repeated message at worst, so it is no reason to stop.
    async fn mark_seen(&self, batch: &mut [Prepared]) {
        let mut calls: Vec<&mut PlannedCall> = batch
            .iter_mut()
            .filter_map(|prepared| match &mut prepared.meaning {
                Meaning::Calls(calls) => Some(calls),
                Meaning::Unmatched | Meaning::Dead(_) => None,
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
                tracing::warn!(%error, "cannot ask which messages were delivered before");
            }
        }
    }
}

/// Bytes of a record that waits, apart from those it came with: a line is a slice of the block it
/// was read in, and while one waits for its user the others may be long done.
fn keep_alone(bytes: &mut Bytes) {
    *bytes = Bytes::copy_from_slice(bytes);
}

fn login(call: &Call<'_>) -> Option<(OwnId, OwnId)> {
    let former = match call.kind {
        CallKind::Alias => &call.previous_id,
        _ => &call.anonymous_id,
    };
    match (former, &call.user_id) {
        (Some(anonymous), Some(user)) => {
            let (anonymous, user) = (anonymous.trim(), user.trim());
            let two = !anonymous.is_empty() && !user.is_empty() && anonymous != user;
            two.then(|| (OwnId::from(anonymous), OwnId::from(user)))
        }
        _ => None,
    }
}

/// Names the calls of one record for deduplication.
///
/// Several rules of a mapping may make calls of one message: there the kind and how often it
/// occurred are part of the name. In a batch of messages two of one id are the same message.
///
/// A `#` of an id is doubled, so that the second call of message `a` (`a#1`) is never taken for the
/// call of a message whose own id is `a#1` (`a##1`).
#[derive(Default)]
struct KeyNames {
    /// How often each name was given again.
    given: HashMap<String, u32>,
}

impl KeyNames {
    /// The name, and whether the record has that very message already.
    fn name(
        &mut self,
        call: &Call<'_>,
        transport_id: Option<&str>,
        by_own_rule: bool,
    ) -> (Option<String>, bool) {
        let id = match (&call.message_id, transport_id) {
            (Some(id), _) => format!("{}:{}", call.kind, unambiguous(id)),
            (None, Some(id)) => format!("transport:{}:{}", call.kind, unambiguous(id)),
            (None, None) => return (None, false),
        };
        match self.given.entry(id) {
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
fn unambiguous(id: &str) -> Cow<'_, str> {
    if id.contains('#') { Cow::Owned(id.replace('#', "##")) } else { Cow::Borrowed(id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_waits_lets_its_block_go() {
        // Of what a record was read with, nothing is held once it is on its way.
        let block = Bytes::from(vec![b' '; 1 << 18]);
        let mut line = block.slice(10..20);
        keep_alone(&mut line);
        assert!(block.is_unique());
        assert_eq!(line, block.slice(10..20));
    }

    fn call(message_id: Option<&str>) -> Call<'static> {
        let mut call = Call::new(CallKind::Track);
        call.message_id = message_id.map(|id| id.to_owned().into());
        call
    }

    #[test]
    fn ids_with_a_number_sign_never_meet_a_counted_one() {
        // Guarantees that the second call of message `a` and the message `a#1` have two keys.
        let mut keys = KeyNames::default();
        let mut named = |id| keys.name(&call(Some(id)), None, true).0.unwrap();
        let all = [named("a"), named("a"), named("a#1"), named("a#"), named("a#"), named("a##1")];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
    }

    #[test]
    fn a_record_of_100_000_messages_is_named_at_once() {
        // Guarantees that naming takes time in proportion to the number of messages.
        let mut keys = KeyNames::default();
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
