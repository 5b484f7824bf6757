//! Decides which record belongs to a person, from the results of look-ups by key.

use crate::schedule::KeyKind;

/// A record that a look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::usercom) struct Candidate {
    /// User.com's id of it.
    pub(in crate::usercom) number: u64,
    /// Its external id, if it has one.
    pub(in crate::usercom) own_id: Option<String>,
}

/// The state after the look-ups so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::usercom) enum Decision {
    /// No record has any of the keys.
    NotFound,
    /// The record has the external id already.
    Itself(u64),
    /// One record without an external id.
    Adopt(u64),
    /// One record of another external id, or several records: the one to use if that is wanted.
    Conflict {
        /// The record that was found, the oldest of several.
        number: u64,
        /// The conflict, as a sentence.
        why: String,
    },
}

/// The results of look-ups, key by key.
#[derive(Debug, Default)]
pub(in crate::usercom) struct Findings {
    several: Option<(u64, String)>,
}

impl Findings {
    /// Adds the result of the look-up by one key. A decision ends the look-ups.
    pub(in crate::usercom) fn add(
        &mut self,
        own_id: &str,
        kind: KeyKind,
        found: &[Candidate],
    ) -> Option<Decision> {
        if let Some(own) = found.iter().find(|found| found.own_id.as_deref() == Some(own_id)) {
            return Some(Decision::Itself(own.number));
        }
        match found {
            [] => None,
            [Candidate { number, own_id: None }] => Some(Decision::Adopt(*number)),
            [Candidate { number, own_id: Some(_) }] => {
                let why = format!("the record found by {} has another id", word(kind));
                Some(Decision::Conflict { number: *number, why })
            }
            several => {
                let oldest = several.iter().map(|found| found.number).min()?;
                let why = format!("{} records have the {}", several.len(), word(kind));
                self.several.get_or_insert((oldest, why));
                None
            }
        }
    }

    /// The decision after the last key.
    pub(in crate::usercom) fn end(self) -> Decision {
        match self.several {
            Some((number, why)) => Decision::Conflict { number, why },
            None => Decision::NotFound,
        }
    }
}

fn word(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::UserKey => "user key",
        KeyKind::Email => "e-mail address",
        KeyKind::Phone => "telephone number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_key_that_finds_one_record_decides() {
        // One record without an id is adopted, the id itself is found among several, another id is
        // a conflict, and several records decide only where no other key finds one.
        let record = |number, own_id: &str| Candidate {
            number,
            own_id: (!own_id.is_empty()).then(|| own_id.to_owned()),
        };
        let decide = |keys: &[&[Candidate]]| {
            let mut findings = Findings::default();
            let kinds = [KeyKind::UserKey, KeyKind::Email, KeyKind::Phone];
            let decided = keys.iter().zip(kinds).find_map(|(f, kind)| findings.add("u1", kind, f));
            decided.unwrap_or_else(|| findings.end())
        };
        assert_eq!(decide(&[&[], &[]]), Decision::NotFound);
        assert_eq!(decide(&[&[], &[record(7, "")]]), Decision::Adopt(7));
        assert_eq!(decide(&[&[record(7, "")], &[record(8, "u2")]]), Decision::Adopt(7));
        assert_eq!(decide(&[&[record(8, "u2"), record(9, "u1")]]), Decision::Itself(9));
        let conflict = |keys: &[&[Candidate]]| match decide(keys) {
            Decision::Conflict { number, .. } => number,
            other => panic!("{other:?}"),
        };
        assert_eq!(conflict(&[&[record(8, "u2")]]), 8);
        assert_eq!(conflict(&[&[record(8, ""), record(5, "")], &[]]), 5);
        assert_eq!(
            decide(&[&[record(8, ""), record(5, "")], &[record(6, "")]]),
            Decision::Adopt(6)
        );
    }
}
