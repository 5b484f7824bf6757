//! Property test of the marks against a naive model of which records have a request that was sent.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ack::Ack;
use crate::buffer::{Completion, DiskBuffer, Store};
use crate::config::sink::{BufferConfig, BufferKind};
use crate::record::Record;

const MAX_RECORDS: usize = 40;

#[derive(Debug, Clone)]
enum ModelStep {
    /// A request of this record is announced.
    Announce(usize),
    /// This many announced requests are sent concurrently.
    Leave(usize, usize),
    /// An attempt that was sent found no connection.
    NotSent(usize),
    /// A request has ended, with any result.
    End(usize),
    /// A record without open requests is settled.
    Settle(usize),
    Kill,
}

fn step() -> impl Strategy<Value = ModelStep> {
    prop_oneof![
        6 => (0..MAX_RECORDS).prop_map(ModelStep::Announce),
        6 => (0usize..100, 1usize..6).prop_map(|(n, many)| ModelStep::Leave(n, many)),
        2 => (0usize..100).prop_map(ModelStep::NotSent),
        4 => (0usize..100).prop_map(ModelStep::End),
        2 => (0..MAX_RECORDS).prop_map(ModelStep::Settle),
        1 => Just(ModelStep::Kill),
    ]
}

/// A process: the buffer, its marks and the requests announced.
struct ProcessRun {
    buffer: Arc<DiskBuffer>,
    marks: DispatchMarks,
    /// Ends with the process.
    _writer: JoinSet<()>,
    /// Records read from the buffer, by number.
    records: BTreeMap<usize, (Token, SentCount)>,
    open: Vec<(usize, AnnouncedRequest, u32)>,
}

impl ProcessRun {
    async fn begin(store: &Store) -> (Self, BTreeSet<usize>) {
        let config = BufferConfig { kind: BufferKind::Disk, ..BufferConfig::default() };
        let stop = CancellationToken::new();
        let buffer = DiskBuffer::open(&config, "crm", store.clone(), stop).await.unwrap();
        let buffer = Arc::new(buffer);
        let marks = DispatchMarks::new();
        let mut writer = JoinSet::new();
        writer.spawn(marks.clone().write(Arc::<DiskBuffer>::clone(&buffer)));
        let (mut records, mut is_maybe_sent) = (BTreeMap::new(), BTreeSet::new());
        if store.buffer_size("crm").events > 0 {
            for item in buffer.next(MAX_RECORDS).await.unwrap() {
                let number = std::str::from_utf8(&item.record.body).unwrap().parse().unwrap();
                if item.maybe_sent {
                    is_maybe_sent.insert(number);
                }
                let before = AtomicU32::new(u32::from(item.maybe_sent));
                records.insert(number, (item.token, Arc::new(before)));
            }
        }
        (Self { buffer, marks, _writer: writer, records, open: Vec::new() }, is_maybe_sent)
    }

    fn kill(self) {
        drop(self);
    }
}

/// Which records were sent, over all processes.
#[derive(Default)]
struct MarksModel {
    /// Attempts of this process that were sent and not undone, by record.
    left: BTreeMap<usize, u32>,
    /// Possibly already sent when this process started.
    before: BTreeSet<usize>,
    /// Records with a request that was announced in this process.
    announced: BTreeSet<usize>,
}

impl MarksModel {
    fn is_maybe_sent(&self) -> BTreeSet<usize> {
        let left = self.left.iter().filter(|(_, attempts)| **attempts > 0).map(|(n, _)| *n);
        left.chain(self.before.iter().copied()).collect()
    }
}

async fn play(steps: Vec<ModelStep>) {
    let store = Store::in_memory().unwrap();
    let (life, _) = ProcessRun::begin(&store).await;
    life.buffer.push((0..MAX_RECORDS).map(|n| Record::new(n.to_string())).collect()).await.unwrap();
    life.kill();
    let (mut life, _) = ProcessRun::begin(&store).await;
    let mut model = MarksModel::default();
    for step in steps.into_iter().chain([ModelStep::Kill]) {
        match step {
            ModelStep::Announce(n) => {
                if let Some((token, sent)) = life.records.get(&n) {
                    model.announced.insert(n);
                    life.open.push((n, life.marks.announce(*token, Arc::clone(sent)), 0));
                }
            }
            ModelStep::Leave(at, many) => {
                let from = at.checked_rem(life.open.len()).unwrap_or(0);
                let leaving = life.open.iter_mut().skip(from).take(many);
                let leaving: Vec<_> = leaving.collect();
                let left = join_all(leaving.iter().map(|(_, request, _)| request.before_send()));
                assert!(left.await.iter().all(Result::is_ok));
                for (n, _, attempts) in leaving {
                    *attempts += 1;
                    *model.left.entry(*n).or_default() += 1;
                }
            }
            ModelStep::NotSent(at) => {
                let Some(at) = at.checked_rem(life.open.len()) else { continue };
                let (n, request, attempts) = &mut life.open[at];
                if *attempts > 0 {
                    *attempts -= 1;
                    *model.left.get_mut(n).unwrap() -= 1;
                    request.not_sent();
                }
            }
            ModelStep::End(at) => {
                if let Some(at) = at.checked_rem(life.open.len()) {
                    life.open.remove(at);
                }
            }
            ModelStep::Settle(n) => {
                if life.open.iter().any(|(open, ..)| *open == n) {
                    continue;
                }
                if let Some((token, _)) = life.records.remove(&n) {
                    let ack = Ack::noop();
                    let settled = Completion { token, ack, dead: vec![], seen: vec![] };
                    life.buffer.settle(vec![settled]).await.unwrap();
                    model.left.remove(&n);
                    model.before.remove(&n);
                }
            }
            ModelStep::Kill => {
                // Give the writer time to remove marks.
                tokio::time::sleep(REMOVAL_DELAY * 3).await;
                life.kill();
                let (next, is_maybe_sent) = ProcessRun::begin(&store).await;
                let expected = model.is_maybe_sent();
                assert!(
                    is_maybe_sent.is_superset(&expected),
                    "{expected:?}, not {is_maybe_sent:?}"
                );
                let more = is_maybe_sent.difference(&expected);
                let unfounded: Vec<_> = more.filter(|n| !model.announced.contains(n)).collect();
                assert!(unfounded.is_empty(), "no request of {unfounded:?} was announced");
                life = next;
                model = MarksModel { before: is_maybe_sent, ..MarksModel::default() };
            }
        }
    }
    life.kill();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn records_are_maybe_sent_if_a_request_was_sent_and_only_if_announced(
        steps in proptest::collection::vec(step(), 1..80)
    ) {
        // Guarantees, for any sequence of announcements, sends, failed sends, ends and kills: the
        // next process sees each record with a request that may have been sent as possibly sent,
        // and no record without an announced request.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(steps));
    }
}

#[tokio::test(start_paused = true)]
async fn marks_are_written_ahead_of_requests() {
    // Guarantees that at a high request rate marks are written ahead, in far fewer writes than
    // requests, and never more than `MAX_MARKED_AHEAD`.
    let store = Store::in_memory().unwrap();
    let (life, _) = ProcessRun::begin(&store).await;
    life.buffer.push((0..1000).map(|n| Record::new(n.to_string())).collect()).await.unwrap();
    let items = life.buffer.next(1000).await.unwrap();
    let announce = |token| life.marks.announce(token, SentCount::default());
    let announced: Vec<AnnouncedRequest> = items.iter().map(|item| announce(item.token)).collect();
    for (sent, eight) in (1..).zip(announced.chunks(8)) {
        join_all(eight.iter().map(BeforeSend::before_send)).await.into_iter().for_each(drop);
        let marked = store.read("crm", 0, 1000).await.unwrap();
        let marked = marked.iter().filter(|row| row.maybe_sent).count();
        assert!(marked >= sent * 8 && marked <= sent * 8 + MAX_MARKED_AHEAD, "{marked} at {sent}");
    }
    let groups = *life.marks.shared.written.borrow();
    assert!(groups < 1000 / 6, "{groups} writes");
}
