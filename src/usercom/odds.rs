//! How likely an id we have not seen is new to User.com: decides whether to create first or to
//! try first. A guess that is wrong costs a request, never data.

use std::sync::Mutex;

/// Weight of the newest observation.
const ALPHA: f64 = 0.2;

/// An exponentially weighted share of ids that turned out to be new.
pub(super) struct Odds(Mutex<f64>);

impl Odds {
    /// Nothing known: even odds.
    pub(super) fn even() -> Self {
        Self(Mutex::new(0.5))
    }

    /// Whether creating first is the better bet.
    pub(super) fn likely_new(&self) -> bool {
        *self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            > 0.5
    }

    /// An unseen id turned out to be new, or not.
    pub(super) fn observe(&self, was: Found) {
        let sample = match was {
            Found::New => 1.0,
            Found::Known => 0.0,
        };
        let mut p = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *p += ALPHA * (sample - *p);
    }
}

/// What an unseen id turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// User.com did not have it.
    New,
    /// User.com had it.
    Known,
}
