//! How long User.com takes to show what was written, and how long a 404 about it is not believed.
//!
//! Decides without waiting; time is handed in.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The first pause before something unseen is asked for again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// What is seen at this age was seen at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Sightings at once after which the account is taken for one that shows everything at once.
const ENOUGH_SIGHTINGS: u32 = 3;
/// How long such an account is still given to show something of which only it knows whether it
/// was written.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);

/// What is known of one account.
#[derive(Debug)]
pub(super) struct Visibility {
    window: Duration,
    seen: Mutex<Sightings>,
}

#[derive(Debug, Default)]
struct Sightings {
    /// The longest that something took to be seen.
    longest: Duration,
    at_once: u32,
}

/// The pauses of one request whose user or company is not seen yet.
#[derive(Debug, Default)]
pub(super) struct VisibilityWait {
    pauses: u32,
}

impl Visibility {
    /// Of an account that shows what was written within `window`.
    pub(super) fn new(window: Duration) -> Self {
        Self { window, seen: Mutex::default() }
    }

    /// How long to wait before something that was written at `written` is asked for again. `None`
    /// once it should have been seen.
    pub(super) fn pause(
        &self,
        written: Option<Instant>,
        wait: &mut VisibilityWait,
        now: Instant,
    ) -> Option<Duration> {
        self.pause_within(self.window, written?, wait, now)
    }

    /// The same for something of which it is not known whether it was written: where the account
    /// shows everything at once, it is soon known.
    pub(super) fn pause_if_lost(
        &self,
        sent: Instant,
        wait: &mut VisibilityWait,
        now: Instant,
    ) -> Option<Duration> {
        let window = {
            let seen = self.seen();
            match seen.at_once >= ENOUGH_SIGHTINGS {
                true => self.window.min(LEAST_PATIENCE.max(seen.longest * 2)),
                false => self.window,
            }
        };
        self.pause_within(window, sent, wait, now)
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
        let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(wait.pauses)).min(MAX_PAUSE);
        // What took long before will take as long again.
        let expected = match wait.pauses {
            0 => self.seen().longest.saturating_sub(age),
            _ => Duration::ZERO,
        };
        wait.pauses += 1;
        Some(doubled.max(expected).min(left))
    }

    /// Something that was written at `written` is seen.
    pub(super) fn seen_at(&self, written: Option<Instant>, wait: &VisibilityWait, now: Instant) {
        let Some(written) = written else { return };
        let age = now.saturating_duration_since(written);
        let mut seen = self.seen();
        if wait.pauses > 0 {
            seen.longest = seen.longest.max(age).min(self.window);
        } else if age < AT_ONCE {
            seen.at_once = seen.at_once.saturating_add(1);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Sightings> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
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
                true => visibility.pause_if_lost(written, &mut wait, now),
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
        let late = VisibilityWait { pauses: 3 };
        visibility.seen_at(Some(written), &late, written + Duration::from_secs(7));
        assert_eq!(looks(&visibility, false)[0], 7);

        let quick = Visibility::new(WINDOW);
        for _ in 0..ENOUGH_SIGHTINGS {
            quick.seen_at(Some(written), &VisibilityWait::default(), written);
        }
        assert_eq!(looks(&quick, true), [1, 2]);
        assert_eq!(looks(&quick, false).last(), Some(&30));
    }
}
