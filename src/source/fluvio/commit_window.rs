//! Tracks the records of one partition and how far they are settled.
//!
//! # Invariants
//!
//! Everything before [`CommitWindow::settled_to`] was delivered, is in the dead letters, or is not
//! a record; the position never passes an errored record.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::ack::{Ack, Verdict};

/// Counts records that were sent and verdicts that arrived.
#[derive(Debug)]
pub(super) struct CommitWindow {
    shared: Arc<WindowShared>,
}

#[derive(Debug)]
struct WindowShared {
    state: Mutex<WindowState>,
    changed: Notify,
}

#[derive(Debug)]
struct WindowState {
    /// Records without a verdict, by their sequence number.
    open: BTreeSet<u64>,
    /// The sequence number of the next record.
    next: u64,
    /// Offsets that become settled once all records before a sequence number are settled.
    marks: VecDeque<(u64, i64)>,
    /// The first errored record: its sequence number, and the offset where reading starts again.
    errored: Option<(u64, i64)>,
    settled_to: SettledTo,
}

/// How far everything is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SettledTo {
    /// Everything before this offset.
    pub(super) offset: i64,
    /// The number of records, counted from the first forwarded one.
    pub(super) records: u64,
}

impl CommitWindow {
    /// Everything before `offset` is settled.
    pub(super) fn new(offset: i64) -> Self {
        let state = WindowState {
            open: BTreeSet::new(),
            next: 0,
            marks: VecDeque::new(),
            errored: None,
            settled_to: SettledTo { offset, records: 0 },
        };
        Self { shared: Arc::new(WindowShared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// Counts a record as sent. If it is errored, reading starts again at `from`. `commit_offset`
    /// is the offset after it, where that may be committed.
    pub(super) fn ack(&self, from: i64, commit_offset: Option<i64>) -> Ack {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.open.insert(number);
        if let Some(commit_offset) = commit_offset {
            state.marks.push_back((number + 1, commit_offset));
        }
        drop(state);
        let shared = Arc::clone(&self.shared);
        Ack::new(move |verdict| shared.settle(number, from, verdict))
    }

    /// There are no records to forward between the last sent record and this offset.
    pub(super) fn passed(&self, to: i64) {
        let mut state = self.state();
        let next = state.next;
        state.marks.push_back((next, to));
        state.advance();
    }

    /// How far everything is settled.
    pub(super) fn settled_to(&self) -> SettledTo {
        self.state().settled_to
    }

    /// Records sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.state().next
    }

    /// Records without a verdict.
    pub(super) fn open(&self) -> usize {
        self.state().open.len()
    }

    /// Whether a record is errored.
    pub(super) fn is_errored(&self) -> bool {
        self.state().errored.is_some()
    }

    /// The offset where reading starts again because of an errored record. Removes that record and
    /// all that were sent after it. Called when all have their verdict.
    pub(super) fn take_errored(&self) -> Option<i64> {
        let mut state = self.state();
        let (_, from) = state.errored.take()?;
        state.marks.clear();
        // All have their verdict, so no later sequence number is in use: records that are read
        // again are counted once.
        state.next = state.settled_to.records;
        Some(from)
    }

    /// Waits until something is settled.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Waits until every record has its verdict.
    pub(super) async fn wait_until_settled(&self) {
        while self.open() > 0 {
            self.changed().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, WindowState> {
        self.shared.state()
    }
}

impl WindowShared {
    fn state(&self) -> MutexGuard<'_, WindowState> {
        self.state.lock()
    }

    fn settle(&self, number: u64, from: i64, verdict: Verdict) {
        let mut state = self.state();
        state.open.remove(&number);
        if verdict == Verdict::Errored && state.errored.is_none_or(|(first, _)| number < first) {
            state.errored = Some((number, from));
        }
        state.advance();
        drop(state);
        self.changed.notify_one();
    }
}

impl WindowState {
    fn advance(&mut self) {
        let open = self.open.first().copied().unwrap_or(self.next);
        let settled = self.errored.map_or(open, |(errored, _)| errored.min(open));
        while let Some((records, offset)) = self.marks.front().copied()
            && records <= settled
        {
            self.settled_to = SettledTo { offset, records };
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn window_equals_a_list_of_all_records(
            steps in proptest::collection::vec((any::<prop::sample::Index>(), 0..12_u8), 0..80),
        ) {
            // After every verdict, the settled offset is after the last record before the first
            // open or errored one.
            let window = CommitWindow::new(0);
            let mut acks = Vec::new();
            let mut model: Vec<Option<Verdict>> = Vec::new();
            for (index, step) in steps {
                let open: Vec<usize> =
                    (0..model.len()).filter(|n| model[*n].is_none()).collect();
                if step < 6 || open.is_empty() {
                    let offset = model.len() as i64;
                    acks.push(Some(window.ack(offset, Some(offset + 1))));
                    model.push(None);
                } else {
                    let n = open[index.index(open.len())];
                    let verdict =
                        if step == 11 { Verdict::Errored } else { Verdict::Delivered };
                    acks[n].take().expect("it is open").settle(verdict);
                    model[n] = Some(verdict);
                }
                let settled = model.iter().take_while(|v| **v == Some(Verdict::Delivered)).count();
                prop_assert_eq!(window.settled_to().offset, settled as i64);
                let errored = model.iter().position(|v| *v == Some(Verdict::Errored));
                prop_assert_eq!(window.is_errored(), errored.is_some());
            }
        }
    }

    #[test]
    fn offset_without_records_waits_for_earlier_ones() {
        // Offsets between records are settled once the records before them are.
        let window = CommitWindow::new(5);
        window.passed(7);
        assert_eq!(window.settled_to(), SettledTo { offset: 7, records: 0 });
        let first = window.ack(7, None);
        let second = window.ack(7, Some(9));
        window.passed(20);
        second.settle(Verdict::Delivered);
        assert_eq!(window.settled_to().offset, 7);
        first.settle(Verdict::Rejected);
        assert_eq!(window.settled_to(), SettledTo { offset: 20, records: 2 });
    }
}
