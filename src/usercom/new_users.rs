//! How likely an id we have not seen is new to User.com: decides whether to create first or to
//! try first. A guess that is wrong costs a request, never data.

use parking_lot::Mutex;

/// Weight of the newest observation.
const ALPHA: f64 = 0.2;

/// An exponentially weighted share of ids that turned out to be new.
pub(super) struct NewUserEstimator(Mutex<f64>);

impl NewUserEstimator {
    /// Nothing known: even odds.
    pub(super) fn even() -> Self {
        Self(Mutex::new(0.5))
    }

    /// Whether creating first is the better bet. Even odds count as likely: then an empty account
    /// never meets a 404, however many users come at once before the first is settled.
    pub(super) fn likely_new(&self) -> bool {
        *self.0.lock() >= 0.5
    }

    /// An unseen id turned out to be new, or not.
    pub(super) fn observe(&self, was: UnseenId) {
        let sample = match was {
            UnseenId::New => 1.0,
            UnseenId::Known => 0.0,
        };
        let mut p = self.0.lock();
        *p += ALPHA * (sample - *p);
    }
}

/// What an unseen id turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnseenId {
    /// User.com did not have it.
    New,
    /// User.com had it.
    Known,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_observations_weigh_most() {
        // Even odds lean to new; one known id turns them; a run of new ones turns them back.
        let odds = NewUserEstimator::even();
        assert!(odds.likely_new());
        odds.observe(UnseenId::Known);
        assert!(!odds.likely_new());
        for _ in 0..20 {
            odds.observe(UnseenId::Known);
        }
        for new in 1..=4 {
            odds.observe(UnseenId::New);
            assert_eq!(odds.likely_new(), new == 4, "after {new}");
        }
    }
}
