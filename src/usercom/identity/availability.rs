//! Whether User.com answers searches for a person, for each kind of key.
//!
//! Pure: time is handed in.
//!
//! # Invariants
//! While searches of a kind are suspended, one is tried per [`TRIAL_INTERVAL`]; an answer ends the
//! suspension.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::schedule::KeyKind;

/// How long searches of a kind are suspended before one is tried.
const TRIAL_INTERVAL: Duration = Duration::from_secs(600);
/// Searches without an answer, one after the other, that suspend a kind that was answered before:
/// fewer may concern single keys.
const MAX_UNANSWERED: u32 = 3;

#[derive(Debug, Clone, Copy, Default)]
struct KindState {
    was_answered: bool,
    unanswered_in_a_row: u32,
    suspended_until: Option<Instant>,
    reported: Option<Instant>,
}

/// Whether searches are answered.
#[derive(Debug, Default)]
pub(in crate::usercom) struct SearchAvailability([Mutex<KindState>; 3]);

impl SearchAvailability {
    /// Whether a search may be sent now. After the interval one is let through.
    pub(in crate::usercom) fn allows(&self, kind: KeyKind, now: Instant) -> bool {
        let mut state = self.0[kind as usize].lock();
        match state.suspended_until {
            Some(until) if now < until => false,
            Some(_) => {
                state.suspended_until = Some(now + TRIAL_INTERVAL);
                true
            }
            None => true,
        }
    }

    /// Whether searches are suspended.
    pub(in crate::usercom) fn is_suspended(&self, kind: KeyKind) -> bool {
        self.0[kind as usize].lock().suspended_until.is_some()
    }

    /// A search was answered.
    pub(in crate::usercom) fn answered(&self, kind: KeyKind) {
        let mut state = self.0[kind as usize].lock();
        state.was_answered = true;
        state.unanswered_in_a_row = 0;
        state.suspended_until = None;
    }

    /// A search got no answer about the key. Says whether that is to be logged: once until searches
    /// are answered again, and at most once per interval.
    pub(in crate::usercom) fn unanswered(&self, kind: KeyKind, now: Instant) -> bool {
        let mut state = self.0[kind as usize].lock();
        state.unanswered_in_a_row = state.unanswered_in_a_row.saturating_add(1);
        if !state.was_answered || state.unanswered_in_a_row >= MAX_UNANSWERED {
            state.suspended_until = Some(now + TRIAL_INTERVAL);
        }
        let is_first = state.unanswered_in_a_row == 1;
        let is_new = state.reported.is_none_or(|at| now >= at + TRIAL_INTERVAL);
        if is_first && is_new {
            state.reported = Some(now);
        }
        is_first && is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_are_suspended_and_tried_again() {
        // Searches that were never answered are suspended at once, others after three in a row;
        // one is tried per interval, an answer ends it, and the log is told once.
        let searches = SearchAvailability::default();
        let begin = Instant::now();
        let kind = KeyKind::Email;
        assert!(searches.allows(kind, begin));
        assert!(searches.unanswered(kind, begin));
        assert!(!searches.allows(kind, begin) && searches.is_suspended(kind));
        assert!(searches.allows(KeyKind::Phone, begin));
        let later = begin + TRIAL_INTERVAL;
        assert!(searches.allows(kind, later) && !searches.allows(kind, later));
        assert!(!searches.unanswered(kind, later));
        searches.answered(kind);
        assert!(searches.allows(kind, later));
        let told: Vec<bool> = (0..3).map(|_| searches.unanswered(kind, later)).collect();
        assert_eq!(told, [true, false, false]);
        assert!(!searches.allows(kind, later));
    }
}
