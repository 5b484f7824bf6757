//! A period in which everything is refused. One probe at a time finds its end.

use std::time::Duration;

use tokio::time::Instant;

use super::secs;

/// The gap before the first probe, in seconds.
const FIRST_GAP: f64 = 0.05;
/// The longest gap between two probes, in seconds.
const MAX_GAP: f64 = 600.0;
/// Common lengths of windows, in seconds: a probe is sent at their ends.
pub(super) const USUAL_WINDOWS: [f64; 14] =
    [1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0];
/// A second probe soon after the end of a common window, in shares of it.
const SECOND_LOOK: f64 = 1.03;
/// For this share of a known window its end may be late.
const OVERDUE: f64 = 0.15;
/// `Retry-After: 1` is the shortest value of most services and may mean any part of a second.
pub(super) const VAGUE_HINT: Duration = Duration::from_secs(1);

/// The time since which everything is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClosedPeriod {
    pub(super) since: Instant,
    /// When the next probe may start.
    pub(super) next_probe: Instant,
    /// When the probe without a response started.
    pub(super) probe: Option<Instant>,
    /// When the latest of the refused attempts started.
    pub(super) refused: Instant,
    pub(super) probes: u32,
}

/// The basis of the times of the probes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProbeBasis {
    /// When the current window began, as far as is known.
    pub(super) began: Instant,
    /// What was accepted since. Probes are refused, too: few accepted attempts allow few of them.
    pub(super) accepted: f64,
    /// The times between which the window ends, if its length is known.
    pub(super) end: Option<(Instant, Instant)>,
    /// Seconds from a request to its response: the server counts at some time in between.
    pub(super) rtt: f64,
}

impl ClosedPeriod {
    pub(super) fn new(now: Instant, refused: Instant) -> Self {
        Self { since: now, next_probe: now, probe: None, refused, probes: 0 }
    }

    /// Sets the time of the next probe. Returns how far away it is.
    pub(super) fn schedule(
        &mut self,
        now: Instant,
        hint: Option<Duration>,
        basis: ProbeBasis,
    ) -> Duration {
        let gap = match hint {
            Some(hint) if hint > VAGUE_HINT => hint,
            Some(hint) => self.gap(now, basis).min(hint),
            None => self.gap(now, basis),
        };
        self.next_probe = now + gap;
        gap
    }

    fn gap(&self, now: Instant, basis: ProbeBasis) -> Duration {
        let waited = secs(now, self.since);
        let share = match basis.accepted {
            n if n >= 1000.0 => 0.25,
            n if n >= 300.0 => 0.5,
            _ => 1.0,
        };
        let mut gap = (waited * share).clamp(FIRST_GAP, MAX_GAP);
        // The end of a common window at about that time is the better choice.
        let age = secs(now, basis.began);
        let ends = USUAL_WINDOWS.iter().flat_map(|window| [*window, window * SECOND_LOOK]);
        let mut left = ends.map(|end| end + 0.01 + basis.rtt - age);
        if waited > 0.3
            && let Some(left) = left.find(|left| (0.35 * gap..1.6 * gap).contains(left))
        {
            gap = left;
        }
        if let Some((from, until)) = basis.end {
            let length = secs(until, basis.began);
            let step = (secs(until, from) / 3.0).max(FIRST_GAP);
            let left = secs(from, now) + step;
            if now < until && left < gap * 4.0 {
                gap = left.min(secs(until, now).max(FIRST_GAP / 2.0));
            } else if secs(now, until) < OVERDUE * length {
                gap = gap.min(step.max(OVERDUE / 4.0 * length));
            }
        }
        Duration::from_secs_f64(gap.min(MAX_GAP))
    }
}
