//! The last error of each kind: how often, since when, until when, and what to do.
//!
//! # Invariants
//! Bounded: at most [`MAX_KINDS`] kinds. A detail names routes, rules and statuses, never a value
//! of a record.

use std::collections::BTreeMap;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock;

/// Kinds that are distinguished; further ones are counted under [`OTHER_KIND`].
const MAX_KINDS: usize = 64;

const OTHER_KIND: &str = "other";

/// Errors of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorStatus {
    /// A stable word: `connect`, `timeout`, `status_500`, `missing_required`.
    pub kind: String,
    /// How many since the start.
    pub count: u64,
    /// The time of the first.
    #[schemars(with = "String")]
    pub first: Timestamp,
    /// The time of the last.
    #[schemars(with = "String")]
    pub last: Timestamp,
    /// The last one in a sentence.
    pub detail: String,
    /// What to do about it.
    pub advice: String,
}

/// Collects errors by kind.
#[derive(Debug, Default)]
pub struct ErrorLog(Mutex<BTreeMap<String, ErrorStatus>>);

impl ErrorLog {
    fn kinds(&self) -> MutexGuard<'_, BTreeMap<String, ErrorStatus>> {
        self.0.lock()
    }

    /// Counts an error. `detail` is evaluated each time, since the last one is shown.
    pub fn add(&self, kind: &str, detail: String, advice: &str) {
        let now = clock::now();
        let mut kinds = self.kinds();
        let kind = match kinds.contains_key(kind) || kinds.len() < MAX_KINDS {
            true => kind,
            false => OTHER_KIND,
        };
        match kinds.get_mut(kind) {
            Some(known) => {
                known.count += 1;
                known.last = now;
                known.detail = detail;
                if known.advice != advice {
                    advice.clone_into(&mut known.advice);
                }
            }
            None => {
                let error = ErrorStatus {
                    kind: kind.to_owned(),
                    count: 1,
                    first: now,
                    last: now,
                    detail,
                    advice: advice.to_owned(),
                };
                kinds.insert(kind.to_owned(), error);
            }
        }
    }

    /// All kinds, the latest first.
    pub fn list(&self) -> Vec<ErrorStatus> {
        let mut all: Vec<_> = self.kinds().values().cloned().collect();
        all.sort_by_key(|error| std::cmp::Reverse(error.last));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_beyond_the_limit_are_counted_together() {
        // Guarantees that a stranger cannot fill the log, and that no error is lost from the count.
        let log = ErrorLog::default();
        for n in 0..1_000 {
            log.add(&format!("kind_{n}"), format!("detail {n}"), "");
        }
        let all = log.list();
        assert!(all.len() <= MAX_KINDS + 1, "{}", all.len());
        assert_eq!(all.iter().map(|error| error.count).sum::<u64>(), 1_000);
        let other = all.iter().find(|error| error.kind == OTHER_KIND).unwrap();
        assert_eq!(other.detail, "detail 999");
    }
}
