//! Acknowledgement of a record: the callback runs with the final status when the last clone of the
//! handle is dropped.
//!
//! # Invariants
//! A clone dropped without a verdict counts as [`Verdict::Errored`]. Code that loses a record can
//! therefore never report it as delivered.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

/// The final status of a record, from best to worst. Of all clones the worst is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Delivered, stored durably for delivery, or matched by no rule.
    Delivered = 0,
    /// In the dead letters: stored, and not sent again unless an operator asks for it.
    Rejected = 1,
    /// Not settled: the source must send it again.
    Errored = 2,
}

impl Verdict {
    fn from_u8(n: u8) -> Self {
        match n {
            0 => Self::Delivered,
            1 => Self::Rejected,
            _ => Self::Errored,
        }
    }
}

type AckCallback = Box<dyn FnOnce(Verdict, Option<Arc<str>>) + Send + Sync>;

struct AckState {
    worst: AtomicU8,
    /// The first reason that was given for a rejection.
    reason: OnceLock<Arc<str>>,
    notify: Option<AckCallback>,
}

impl Drop for AckState {
    fn drop(&mut self) {
        if let Some(notify) = self.notify.take() {
            notify(Verdict::from_u8(self.worst.load(Ordering::Acquire)), self.reason.take());
        }
    }
}

/// A handle to a record's acknowledgement.
///
/// Each clone must be settled. The callback runs once every clone is settled or dropped.
pub struct Ack {
    state: Option<Arc<AckState>>,
    settled: bool,
}

impl Ack {
    /// Calls `notify` once, with the worst verdict of all clones. It runs in the thread that drops
    /// the last clone, so it must neither block nor panic.
    pub fn new(notify: impl FnOnce(Verdict) + Send + Sync + 'static) -> Self {
        Self::with_reason(|verdict, _| notify(verdict))
    }

    /// As [`new`](Self::new); `notify` also receives the reason of a rejection, if one was given.
    pub fn with_reason(
        notify: impl FnOnce(Verdict, Option<Arc<str>>) + Send + Sync + 'static,
    ) -> Self {
        let state = AckState {
            worst: AtomicU8::new(0),
            reason: OnceLock::new(),
            notify: Some(Box::new(notify)),
        };
        Self { state: Some(Arc::new(state)), settled: false }
    }

    /// An acknowledgement without a callback.
    pub fn noop() -> Self {
        Self { state: None, settled: false }
    }

    /// Settles this clone as rejected, with a reason in one sentence. Of several reasons the first is
    /// reported.
    pub fn reject(self, reason: &str) {
        if let Some(state) = &self.state {
            state.reason.get_or_init(|| reason.into());
        }
        self.settle(Verdict::Rejected);
    }

    /// Settles this clone.
    pub fn settle(mut self, verdict: Verdict) {
        self.settled = true;
        if let Some(state) = &self.state {
            state.worst.fetch_max(verdict as u8, Ordering::AcqRel);
        }
    }
}

impl Clone for Ack {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), settled: false }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let (false, Some(state)) = (self.settled, &self.state) {
            state.worst.fetch_max(Verdict::Errored as u8, Ordering::AcqRel);
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clones = self.state.as_ref().map_or(0, Arc::strong_count);
        f.debug_struct("Ack").field("clones", &clones).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use proptest::prelude::*;

    fn watched() -> (Ack, Arc<Mutex<Vec<Verdict>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&seen);
        (Ack::new(move |v| recorded.lock().push(v)), seen)
    }

    #[test]
    fn clone_dropped_without_verdict_makes_record_errored() {
        // A clone that is dropped without a verdict makes the whole record errored.
        let (ack, seen) = watched();
        let other = ack.clone();
        other.settle(Verdict::Delivered);
        assert!(seen.lock().is_empty());
        drop(ack);
        assert_eq!(*seen.lock(), [Verdict::Errored]);
    }

    #[test]
    fn several_reasons_first_is_reported() {
        // The callback receives the first reason that was given, and the worst verdict.
        let seen = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&seen);
        let ack = Ack::with_reason(move |verdict, why| recorded.lock().push((verdict, why)));
        ack.clone().reject("no email");
        ack.clone().reject("no id");
        ack.settle(Verdict::Delivered);
        assert_eq!(*seen.lock(), [(Verdict::Rejected, Some("no email".into()))]);
    }

    proptest! {
        #[test]
        fn any_clones_worst_verdict_is_reported_once(verdicts in proptest::collection::vec(0u8..4, 1..20)) {
            // The callback runs exactly once, with the worst verdict of all clones.
            let (ack, seen) = watched();
            let clones: Vec<_> = verdicts.iter().skip(1).map(|_| ack.clone()).collect();
            let mut worst = Verdict::Delivered;
            for (clone, verdict_number) in clones.into_iter().chain([ack]).zip(&verdicts) {
                prop_assert!(seen.lock().is_empty());
                let verdict = Verdict::from_u8(*verdict_number);
                worst = worst.max(verdict);
                if *verdict_number == 3 { drop(clone) } else { clone.settle(verdict) }
            }
            prop_assert_eq!(&*seen.lock(), &[worst]);
        }
    }
}
