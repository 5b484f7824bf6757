//! How long User.com takes to show an event or page view in a history.
//!
//! A history that does not show an event proves nothing while the event is younger than this. It is
//! measured with a sample: the last event that User.com surely took.

use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tokio::time::Instant;

use super::history_snapshots::{HistoryKey, HistoryKind};
use crate::schedule::PackedFields;
use crate::usercom::endpoint::site_views::View;
use crate::usercom::endpoint::{events, site_views};

/// The least age at which an event that is not shown counts as not taken.
const MIN_SETTLED_AGE: Duration = Duration::from_millis(500);
/// How long a measurement holds.
const MEASUREMENT_TTL: Duration = Duration::from_secs(300);
/// How often the sample is replaced at most: it costs a copy.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// An event or page view that User.com took.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// The user's external id.
    pub(super) user: Box<str>,
    pub(super) entry: SampleEntry,
    /// When the answer came.
    pub(super) accepted: Instant,
}

/// What it looks like.
#[derive(Debug, Clone)]
pub(super) enum SampleEntry {
    Event { name: Box<str>, at: Timestamp },
    View { domain: Box<str>, path: Box<str>, at: Timestamp },
}

impl SampleEntry {
    /// Its time, in seconds.
    pub(super) fn second(&self) -> i64 {
        match self {
            Self::Event { at, .. } | Self::View { at, .. } => at.as_second(),
        }
    }

    /// The zone's offset under which an entry of a history is this one.
    pub(super) fn offset(&self, shown: &Value) -> Option<i64> {
        match self {
            Self::Event { name, at } => {
                events::same_at(shown, name, Some(*at), &PackedFields::default())
            }
            Self::View { domain, path, at } => {
                site_views::same_at(shown, View { domain, path, at: *at })
            }
        }
    }
}

/// Whether a history could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HistoryRead {
    Read,
    Unreadable,
}

/// What is known, for events and for page views.
#[derive(Debug, Default)]
pub(super) struct HistoryLag {
    events: Mutex<KindLag>,
    views: Mutex<KindLag>,
}

#[derive(Debug, Default)]
struct KindLag {
    /// The least age at which a sample was shown, and when that was measured.
    shown: Option<(Duration, Instant)>,
    /// The greatest age at which a sample was not shown yet, and when that was measured.
    hidden: Option<(Duration, Instant)>,
    /// The histories do not show what User.com takes.
    useless: bool,
    /// When a history could not be read for the last time.
    unreadable: Option<Instant>,
    sample: Option<Sample>,
}

impl KindLag {
    fn settled_after(&self, now: Instant) -> Option<Duration> {
        if self.useless {
            return Some(Duration::ZERO);
        }
        let shown = valid(self.shown, now)?;
        let hidden = valid(self.hidden, now).unwrap_or_default();
        Some(MIN_SETTLED_AGE.max(shown.max(hidden) * 3 / 2))
    }
}

/// The age of a measurement that still holds.
fn valid(measurement: Option<(Duration, Instant)>, now: Instant) -> Option<Duration> {
    let (age, measured) = measurement?;
    (measured + MEASUREMENT_TTL > now).then_some(age)
}

impl HistoryLag {
    fn of(&self, kind: HistoryKind) -> MutexGuard<'_, KindLag> {
        match kind {
            HistoryKind::Events => self.events.lock(),
            HistoryKind::Views => self.views.lock(),
        }
    }

    /// User.com said that it took one.
    pub(super) fn accepted(&self, place: HistoryKey<'_>, entry: impl FnOnce() -> SampleEntry) {
        let now = Instant::now();
        let mut lag = self.of(place.kind);
        let is_old = |sample: &Sample| sample.accepted + SAMPLE_INTERVAL <= now;
        let is_known = lag.settled_after(now).is_some_and(|settled| settled <= MIN_SETTLED_AGE);
        if !is_known && lag.sample.as_ref().is_none_or(is_old) {
            lag.sample = Some(Sample { user: place.user.into(), entry: entry(), accepted: now });
        }
    }

    /// The last one that was surely taken.
    pub(super) fn sample(&self, kind: HistoryKind) -> Option<Sample> {
        self.of(kind).sample.clone()
    }

    /// The age at which one that is not shown was not taken. `None` where that is not known.
    pub(super) fn settled_after(&self, kind: HistoryKind) -> Option<Duration> {
        self.of(kind).settled_after(Instant::now())
    }

    /// How long to wait before a history is read for an event of this age: until it is likely to be
    /// shown, then until it must be shown. Zero where nothing was measured.
    pub(super) fn pause_before_look(&self, kind: HistoryKind, age: Duration) -> Duration {
        let now = Instant::now();
        let lag = self.of(kind);
        let Some(settled) = lag.settled_after(now) else { return Duration::ZERO };
        let likely = valid(lag.hidden, now).filter(|hidden| *hidden > age).unwrap_or(settled);
        likely.min(settled).saturating_sub(age)
    }

    /// Whether the present sample may prove a shorter delay than the one that was measured.
    pub(super) fn may_be_shorter(&self, kind: HistoryKind) -> bool {
        let now = Instant::now();
        let lag = self.of(kind);
        let known = valid(lag.shown, now).unwrap_or_default();
        let hidden = valid(lag.hidden, now).unwrap_or_default();
        let age = lag.sample.as_ref().map(|sample| now.duration_since(sample.accepted));
        known > MIN_SETTLED_AGE && age.is_some_and(|age| age > hidden && age <= known / 2)
    }

    /// Whether a history could not be read lately, however often it was asked for.
    pub(super) fn is_unreadable(&self, kind: HistoryKind) -> bool {
        let at = self.of(kind).unreadable;
        at.is_some_and(|at| at + MEASUREMENT_TTL > Instant::now())
    }

    /// A history could be read, or not.
    pub(super) fn note_read(&self, kind: HistoryKind, read: HistoryRead) {
        self.of(kind).unreadable = match read {
            HistoryRead::Read => None,
            HistoryRead::Unreadable => Some(Instant::now()),
        };
    }

    /// A sample of this age was shown.
    pub(super) fn shown(&self, kind: HistoryKind, age: Duration) {
        let now = Instant::now();
        let mut lag = self.of(kind);
        let is_less = lag
            .shown
            .is_none_or(|(known, measured)| age <= known || measured + MEASUREMENT_TTL <= now);
        if is_less {
            lag.shown = Some((age, now));
        }
        lag.useless = false;
    }

    /// A sample of this age was not shown.
    pub(super) fn hidden(&self, kind: HistoryKind, age: Duration) {
        let now = Instant::now();
        let mut lag = self.of(kind);
        let is_more = lag
            .hidden
            .is_none_or(|(known, measured)| age >= known || measured + MEASUREMENT_TTL <= now);
        if is_more {
            lag.hidden = Some((age, now));
        }
    }

    /// One that was surely taken is not shown after all the time the settings give.
    pub(super) fn is_useless(&self, kind: HistoryKind) {
        if std::mem::replace(&mut self.of(kind).useless, true) {
            return;
        }
        let list = match kind {
            HistoryKind::Events => "events",
            HistoryKind::Views => "page views",
        };
        tracing::warn!(
            list,
            "User.com took one of them and does not show it in the user's history: where an answer \
             is lost, it cannot be seen whether the record arrived, so it is sent again, perhaps a \
             second time; if histories are only late, raise `account.read_after_write_secs`"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn measured_delay_holds_for_five_minutes() {
        // Guarantees that nothing is settled before a measurement, that the least age at which a
        // sample was shown counts, unless one was hidden longer, and that a useless history is not
        // waited for.
        let lag = HistoryLag::default();
        let kind = HistoryKind::Events;
        let entry = || SampleEntry::Event { name: "e".into(), at: Timestamp::UNIX_EPOCH };
        lag.accepted(HistoryKey { kind, user: "u1" }, entry);
        assert!(lag.sample(kind).is_some());
        assert_eq!(lag.settled_after(kind), None);
        lag.shown(kind, Duration::from_secs(3));
        assert_eq!(lag.settled_after(kind), Some(Duration::from_millis(4_500)));
        assert_eq!(lag.settled_after(HistoryKind::Views), None);
        lag.shown(kind, Duration::from_millis(20));
        lag.shown(kind, Duration::from_secs(60));
        assert_eq!(lag.settled_after(kind), Some(MIN_SETTLED_AGE));
        lag.hidden(kind, Duration::from_secs(2));
        assert_eq!(lag.settled_after(kind), Some(Duration::from_secs(3)));
        let pauses =
            [0, 1, 2, 3].map(|age| lag.pause_before_look(kind, Duration::from_secs(age)).as_secs());
        assert_eq!(pauses, [2, 1, 1, 0]);
        tokio::time::advance(MEASUREMENT_TTL).await;
        assert_eq!(lag.settled_after(kind), None);
        lag.is_useless(kind);
        assert_eq!(lag.settled_after(kind), Some(Duration::ZERO));
    }
}
