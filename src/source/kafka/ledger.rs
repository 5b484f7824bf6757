//! Which partitions are ours, and how far each is settled.
//!
//! Not here: the client, locks, time. One invariant: a position is due for a commit only while its
//! partition is ours, and only if every record before it was delivered or is in the dead letters.
//!
//! A partition that leaves and comes back is another tenure of it: verdicts carry the tenure of
//! their record, and those of an earlier one change nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ack::Verdict;
use crate::source::watermark::{Mark, Watermark};

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Partition {
    pub(super) topic: Arc<str>,
    pub(super) number: i32,
}

/// One time of owning one partition, reading it from one place on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tenure(u64);

/// A record's place: what its verdict is told with.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) partition: Partition,
    pub(super) tenure: Tenure,
    pub(super) offset: u64,
}

/// The partitions that are ours.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    owned: BTreeMap<Partition, Owned>,
    tenures: u64,
    in_flight: usize,
}

#[derive(Debug)]
struct Owned {
    tenure: Tenure,
    /// `None` until the first record tells where reading began.
    watermark: Option<Watermark>,
    /// The last position that was asked to be committed.
    asked: Option<u64>,
    /// The last position the brokers are known to have.
    confirmed: Option<u64>,
    /// Whether a record came back unsettled, so that it must be read again.
    errored: bool,
}

impl Owned {
    fn in_flight(&self) -> usize {
        self.watermark.as_ref().map_or(0, Watermark::in_flight)
    }

    fn mark(&self) -> Option<u64> {
        self.watermark.as_ref().map(|watermark| watermark.mark().position)
    }
}

impl Ledger {
    /// A partition is ours from now on.
    pub(super) fn assign(&mut self, partition: Partition) {
        self.forget(&partition);
        let tenure = self.next_tenure();
        let owned = Owned { tenure, watermark: None, asked: None, confirmed: None, errored: false };
        self.owned.insert(partition, owned);
    }

    /// A partition is ours no more.
    pub(super) fn forget(&mut self, partition: &Partition) {
        if let Some(owned) = self.owned.remove(partition) {
            self.in_flight -= owned.in_flight();
        }
    }

    /// The partitions that are ours.
    pub(super) fn owned(&self) -> impl Iterator<Item = &Partition> {
        self.owned.keys()
    }

    /// The tenure a record of this partition belongs to; `None` where none is wanted of it.
    pub(super) fn tenure(&self, partition: &Partition) -> Option<Tenure> {
        let owned = self.owned.get(partition)?;
        (!owned.errored).then_some(owned.tenure)
    }

    /// Whether a record may still be sent.
    pub(super) fn admits(&self, place: &Place) -> bool {
        self.tenure(&place.partition) == Some(place.tenure)
    }

    /// Whether a record's verdict still counts.
    pub(super) fn holds(&self, place: &Place) -> bool {
        self.owned.get(&place.partition).is_some_and(|owned| owned.tenure == place.tenure)
    }

    /// A record is on its way. `false` where it must not be: then it is not.
    ///
    /// An offset at or before one that was read already means that the partition begins anew (it
    /// was truncated, or made again): what was read of it before is out of reach.
    pub(super) fn sent(&mut self, place: &mut Place) -> bool {
        if !self.admits(place) {
            return false;
        }
        let fresh = self.next_tenure();
        let Some(owned) = self.owned.get_mut(&place.partition) else {
            return false;
        };
        let end = at(place.offset + 1);
        if owned.watermark.as_ref().is_none_or(|watermark| watermark.is_behind(end)) {
            self.in_flight -= owned.in_flight();
            owned.tenure = fresh;
            owned.asked = None;
            owned.confirmed = None;
            owned.watermark = Some(Watermark::new(at(place.offset)));
        }
        place.tenure = owned.tenure;
        if let Some(watermark) = &mut owned.watermark {
            watermark.sent(end);
            self.in_flight += 1;
        }
        true
    }

    /// The verdict of a record. Late ones, of a tenure that is over, are ignored.
    pub(super) fn settled(&mut self, place: &Place, verdict: Verdict) {
        let Some(owned) = self.owned.get_mut(&place.partition) else {
            return;
        };
        if owned.tenure != place.tenure {
            return;
        }
        let before = owned.in_flight();
        if let Some(watermark) = &mut owned.watermark {
            watermark.settled(place.offset + 1, verdict);
        }
        self.in_flight -= before - owned.in_flight();
        owned.errored |= verdict == Verdict::Errored;
    }

    /// Records without a verdict, of all partitions that are ours.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Records without a verdict, of these partitions.
    pub(super) fn in_flight_of(&self, partitions: &[Partition]) -> usize {
        partitions.iter().filter_map(|p| self.owned.get(p)).map(Owned::in_flight).sum()
    }

    /// Positions that are settled and were not asked to be committed yet. They count as asked from
    /// now on.
    pub(super) fn due(&mut self) -> Vec<(Partition, u64)> {
        let mut due = Vec::new();
        for (partition, owned) in &mut self.owned {
            let Some(mark) = owned.mark() else {
                continue;
            };
            if owned.asked.is_none_or(|asked| mark > asked) {
                owned.asked = Some(mark);
                due.push((partition.clone(), mark));
            }
        }
        due
    }

    /// Positions that are settled and that the brokers are not known to have, asked for or not.
    pub(super) fn unconfirmed(&mut self) -> Vec<(Partition, u64)> {
        for owned in self.owned.values_mut() {
            owned.asked = owned.confirmed;
        }
        self.due()
    }

    /// The brokers have this position, or none. What was asked for beyond it may be on its way or lost, for
    /// nobody tells of a commit that failed: it is due again. A position beyond what is settled is
    /// of another time, when the partition had more in it.
    pub(super) fn confirm(&mut self, partition: &Partition, position: Option<u64>) {
        let Some(owned) = self.owned.get_mut(partition) else {
            return;
        };
        if position <= owned.mark() {
            owned.confirmed = position;
        }
        owned.asked = owned.confirmed;
    }

    /// Before which offset a partition is settled, once anything was read of it.
    pub(super) fn mark(&self, partition: &Partition) -> Option<u64> {
        self.owned.get(partition)?.mark()
    }

    /// Partitions of which a record came back unsettled.
    pub(super) fn errored(&self) -> Vec<Partition> {
        let errored = self.owned.iter().filter(|(_, owned)| owned.errored);
        errored.map(|(partition, _)| partition.clone()).collect()
    }

    /// A partition must be read again from its first unsettled record.
    pub(super) fn fail(&mut self, partition: &Partition) {
        if let Some(owned) = self.owned.get_mut(partition) {
            owned.errored = true;
        }
    }

    /// Where an errored partition must be read from again; `None` while records of it are still in
    /// flight. From then on it is read anew.
    pub(super) fn rewind(&mut self, partition: &Partition) -> Option<u64> {
        let tenure = self.next_tenure();
        let owned = self.owned.get_mut(partition)?;
        if !owned.errored || owned.in_flight() > 0 {
            return None;
        }
        let position = owned.mark()?;
        owned.tenure = tenure;
        owned.watermark = Some(Watermark::new(at(position)));
        owned.errored = false;
        Some(position)
    }

    fn next_tenure(&mut self) -> Tenure {
        self.tenures += 1;
        Tenure(self.tenures)
    }
}

fn at(position: u64) -> Mark {
    Mark { position, lines: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn partition(number: i32) -> Partition {
        Partition { topic: "t".into(), number }
    }

    fn send(ledger: &mut Ledger, number: i32, offset: u64) -> Place {
        let partition = partition(number);
        let tenure = ledger.tenure(&partition).unwrap();
        let mut place = Place { partition, tenure, offset };
        assert!(ledger.sent(&mut place));
        place
    }

    #[test]
    fn only_what_is_settled_without_a_gap_is_due() {
        // Verdicts out of order make nothing due until the first record has its own, and a
        // position is due once.
        let mut ledger = Ledger::default();
        ledger.assign(partition(0));
        assert!(ledger.due().is_empty(), "nothing was read");
        let places: Vec<_> = [7, 8, 11].map(|offset| send(&mut ledger, 0, offset)).into();
        ledger.settled(&places[2], Verdict::Delivered);
        ledger.settled(&places[1], Verdict::Rejected);
        assert_eq!(ledger.due(), [(partition(0), 7)]);
        assert!(ledger.due().is_empty());
        ledger.settled(&places[0], Verdict::Delivered);
        assert_eq!(ledger.due(), [(partition(0), 12)]);
        ledger.confirm(&partition(0), None);
        assert_eq!(ledger.due(), [(partition(0), 12)], "nothing has arrived");
        ledger.confirm(&partition(0), Some(7));
        assert_eq!(ledger.due(), [(partition(0), 12)], "a lost commit is asked for again");
        assert_eq!(ledger.unconfirmed(), [(partition(0), 12)]);
        ledger.confirm(&partition(0), Some(12));
        assert!(ledger.due().is_empty() && ledger.unconfirmed().is_empty());
    }

    #[test]
    fn verdicts_of_an_earlier_tenure_change_nothing() {
        // What was in flight when a partition went neither counts nor settles when it is back.
        let mut ledger = Ledger::default();
        ledger.assign(partition(0));
        let old = send(&mut ledger, 0, 5);
        ledger.forget(&partition(0));
        assert_eq!(ledger.in_flight(), 0);
        ledger.settled(&old, Verdict::Delivered);
        assert!(ledger.due().is_empty());
        ledger.assign(partition(0));
        assert!(!ledger.admits(&old));
        let new = send(&mut ledger, 0, 5);
        ledger.settled(&old, Verdict::Errored);
        assert_eq!((ledger.in_flight(), ledger.errored().len()), (1, 0));
        ledger.settled(&new, Verdict::Delivered);
        assert_eq!(ledger.due(), [(partition(0), 6)]);
    }

    #[test]
    fn an_errored_record_is_read_again() {
        // Behind an errored record nothing is sent and nothing is due; once the others have
        // landed, reading begins again at it.
        let mut ledger = Ledger::default();
        ledger.assign(partition(0));
        let places: Vec<_> = (0..3).map(|offset| send(&mut ledger, 0, offset)).collect();
        ledger.settled(&places[0], Verdict::Delivered);
        ledger.settled(&places[1], Verdict::Errored);
        assert_eq!(ledger.errored(), [partition(0)]);
        assert_eq!(ledger.tenure(&partition(0)), None);
        assert_eq!(ledger.rewind(&partition(0)), None, "one is still in flight");
        ledger.settled(&places[2], Verdict::Delivered);
        assert_eq!(ledger.rewind(&partition(0)), Some(1));
        assert_eq!(ledger.due(), [(partition(0), 1)]);
        let again: Vec<_> = (1..3).map(|offset| send(&mut ledger, 0, offset)).collect();
        for place in &again {
            ledger.settled(place, Verdict::Delivered);
        }
        assert_eq!(ledger.due(), [(partition(0), 3)]);
    }

    #[test]
    fn a_partition_that_begins_anew_is_read() {
        // Offsets that fall back (a truncated or new topic) are records like others.
        let mut ledger = Ledger::default();
        ledger.assign(partition(0));
        let old = send(&mut ledger, 0, 900);
        let new = send(&mut ledger, 0, 0);
        ledger.settled(&old, Verdict::Delivered);
        assert_eq!(ledger.due(), [(partition(0), 0)]);
        ledger.settled(&new, Verdict::Delivered);
        ledger.confirm(&partition(0), Some(901));
        assert_eq!(ledger.due(), [(partition(0), 1)]);
        assert_eq!(ledger.in_flight(), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Send(i32, u64),
        Settle(usize, Verdict),
        Leave(i32),
        Join(i32),
        Commit,
        Rewind,
    }

    fn step() -> impl Strategy<Value = Step> {
        let verdict = prop_oneof![
            8 => Just(Verdict::Delivered),
            2 => Just(Verdict::Rejected),
            1 => Just(Verdict::Errored),
        ];
        prop_oneof![
            6 => (0..3i32, 1..4u64).prop_map(|(p, gap)| Step::Send(p, gap)),
            6 => (any::<usize>(), verdict).prop_map(|(n, v)| Step::Settle(n, v)),
            1 => (0..3i32).prop_map(Step::Leave),
            2 => (0..3i32).prop_map(Step::Join),
            2 => Just(Step::Commit),
            1 => Just(Step::Rewind),
        ]
    }

    proptest! {
        #[test]
        fn no_commit_passes_an_unsettled_record(steps in proptest::collection::vec(step(), 0..200)) {
            // Whatever comes and goes: every record before a due position was settled by its own
            // verdict in its own tenure, and the count in flight is the sum of the partitions'.
            let mut ledger = Ledger::default();
            let mut open: Vec<Place> = Vec::new();
            // By partition: where this tenure's reading stands, and which offsets are unsettled.
            let mut next = [0u64; 3];
            let mut unsettled: [std::collections::BTreeSet<u64>; 3] = Default::default();
            for step in steps {
                match step {
                    Step::Send(p, gap) => {
                        if ledger.tenure(&partition(p)).is_some() {
                            let n = usize::try_from(p).unwrap();
                            let offset = next[n] + gap - 1;
                            next[n] = offset + 1;
                            unsettled[n].insert(offset);
                            open.push(send(&mut ledger, p, offset));
                        }
                    }
                    Step::Settle(n, verdict) if !open.is_empty() => {
                        let place = open.swap_remove(n % open.len());
                        let n = usize::try_from(place.partition.number).unwrap();
                        let counts = ledger.owned.get(&place.partition)
                            .is_some_and(|owned| owned.tenure == place.tenure);
                        if counts && verdict != Verdict::Errored {
                            unsettled[n].remove(&place.offset);
                        }
                        ledger.settled(&place, verdict);
                    }
                    Step::Settle(..) => {}
                    Step::Leave(p) => ledger.forget(&partition(p)),
                    Step::Join(p) => {
                        if ledger.mark(&partition(p)).is_none() {
                            let n = usize::try_from(p).unwrap();
                            // The next tenure reads from the first unsettled record on.
                            if let Some(first) = unsettled[n].first().copied() {
                                next[n] = first;
                            }
                            unsettled[n].clear();
                            ledger.assign(partition(p));
                        }
                    }
                    Step::Commit => {
                        for (partition, position) in ledger.due() {
                            let n = usize::try_from(partition.number).unwrap();
                            let first = unsettled[n].first().copied().unwrap_or(u64::MAX);
                            prop_assert!(position <= first, "{position} passes {first}");
                        }
                    }
                    Step::Rewind => {
                        for partition in ledger.errored() {
                            if let Some(position) = ledger.rewind(&partition) {
                                let n = usize::try_from(partition.number).unwrap();
                                // It may begin at a gap before the record.
                                prop_assert!(Some(&position) <= unsettled[n].first());
                                next[n] = position;
                                unsettled[n].clear();
                            }
                        }
                    }
                }
                let sum = ledger.owned.values().map(Owned::in_flight).sum::<usize>();
                prop_assert_eq!(ledger.in_flight(), sum);
            }
        }
    }
}
