//! Warnings about records that are not delivered: dead letters, and records that no rule matches.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::buffer::DeadLetter;
use crate::mapping::{CompiledMapping, Input};
use crate::record::Record;

/// How often a sink warns. Finding the nearest rule takes as long as mapping a few records.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Kinds of dead letters that are distinguished; further ones are counted by their reason.
const MAX_KINDS: usize = 256;

/// Kinds that one line names at most.
const MAX_NAMED_KINDS: usize = 5;

/// What dead letters of one cause have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct DeadLetterKind {
    reason: String,
    rule: Option<String>,
    field: Option<String>,
}

impl fmt::Display for DeadLetterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if let Some(rule) = &self.rule {
            write!(f, " in rule {}", rule.escape_debug())?;
        }
        match &self.field {
            Some(field) => write!(f, " at {}", field.escape_debug()),
            None => Ok(()),
        }
    }
}

/// Warns of the dead letters of one sink: the first of each kind in full, further ones counted, in
/// one line a minute.
///
/// # Invariants
/// The kinds are bounded, and every dead letter is in exactly one line.
#[derive(Debug, Default)]
pub(super) struct DeadLetterWarnings {
    known: BTreeSet<DeadLetterKind>,
    counted: BTreeMap<DeadLetterKind, u64>,
    /// When the first of the counted ones came.
    since: Option<Instant>,
}

impl DeadLetterWarnings {
    /// A record becomes a dead letter. The detail is not logged, since it may quote the record.
    pub(super) fn dead_letter(&mut self, sink: &str, letter: &DeadLetter) {
        let mut kind = DeadLetterKind {
            reason: letter.reason.clone(),
            rule: letter.rule.clone(),
            field: letter.field.clone(),
        };
        if self.known.len() >= MAX_KINDS && !self.known.contains(&kind) {
            kind = DeadLetterKind { reason: kind.reason, rule: None, field: None };
        } else if self.known.insert(kind.clone()) {
            return warn_of_dead_letter(sink, letter);
        }
        *self.counted.entry(kind).or_default() += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    /// Logs what was counted, once a minute.
    pub(super) fn tick(&mut self, sink: &str) {
        if self.since.is_some_and(|since| since.elapsed() >= WARNING_INTERVAL) {
            self.flush(sink);
        }
    }

    /// Logs what was counted.
    pub(super) fn flush(&mut self, sink: &str) {
        self.since = None;
        let counted = std::mem::take(&mut self.counted);
        let records: u64 = counted.values().sum();
        if records == 0 {
            return;
        }
        let mut kinds: Vec<_> = counted.iter().collect();
        kinds.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let named = kinds.iter().take(MAX_NAMED_KINDS).map(|(kind, n)| format!("{kind}: {n}"));
        let mut causes = named.collect::<Vec<_>>().join(", ");
        if let Some(others) = kinds.len().checked_sub(MAX_NAMED_KINDS).filter(|n| *n > 0) {
            causes += &format!(", and {others} others");
        }
        tracing::warn!(sink, records, causes, "{MORE_DEAD_LETTERS}");
    }
}

/// The line about counted dead letters.
const MORE_DEAD_LETTERS: &str = "more records became dead letters, of kinds that were logged; \
                                 `dead-letters list --summary` shows them by cause";

/// Logs a dead letter in full.
fn warn_of_dead_letter(sink: &str, letter: &DeadLetter) {
    let text = |text: &Option<String>| text.as_deref().map(|text| text.escape_debug().to_string());
    tracing::warn!(
        sink,
        reason = letter.reason,
        rule = text(&letter.rule),
        field = text(&letter.field),
        place = text(&letter.place),
        "a record becomes a dead letter and is not delivered; `dead-letters show` has the details, \
         and `dead-letters replay` sends it again once the cause is mended. Further ones of this \
         kind are counted, in one line a minute"
    );
}

/// Counts unmatched records of one sink and warns of them.
#[derive(Debug, Default)]
pub(super) struct UnmatchedWarnings {
    warned: Option<Instant>,
    /// Unmatched records since the last warning.
    since: u64,
}

impl UnmatchedWarnings {
    /// Logs the number of those that were only counted.
    pub(super) fn flush(&mut self, sink: &str) {
        let records = std::mem::take(&mut self.since);
        if records > 0 {
            tracing::warn!(
                sink,
                records,
                "more records matched no rule; `explain` shows every rule for a record"
            );
        }
    }

    /// A record matched no rule. `consequence` says what happens to it.
    pub(super) fn unmatched(
        &mut self,
        sink: &str,
        plan: &CompiledMapping,
        record: &Record,
        consequence: &'static str,
    ) {
        self.since += 1;
        if self.warned.is_some_and(|at| at.elapsed() < WARNING_INTERVAL) {
            return;
        }
        self.warned = Some(Instant::now());
        let records = std::mem::take(&mut self.since);
        let input = Input { body: &record.body, meta: record.meta.as_deref() };
        let place = record.origin.as_ref().map(|origin| origin.location.escape_debug().to_string());
        match plan.nearest_rule(input) {
            Some(nearest) => tracing::warn!(
                sink,
                records,
                place,
                nearest_rule = ?nearest.name,
                why = ?nearest.why,
                "a record matches no rule and is {consequence}; the nearest rule is named. Further \
                 ones within a minute are only counted; `explain` shows every rule"
            ),
            None => tracing::warn!(
                sink,
                records,
                place,
                "a record matches no rule and is {consequence}: the sink has no mapping and no preset"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(reason: &str, field: Option<&str>) -> DeadLetter {
        let mut letter =
            DeadLetter::new(&Record::new("{}"), reason, "", jiff::Timestamp::UNIX_EPOCH);
        letter.field = field.map(str::to_owned);
        letter
    }

    #[tokio::test(start_paused = true)]
    async fn dead_letters_are_counted_by_kind_within_bounds() {
        // Guarantees that no dead letter is left out of the counts, and that kinds are bounded
        // whatever names records contain.
        let mut warnings = DeadLetterWarnings::default();
        for n in 0..3 * MAX_KINDS {
            let field = n.to_string();
            warnings.dead_letter("crm", &letter("bad_value", Some(&field)));
        }
        warnings.dead_letter("crm", &letter("bad_value", Some("0")));
        warnings.dead_letter("crm", &letter("status_400", None));
        assert_eq!(warnings.known.len(), MAX_KINDS);
        assert_eq!(warnings.counted.values().sum::<u64>(), 2 * MAX_KINDS as u64 + 2);
        assert!(warnings.counted.len() <= MAX_KINDS + 2);
        warnings.tick("crm");
        assert!(!warnings.counted.is_empty());
        tokio::time::advance(WARNING_INTERVAL).await;
        warnings.tick("crm");
        assert!(warnings.counted.is_empty() && warnings.since.is_none());
    }
}
