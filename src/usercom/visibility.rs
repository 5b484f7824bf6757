//! How long User.com takes to show what was written, and for how long a 404 about it is asked again.
//!
//! Decides without waiting; the time is an argument.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::deliver::Denial;

/// Pauses between requests for something that is not visible yet.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
/// What is visible at this age was visible immediately.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(1);
/// Writes that were visible immediately after which the account is assumed to show every write
/// immediately.
const ENOUGH_SIGHTINGS: u32 = 3;
/// How long such an account is still given to show something that may not have been written.
const MIN_LOST_WINDOW: Duration = Duration::from_secs(2);

/// How soon one account shows its writes.
#[derive(Debug)]
pub(super) struct Visibility {
    window: Duration,
    seen: Mutex<Sightings>,
}

#[derive(Debug, Default)]
struct Sightings {
    /// The longest that a write took to become visible.
    longest: Duration,
    /// How many writes were visible immediately.
    immediate: u32,
}

/// The pauses of one request whose user or company is not visible yet.
#[derive(Debug)]
pub(super) struct VisibilityWait {
    backoff: Backoff,
    has_paused: bool,
}

impl Default for VisibilityWait {
    fn default() -> Self {
        Self { backoff: PAUSES, has_paused: false }
    }
}

impl Visibility {
    /// For an account that shows within `window` what was written.
    pub(super) fn new(window: Duration) -> Self {
        Self { window, seen: Mutex::default() }
    }

    /// How long to wait before something that was written at `written` is requested again. `None`
    /// once it should have been visible.
    pub(super) fn pause(
        &self,
        written: Option<Instant>,
        wait: &mut VisibilityWait,
        now: Instant,
    ) -> Option<Duration> {
        self.pause_within(self.window, written?, wait, now)
    }

    /// The same for something that may not have been written: where the account shows every write
    /// immediately, the wait is short. What the server answered with 408, 429 or 503 was most likely not
    /// written: the wait is hardly longer than that of earlier writes.
    pub(super) fn pause_if_lost(
        &self,
        sent: Instant,
        denial: Denial,
        wait: &mut VisibilityWait,
        now: Instant,
    ) -> Option<Duration> {
        let window = {
            let seen = self.seen.lock();
            match denial {
                Denial::TooMany => seen.longest * 2,
                Denial::None if seen.immediate < ENOUGH_SIGHTINGS => self.window,
                Denial::None | Denial::Unavailable => MIN_LOST_WINDOW.max(seen.longest * 2),
            }
        };
        self.pause_within(window.min(self.window), sent, wait, now)
    }

    /// Whether something of this age should be visible.
    pub(super) fn is_over(&self, age: Duration) -> bool {
        age >= self.window
    }

    fn pause_within(
        &self,
        window: Duration,
        written: Instant,
        wait: &mut VisibilityWait,
        now: Instant,
    ) -> Option<Duration> {
        let age = now.saturating_duration_since(written);
        let left = window.checked_sub(age).filter(|left| !left.is_zero())?;
        // The first pause is as long as the slowest write took so far.
        let expected = match wait.has_paused {
            false => self.seen.lock().longest.saturating_sub(age),
            true => Duration::ZERO,
        };
        wait.has_paused = true;
        Some(wait.backoff.next_wait().max(expected).min(left))
    }

    /// Notes that something that was written at `written` is visible.
    pub(super) fn seen_at(&self, written: Option<Instant>, wait: &VisibilityWait, now: Instant) {
        let Some(written) = written else { return };
        let age = now.saturating_duration_since(written);
        let mut seen = self.seen.lock();
        if wait.has_paused {
            seen.longest = seen.longest.max(age).min(self.window);
        } else if age < IMMEDIATE_LIMIT {
            seen.immediate = seen.immediate.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    fn looks(visibility: &Visibility, lost: bool) -> Vec<u64> {
        let written = Instant::now();
        let (mut now, mut wait, mut ages) = (written, VisibilityWait::default(), Vec::new());
        loop {
            let pause = match lost {
                true => visibility.pause_if_lost(written, Denial::None, &mut wait, now),
                false => visibility.pause(Some(written), &mut wait, now),
            };
            let Some(pause) = pause else { return ages };
            now += pause;
            ages.push((now - written).as_secs());
        }
    }

    #[test]
    fn unseen_record_is_asked_for_until_the_window_ends() {
        // Guarantees growing pauses, a last look at the end of the window, and none without a
        // window or a write of our own.
        let visibility = Visibility::new(WINDOW);
        assert_eq!(looks(&visibility, false), [1, 3, 7, 12, 17, 22, 27, 30]);
        assert_eq!(looks(&visibility, true), [1, 3, 7, 12, 17, 22, 27, 30]);
        assert!(looks(&Visibility::new(Duration::ZERO), false).is_empty());
        let mut wait = VisibilityWait::default();
        assert_eq!(visibility.pause(None, &mut wait, Instant::now()), None);
    }

    #[test]
    fn delay_seen_once_is_expected_the_next_time() {
        // Guarantees that an account that shows writes late costs one useless look, and that one
        // that shows them at once is not waited for long.
        let visibility = Visibility::new(WINDOW);
        let written = Instant::now();
        let late = VisibilityWait { has_paused: true, ..VisibilityWait::default() };
        visibility.seen_at(Some(written), &late, written + Duration::from_secs(7));
        assert_eq!(looks(&visibility, false)[0], 7);

        let quick = Visibility::new(WINDOW);
        for _ in 0..ENOUGH_SIGHTINGS {
            quick.seen_at(Some(written), &VisibilityWait::default(), written);
        }
        assert_eq!(looks(&quick, true), [1, 2]);
        let mut wait = VisibilityWait::default();
        assert_eq!(quick.pause_if_lost(written, Denial::TooMany, &mut wait, written), None);
        assert_eq!(looks(&quick, false).last(), Some(&30));
    }
}
