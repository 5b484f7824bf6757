//! Merging of waiting writes into one, with the result of sending them one after the other.
//!
//! Only identifies of one user, writes of one company and equal memberships are merged, and where
//! the account allows it a membership with identifies. The later value wins; set unions (`tags`) are
//! combined. Events and page views are never merged.

use std::borrow::Cow;

use super::keyed_scheduler::Coalescing;
use super::op::Op;
use super::packed_fields::PackedFields;
use crate::call::write_string;

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

/// The field of a user that names a company.
const COMPANY_FIELD: &str = "company_custom_id";

/// Whether `later` may be merged into the waiting ops of an entry.
pub(super) fn can_merge<'o>(
    mut entry: impl Iterator<Item = &'o Op> + Clone,
    later: &Op,
    coalescing: Coalescing,
) -> bool {
    let Some(first) = entry.clone().next() else {
        return false;
    };
    if coalescing != Coalescing::WithMemberships {
        return can_coalesce(first, later);
    }
    let is_profile = |op: &Op| matches!(op, Op::Identify { .. } | Op::Join { .. });
    if !is_profile(first) || !is_profile(later) || user(first) != user(later) {
        return can_coalesce(first, later);
    }
    // One request names one company.
    let Some(named) = company(later) else {
        return true;
    };
    entry.all(|op| company(op).is_none_or(|other| other == named))
}

fn user(op: &Op) -> Option<&str> {
    match op {
        Op::Identify { user, .. } | Op::Join { user, .. } => Some(user.as_str()),
        _ => None,
    }
}

/// The company that a write of a user names, as JSON.
fn company(op: &Op) -> Option<Cow<'_, str>> {
    match op {
        Op::Identify { fields, .. } => fields.get(COMPANY_FIELD).map(Cow::Borrowed),
        Op::Join { company, .. } => {
            let mut json = String::new();
            write_string(&mut json, company.as_str());
            Some(Cow::Owned(json))
        }
        _ => None,
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
    // A membership takes the identifies that it is merged with along.
    if let Op::Identify { user, fields, keys } = &mut op
        && let Some(company) = later.iter().find_map(|op| match op {
            Op::Join { company, .. } => Some(company.clone()),
            _ => None,
        })
    {
        let (user, fields) = (user.clone(), std::mem::take(fields));
        op = Op::Join { user, company, fields, keys: std::mem::take(keys) };
    }
    if let Op::Identify { fields, .. } | Op::Company { fields, .. } | Op::Join { fields, .. } =
        &mut op
    {
        let later = later.into_iter().filter_map(|op| match op {
            Op::Identify { fields, .. } | Op::Company { fields, .. } => Some(fields.clone()),
            _ => None,
        });
        let first = Some(std::mem::take(fields)).filter(|fields| !fields.is_empty());
        let mut writes: Vec<PackedFields> = first.into_iter().chain(later).collect();
        *fields = match writes.len() {
            0 => PackedFields::default(),
            1 => writes.remove(0),
            _ => PackedFields::coalesced(writes),
        };
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

    fn join(company: &str) -> Op {
        Op::Join {
            user: "u".into(),
            company: company.into(),
            fields: PackedFields::default(),
            keys: UserKeys::default(),
        }
    }

    #[test]
    fn membership_takes_identifies_along() {
        // A membership merged with identifies is one op with all their fields; it is merged only where
        // the account allows it, and never with a write that names another company.
        let plan = identify(&[("plan", FieldClass::Custom, "1")]);
        let city = identify(&[("city", FieldClass::Standard, "\"x\"")]);
        for entry in [[&plan, &join("g"), &city], [&join("g"), &plan, &city]] {
            let Op::Join { company, fields, .. } = coalesced(entry[0], entry[1..].iter().copied())
            else {
                unreachable!("a membership is among them")
            };
            assert_eq!(company.as_str(), "g");
            assert_eq!((fields.get("plan"), fields.get("city")), (Some("1"), Some("\"x\"")));
            assert_eq!(fields.layers().len(), 2);
        }
        let merges = |entry: &[Op], later: &Op, mode| can_merge(entry.iter(), later, mode);
        let waiting = [plan.clone(), join("g")];
        assert!(merges(&waiting, &join("g"), Coalescing::WithMemberships));
        assert!(!merges(&waiting, &join("h"), Coalescing::WithMemberships));
        assert!(!merges(&[plan], &join("g"), Coalescing::On));
        let named = identify(&[("company_custom_id", FieldClass::Standard, "\"h\"")]);
        assert!(!merges(&waiting, &named, Coalescing::WithMemberships));
        assert!(!merges(&[named], &join("g"), Coalescing::WithMemberships));
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
