//! Marks against a naive model: which records have a request that left.

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

const RECORDS: usize = 40;

#[derive(Debug, Clone)]
enum Step {
    /// A request of this record is announced.
    Announce(usize),
    /// So many announced requests leave side by side.
    Leave(usize, usize),
    /// An attempt that left found no connection.
    NotSent(usize),
    /// A request is over, one way or the other.
    End(usize),
    /// A record none of whose requests is open is settled.
    Settle(usize),
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..RECORDS).prop_map(Step::Announce),
        6 => (0usize..100, 1usize..6).prop_map(|(n, many)| Step::Leave(n, many)),
        2 => (0usize..100).prop_map(Step::NotSent),
        4 => (0usize..100).prop_map(Step::End),
        2 => (0..RECORDS).prop_map(Step::Settle),
        1 => Just(Step::Kill),
    ]
}

/// A process: the buffer, its marks and the requests announced.
struct Life {
    buffer: Arc<DiskBuffer>,
    marks: DispatchMarks,
    /// Ends with the life.
    _writer: JoinSet<()>,
    /// Records handed out, by number.
    records: BTreeMap<usize, (Token, SentCount)>,
    open: Vec<(usize, Announced, u32)>,
}

impl Life {
    async fn begin(store: &Store) -> (Self, BTreeSet<usize>) {
        let config = BufferConfig { kind: BufferKind::Disk, ..BufferConfig::default() };
        let stop = CancellationToken::new();
        let buffer = DiskBuffer::open(&config, "crm", store.clone(), stop).await.unwrap();
        let buffer = Arc::new(buffer);
        let marks = DispatchMarks::new();
        let mut writer = JoinSet::new();
        writer.spawn(marks.clone().write(Arc::<DiskBuffer>::clone(&buffer)));
        let (mut records, mut in_doubt) = (BTreeMap::new(), BTreeSet::new());
        if store.buffer_size("crm").events > 0 {
            for item in buffer.next(RECORDS).await.unwrap() {
                let number = std::str::from_utf8(&item.record.body).unwrap().parse().unwrap();
                if item.maybe_sent {
                    in_doubt.insert(number);
                }
                let before = AtomicU32::new(u32::from(item.maybe_sent));
                records.insert(number, (item.token, Arc::new(before)));
            }
        }
        (Self { buffer, marks, _writer: writer, records, open: Vec::new() }, in_doubt)
    }

    fn kill(self) {
        drop(self);
    }
}

/// Which records were sent, over all lives.
#[derive(Default)]
struct Model {
    /// Attempts of this life that left and were not taken back, by record.
    left: BTreeMap<usize, u32>,
    /// Known to be in doubt when this life began.
    before: BTreeSet<usize>,
    /// Of which a request was announced in this life.
    announced: BTreeSet<usize>,
}

impl Model {
    fn in_doubt(&self) -> BTreeSet<usize> {
        let left = self.left.iter().filter(|(_, attempts)| **attempts > 0).map(|(n, _)| *n);
        left.chain(self.before.iter().copied()).collect()
    }
}

async fn play(steps: Vec<Step>) {
    let store = Store::in_memory().unwrap();
    let (life, _) = Life::begin(&store).await;
    life.buffer.push((0..RECORDS).map(|n| Record::new(n.to_string())).collect()).await.unwrap();
    life.kill();
    let (mut life, _) = Life::begin(&store).await;
    let mut model = Model::default();
    for step in steps.into_iter().chain([Step::Kill]) {
        match step {
            Step::Announce(n) => {
                if let Some((token, sent)) = life.records.get(&n) {
                    model.announced.insert(n);
                    life.open.push((n, life.marks.announce(*token, Arc::clone(sent)), 0));
                }
            }
            Step::Leave(at, many) => {
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
            Step::NotSent(at) => {
                let Some(at) = at.checked_rem(life.open.len()) else { continue };
                let (n, request, attempts) = &mut life.open[at];
                if *attempts > 0 {
                    *attempts -= 1;
                    *model.left.get_mut(n).unwrap() -= 1;
                    request.not_sent();
                }
            }
            Step::End(at) => {
                if let Some(at) = at.checked_rem(life.open.len()) {
                    life.open.remove(at);
                }
            }
            Step::Settle(n) => {
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
            Step::Kill => {
                // Marks that are to be taken away are so after a moment.
                tokio::time::sleep(REMOVAL_DELAY * 3).await;
                life.kill();
                let (next, in_doubt) = Life::begin(&store).await;
                let expected = model.in_doubt();
                assert!(in_doubt.is_superset(&expected), "{expected:?}, not {in_doubt:?}");
                let more = in_doubt.difference(&expected);
                let unfounded: Vec<_> = more.filter(|n| !model.announced.contains(n)).collect();
                assert!(unfounded.is_empty(), "nothing of {unfounded:?} was to be sent");
                life = next;
                model = Model { before: in_doubt, ..Model::default() };
            }
        }
    }
    life.kill();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn records_are_in_doubt_if_a_request_left_and_only_if_one_was_announced(
        steps in proptest::collection::vec(step(), 1..80)
    ) {
        // However requests are announced, leave, fail to leave, end and are killed: each record of
        // which one may have left is in doubt in the next life, and none of which none was announced.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(steps));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_find_their_marks_made() {
    // Where many requests leave, marks are written ahead, in far fewer writes than requests, and
    // never more than `MAX_AHEAD` of them.
    let store = Store::in_memory().unwrap();
    let (life, _) = Life::begin(&store).await;
    life.buffer.push((0..1000).map(|n| Record::new(n.to_string())).collect()).await.unwrap();
    let items = life.buffer.next(1000).await.unwrap();
    let announce = |token| life.marks.announce(token, SentCount::default());
    let announced: Vec<Announced> = items.iter().map(|item| announce(item.token)).collect();
    for (sent, eight) in (1..).zip(announced.chunks(8)) {
        join_all(eight.iter().map(BeforeSend::before_send)).await.into_iter().for_each(drop);
        let marked = store.read("crm", 0, 1000).await.unwrap();
        let marked = marked.iter().filter(|row| row.maybe_sent).count();
        assert!(marked >= sent * 8 && marked <= sent * 8 + MAX_AHEAD, "{marked} at {sent}");
    }
    let groups = *life.marks.shared.written.borrow();
    assert!(groups < 1000 / 6, "{groups} writes");
}
