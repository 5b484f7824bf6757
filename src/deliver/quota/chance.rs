//! Distinguishes refusals by chance from those of a quota: only the latter become fewer at a slower
//! pace.
//!
//! The share that chance refuses is found by a trial: what was refused at the pace at which
//! refusals began, and what at slower ones. It is measured again after each refusal above it, at a
//! pace that is surely below what the server accepts.

/// The necessary attempts at the faster and at the slower pace.
const MIN_FAST: f64 = 25.0;
const MIN_SLOW: f64 = 80.0;
/// A pace of at least this share of another is as fast, one below the second is slower.
const AS_FAST: f64 = 0.95;
const SLOWER: f64 = 0.92;
/// A refused share that is certain after that many attempts. Smaller ones need more.
const MIN_SHARE: f64 = 0.06;
/// A refused share that stays above this part of itself does not depend on the pace.
const STAYS: f64 = 0.6;
/// What a smaller share needs: attempts, refusals, and to be found so often.
const MIN_SLOW_FEW: f64 = 100.0;
const MIN_REFUSED_FEW: f64 = 6.0;
const MIN_FOUND_FEW: u32 = 2;
/// Refusing this share and as many more is not few.
const FEW: f64 = 0.1;
const MORE_THAN_FEW: f64 = 3.0;
/// A quota that is approached from below refuses less than this share.
const MIN_SHARE_FEW: f64 = 0.035;
/// A smaller share counts as none.
const NEGLIGIBLE: f64 = 0.02;
/// As many standard deviations, and refusals, above what chance explains are certain.
const CERTAIN_DEVIATIONS: f64 = 3.0;
const CERTAIN_REFUSALS: f64 = 2.0;
const MIN_CERTAIN: f64 = 20.0;
/// The part of what the server accepts at which all refusals are by chance.
const BELOW: f64 = 0.9;
/// Attempts at that pace from which the share is measured, and what older ones are worth then.
pub(super) const MIN_BELOW: f64 = 100.0;
const OLDER: f64 = 0.8;
/// What a share that was known before is worth, in attempts.
const KNOWN: f64 = 300.0;

/// Attempts and how many of them were refused.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RefusedShare {
    pub(super) attempts: f64,
    pub(super) refused: f64,
}

impl RefusedShare {
    fn of(share: f64, attempts: f64) -> Self {
        Self { attempts, refused: share * attempts }
    }

    fn add(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.refused += other.refused;
    }

    pub(super) fn value(self) -> f64 {
        self.refused / self.attempts.max(1.0)
    }

    fn is_more_than_few(self) -> bool {
        self.refused > MORE_THAN_FEW + FEW * self.attempts
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
    /// How often few refusals were found not to depend on the pace.
    found_few: u32,
    /// While the pace is kept below it to measure the share: what the server accepts, in attempts
    /// a second.
    capacity: Option<f64>,
    /// What was refused at such times, with falling weights.
    below: RefusedShare,
}

impl RandomRefusals {
    /// Starts with a share that was known before.
    pub(super) fn with_share(share: f64) -> Self {
        Self { share, below: RefusedShare::of(share, KNOWN), ..Self::default() }
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
        if value < self.share - 2.0 * deviation {
            self.measured(seen);
        }
        (value - explained).max(0.0)
    }

    /// Whether certainly more was refused than chance explains, however few attempts were seen.
    pub(super) fn is_exceeded(&self, seen: RefusedShare) -> bool {
        let expected = self.share * seen.attempts;
        let deviation = (expected * (1.0 - self.share)).sqrt();
        seen.attempts >= MIN_CERTAIN
            && seen.refused > expected + CERTAIN_DEVIATIONS * deviation + CERTAIN_REFUSALS
    }

    /// Keeps the pace below what the server accepts, to measure the share. Returns that pace.
    pub(super) fn keep_below(&mut self, capacity: f64) -> f64 {
        self.capacity = Some(capacity);
        BELOW * capacity / (1.0 - self.share)
    }

    /// What the server accepts, while the pace is kept below it.
    pub(super) fn capacity(&self) -> Option<f64> {
        self.capacity
    }

    /// The pace is not kept below what the server accepts any more.
    pub(super) fn stop_below(&mut self) {
        self.capacity = None;
    }

    /// So much was refused by chance alone.
    pub(super) fn measured(&mut self, seen: RefusedShare) {
        self.below.attempts *= OLDER;
        self.below.refused *= OLDER;
        self.below.add(seen);
        self.set_share(self.below);
    }

    fn set_share(&mut self, by_chance: RefusedShare) {
        self.below = by_chance;
        self.share = by_chance.value();
        if self.share < NEGLIGIBLE {
            (self.share, self.below) = (0.0, RefusedShare::default());
        }
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
        let is_more = trial.fast.value() < MIN_SHARE && seen.is_more_than_few();
        if is_more {
            self.found_few = 0;
        }
        if relative > 1.0 / AS_FAST || is_more {
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
        if trial.slow.attempts < MIN_SLOW {
            return None;
        }
        if fast >= MIN_SHARE && slow < STAYS * fast {
            self.trial = None;
            return None;
        }
        if slow < MIN_SHARE || trial.fast.attempts < MIN_FAST {
            return self.decide_few(trial);
        }
        self.trial = None;
        self.set_share(RefusedShare::of(slow.min(fast), trial.slow.attempts));
        Some(trial.pace)
    }

    /// Few refusals that stay as the pace falls: it need not fall further. Whether a quota that
    /// others use too or chance is the reason shows at the former pace.
    fn decide_few(&mut self, trial: Trial) -> Option<TrialPace> {
        if trial.slow.refused < MIN_REFUSED_FEW || trial.slow.attempts < MIN_SLOW_FEW {
            return None;
        }
        self.trial = None;
        let (fast, slow) = (trial.fast.value(), trial.slow.value());
        if slow < NEGLIGIBLE || slow < STAYS * fast {
            return None;
        }
        self.found_few += 1;
        if slow >= MIN_SHARE_FEW && self.found_few >= MIN_FOUND_FEW {
            self.set_share(trial.slow);
        }
        Some(trial.pace)
    }
}
