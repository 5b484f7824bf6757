//! Finds the window in which a server counts, from the periods in which it refused everything.

use std::time::Duration;

use tokio::time::Instant;

use super::closed::USUAL_WINDOWS;
use super::secs;

/// Windows whose length and count differ by less than this share are equal.
const TOLERANCE: f64 = 0.12;
/// The errors of every measurement: seconds and attempts.
const MIN_TOLERANCE_SECS: f64 = 0.3;
const MIN_TOLERANCE_COUNT: f64 = 3.0;
/// A window that is used up to this share counts as full.
const FULL: f64 = 0.85;
/// A cycle may have at most this many windows.
const MAX_WINDOWS: f64 = 8.0;
/// A shorter window, in seconds, is treated as a rate.
const MIN_LENGTH: f64 = 3.0;
/// Windows of fewer attempts are too coarse for a step of a few percent.
pub(super) const MIN_COUNT: f64 = 60.0;

/// A window: its length in seconds and its count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct QuotaWindow {
    pub(super) length: f64,
    pub(super) count: f64,
}

impl QuotaWindow {
    /// This window, corrected, if the measured one is equal, or several of it in a row.
    fn repeated(self, seen: Self) -> Option<Self> {
        let near = |a: f64, b: f64, least: f64| (a - b).abs() <= (TOLERANCE * b).max(least);
        let times = (seen.length / self.length).round().clamp(1.0, MAX_WINDOWS);
        let once = Self { length: seen.length / times, count: seen.count / times };
        let same = once.length >= MIN_LENGTH
            && near(once.length, self.length, MIN_TOLERANCE_SECS)
            && near(once.count, self.count, MIN_TOLERANCE_COUNT);
        if !same {
            return None;
        }
        // Of several windows only the last is known to have been full.
        let several = times > 1.0;
        let mean = (self.length + once.length) / 2.0;
        Some(if several { self } else { Self { length: usual(mean), count: once.count } })
    }

    /// Attempts per second.
    pub(super) fn rate(self) -> f64 {
        self.count / self.length
    }
}

/// The most likely length for a measured one: ends are noticed late, hardly ever early.
fn usual(length: f64) -> f64 {
    let near = |usual: &&f64| (0.92..1.01).contains(&(**usual / length));
    USUAL_WINDOWS.iter().find(near).copied().unwrap_or(length)
}

/// How full the current window is although nothing was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WindowFill {
    /// It may be equal to earlier ones.
    Usual,
    /// A little more than it ever held.
    Full,
    /// Certainly more than it ever held.
    Over,
}

/// What was accepted since the end of the last closed period, and the results of earlier cycles.
#[derive(Debug, Clone)]
pub(super) struct QuotaCycle {
    start: Option<Instant>,
    accepted: f64,
    last: Option<QuotaWindow>,
    /// How long before the end of the last closed period something was still refused, in seconds.
    lag: f64,
    /// Known once two cycles were equal.
    window: Option<QuotaWindow>,
    /// When the current window began, as far as is known, and what was accepted in it.
    present: Option<(Instant, f64)>,
    /// The length of windows while their count is not known any more. Each is then a cycle.
    rolling: Option<f64>,
}

impl QuotaCycle {
    pub(super) fn new() -> Self {
        let (start, last, window, present, rolling) = (None, None, None, None, None);
        Self { start, accepted: 0.0, last, lag: 0.0, window, present, rolling }
    }

    /// Starts with a window that was known before.
    pub(super) fn with_window(window: QuotaWindow) -> Self {
        Self { last: Some(window), window: Some(window), ..Self::new() }
    }

    pub(super) fn window(&self) -> Option<QuotaWindow> {
        self.window
    }

    pub(super) fn start(&self) -> Option<Instant> {
        self.start
    }

    pub(super) fn accepted(&self) -> f64 {
        self.accepted
    }

    /// Records that an attempt that started at this time was accepted.
    pub(super) fn accept(&mut self, started: Instant) {
        self.start.get_or_insert(started);
        self.accepted += 1.0;
    }

    /// Where it is not known what a window holds, each window is a cycle.
    pub(super) fn roll(&mut self, now: Instant) {
        if let (Some(length), Some(start)) = (self.rolling, self.start)
            && secs(now, start) >= length
        {
            self.start = Some(latest_start(start, length, now));
            self.accepted = 0.0;
        }
    }

    /// Counts an accepted attempt in the present window.
    pub(super) fn fill(&mut self, now: Instant) -> WindowFill {
        let Some(window) = self.window else { return WindowFill::Usual };
        let (start, count) = self.present.get_or_insert((now, 0.0));
        *count += 1.0;
        if secs(now, *start) >= window.length {
            *start = latest_start(*start, window.length, now);
            *count = 1.0;
        }
        match *count {
            n if n > window.count * 1.04 + 2.0 => WindowFill::Over,
            n if n > window.count * 1.005 + 1.0 && window.count >= MIN_COUNT => WindowFill::Full,
            _ => WindowFill::Usual,
        }
    }

    /// Reports that a window begins now.
    pub(super) fn window_began(&mut self, now: Instant) {
        self.present = Some((now, 0.0));
    }

    /// Reports that windows hold more than before; it is not known yet by how much.
    pub(super) fn quota_was_raised(&mut self) {
        self.rolling = self.window.take().map(|window| window.length);
        if let Some((start, count)) = self.present {
            self.start = Some(start);
            self.accepted = count;
        }
    }

    /// Ends a closed period: its last refused attempt started at `refused`, and the attempt that
    /// was accepted now belongs to the next cycle. Returns the length and count of this one.
    pub(super) fn end(&mut self, now: Instant, refused: Instant) -> QuotaWindow {
        self.lag = secs(now, refused);
        self.accepted -= 1.0;
        if let (Some(window), Some((start, count))) = (self.window, self.present)
            && count < FULL * window.count
        {
            // The windows before were full, this one was not: they show nothing about it.
            (self.start, self.accepted) = (Some(start), count);
        }
        let length = self.start.map_or(0.0, |start| secs(now, start)).max(1e-3);
        let seen = QuotaWindow { length, count: self.accepted };
        self.window = self.last.and_then(|last| last.repeated(seen));
        self.last = Some(self.window.unwrap_or(seen));
        self.rolling = None;
        self.begin(now);
        self.accepted = 1.0;
        seen
    }

    /// A cycle begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.start = Some(now);
        self.accepted = 0.0;
        self.window_began(now);
    }

    /// The times between which the current cycle ends if it is equal to the last, or the current
    /// window if its length is known.
    pub(super) fn expected_end(&self, now: Instant) -> Option<(Instant, Instant)> {
        let length = self.window.or(self.last)?.length;
        let start = match (self.window, self.present) {
            (Some(_), Some((start, _))) => latest_start(start, length, now),
            _ => self.start?,
        };
        let end = start + Duration::from_secs_f64(length);
        let earliest = end.checked_sub(Duration::from_secs_f64(self.lag.min(length)));
        Some((earliest.unwrap_or(end), end))
    }
}

/// When the latest of the windows began that follow each other from `start` on.
fn latest_start(start: Instant, length: f64, now: Instant) -> Instant {
    start + Duration::from_secs_f64((secs(now, start) / length).floor() * length)
}
