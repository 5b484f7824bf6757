//! Acknowledgement by ownership: the handle travels inside the record, and the verdict is told when
//! the last clone goes.
//!
//! One invariant: a clone dropped without a verdict counts as [`Verdict::Errored`]. A path that
//! forgets a record can therefore never pass for a delivery.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

/// What became of a record. Ordered from best to worst: the worst of all clones is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Delivered, or durably stored for delivery, or rightly not wanted by any rule.
    Delivered = 0,
    /// In the dead letters: never to be sent again by itself, and not lost.
    Rejected = 1,
    /// Nobody settled it: the source must offer it again.
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
    /// Why the first rejected share that gave a reason was rejected.
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

/// One share of a record's acknowledgement.
///
/// Cloning adds a share; the verdict is told once every share is settled or dropped.
pub struct Ack {
    state: Option<Arc<AckState>>,
    settled: bool,
}

impl Ack {
    /// An acknowledgement that calls `notify` once, with the worst verdict of all shares. `notify` runs
    /// wherever the last share goes, so it must neither block nor panic.
    pub fn new(notify: impl FnOnce(Verdict) + Send + Sync + 'static) -> Self {
        Self::with_reason(|verdict, _| notify(verdict))
    }

    /// As [`new`](Self::new); `notify` also hears why the record was rejected, where whoever settled
    /// it said so.
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

    /// An acknowledgement nobody waits for.
    pub fn noop() -> Self {
        Self { state: None, settled: false }
    }

    /// Settles this share as rejected, and says why in a sentence. Of several reasons the first is
    /// told.
    pub fn reject(self, reason: &str) {
        if let Some(state) = &self.state {
            state.reason.get_or_init(|| reason.into());
        }
        self.settle(Verdict::Rejected);
    }

    /// Settles this share.
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
        let shares = self.state.as_ref().map_or(0, Arc::strong_count);
        f.debug_struct("Ack").field("shares", &shares).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;

    fn watched() -> (Ack, Arc<Mutex<Vec<Verdict>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        (Ack::new(move |v| told.lock().unwrap().push(v)), seen)
    }

    #[test]
    fn dropped_without_verdict() {
        // A share that is dropped without a verdict makes the whole record errored.
        let (ack, seen) = watched();
        let other = ack.clone();
        other.settle(Verdict::Delivered);
        assert!(seen.lock().unwrap().is_empty());
        drop(ack);
        assert_eq!(*seen.lock().unwrap(), [Verdict::Errored]);
    }

    #[test]
    fn the_first_reason_is_told() {
        // Who waits for a reason hears the first that was given, and the worst verdict.
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let ack = Ack::with_reason(move |verdict, why| told.lock().unwrap().push((verdict, why)));
        ack.clone().reject("no email");
        ack.clone().reject("no id");
        ack.settle(Verdict::Delivered);
        assert_eq!(*seen.lock().unwrap(), [(Verdict::Rejected, Some("no email".into()))]);
    }

    proptest! {
        #[test]
        fn worst_share_is_told_once(fates in proptest::collection::vec(0u8..4, 1..20)) {
            // Whatever the shares' fates, the verdict is told exactly once and is the worst of them.
            let (ack, seen) = watched();
            let shares: Vec<_> = fates.iter().skip(1).map(|_| ack.clone()).collect();
            let mut worst = Verdict::Delivered;
            for (share, fate) in shares.into_iter().chain([ack]).zip(&fates) {
                prop_assert!(seen.lock().unwrap().is_empty());
                let verdict = Verdict::from_u8(*fate);
                worst = worst.max(verdict);
                if *fate == 3 { drop(share) } else { share.settle(verdict) }
            }
            prop_assert_eq!(&*seen.lock().unwrap(), &[worst]);
        }
    }
}
