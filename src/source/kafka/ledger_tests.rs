//! What the ledger promises, with made-up events.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::source::kafka::claim::unknown;

const MOST: usize = 100;

fn partition(number: i32) -> Partition {
    Partition { topic: "t".into(), number }
}

/// A ledger of one partition of which nothing was left.
fn alone() -> Ledger {
    let mut ledger = Ledger::default();
    join(&mut ledger, 0);
    ledger
}

fn join(ledger: &mut Ledger, number: i32) {
    ledger.assign(partition(number));
    ledger.inherit(&partition(number), Bequest::default());
}

fn read(ledger: &mut Ledger, number: i32, offset: u64) -> Place {
    let partition = partition(number);
    let tenure = ledger.read(&partition, offset).unwrap();
    Place { partition, tenure, offset }
}

/// Commits what is due, and the brokers take it.
fn commit(ledger: &mut Ledger) -> Vec<Due> {
    let due = ledger.due();
    due.iter().for_each(|due| ledger.confirm(due));
    due
}

/// Reads a record and hands it on, with a commit where it needs one.
fn send(ledger: &mut Ledger, number: i32, offset: u64) -> Place {
    let place = read(ledger, number, offset);
    if ledger.hand_on(&place, MOST) == Passage::Unclaimed {
        commit(ledger);
        assert_eq!(ledger.hand_on(&place, MOST), Passage::First);
    }
    place
}

/// Where partition 0 is due to be committed at.
fn position(ledger: &Ledger) -> Option<u64> {
    ledger.due().first().map(|due| due.stand.position)
}

#[test]
fn only_what_is_settled_without_a_gap_is_due() {
    // Verdicts out of order make nothing due until the first record has its own, and a position is
    // due until the brokers have it.
    let mut ledger = alone();
    assert!(ledger.due().is_empty(), "nothing was read");
    let places: Vec<_> = [7, 8, 11].map(|offset| send(&mut ledger, 0, offset)).into();
    assert!(ledger.due().is_empty(), "the claim was made at the first record");
    ledger.settled(&places[2], Verdict::Delivered);
    ledger.settled(&places[1], Verdict::Rejected);
    assert!(ledger.due().is_empty());
    ledger.settled(&places[0], Verdict::Delivered);
    assert_eq!(position(&ledger), Some(12));
    assert_eq!(position(&ledger), Some(12), "a commit that failed is due again");
    assert_eq!(commit(&mut ledger).len(), 1);
    assert!(ledger.due().is_empty());
}

#[test]
fn nothing_is_handed_on_before_its_claim() {
    // Not before it is known what the last owner left, and not before the brokers have a claim; and
    // a claim alone is due though the position is the same.
    let mut ledger = Ledger::default();
    ledger.assign(partition(0));
    let place = read(&mut ledger, 0, 5);
    assert_eq!(ledger.hand_on(&place, MOST), Passage::Unclaimed);
    assert!(ledger.is_urgent() && ledger.due().is_empty());
    ledger.inherit(&partition(0), Bequest::of(5, "", 0));
    assert_eq!(ledger.hand_on(&place, MOST), Passage::Unclaimed);
    assert!(ledger.is_stirred() && ledger.is_urgent());
    let due = ledger.due();
    assert_eq!(due[0].stand, Stand { position: 5, claim: 105 });
    assert_eq!(ledger.hand_on(&place, MOST), Passage::Unclaimed, "it may not have arrived");
    ledger.confirm(&due[0]);
    assert_eq!(ledger.hand_on(&place, 0), Passage::Full);
    assert_eq!(ledger.hand_on(&place, MOST), Passage::First);
    assert!(!ledger.is_stirred() && !ledger.is_urgent());
    for offset in 6..60 {
        send(&mut ledger, 0, offset);
    }
    assert!(ledger.is_stirred() && ledger.is_urgent(), "the next claim, before it is needed");
    assert_eq!(ledger.due()[0].stand.position, 5);
}

#[test]
fn records_that_wait_together_are_all_handed_on() {
    // Records that were read before the first of them had its claim belong to one tenure.
    let mut ledger = alone();
    let places: Vec<_> = (3..6).map(|offset| read(&mut ledger, 0, offset)).collect();
    assert_eq!(ledger.hand_on(&places[0], MOST), Passage::Unclaimed);
    commit(&mut ledger);
    for place in &places {
        assert_eq!(ledger.hand_on(place, MOST), Passage::First);
    }
    assert_eq!(ledger.in_flight(), 3);
}

#[test]
fn verdicts_of_an_earlier_tenure_change_nothing() {
    // What was in flight when a partition went neither counts nor settles when it is back.
    let mut ledger = alone();
    let old = send(&mut ledger, 0, 5);
    ledger.forget(&partition(0));
    assert_eq!(ledger.in_flight(), 0);
    ledger.settled(&old, Verdict::Delivered);
    assert!(ledger.due().is_empty());
    join(&mut ledger, 0);
    assert_eq!(ledger.hand_on(&old, MOST), Passage::Gone);
    let new = send(&mut ledger, 0, 5);
    ledger.settled(&old, Verdict::Errored);
    assert_eq!((ledger.in_flight(), ledger.errored().len()), (1, 0));
    ledger.settled(&new, Verdict::Delivered);
    assert_eq!(position(&ledger), Some(6));
}

#[test]
fn an_errored_record_is_read_again() {
    // Behind an errored record nothing is sent and nothing is due; once the others have landed,
    // reading begins again at it, and what was handed on behind it may have been sent.
    let mut ledger = alone();
    let places: Vec<_> = (0..3).map(|offset| send(&mut ledger, 0, offset)).collect();
    ledger.settled(&places[0], Verdict::Delivered);
    ledger.settled(&places[1], Verdict::Errored);
    assert_eq!(ledger.errored(), [partition(0)]);
    assert_eq!(ledger.read(&partition(0), 3), None);
    assert_eq!(ledger.rewind(&partition(0)), None, "one is still in flight");
    ledger.settled(&places[2], Verdict::Delivered);
    assert_eq!(ledger.rewind(&partition(0)), Some(1));
    assert_eq!(position(&ledger), Some(1));
    for (offset, passage) in [(1, Passage::Again), (2, Passage::Again), (3, Passage::First)] {
        let place = read(&mut ledger, 0, offset);
        assert_eq!(ledger.hand_on(&place, MOST), passage);
        ledger.settled(&place, Verdict::Delivered);
    }
    assert_eq!(position(&ledger), Some(4));
}

#[test]
fn a_partition_that_begins_anew_is_read() {
    // Offsets that fall back (a truncated or new topic) are records like others, claimed anew; what
    // was committed of the old ones meanwhile counts for nothing.
    let mut ledger = alone();
    let old = send(&mut ledger, 0, 900);
    ledger.settled(&old, Verdict::Delivered);
    let late = ledger.due();
    let new = read(&mut ledger, 0, 0);
    ledger.confirm(&late[0]);
    assert_eq!(ledger.hand_on(&new, MOST), Passage::Unclaimed);
    assert_eq!(position(&ledger), Some(0));
    commit(&mut ledger);
    assert_eq!(ledger.hand_on(&new, MOST), Passage::First);
    ledger.settled(&old, Verdict::Delivered);
    assert!(ledger.due().is_empty());
    ledger.settled(&new, Verdict::Delivered);
    assert_eq!(position(&ledger), Some(1));
    assert_eq!(ledger.in_flight(), 0);
}

#[test]
fn who_leaves_in_order_leaves_no_doubt() {
    // With everything settled the last commit claims nothing; with something open, just that.
    let mut ledger = alone();
    let places: Vec<_> = (0..3).map(|offset| send(&mut ledger, 0, offset)).collect();
    ledger.settled(&places[0], Verdict::Delivered);
    ledger.release(&[partition(0)]);
    assert_eq!(ledger.due()[0].stand, Stand { position: 1, claim: 3 });
    ledger.settled(&places[1], Verdict::Delivered);
    ledger.settled(&places[2], Verdict::Delivered);
    assert_eq!(commit(&mut ledger)[0].stand, Stand { position: 3, claim: 3 });
    assert!(ledger.due().is_empty());
}

/// One partition, its brokers, and the processes that own it one after the other, as somebody would
/// model it who forgets nothing.
struct World {
    /// What the brokers have.
    committed: Option<Stand>,
    ledger: Ledger,
    /// Where the owner reads next.
    next: u64,
    held: Vec<Place>,
    open: Vec<Place>,
    /// Offsets that were ever handed on, and those that were settled.
    handed: BTreeSet<u64>,
    settled: BTreeSet<u64>,
    /// Behind the furthest claim that was ever made.
    claimed: u64,
    keeps_texts: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Read,
    HandOn,
    Settle(usize, Verdict),
    /// A commit, and whether it arrives and whether the answer does.
    Commit {
        arrives: bool,
        answered: bool,
    },
    Rewind,
    /// The owner dies, and another takes over.
    Kill,
    /// The owner leaves in order; what is in flight settles first, or not in time.
    Leave {
        in_time: bool,
        arrives: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        12 => Just(Verdict::Delivered),
        2 => Just(Verdict::Rejected),
        1 => Just(Verdict::Errored),
    ];
    prop_oneof![
        12 => Just(Step::Read),
        14 => Just(Step::HandOn),
        10 => (any::<usize>(), verdict).prop_map(|(n, v)| Step::Settle(n, v)),
        8 => (0..10u8, any::<bool>()).prop_map(|(n, answered)| {
            Step::Commit { arrives: n > 1, answered: n > 2 || answered }
        }),
        2 => Just(Step::Rewind),
        1 => Just(Step::Kill),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(in_time, arrives)| Step::Leave { in_time, arrives }),
    ]
}

/// Some offsets are none: marks of transactions, and what a compaction removed.
fn is_record(offset: u64) -> bool {
    offset % 5 != 2 && !(40..160).contains(&(offset % 200))
}

impl World {
    fn new(keeps_texts: bool) -> Self {
        let mut world = Self {
            committed: None,
            ledger: Ledger::default(),
            next: 0,
            held: Vec::new(),
            open: Vec::new(),
            handed: BTreeSet::new(),
            settled: BTreeSet::new(),
            claimed: 0,
            keeps_texts,
        };
        world.succeed();
        world
    }

    /// A process without a memory becomes the owner.
    fn succeed(&mut self) {
        self.ledger = Ledger::default();
        self.held.clear();
        self.open.clear();
        self.ledger.assign(partition(0));
        let bequest = self.committed.map_or_else(Bequest::default, |stand| {
            let text = if self.keeps_texts { stand.text() } else { String::new() };
            Bequest::of(stand.position, &text, unknown(MOST))
        });
        self.ledger.inherit(&partition(0), bequest);
        self.next = self.committed.map_or(0, |stand| stand.position);
    }

    fn commit(&mut self, arrives: bool, answered: bool) {
        for due in self.ledger.due() {
            let unsettled = self.handed.difference(&self.settled).next();
            let position = due.stand.position;
            assert!(unsettled.is_none_or(|first| position <= *first), "{position} is too far");
            if arrives {
                self.committed = Some(due.stand);
                self.claimed = self.claimed.max(due.stand.claim);
                if answered {
                    self.ledger.confirm(&due);
                }
            }
        }
    }

    fn hand_on(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let offset = self.held[0].offset;
        let passage = self.ledger.hand_on(&self.held[0], MOST);
        match passage {
            Passage::Gone => drop(self.held.remove(0)),
            Passage::Full | Passage::Unclaimed => {}
            Passage::First => {
                assert!(!self.handed.contains(&offset), "{offset} was handed on before");
                self.passed(offset);
            }
            Passage::Again => {
                let reason = self.handed.contains(&offset) || offset < self.claimed;
                assert!(reason || !self.keeps_texts, "there is no doubt about {offset}");
                self.passed(offset);
            }
        }
    }

    fn passed(&mut self, offset: u64) {
        self.handed.insert(offset);
        self.open.push(self.held.remove(0));
    }

    fn settle(&mut self, n: usize, verdict: Verdict) {
        let place = self.open.remove(n);
        if self.ledger.holds(&place) && verdict != Verdict::Errored {
            self.settled.insert(place.offset);
        }
        self.ledger.settled(&place, verdict);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Read => {
                let offset = (self.next..).find(|offset| is_record(*offset)).unwrap();
                if let Some(tenure) = self.ledger.read(&partition(0), offset) {
                    self.next = offset + 1;
                    self.held.push(Place { partition: partition(0), tenure, offset });
                }
            }
            Step::HandOn => self.hand_on(),
            Step::Settle(n, verdict) if !self.open.is_empty() => {
                self.settle(n % self.open.len(), verdict);
            }
            Step::Settle(..) => {}
            Step::Commit { arrives, answered } => self.commit(arrives, answered),
            Step::Rewind => {
                if let Some(position) = self.ledger.rewind(&partition(0)) {
                    self.next = position;
                }
            }
            Step::Kill => self.succeed(),
            Step::Leave { in_time, arrives } => {
                while in_time && !self.open.is_empty() {
                    self.settle(0, Verdict::Delivered);
                }
                self.ledger.release(&[partition(0)]);
                self.commit(arrives, arrives);
                self.succeed();
            }
        }
        let first = self.handed.difference(&self.settled).next().copied().unwrap_or(u64::MAX);
        assert!(self.committed.is_none_or(|stand| stand.position <= first));
    }
}

proptest! {
    #[test]
    fn whoever_comes_next_knows_what_may_have_been_sent(
        steps in proptest::collection::vec(step(), 0..400),
    ) {
        // Whatever settles, fails, dies and is taken over: a record that was handed on before is
        // never taken for a new one, one that nobody claimed is never in doubt, and no commit passes
        // a record that was handed on and is not settled.
        let mut world = World::new(true);
        for step in steps {
            world.take(step);
        }
    }

    #[test]
    fn the_count_in_flight_is_that_of_the_partitions(
        steps in proptest::collection::vec((0..3i32, 0..4u8, any::<usize>()), 0..200),
    ) {
        // However partitions come and go, what is in flight is what was handed on in tenures that
        // are not over and has no verdict.
        let mut ledger = Ledger::default();
        let mut open: Vec<Place> = Vec::new();
        let mut next = [0u64; 3];
        for (number, what, n) in steps {
            let index = usize::try_from(number).unwrap();
            let owned = ledger.owned().any(|p| p.number == number);
            match what {
                0 | 1 if owned => {
                    open.push(send(&mut ledger, number, next[index]));
                    next[index] += 1;
                }
                2 if !open.is_empty() => {
                    let place = open.swap_remove(n % open.len());
                    ledger.settled(&place, Verdict::Delivered);
                }
                3 if owned => ledger.forget(&partition(number)),
                _ if !owned => join(&mut ledger, number),
                _ => {}
            }
            let counted = open.iter().filter(|place| ledger.holds(place)).count();
            prop_assert_eq!(ledger.in_flight(), counted);
            prop_assert_eq!(ledger.in_flight_of(&[0, 1, 2].map(partition)), counted);
        }
    }
}

#[test]
fn brokers_that_keep_no_texts_leave_a_guess() {
    // Without a text, as many records behind the commit are in doubt as may have been in flight and
    // settled since; what was handed on is among them as long as no record holds the commit up.
    let mut world = World::new(false);
    for _ in 0..300 {
        world.take(Step::Read);
        world.take(Step::HandOn);
        world.take(Step::Commit { arrives: true, answered: true });
        world.take(Step::HandOn);
        if world.open.len() > MOST / 2 {
            world.take(Step::Settle(0, Verdict::Delivered));
        }
    }
    world.take(Step::Kill);
    for _ in 0..300 {
        world.take(Step::Read);
        world.take(Step::HandOn);
        world.take(Step::Commit { arrives: true, answered: true });
        world.take(Step::HandOn);
        world.take(Step::Settle(0, Verdict::Delivered));
    }
    assert!(world.handed.len() > 300);
}
