//! Property test of the disk buffer against a model.

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    PushAgain(usize),
    Next(usize),
    Settle(usize),
    GiveBack(usize, bool),
    /// Marks some records in flight and unmarks others.
    Mark(usize, usize),
    CleanRestart,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..8).prop_map(Step::Push),
        1 => (1usize..8).prop_map(Step::PushAgain),
        4 => (1usize..10).prop_map(Step::Next),
        4 => (0usize..100).prop_map(Step::Settle),
        2 => (0usize..100, any::<bool>()).prop_map(|(n, maybe)| Step::GiveBack(n, maybe)),
        4 => (0usize..100, 0usize..100).prop_map(|(n, m)| Step::Mark(n, m)),
        1 => Just(Step::CleanRestart),
        1 => Just(Step::Crash),
    ]
}

/// The expected content of a disk buffer, by record number.
#[derive(Default)]
struct Model {
    pushed: u64,
    waiting: VecDeque<u64>,
    back: BTreeMap<u64, bool>,
    away: BTreeMap<u64, Token>,
    /// Marked in the store: possibly sent after a restart.
    marked: BTreeSet<u64>,
}

impl Model {
    fn expected(&self, max: usize) -> Vec<u64> {
        if self.back.is_empty() {
            self.waiting.iter().take(max).copied().collect()
        } else {
            self.back.keys().take(max).copied().collect()
        }
    }

    fn held(&self) -> usize {
        self.waiting.len() + self.back.len() + self.away.len()
    }

    fn restart(&mut self, clean: bool) {
        if clean {
            for (n, maybe_sent) in &self.back {
                if *maybe_sent {
                    self.marked.insert(*n);
                } else {
                    self.marked.remove(n);
                }
            }
        }
        let mut all: BTreeSet<u64> = self.waiting.drain(..).collect();
        all.extend(self.back.keys());
        all.extend(self.away.keys());
        self.waiting = all.into_iter().collect();
        self.back.clear();
        self.away.clear();
    }
}

fn numbered(n: u64) -> Record {
    at_position("f", n + 1).into_record()
}

struct Run {
    dir: TempDir,
    open: Option<(Store, DiskBuffer)>,
    model: Model,
}

impl Run {
    fn buffer(&self) -> &DiskBuffer {
        &self.open.as_ref().unwrap().1
    }

    async fn reopen(&mut self) {
        drop(self.open.take());
        let store = owner(&self.dir);
        let buffer = disk(&store, &disk_config()).await;
        self.open = Some((store, buffer));
    }

    async fn push(&self, numbers: impl Iterator<Item = u64>) {
        let told = RecordedVerdicts::default();
        let records: Vec<_> = numbers
            .map(|n| {
                let told = Arc::clone(&told);
                numbered(n).with_ack(Ack::new(move |verdict| told.lock().unwrap().push(verdict)))
            })
            .collect();
        let pushed = records.len();
        self.buffer().push(records).await.unwrap();
        assert_eq!(verdicts(&told), vec![Verdict::Delivered; pushed]);
    }

    async fn next(&mut self, max: usize) {
        let expected = self.model.expected(max);
        if expected.is_empty() {
            return;
        }
        let from_back = !self.model.back.is_empty();
        let items = self.buffer().next(max).await.unwrap();
        let numbers: Vec<u64> =
            items.iter().map(|item| item.record.origin.as_ref().unwrap().end_offset - 1).collect();
        assert_eq!(numbers, expected);
        for (n, item) in numbers.into_iter().zip(items) {
            let model = &mut self.model;
            assert_eq!(item.record.body, numbered(n).body);
            if from_back {
                assert_eq!(model.back.remove(&n), Some(item.maybe_sent));
            } else {
                assert_eq!(model.waiting.pop_front(), Some(n));
                assert_eq!(item.maybe_sent, model.marked.contains(&n), "{n}");
            }
            model.away.insert(n, item.token);
        }
    }

    fn pick_away(&mut self, n: usize) -> Option<Token> {
        let keys: Vec<u64> = self.model.away.keys().copied().collect();
        let key = *keys.get(n.checked_rem(keys.len())?)?;
        self.model.away.remove(&key)
    }

    async fn settle(&self, tokens: impl IntoIterator<Item = Token>) {
        let settled = tokens.into_iter().map(|token| Completion {
            token,
            ack: Ack::noop(),
            dead: vec![],
            seen: vec![],
        });
        self.buffer().settle(settled.collect()).await.unwrap();
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Push(n) => {
                let from = self.model.pushed;
                self.model.pushed += n as u64;
                self.model.waiting.extend(from..self.model.pushed);
                self.push(from..self.model.pushed).await;
            }
            Step::PushAgain(n) => {
                let from = self.model.pushed.saturating_sub(n as u64);
                self.push(from..self.model.pushed).await;
            }
            Step::Next(max) => self.next(max).await,
            Step::Settle(n) => {
                if let Some(token) = self.pick_away(n) {
                    self.settle([token]).await;
                }
            }
            Step::Mark(n, m) => {
                let away: Vec<u64> = self.model.away.keys().copied().collect();
                let pick = |n: usize| away.get(n.checked_rem(away.len())?).copied();
                let (sent, not_sent) = (pick(n), pick(m).filter(|m| Some(*m) != pick(n)));
                let token = |n: Option<u64>| n.map(|n| self.model.away[&n]).into_iter().collect();
                self.buffer().mark_dispatched(token(sent), token(not_sent)).await.unwrap();
                self.model.marked.extend(sent);
                self.model.marked.retain(|n| Some(*n) != not_sent);
            }
            Step::GiveBack(n, maybe_sent) => {
                let before: Vec<u64> = self.model.away.keys().copied().collect();
                let Some(token) = self.pick_away(n) else {
                    return;
                };
                let key = before.iter().find(|k| !self.model.away.contains_key(k));
                self.model.back.insert(*key.unwrap(), maybe_sent);
                let ack = Ack::noop();
                let back = UnsettledRecord { token, ack, maybe_sent };
                self.buffer().return_unsettled(vec![back]).await;
            }
            Step::CleanRestart => {
                self.buffer().close();
                self.buffer().finish().await.unwrap();
                self.model.restart(true);
                self.reopen().await;
            }
            Step::Crash => {
                self.model.restart(false);
                self.reopen().await;
            }
        }
        let held = self.buffer().size().events;
        assert_eq!(usize::try_from(held).unwrap(), self.model.held());
    }

    async fn drain(&mut self) {
        self.buffer().close();
        while self.model.held() > self.model.away.len() {
            self.next(7).await;
        }
        assert!(self.buffer().next(7).await.is_none());
        let away = std::mem::take(&mut self.model.away);
        self.settle(away.into_values()).await;
        assert_eq!(self.buffer().size(), BufferSize::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn disk_buffer_matches_queue_model(steps in proptest::collection::vec(step(), 1..40)) {
        // For any sequence of pushes, reads, settlements, returns, stops and kills, the disk buffer
        // behaves like a plain queue that loses nothing.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = TempDir::new().unwrap();
            let mut run = Run { dir, open: None, model: Model::default() };
            run.reopen().await;
            for step in steps {
                run.take(step).await;
            }
            run.drain().await;
        });
    }
}
