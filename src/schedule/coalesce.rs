//! Merging of waiting writes into one, with the result of sending them one after the other.
//!
//! Only identifies of one user, writes of one company and equal memberships are merged. The later
//! value wins; set unions (`tags`) are combined. Events and page views are never merged.

use super::op::Op;
use super::packed_fields::PackedFields;

/// Whether `later` may be merged into a waiting `earlier`.
pub(super) fn can_coalesce(earlier: &Op, later: &Op) -> bool {
    match (earlier, later) {
        (Op::Identify { user: a, .. }, Op::Identify { user: b, .. }) => a == b,
        (Op::Company { company: a, .. }, Op::Company { company: b, .. }) => a == b,
        (Op::Join { user: a, company: c, .. }, Op::Join { user: b, company: d, .. }) => {
            (a, c) == (b, d)
        }
        _ => false,
    }
}

/// Whether `op` may be executed before `waiting` with the same result. Profile writes and company
/// memberships are independent.
pub(super) fn can_reorder(op: &Op, waiting: &Op) -> bool {
    let harmless = |op: &Op| matches!(op, Op::Identify { .. } | Op::Join { .. });
    harmless(op) && harmless(waiting)
}

/// Ops merged into one at most.
const MAX_OPS: usize = 256;
/// Bytes of JSON merged into one op at most.
const MAX_BYTES: usize = 256 << 10;

/// The size of a merged op.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    ops: usize,
    bytes: usize,
}

impl Weight {
    /// The size of one op.
    pub(super) fn of(op: &Op) -> Self {
        let bytes = match op {
            Op::Identify { fields, .. } | Op::Company { fields, .. } => fields.bytes(),
            _ => 0,
        };
        Self { ops: 1, bytes }
    }

    /// Both together, or `None` if that is too large: a merged op must fit one request, and the
    /// memory for its replaced values must stay bounded.
    pub(super) fn with(self, other: Self) -> Option<Self> {
        let both = Self { ops: self.ops + other.ops, bytes: self.bytes + other.bytes };
        (both.ops <= MAX_OPS && both.bytes <= MAX_BYTES).then_some(both)
    }
}

/// Merges ops, the oldest first. The fields keep their original writes: attribute types are known
/// only when the op is executed, and an invalid value must not hide an older valid one.
pub(super) fn coalesced<'o>(first: &Op, later: impl ExactSizeIterator<Item = &'o Op>) -> Op {
    let mut op = first.clone();
    if later.len() == 0 {
        return op;
    }
    let later: Vec<&Op> = later.collect();
    if let Op::Identify { keys, .. } | Op::Join { keys, .. } = &mut op {
        for op in &later {
            if let Op::Identify { keys: more, .. } | Op::Join { keys: more, .. } = op {
                keys.fill(more);
            }
        }
    }
    if let Op::Identify { fields, .. } | Op::Company { fields, .. } = &mut op {
        let later = later.into_iter().filter_map(|op| match op {
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
    use crate::schedule::{Field, FieldClass, KeyKind, UserKeys};

    fn identify(fields: &[(&str, FieldClass, &str)]) -> Op {
        let fields = fields.iter().map(|(name, class, json)| Field { name, class: *class, json });
        Op::Identify { user: "u".into(), fields: fields.collect(), keys: UserKeys::default() }
    }

    #[test]
    fn merged_identify_has_last_values_and_united_lists() {
        // A merged identify equals its parts in order: the last value wins, tags are united.
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
    fn merged_write_keeps_its_writes_up_to_a_limit() {
        // A merged op lists its original writes in order; their number is bounded.
        let writes = ["1", "2", "3"].map(|json| identify(&[("plan", FieldClass::Custom, json)]));
        let Op::Identify { fields, .. } = coalesced(&writes[0], writes[1..].iter()) else {
            unreachable!("identifies merge into one")
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
    fn merged_identify_has_the_first_key_of_each_kind() {
        // A merged write is looked up by what its first call says, and by later calls for the rest.
        let with = |keys: &[(KeyKind, &str)]| {
            let mut op = identify(&[]);
            let Op::Identify { keys: own, .. } = &mut op else { unreachable!("it is one") };
            keys.iter().for_each(|(kind, value)| own.set(*kind, *value));
            op
        };
        let later = [
            with(&[(KeyKind::Email, "a@x.y")]),
            with(&[(KeyKind::Email, "b@x.y"), (KeyKind::Phone, "+481")]),
        ];
        let merged = coalesced(&with(&[]), later.iter());
        assert_eq!(merged, with(&[(KeyKind::Email, "a@x.y"), (KeyKind::Phone, "+481")]));
    }

    #[test]
    fn events_and_other_users_are_not_merged() {
        // Events are never merged, nor are writes of two users.
        let track = Op::Track {
            user: "u".into(),
            name: "e".into(),
            at: None,
            data: PackedFields::default(),
            keys: UserKeys::default(),
        };
        assert!(!can_coalesce(&track, &track));
        let other = Op::Identify {
            user: "v".into(),
            fields: PackedFields::default(),
            keys: UserKeys::default(),
        };
        assert!(!can_coalesce(&identify(&[]), &other));
        assert!(can_coalesce(&identify(&[]), &identify(&[])));
    }
}
