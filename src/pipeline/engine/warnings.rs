//! Warnings about records that are not delivered: dead letters, and records that no rule matches.

use std::time::Duration;

use tokio::time::Instant;

use crate::buffer::DeadLetter;
use crate::mapping::{CompiledMapping, Input};
use crate::record::Record;

/// How often a sink warns. Finding the nearest rule takes as long as mapping a few records.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// A record becomes a dead letter. Repeated lines are suppressed by sink, reason, rule and field.
/// The detail is not logged, since it may quote the record.
pub(super) fn warn_of_dead_letter(sink: &str, letter: &DeadLetter) {
    let text = |text: &Option<String>| text.as_deref().map(|text| text.escape_debug().to_string());
    tracing::warn!(
        sink,
        reason = letter.reason,
        rule = text(&letter.rule),
        field = text(&letter.field),
        place = text(&letter.place),
        "a record becomes a dead letter and is not delivered; `dead-letters show` has the details, \
         and `dead-letters replay` sends it again once the cause is mended"
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
