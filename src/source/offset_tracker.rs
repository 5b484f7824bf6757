//! Tracks how far a stream is settled while verdicts arrive in any order.
//!
//! # Invariants
//!
//! Everything before [`OffsetTracker::mark`] was delivered, is in the dead letters, or is not a
//! record. Memory grows with the records in flight only, however long the first of them takes.

use std::collections::BTreeMap;

use crate::ack::Verdict;

/// A position between two lines of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPosition {
    /// Bytes before it.
    pub position: u64,
    /// Lines before it; `None` where reading began in the middle of a stream whose lines were not
    /// counted.
    pub lines: Option<u64>,
}

/// Tracks how far one stream is settled.
#[derive(Debug)]
pub struct OffsetTracker {
    /// Records without a verdict: where each ends and which part it is of what ends there, with the
    /// mark that must not be passed.
    open: BTreeMap<(u64, u32), StreamPosition>,
    /// Whether records began in another order than they ended.
    interleaved: bool,
    /// The end of everything that was sent or skipped.
    high: StreamPosition,
    /// The start of the first errored record; the mark never passes it.
    stuck: Option<StreamPosition>,
}

impl OffsetTracker {
    /// Everything before `start` is settled.
    pub fn new(start: StreamPosition) -> Self {
        Self { open: BTreeMap::new(), interleaved: false, high: start, stuck: None }
    }

    /// A record that ends at `end`, after all earlier ones, was sent.
    pub fn sent(&mut self, end: StreamPosition) {
        debug_assert!(end.position > self.high.position, "positions grow");
        self.open.insert((end.position, 0), self.high);
        self.high = end;
    }

    /// A record that starts and ends here was sent. Records that end at the same position have
    /// different parts; ends never go back, starts may.
    pub(super) fn sent_part(&mut self, start: StreamPosition, end: StreamPosition, part: u32) {
        debug_assert!(end.position >= self.high.position, "positions do not go back");
        let before = if start.position < self.high.position { start } else { self.high };
        let last = self.open.last_key_value();
        self.interleaved |= last.is_some_and(|(_, last)| before.position < last.position);
        self.open.insert((end.position, part), before);
        self.high = end;
    }

    /// The bytes between the last record and `end` are not a record.
    pub fn skipped(&mut self, end: StreamPosition) {
        self.high = end;
    }

    /// The verdict of the record that ends at `position`. A position without an open record is
    /// ignored.
    pub fn settled(&mut self, position: u64, verdict: Verdict) {
        self.settled_part(position, 0, verdict);
    }

    /// The verdict of one part of what ends at `position`.
    pub(super) fn settled_part(&mut self, position: u64, part: u32, verdict: Verdict) {
        let Some(before) = self.open.remove(&(position, part)) else {
            return;
        };
        let first = self.stuck.is_none_or(|stuck| before.position < stuck.position);
        if verdict == Verdict::Errored && first {
            self.stuck = Some(before);
        }
    }

    /// Everything before this mark is settled.
    pub fn mark(&self) -> StreamPosition {
        let first = match self.interleaved {
            true => self.open.values().min_by_key(|mark| mark.position),
            false => self.open.first_key_value().map(|(_, before)| before),
        };
        let open = first.copied().unwrap_or(self.high);
        match self.stuck {
            Some(stuck) if stuck.position < open.position => stuck,
            _ => open,
        }
    }

    /// The end of everything that was sent or skipped.
    pub(super) fn high(&self) -> StreamPosition {
        self.high
    }

    /// Whether `end` is not after everything that was sent or skipped, so that it cannot be sent.
    pub fn is_behind(&self, end: StreamPosition) -> bool {
        end.position <= self.high.position
    }

    /// How many records have no verdict yet.
    pub fn in_flight(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(position: u64) -> StreamPosition {
        StreamPosition { position, lines: Some(position / 10) }
    }

    #[test]
    fn skipped_lines_settle_after_the_record_before_them() {
        // Lines that are not records count as settled as soon as all records before them are.
        let mut watermark = OffsetTracker::new(at(0));
        watermark.sent(at(10));
        watermark.skipped(at(20));
        assert_eq!(watermark.mark(), at(0));
        watermark.settled(10, Verdict::Rejected);
        assert_eq!(watermark.mark(), at(20));
        watermark.skipped(at(30));
        assert_eq!(watermark.mark(), at(30));
    }

    #[test]
    fn parts_and_joined_lines_hold_their_first_line() {
        // Two records of one line hold the mark before the line until both are settled, and a
        // record of several lines that ends after others holds it before its first line.
        let mut watermark = OffsetTracker::new(at(0));
        watermark.sent_part(at(0), at(10), 0);
        watermark.sent_part(at(0), at(10), 1);
        watermark.settled_part(10, 0, Verdict::Delivered);
        assert_eq!(watermark.mark(), at(0));
        watermark.sent_part(at(20), at(30), 0);
        watermark.sent_part(at(10), at(40), 0);
        watermark.settled_part(10, 1, Verdict::Delivered);
        watermark.settled_part(30, 0, Verdict::Delivered);
        assert_eq!(watermark.mark(), at(10));
        watermark.settled_part(40, 0, Verdict::Delivered);
        assert_eq!((watermark.mark(), watermark.in_flight()), (at(40), 0));
    }

    #[derive(Debug, Clone)]
    enum OffsetOp {
        Send,
        Skip,
        /// The verdict of one of the open records.
        Settle(usize, Verdict),
    }

    fn any_op() -> impl Strategy<Value = OffsetOp> {
        let verdict = prop_oneof![
            8 => Just(Verdict::Delivered),
            2 => Just(Verdict::Rejected),
            1 => Just(Verdict::Errored),
        ];
        prop_oneof![
            3 => Just(OffsetOp::Send),
            1 => Just(OffsetOp::Skip),
            3 => (any::<usize>(), verdict).prop_map(|(n, v)| OffsetOp::Settle(n, v)),
        ]
    }

    proptest! {
        #[test]
        fn tracker_equals_a_list_of_all_lines(steps in proptest::collection::vec(any_op(), 0..80)) {
            // After every step the mark is after the last line before the first unsettled one, as
            // in a model that stores every line, and memory equals the records in flight.
            let mut watermark = OffsetTracker::new(at(0));
            let mut model: Vec<Option<Verdict>> = Vec::new();
            for step in steps {
                let end = at(10 * (model.len() as u64 + 1));
                let open: Vec<usize> =
                    (0..model.len()).filter(|n| model[*n].is_none()).collect();
                match step {
                    OffsetOp::Send => {
                        watermark.sent(end);
                        model.push(None);
                    }
                    OffsetOp::Skip => {
                        watermark.skipped(end);
                        model.push(Some(Verdict::Delivered));
                    }
                    OffsetOp::Settle(n, verdict) if !open.is_empty() => {
                        let line = open[n % open.len()];
                        watermark.settled(10 * (line as u64 + 1), verdict);
                        model[line] = Some(verdict);
                    }
                    OffsetOp::Settle(..) => {}
                }
                let settled = |v: &Option<Verdict>| !matches!(v, None | Some(Verdict::Errored));
                let expected = model.iter().take_while(|v| settled(v)).count() as u64;
                prop_assert_eq!(watermark.mark(), at(10 * expected));
                let waiting = model.iter().filter(|v| v.is_none()).count();
                prop_assert_eq!(watermark.in_flight(), waiting);
            }
        }
    }
}
