//! The way from one source to the sinks that take its records. It can change while it is in use:
//! held while a sink is exchanged, then led to the new one.
//!
//! Invariant: a record counts as handed on only when every sink of its way has a share; one that
//! is dropped before is errored, so that its source keeps it.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::ack::Verdict;
use crate::record::Record;
use crate::telemetry::SourceMetrics;

/// Records handed on together at most.
const MAX_CHUNK_RECORDS: usize = 256;

/// A sink as its sources see it.
#[derive(Debug)]
pub(super) struct SinkInput {
    pub(super) name: Arc<str>,
    pub(super) sender: mpsc::Sender<Record>,
}

/// Where a source's records go at present.
#[derive(Debug, Clone)]
pub(super) enum SourceRoute {
    /// To all of these.
    Forward(Arc<[SinkInput]>),
    /// Nowhere for the moment.
    Paused,
    /// Nowhere any more: records on the way are dropped, and the source is told.
    Closed,
}

impl SourceRoute {
    pub(super) fn to(inputs: Vec<SinkInput>) -> Self {
        if inputs.is_empty() { Self::Closed } else { Self::Forward(inputs.into()) }
    }
}

/// Hands a source's records on, and counts them. `timezone` is what the source's settings say of the
/// zone of its times.
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
        // Kept for this chunk only: a sink ends when nobody holds a sender of it any more.
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

/// The way was cut.
struct RouteClosed;

/// Gives every input its share. Where the way changes amid a record, those that have their share
/// do not get another.
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
                // Every sink has a share of its own; this one is over.
                FanoutRest::Nothing => record.ack.settle(Verdict::Delivered),
                FanoutRest::Gone => drop(record),
            }
            return Ok(());
        }
    }
}

/// What remains once all inputs but perhaps the last have their share.
enum FanoutRest<'a> {
    /// The last input, who gets the record itself.
    Last(mpsc::Permit<'a, Record>),
    /// Nobody.
    Nothing,
    /// The last input is gone: errored, so the source keeps the record.
    Gone,
}

/// Gives shares to those that have none yet. `None` where the way changed before that was done.
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
            // A sink that is gone drops its share.
            (Err(_), false) => drop(record.clone()),
        }
        served.push(Arc::clone(&input.name));
    }
}

/// Waits while the way is held.
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

/// Returns when the way has changed; never once nobody can change it any more.
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
        // Guarantees that what one sink has taken is not given to it again when the way is held
        // and led to another instance of the other, and that verdicts are those of the shares.
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
        // Guarantees that held records are errored when their way is cut, also where another sink
        // has its share already.
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
