//! Forwards the records of one source to its sinks. The route can change while it is in use: it is
//! paused while a sink is replaced and then leads to the new one.
//!
//! # Invariants
//! A record is forwarded only when every sink of its route has a share of its acknowledgement. One
//! that is dropped before is errored, so its source sends it again.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::ack::Verdict;
use crate::record::Record;
use crate::telemetry::SourceMetrics;

/// Records forwarded together at most.
const MAX_CHUNK_RECORDS: usize = 256;

/// A sink as its sources see it.
#[derive(Debug)]
pub(super) struct SinkInput {
    pub(super) name: Arc<str>,
    pub(super) sender: mpsc::Sender<Record>,
}

/// Where the records of a source go now.
#[derive(Debug, Clone)]
pub(super) enum SourceRoute {
    /// To all these sinks.
    Forward(Arc<[SinkInput]>),
    /// Nowhere for now: records wait.
    Paused,
    /// Nowhere any more: records are dropped unsettled, so the source is notified.
    Closed,
}

impl SourceRoute {
    pub(super) fn to(inputs: Vec<SinkInput>) -> Self {
        if inputs.is_empty() { Self::Closed } else { Self::Forward(inputs.into()) }
    }
}

/// Forwards and counts the records of a source. `timezone` is the time zone that the source's
/// settings name.
pub(super) async fn run_route(
    mut from: mpsc::Receiver<Record>,
    mut route: watch::Receiver<SourceRoute>,
    metrics: SourceMetrics,
    timezone: Option<Arc<str>>,
) {
    let mut chunk = Vec::with_capacity(MAX_CHUNK_RECORDS);
    while from.recv_many(&mut chunk, MAX_CHUNK_RECORDS).await > 0 {
        let undecodable = chunk.iter().filter(|record| record.decode_error.is_some()).count();
        metrics.sent(undecodable as u64, chunk.len() as u64);
        // Held for this chunk only: a sink ends when its last sender is dropped.
        let mut inputs = None;
        for mut record in chunk.drain(..) {
            if let Some(timezone) = &timezone {
                record.note_timezone(timezone);
            }
            if forward(record, &mut inputs, &mut route).await.is_err() {
                return;
            }
        }
    }
}

/// The route was closed.
struct RouteClosed;

/// Gives every input its share of a record. If the route changes in between, inputs that have their
/// share do not get another.
async fn forward(
    record: Record,
    inputs: &mut Option<Arc<[SinkInput]>>,
    route: &mut watch::Receiver<SourceRoute>,
) -> Result<(), RouteClosed> {
    let mut served: Vec<Arc<str>> = Vec::new();
    loop {
        let present = match inputs.take() {
            Some(present) => present,
            None => wait_until_open(route).await?,
        };
        if let Some(left) = fan_out(&record, &present, &mut served, route).await {
            *inputs = Some(Arc::clone(&present));
            match left {
                FanoutRest::Last(permit) => permit.send(record),
                // Every sink has a share of its own; the original is settled.
                FanoutRest::Nothing => record.ack.settle(Verdict::Delivered),
                FanoutRest::Gone => drop(record),
            }
            return Ok(());
        }
    }
}

/// The rest of a fan-out, when all inputs but perhaps the last have their share.
enum FanoutRest<'a> {
    /// The last input, which gets the record itself.
    Last(mpsc::Permit<'a, Record>),
    /// All inputs have their share.
    Nothing,
    /// The last input is gone: the record is errored, so its source sends it again.
    Gone,
}

/// Gives shares to the inputs that have none yet. `None` if the route changed in between.
async fn fan_out<'a>(
    record: &Record,
    inputs: &'a [SinkInput],
    served: &mut Vec<Arc<str>>,
    route: &mut watch::Receiver<SourceRoute>,
) -> Option<FanoutRest<'a>> {
    loop {
        let mut waiting = inputs.iter().filter(|input| !served.contains(&input.name));
        let Some(input) = waiting.next() else {
            return Some(FanoutRest::Nothing);
        };
        let last = waiting.next().is_none();
        let permit = tokio::select! {
            biased;
            permit = input.sender.reserve() => permit,
            () = route_changed(route) => return None,
        };
        match (permit, last) {
            (Ok(permit), true) => return Some(FanoutRest::Last(permit)),
            (Err(_), true) => return Some(FanoutRest::Gone),
            (Ok(permit), false) => permit.send(record.clone()),
            // A sink that is gone drops its share unsettled.
            (Err(_), false) => drop(record.clone()),
        }
        served.push(Arc::clone(&input.name));
    }
}

/// Waits while the route is paused.
async fn wait_until_open(
    route: &mut watch::Receiver<SourceRoute>,
) -> Result<Arc<[SinkInput]>, RouteClosed> {
    loop {
        match &*route.borrow_and_update() {
            SourceRoute::Forward(inputs) => return Ok(Arc::clone(inputs)),
            SourceRoute::Closed => return Err(RouteClosed),
            SourceRoute::Paused => {}
        }
        route.changed().await.map_err(|_| RouteClosed)?;
    }
}

/// Returns when the route has changed; never returns once its sender is dropped.
async fn route_changed(route: &mut watch::Receiver<SourceRoute>) {
    if route.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ack::Ack;
    use crate::telemetry::Metrics;

    fn sink(name: &str, room: usize) -> (SinkInput, mpsc::Receiver<Record>) {
        let (sender, receiver) = mpsc::channel(room);
        (SinkInput { name: name.into(), sender }, receiver)
    }

    fn record(n: usize, told: &mpsc::Sender<(usize, Verdict)>) -> Record {
        let told = told.clone();
        let ack = Ack::new(move |verdict| told.try_send((n, verdict)).unwrap());
        Record::new(n.to_string()).with_ack(ack)
    }

    #[tokio::test(start_paused = true)]
    async fn sink_replaced_during_fan_out_loses_and_repeats_nothing() {
        // Guarantees that a sink gets no record twice when the route is paused and then leads to a
        // new instance of the other sink, and that a record's status is that of its shares.
        let (told, mut verdicts) = mpsc::channel(16);
        let (stays, mut in_stays) = sink("stays", 16);
        let (old, mut in_old) = sink("changes", 1);
        let stays_again = SinkInput { name: "stays".into(), sender: stays.sender.clone() };
        let (route, watched) = watch::channel(SourceRoute::to(vec![stays, old]));
        let (out, from) = mpsc::channel(16);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(run_route(from, watched, Metrics::default().source("app", "test"), None));
        for n in 0..3 {
            out.send(record(n, &told)).await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        route.send_replace(SourceRoute::Paused);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let mut first = Vec::new();
        while let Some(record) = in_old.recv().await {
            first.push(record);
        }
        assert_eq!(first.len(), 1, "the old sink's input ended with what it had taken");
        let (new, mut in_new) = sink("changes", 16);
        route.send_replace(SourceRoute::to(vec![stays_again, new]));
        drop(out);
        tasks.join_next().await.unwrap().unwrap();
        drop(route);
        let bodies = |records: &[Record]| -> Vec<u8> {
            records.iter().map(|record| record.body[0] - b'0').collect()
        };
        let drain = async |input: &mut mpsc::Receiver<Record>| {
            let mut all = Vec::new();
            while let Some(record) = input.recv().await {
                all.push(record);
            }
            all
        };
        let (kept, rest) = (drain(&mut in_stays).await, drain(&mut in_new).await);
        assert_eq!(bodies(&kept), [0, 1, 2]);
        assert_eq!((bodies(&first), bodies(&rest)), (vec![0], vec![1, 2]));
        assert!(verdicts.try_recv().is_err(), "nothing is settled yet");
        for record in kept.into_iter().chain(first) {
            record.ack.settle(Verdict::Delivered);
        }
        assert_eq!(verdicts.recv().await, Some((0, Verdict::Delivered)));
        drop(rest);
        assert_eq!(verdicts.recv().await, Some((1, Verdict::Errored)));
        assert_eq!(verdicts.recv().await, Some((2, Verdict::Errored)));
    }

    #[tokio::test(start_paused = true)]
    async fn closed_route_returns_paused_records_to_their_source() {
        // Guarantees that waiting records are errored when their route is closed, also if another
        // sink already has its share.
        let (told, mut verdicts) = mpsc::channel(16);
        let (stays, mut in_stays) = sink("stays", 16);
        let (full, _in_full) = sink("full", 1);
        full.sender.try_send(Record::new("x")).unwrap();
        let (route, watched) = watch::channel(SourceRoute::to(vec![stays, full]));
        let (out, from) = mpsc::channel(16);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(run_route(from, watched, Metrics::default().source("app", "test"), None));
        for n in 0..2 {
            out.send(record(n, &told)).await.unwrap();
        }
        in_stays.recv().await.unwrap().ack.settle(Verdict::Delivered);
        route.send_replace(SourceRoute::Paused);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(verdicts.try_recv().is_err());
        route.send_replace(SourceRoute::Closed);
        assert_eq!(verdicts.recv().await, Some((0, Verdict::Errored)));
        assert_eq!(verdicts.recv().await, Some((1, Verdict::Errored)));
        tasks.join_next().await.unwrap().unwrap();
    }
}
