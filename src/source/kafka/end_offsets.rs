//! Where reading ends in a run with `--once`.
//!
//! # Invariants
//!
//! An end offset, once set, is where the partition ended at the start; later messages do not move
//! it.

use std::collections::BTreeMap;

use super::partitions::Partition;

/// The end offsets of our partitions; `None` means that the end is reached.
#[derive(Debug, Default)]
pub(super) struct EndOffsets {
    ends: BTreeMap<Partition, Option<u64>>,
}

/// What the brokers report of a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct OffsetBounds {
    /// Its oldest offset.
    pub(super) low: u64,
    /// The offset after its newest record.
    pub(super) high: u64,
    /// The committed offset of the group.
    pub(super) committed: Option<u64>,
}

impl OffsetBounds {
    /// Where reading begins; `earliest` decides where the group has no valid offset.
    fn start(self, earliest: bool) -> u64 {
        match self.committed {
            Some(committed) if (self.low..=self.high).contains(&committed) => committed,
            _ if earliest => self.low,
            _ => self.high,
        }
    }
}

impl EndOffsets {
    /// Whether a partition's end is known, reached or not.
    pub(super) fn knows(&self, partition: &Partition) -> bool {
        self.ends.contains_key(partition)
    }

    /// Adds a partition of ours.
    pub(super) fn add(&mut self, partition: Partition, extent: OffsetBounds, earliest: bool) {
        let open = extent.start(earliest) < extent.high;
        self.ends.insert(partition, open.then_some(extent.high));
    }

    /// Removes partitions that are no longer ours.
    pub(super) fn retain(&mut self, ours: impl Fn(&Partition) -> bool) {
        self.ends.retain(|partition, _| ours(partition));
    }

    /// A record was read.
    pub(super) fn read(&mut self, partition: &Partition, offset: u64) {
        if let Some(end) = self.ends.get_mut(partition)
            && end.is_some_and(|end| offset + 1 >= end)
        {
            *end = None;
        }
    }

    /// A partition of this number was read to its end, though its last offsets may be transaction
    /// markers and not records. Ignored where several topics have that number.
    pub(super) fn exhausted(&mut self, number: i32) {
        let mut of_number =
            self.ends.iter_mut().filter(|(partition, _)| partition.number == number);
        if let (Some((_, end)), None) = (of_number.next(), of_number.next()) {
            *end = None;
        }
    }

    /// Whether all ends are reached.
    pub(super) fn reached(&self) -> bool {
        self.ends.values().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32) -> Partition {
        Partition { topic: "t".into(), number }
    }

    #[test]
    fn end_is_reached_when_its_last_record_is_read() {
        // Partitions end where they ended at the start; empty and finished ones end at once.
        let mut ends = EndOffsets::default();
        ends.add(partition(0), OffsetBounds { low: 2, high: 5, committed: None }, true);
        ends.add(partition(1), OffsetBounds { low: 0, high: 5, committed: Some(5) }, true);
        ends.add(partition(2), OffsetBounds { low: 0, high: 5, committed: None }, false);
        ends.add(partition(3), OffsetBounds { low: 3, high: 5, committed: Some(1) }, true);
        assert!(!ends.reached());
        ends.read(&partition(0), 3);
        ends.read(&partition(3), 6);
        assert!(!ends.reached());
        ends.read(&partition(0), 4);
        assert!(ends.reached());
    }

    #[test]
    fn revoked_partition_is_not_waited_for() {
        // A partition that moves to another member no longer counts: that member reads it to its
        // end.
        let mut ends = EndOffsets::default();
        ends.add(partition(0), OffsetBounds { low: 0, high: 5, committed: None }, true);
        ends.retain(|partition| partition.number != 0);
        assert!(ends.reached() && !ends.knows(&partition(0)));
        ends.add(partition(1), OffsetBounds { low: 0, high: 5, committed: None }, true);
        ends.exhausted(1);
        assert!(ends.reached(), "marks of transactions are no records");
    }
}
