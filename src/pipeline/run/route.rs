//! The way from one source to the sinks that take its records. It can be moved while it is in use:
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
const CHUNK: usize = 256;

/// A sink as its sources see it.
#[derive(Debug)]
pub(super) struct Taker {
    pub(super) name: Arc<str>,
    pub(super) sender: mpsc::Sender<Record>,
}

/// Where a source's records go at present.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// To all of these.
    To(Arc<[Taker]>),
    /// Nowhere for the moment.
    Held,
    /// Nowhere any more: records on the way are dropped, and the source is told.
    Cut,
}

impl Way {
    pub(super) fn to(takers: Vec<Taker>) -> Self {
        if takers.is_empty() { Self::Cut } else { Self::To(takers.into()) }
    }
}

/// Hands a source's records on, and counts them. `timezone` is what the source's settings say of the
/// zone of its times.
pub(super) async fn route(
    mut from: mpsc::Receiver<Record>,
    mut way: watch::Receiver<Way>,
    metrics: SourceMetrics,
    timezone: Option<Arc<str>>,
) {
    let mut chunk = Vec::with_capacity(CHUNK);
    while from.recv_many(&mut chunk, CHUNK).await > 0 {
        let undecodable = chunk.iter().filter(|record| record.decode_error.is_some()).count();
        metrics.sent(undecodable as u64, chunk.len() as u64);
        // Kept for this chunk only: a sink ends when nobody holds a sender of it any more.
        let mut takers = None;
        for mut record in chunk.drain(..) {
            if let Some(timezone) = &timezone {
                record.note_timezone(timezone);
            }
            if hand_on(record, &mut takers, &mut way).await.is_err() {
                return;
            }
        }
    }
}

/// The way was cut.
struct CutOff;

/// Gives every taker its share. Where the way changes amid a record, those that have their share
/// do not get another.
async fn hand_on(
    record: Record,
    takers: &mut Option<Arc<[Taker]>>,
    way: &mut watch::Receiver<Way>,
) -> Result<(), CutOff> {
    let mut served: Vec<Arc<str>> = Vec::new();
    loop {
        let present = match takers.take() {
            Some(present) => present,
            None => open_way(way).await?,
        };
        if let Some(left) = share(&record, &present, &mut served, way).await {
            *takers = Some(Arc::clone(&present));
            match left {
                Left::Last(permit) => permit.send(record),
                // Every sink has a share of its own; this one is over.
                Left::None => record.ack.settle(Verdict::Delivered),
                Left::Gone => drop(record),
            }
            return Ok(());
        }
    }
}

/// What remains once all takers but perhaps the last have their share.
enum Left<'a> {
    /// The last taker, who gets the record itself.
    Last(mpsc::Permit<'a, Record>),
    /// Nobody.
    None,
    /// The last taker is gone: errored, so the source keeps the record.
    Gone,
}

/// Gives shares to those that have none yet. `None` where the way changed before that was done.
async fn share<'a>(
    record: &Record,
    takers: &'a [Taker],
    served: &mut Vec<Arc<str>>,
    way: &mut watch::Receiver<Way>,
) -> Option<Left<'a>> {
    loop {
        let mut waiting = takers.iter().filter(|taker| !served.contains(&taker.name));
        let Some(taker) = waiting.next() else {
            return Some(Left::None);
        };
        let last = waiting.next().is_none();
        let permit = tokio::select! {
            biased;
            permit = taker.sender.reserve() => permit,
            () = moved(way) => return None,
        };
        match (permit, last) {
            (Ok(permit), true) => return Some(Left::Last(permit)),
            (Err(_), true) => return Some(Left::Gone),
            (Ok(permit), false) => permit.send(record.clone()),
            // A sink that is gone drops its share.
            (Err(_), false) => drop(record.clone()),
        }
        served.push(Arc::clone(&taker.name));
    }
}

/// Waits while the way is held.
async fn open_way(way: &mut watch::Receiver<Way>) -> Result<Arc<[Taker]>, CutOff> {
    loop {
        match &*way.borrow_and_update() {
            Way::To(takers) => return Ok(Arc::clone(takers)),
            Way::Cut => return Err(CutOff),
            Way::Held => {}
        }
        way.changed().await.map_err(|_| CutOff)?;
    }
}

/// Returns when the way has changed; never once nobody can change it any more.
async fn moved(way: &mut watch::Receiver<Way>) {
    if way.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ack::Ack;
    use crate::telemetry::Metrics;

    fn sink(name: &str, room: usize) -> (Taker, mpsc::Receiver<Record>) {
        let (sender, receiver) = mpsc::channel(room);
        (Taker { name: name.into(), sender }, receiver)
    }

    fn record(n: usize, told: &mpsc::Sender<(usize, Verdict)>) -> Record {
        let told = told.clone();
        let ack = Ack::new(move |verdict| told.try_send((n, verdict)).unwrap());
        Record::new(n.to_string()).with_ack(ack)
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_is_exchanged_amid_a_record_and_nothing_is_lost_or_doubled() {
        // Guarantees that what one sink has taken is not given to it again when the way is held
        // and led to another instance of the other, and that verdicts are those of the shares.
        let (told, mut verdicts) = mpsc::channel(16);
        let (stays, mut in_stays) = sink("stays", 16);
        let (old, mut in_old) = sink("changes", 1);
        let stays_again = Taker { name: "stays".into(), sender: stays.sender.clone() };
        let (way, watched) = watch::channel(Way::to(vec![stays, old]));
        let (out, from) = mpsc::channel(16);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(route(from, watched, Metrics::default().source("app", "test"), None));
        for n in 0..3 {
            out.send(record(n, &told)).await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        way.send_replace(Way::Held);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let mut first = Vec::new();
        while let Some(record) = in_old.recv().await {
            first.push(record);
        }
        assert_eq!(first.len(), 1, "the old sink's input ended with what it had taken");
        let (new, mut in_new) = sink("changes", 16);
        way.send_replace(Way::to(vec![stays_again, new]));
        drop(out);
        tasks.join_next().await.unwrap().unwrap();
        drop(way);
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
    async fn a_way_that_is_cut_gives_everything_back() {
        // Guarantees that held records are errored when their way is cut, also where another sink
        // has its share already.
        let (told, mut verdicts) = mpsc::channel(16);
        let (stays, mut in_stays) = sink("stays", 16);
        let (full, _in_full) = sink("full", 1);
        full.sender.try_send(Record::new("x")).unwrap();
        let (way, watched) = watch::channel(Way::to(vec![stays, full]));
        let (out, from) = mpsc::channel(16);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(route(from, watched, Metrics::default().source("app", "test"), None));
        for n in 0..2 {
            out.send(record(n, &told)).await.unwrap();
        }
        in_stays.recv().await.unwrap().ack.settle(Verdict::Delivered);
        way.send_replace(Way::Held);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(verdicts.try_recv().is_err());
        way.send_replace(Way::Cut);
        assert_eq!(verdicts.recv().await, Some((0, Verdict::Errored)));
        assert_eq!(verdicts.recv().await, Some((1, Verdict::Errored)));
        tasks.join_next().await.unwrap().unwrap();
    }
}
