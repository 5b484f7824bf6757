//! Computes which partitions to pause and resume.
//!
//! # Invariants
//!
//! After the change, exactly the requested partitions are paused.

use std::collections::BTreeSet;

use super::partitions::Partition;

/// The partitions that are paused.
#[derive(Debug, Default)]
pub(super) struct PauseController {
    paused: BTreeSet<Partition>,
}

/// What has to change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PauseChange {
    pub(super) pause: Vec<Partition>,
    pub(super) resume: Vec<Partition>,
}

impl PauseController {
    /// A partition was assigned or revoked: it is not paused.
    pub(super) fn reset(&mut self, partition: &Partition) {
        self.paused.remove(partition);
    }

    /// What must change so that, of the `owned` partitions, exactly the `wanted` ones are paused.
    pub(super) fn plan(
        &mut self,
        owned: &BTreeSet<Partition>,
        wanted: BTreeSet<Partition>,
    ) -> PauseChange {
        let wanted: BTreeSet<_> = wanted.intersection(owned).cloned().collect();
        let change = PauseChange {
            pause: wanted.difference(&self.paused).cloned().collect(),
            resume: self
                .paused
                .difference(&wanted)
                .filter(|p| owned.contains(p))
                .cloned()
                .collect(),
        };
        self.paused = wanted;
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_partitions_are_paused_or_resumed() {
        // A partition is paused once and resumed once; a revoked one is neither.
        let set = |numbers: &[i32]| -> BTreeSet<_> {
            numbers.iter().map(|n| Partition { topic: "t".into(), number: *n }).collect()
        };
        let list = |numbers: &[i32]| set(numbers).into_iter().collect::<Vec<_>>();
        let mut pauses = PauseController::default();
        let all = set(&[0, 1, 2]);
        assert_eq!(pauses.plan(&all, all.clone()).pause, list(&[0, 1, 2]));
        assert_eq!(pauses.plan(&all, all.clone()), PauseChange::default());
        let change = pauses.plan(&set(&[0, 1]), set(&[1]));
        assert_eq!(change, PauseChange { pause: vec![], resume: list(&[0]) });
        pauses.reset(&list(&[1])[0]);
        assert_eq!(pauses.plan(&all, set(&[1])).pause, list(&[1]), "it came back awake");
    }
}
