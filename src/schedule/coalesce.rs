//! Coalescing: several waiting writes become one, as if they had been sent one after the other.
//!
//! Only identifies of one user and writes of one company fold; a later value wins, lists that are
//! united stay united. Tracks and pages are never folded: each of them counts.

use super::op::Op;
use super::packed_fields::PackedFields;

/// Whether `later` may be folded into a waiting `earlier`.
pub(super) fn can_coalesce(earlier: &Op, later: &Op) -> bool {
    match (earlier, later) {
        (Op::Identify { user: a, .. }, Op::Identify { user: b, .. }) => a == b,
        (Op::Company { company: a, .. }, Op::Company { company: b, .. }) => a == b,
        (Op::Join { .. }, Op::Join { .. }) => earlier == later,
        _ => false,
    }
}

/// Whether an op of this kind may be moved in front of `waiting` without anyone being able to
/// tell: writes to a profile and memberships of companies do not see each other.
pub(super) fn can_reorder(op: &Op, waiting: &Op) -> bool {
    let harmless = |op: &Op| matches!(op, Op::Identify { .. } | Op::Join { .. });
    harmless(op) && harmless(waiting)
}

/// Ops folded into one at most.
const MAX_OPS: usize = 256;
/// Bytes of JSON folded into one op at most.
const MAX_BYTES: usize = 256 << 10;

/// How much was folded already.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    ops: usize,
    bytes: usize,
}

impl Weight {
    /// The weight of one op.
    pub(super) fn of(op: &Op) -> Self {
        let bytes = match op {
            Op::Identify { fields, .. } | Op::Company { fields, .. } => fields.bytes(),
            _ => 0,
        };
        Self { ops: 1, bytes }
    }

    /// Both together, unless that is too much for one op: what is written stays one request of a
    /// bounded size, and so do the values that are kept in case a later one does not fit.
    pub(super) fn with(self, other: Self) -> Option<Self> {
        let both = Self { ops: self.ops + other.ops, bytes: self.bytes + other.bytes };
        (both.ops <= MAX_OPS && both.bytes <= MAX_BYTES).then_some(both)
    }
}

/// Ops that fold, the oldest first, as one op. Its fields keep the writes they were folded from:
/// only when it is sent is it known which values fit the types of attributes, and a value that does
/// not fit must not hide an older one that does.
pub(super) fn coalesced<'o>(first: &Op, later: impl ExactSizeIterator<Item = &'o Op>) -> Op {
    let mut op = first.clone();
    if later.len() == 0 {
        return op;
    }
    if let Op::Identify { fields, .. } | Op::Company { fields, .. } = &mut op {
        let later = later.filter_map(|op| match op {
            Op::Identify { fields, .. } | Op::Company { fields, .. } => Some(fields.clone()),
            _ => None,
        });
        let writes = std::iter::once(std::mem::take(fields)).chain(later).collect();
        *fields = PackedFields::coalesced(writes);
    }
    op
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Field, FieldClass};

    fn identify(fields: &[(&str, FieldClass, &str)]) -> Op {
        let fields = fields.iter().map(|(name, class, json)| Field { name, class: *class, json });
        Op::Identify { user: "u".into(), fields: fields.collect() }
    }

    #[test]
    fn last_value_wins_and_lists_unite() {
        // A folded identify says what its parts said in order: last value wins, tags are united.
        use FieldClass::{Custom, SetUnion, Standard};
        let first = identify(&[
            ("email", Standard, "\"a@b.c\""),
            ("tags", SetUnion, r#"["x","y"]"#),
            ("plan", Custom, "\"free\""),
        ]);
        let second = identify(&[
            ("plan", Custom, "\"pro\""),
            ("tags", SetUnion, r#"["y","z"]"#),
            ("logins", Custom, "7"),
        ]);
        let both = coalesced(&first, [&second].into_iter());
        assert_eq!(
            both,
            identify(&[
                ("email", Standard, "\"a@b.c\""),
                ("tags", SetUnion, r#"["x","y","z"]"#),
                ("plan", Custom, "\"pro\""),
                ("logins", Custom, "7"),
            ])
        );
    }

    #[test]
    fn a_folded_write_keeps_its_parts() {
        // The writes an op was folded from can be told apart, in order; how many they are is bounded.
        let writes = ["1", "2", "3"].map(|json| identify(&[("plan", FieldClass::Custom, json)]));
        let Op::Identify { fields, .. } = coalesced(&writes[0], writes[1..].iter()) else {
            unreachable!("identifies fold into one")
        };
        let plans: Vec<_> = fields.layers().iter().map(|layer| layer.get("plan")).collect();
        assert_eq!(plans, [Some("1"), Some("2"), Some("3")]);
        assert_eq!(fields.get("plan"), Some("3"));
        let mut weight = Weight::of(&writes[0]);
        let mut count = 1;
        while let Some(more) = weight.with(Weight::of(&writes[1])) {
            (weight, count) = (more, count + 1);
        }
        assert_eq!(count, MAX_OPS);
    }

    #[test]
    fn only_writes_of_the_same_target_fold() {
        // Tracks never fold, and neither do writes of two users.
        let track = Op::Track {
            user: "u".into(),
            name: "e".into(),
            at: None,
            data: PackedFields::default(),
        };
        assert!(!can_coalesce(&track, &track));
        let other = Op::Identify { user: "v".into(), fields: PackedFields::default() };
        assert!(!can_coalesce(&identify(&[]), &other));
        assert!(can_coalesce(&identify(&[]), &identify(&[])));
    }
}
