//! Distinguishes refusals by chance from those of a quota: only the latter become fewer at a slower
//! pace.

/// The necessary attempts at the faster and at the slower pace.
const MIN_FAST: f64 = 25.0;
const MIN_SLOW: f64 = 80.0;
/// A pace of at least this share of another is as fast, one below the second is slower.
const AS_FAST: f64 = 0.95;
const SLOWER: f64 = 0.92;
/// A smaller refused share needs no explanation.
const MIN_SHARE: f64 = 0.06;
/// A refused share that stays above this part of itself does not depend on the pace.
const STAYS: f64 = 0.6;
/// After this many attempts without many refusals a trial ends.
const MAX_TRIAL: f64 = 200.0;
/// A share that is lower than assumed is approached by this part of the difference.
const CORRECTION: f64 = 0.2;
/// A smaller share counts as none.
const NEGLIGIBLE: f64 = 0.02;

/// Attempts and how many of them were refused.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RefusedShare {
    pub(super) attempts: f64,
    pub(super) refused: f64,
}

impl RefusedShare {
    fn add(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.refused += other.refused;
    }

    pub(super) fn value(self) -> f64 {
        self.refused / self.attempts.max(1.0)
    }
}

/// The pace at which refusals began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TrialPace {
    /// Unlimited; it was about this many attempts per second.
    Unpaced(f64),
    Paced(f64),
}

impl TrialPace {
    fn rate(self) -> f64 {
        match self {
            Self::Unpaced(rate) | Self::Paced(rate) => rate,
        }
    }
}

/// What was refused at the pace at which refusals began, and at slower ones.
#[derive(Debug, Clone, Copy)]
struct Trial {
    pace: TrialPace,
    fast: RefusedShare,
    slow: RefusedShare,
}

/// The share of attempts that is refused whatever the pace.
#[derive(Debug, Clone, Default)]
pub(super) struct RandomRefusals {
    share: f64,
    trial: Option<Trial>,
}

impl RandomRefusals {
    /// Starts with a share that was known before.
    pub(super) fn with_share(share: f64) -> Self {
        Self { share, trial: None }
    }

    /// The share; 0 if there is none.
    pub(super) fn share(&self) -> f64 {
        self.share
    }

    /// Reports that what was refused so far had another reason.
    pub(super) fn abandon_trial(&mut self) {
        self.trial = None;
    }

    /// The refused share that chance does not explain.
    pub(super) fn excess(&mut self, seen: RefusedShare) -> f64 {
        let value = seen.value();
        if self.share == 0.0 {
            return value;
        }
        let deviation = (self.share * (1.0 - self.share) / seen.attempts.max(1.0)).sqrt();
        let explained = self.share + 2.0 * deviation + 0.005;
        if value < self.share {
            self.share += CORRECTION * (value - self.share);
            if self.share < NEGLIGIBLE {
                self.share = 0.0;
            }
        }
        (value - explained).max(0.0)
    }

    /// Records what was refused at a pace. Returns the pace to return to if the pace was not the
    /// reason.
    pub(super) fn note(&mut self, pace: TrialPace, seen: RefusedShare) -> Option<TrialPace> {
        let begins = seen.refused > 0.0 && self.share == 0.0;
        let fresh = begins.then_some(Trial { pace, fast: seen, slow: RefusedShare::default() });
        let Some(trial) = &mut self.trial else {
            self.trial = fresh;
            return None;
        };
        let relative = pace.rate() / trial.pace.rate();
        if relative > 1.0 / AS_FAST {
            self.trial = fresh;
            return None;
        }
        if relative >= AS_FAST {
            trial.fast.add(seen);
        } else if relative < SLOWER {
            trial.slow.add(seen);
        }
        self.decide()
    }

    fn decide(&mut self) -> Option<TrialPace> {
        let trial = self.trial?;
        let (fast, slow) = (trial.fast.value(), trial.slow.value());
        let harmless = trial.fast.attempts >= MAX_TRIAL && fast < MIN_SHARE;
        if trial.slow.attempts < MIN_SLOW && !harmless {
            return None;
        }
        self.trial = None;
        let enough = trial.slow.attempts >= MIN_SLOW && trial.fast.attempts >= MIN_FAST;
        if !enough || slow < MIN_SHARE || slow < STAYS * fast {
            return None;
        }
        self.share = slow.min(fast);
        Some(trial.pace)
    }
}
