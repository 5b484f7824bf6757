//! Folding: several waiting writes become one, as if they had been sent one after the other.
//!
//! Only identifies of one user and writes of one company fold; a later value wins, lists that are
//! united stay united. Tracks and pages are never folded: each of them counts.

use super::fields::{FieldClass, FieldSet};
use super::op::Op;

/// Whether `later` may be folded into a waiting `earlier`.
pub(super) fn folds(earlier: &Op, later: &Op) -> bool {
    match (earlier, later) {
        (Op::Identify { user: a, .. }, Op::Identify { user: b, .. }) => a == b,
        (Op::Company { company: a, .. }, Op::Company { company: b, .. }) => a == b,
        (Op::Join { .. }, Op::Join { .. }) => earlier == later,
        _ => false,
    }
}

/// Whether an op of this kind may be moved in front of `waiting` without anyone being able to
/// tell: writes to a profile and memberships of companies do not see each other.
pub(super) fn passes(op: &Op, waiting: &Op) -> bool {
    let harmless = |op: &Op| matches!(op, Op::Identify { .. } | Op::Join { .. });
    harmless(op) && harmless(waiting)
}

/// Adds what a later write says to an earlier one.
pub(super) fn fold(earlier: &mut Op, later: &Op) {
    match (earlier, later) {
        (Op::Identify { fields, .. }, Op::Identify { fields: new, .. })
        | (Op::Company { fields, .. }, Op::Company { fields: new, .. }) => merge(fields, new),
        _ => {}
    }
}

fn merge(fields: &mut FieldSet, new: &FieldSet) {
    for field in new.iter() {
        match (fields.position(field.name), field.class) {
            (Some(place), FieldClass::Union) => {
                let all = united(fields.get(field.name).unwrap_or_default(), field.json);
                fields.replace(place, field.class, &all);
            }
            (Some(place), class) => fields.replace(place, class, field.json),
            (None, _) => fields.push(field),
        }
    }
}

/// Two JSON lists as one: the first's elements in order, then what only the second has.
fn united(a: &str, b: &str) -> String {
    let list = |text: &str| serde_json::from_str::<Vec<serde_json::Value>>(text);
    let (Ok(mut all), Ok(more)) = (list(a), list(b)) else {
        return b.into();
    };
    for value in more {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    serde_json::Value::Array(all).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Field;

    fn identify(fields: &[(&str, FieldClass, &str)]) -> Op {
        let fields = fields.iter().map(|(name, class, json)| Field { name, class: *class, json });
        Op::Identify { user: "u".into(), fields: fields.collect() }
    }

    #[test]
    fn last_value_wins_and_lists_unite() {
        // A folded identify says what its parts said in order: last value wins, tags are united.
        use FieldClass::{Custom, Standard, Union};
        let mut first = identify(&[
            ("email", Standard, "\"a@b.c\""),
            ("tags", Union, r#"["x","y"]"#),
            ("plan", Custom, "\"free\""),
        ]);
        let second = identify(&[
            ("plan", Custom, "\"pro\""),
            ("tags", Union, r#"["y","z"]"#),
            ("logins", Custom, "7"),
        ]);
        fold(&mut first, &second);
        assert_eq!(
            first,
            identify(&[
                ("email", Standard, "\"a@b.c\""),
                ("tags", Union, r#"["x","y","z"]"#),
                ("plan", Custom, "\"pro\""),
                ("logins", Custom, "7"),
            ])
        );
    }

    #[test]
    fn only_writes_of_the_same_target_fold() {
        // Tracks never fold, and neither do writes of two users.
        let track =
            Op::Track { user: "u".into(), name: "e".into(), at: None, data: FieldSet::default() };
        assert!(!folds(&track, &track));
        let other = Op::Identify { user: "v".into(), fields: FieldSet::default() };
        assert!(!folds(&identify(&[]), &other));
        assert!(folds(&identify(&[]), &identify(&[])));
    }
}
