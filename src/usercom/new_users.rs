//! Estimates how likely an unknown id is new to User.com, to decide whether to create first or to
//! look up first. A wrong guess costs a request, never data.

use parking_lot::Mutex;

/// Weight of the newest observation.
const ALPHA: f64 = 0.2;

/// An exponentially weighted share of ids that turned out to be new.
pub(super) struct NewUserEstimator(Mutex<f64>);

impl NewUserEstimator {
    /// No observations: even odds.
    pub(super) fn even() -> Self {
        Self(Mutex::new(0.5))
    }

    /// Whether creating first is the better choice. Even odds count as likely: then no request to
    /// an empty account is answered with 404, however many users arrive at once before the first is
    /// settled.
    pub(super) fn likely_new(&self) -> bool {
        *self.0.lock() >= 0.5
    }

    /// Records whether an unknown id was new.
    pub(super) fn observe(&self, was: UnseenId) {
        let sample = match was {
            UnseenId::New => 1.0,
            UnseenId::Known => 0.0,
        };
        let mut p = self.0.lock();
        *p += ALPHA * (sample - *p);
    }
}

/// What an unknown id was.
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
        // Even odds count as new; one known id changes that; a series of new ones changes it back.
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
