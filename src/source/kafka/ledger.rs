//! Which partitions are ours, how far each is settled, and how far it is claimed.
//!
//! Not here: the client, locks, time. One invariant: a position is due for a commit only while its
//! partition is ours, and only if every record before it was delivered or is in the dead letters.
//!
//! A partition that leaves and comes back is another tenure of it: verdicts carry the tenure of
//! their record, and those of an earlier one change nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::claim::{Bequest, Claim, Stand, reach};
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

/// Whether a record may be handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// It is not ours any more.
    Gone,
    /// Not now: so many are in flight.
    Full,
    /// Not before the brokers know of it.
    Unclaimed,
    /// Yes, and it counts as handed on. Nobody did so before.
    First,
    /// Yes, and it counts as handed on. Somebody may have done so before.
    Again,
}

/// What is to be committed of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) partition: Partition,
    pub(super) tenure: Tenure,
    pub(super) stand: Stand,
}

/// The partitions that are ours.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    owned: BTreeMap<Partition, Owned>,
    tenures: u64,
    in_flight: usize,
    /// Whether a claim is wanted that was not before.
    stirred: bool,
}

#[derive(Debug)]
struct Owned {
    tenure: Tenure,
    /// Behind the last record that was read in this tenure.
    read_to: u64,
    /// What the last owner left; `None` until the brokers have told.
    bequest: Option<Bequest>,
    /// `None` until the first record wants to be handed on.
    course: Option<Course>,
    /// Whether a record came back unsettled, so that it must be read again.
    errored: bool,
}

/// How far a partition has come.
#[derive(Debug)]
struct Course {
    watermark: Watermark,
    claim: Claim,
    /// What the brokers are known to have.
    confirmed: Option<Stand>,
}

impl Course {
    fn stand(&self) -> Stand {
        Stand { position: self.watermark.mark().position, claim: self.claim.wanted() }
    }
}

impl Owned {
    fn in_flight(&self) -> usize {
        self.course.as_ref().map_or(0, |course| course.watermark.in_flight())
    }

    fn mark(&self) -> Option<u64> {
        self.course.as_ref().map(|course| course.watermark.mark().position)
    }
}

impl Ledger {
    /// A partition is ours from now on.
    pub(super) fn assign(&mut self, partition: Partition) {
        self.forget(&partition);
        let tenure = self.next_tenure();
        let owned = Owned { tenure, read_to: 0, bequest: None, course: None, errored: false };
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

    /// Partitions of which it is not known what the last owner left.
    pub(super) fn unknown(&self) -> Vec<Partition> {
        let unknown = self.owned.iter().filter(|(_, owned)| owned.bequest.is_none());
        unknown.map(|(partition, _)| partition.clone()).collect()
    }

    /// What the last owner left of a partition.
    pub(super) fn inherit(&mut self, partition: &Partition, bequest: Bequest) {
        if let Some(owned) = self.owned.get_mut(partition) {
            owned.bequest.get_or_insert(bequest);
        }
    }

    /// A record was read. The tenure it belongs to; `None` where none is wanted of its partition.
    ///
    /// An offset before one that was read already means that the partition begins anew (it was
    /// truncated, or made again): what was read of it before is out of reach.
    pub(super) fn read(&mut self, partition: &Partition, offset: u64) -> Option<Tenure> {
        let fresh = self.next_tenure();
        let owned = self.owned.get_mut(partition)?;
        if owned.errored {
            return None;
        }
        if offset < owned.read_to {
            self.in_flight -= owned.in_flight();
            owned.tenure = fresh;
            owned.course = None;
            owned.bequest = Some(Bequest::default());
        }
        owned.read_to = offset + 1;
        Some(owned.tenure)
    }

    /// Whether a record's verdict still counts.
    pub(super) fn holds(&self, place: &Place) -> bool {
        self.owned.get(&place.partition).is_some_and(|owned| owned.tenure == place.tenure)
    }

    /// Whether a record may be handed on, while at most `most` are in flight. Records of one tenure
    /// ask in the order of their offsets.
    pub(super) fn hand_on(&mut self, place: &Place, most: usize) -> Passage {
        let reach = reach(most, self.owned.len());
        let Some(owned) = self.owned.get_mut(&place.partition) else {
            return Passage::Gone;
        };
        if owned.errored || owned.tenure != place.tenure {
            return Passage::Gone;
        }
        let Some(bequest) = owned.bequest else {
            return Passage::Unclaimed;
        };
        let course = owned.course.get_or_insert_with(|| Course {
            watermark: Watermark::new(at(place.offset)),
            claim: Claim::new(place.offset, bequest),
            confirmed: None,
        });
        self.stirred |= course.claim.reach_for(place.offset, reach);
        if !course.claim.covers(place.offset) {
            return Passage::Unclaimed;
        }
        if self.in_flight >= most {
            return Passage::Full;
        }
        course.watermark.sent(at(place.offset + 1));
        self.in_flight += 1;
        match course.claim.hand_on(place.offset) {
            true => Passage::Again,
            false => Passage::First,
        }
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
        if let Some(course) = &mut owned.course {
            course.watermark.settled(place.offset + 1, verdict);
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

    /// Whether a claim is wanted that was not when this was last asked.
    pub(super) fn is_stirred(&mut self) -> bool {
        std::mem::take(&mut self.stirred)
    }

    /// Whether the brokers must be asked, or told, before records can go on.
    pub(super) fn is_urgent(&self) -> bool {
        self.owned.values().any(|owned| match &owned.course {
            None => owned.bequest.is_none(),
            Some(course) => course.claim.is_short(),
        })
    }

    /// What has to be committed for the brokers to have what is settled and what is claimed.
    pub(super) fn due(&self) -> Vec<Due> {
        let due = self.owned.iter().filter_map(|(partition, owned)| {
            let course = owned.course.as_ref()?;
            let stand = course.stand();
            (course.confirmed != Some(stand)).then(|| Due {
                partition: partition.clone(),
                tenure: owned.tenure,
                stand,
            })
        });
        due.collect()
    }

    /// The brokers have it. What became of the partition meanwhile stays due.
    pub(super) fn confirm(&mut self, done: &Due) {
        let owned = self.owned.get_mut(&done.partition);
        if let Some(owned) = owned.filter(|owned| owned.tenure == done.tenure)
            && let Some(course) = &mut owned.course
        {
            course.confirmed = Some(done.stand);
            course.claim.grant(done.stand.claim);
        }
    }

    /// Nothing more of these partitions is handed on: claims that are not used are due to be given
    /// up.
    pub(super) fn release(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            let owned = self.owned.get_mut(partition);
            if let Some(course) = owned.and_then(|owned| owned.course.as_mut()) {
                course.claim.release();
            }
        }
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
    /// flight. From then on it is read anew, and what was handed on may have been sent.
    pub(super) fn rewind(&mut self, partition: &Partition) -> Option<u64> {
        let tenure = self.next_tenure();
        let owned = self.owned.get_mut(partition)?;
        if !owned.errored || owned.in_flight() > 0 {
            return None;
        }
        let position = owned.mark()?;
        let course = owned.course.as_mut()?;
        course.watermark = Watermark::new(at(position));
        course.claim.rewind();
        owned.tenure = tenure;
        owned.read_to = position;
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
#[path = "ledger_tests.rs"]
mod tests;
