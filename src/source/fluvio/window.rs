//! How much is read before everything read has to be settled, so that the offset can be kept.
//!
//! Not here: the stream, verdicts. One invariant: with something read and not kept, reading goes on
//! only where the next record is known to be there already; to wait for one that is not would hold
//! up the keeping of those that are settled.

use std::time::Duration;

use tokio::time::Instant;

/// What has been read since the offset was last kept.
#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    interval: Duration,
    read: usize,
    /// When its first record was read, or when it was last allowed to go on.
    since: Option<Instant>,
    /// Whether it is closed before its time.
    closed: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Read, however long it takes: nothing waits to be kept.
    Wait,
    /// Read what is known to be there.
    Read,
    /// Have everything settled, then keep the offset.
    Settle,
}

impl Window {
    /// A window of at most `limit` records, closed after `interval`.
    pub(super) fn new(limit: usize, interval: Duration) -> Self {
        Self { limit: limit.max(1), interval, read: 0, since: None, closed: false }
    }

    /// What to do, when `position` is read next and `end` is known to be behind the last record.
    pub(super) fn next(&self, position: i64, end: i64, now: Instant) -> Next {
        let Some(since) = self.since else {
            return Next::Wait;
        };
        let open = !self.closed
            && !self.is_full()
            && position < end
            && now.duration_since(since) < self.interval;
        if open { Next::Read } else { Next::Settle }
    }

    /// A record was read.
    pub(super) fn read(&mut self, now: Instant) {
        self.read += 1;
        self.since.get_or_insert(now);
    }

    /// The offset is kept: the next record begins anew.
    pub(super) fn kept(&mut self) {
        *self = Self::new(self.limit, self.interval);
    }

    /// Some record takes long to settle: for another interval more may be read.
    pub(super) fn go_on(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// Nothing more is read before the offset is kept.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether nothing waits to be kept.
    pub(super) fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// Whether nothing more may be read before the offset is kept.
    pub(super) fn is_full(&self) -> bool {
        self.read >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn under_low_traffic_every_record_is_kept_alone() {
        // At the end of what there is, nothing more is waited for before the offset is kept.
        let now = Instant::now();
        let mut window = Window::new(100, SECOND);
        assert_eq!(window.next(5, 5, now), Next::Wait);
        window.read(now);
        assert_eq!(window.next(6, 6, now), Next::Settle);
        window.kept();
        assert_eq!(window.next(6, 6, now), Next::Wait);
    }

    #[test]
    fn a_backlog_is_read_in_windows() {
        // As long as more is there, reading goes on to the limit of records or of time.
        let now = Instant::now();
        let mut window = Window::new(2, SECOND);
        window.read(now);
        assert_eq!(window.next(1, 9, now), Next::Read);
        assert_eq!(window.next(1, 9, now + SECOND), Next::Settle);
        window.go_on(now + SECOND);
        assert_eq!(window.next(1, 9, now + SECOND), Next::Read);
        window.read(now + SECOND);
        assert_eq!(window.next(2, 9, now + SECOND), Next::Settle, "it is full");
        assert!(window.is_full());
    }

    #[test]
    fn a_closed_window_is_not_read_on() {
        // After a new connection the one record that was read again is only there to be kept.
        let now = Instant::now();
        let mut window = Window::new(100, SECOND);
        window.read(now);
        window.close();
        assert_eq!(window.next(1, 9, now), Next::Settle);
        window.kept();
        window.read(now);
        assert_eq!(window.next(1, 9, now), Next::Read);
    }
}
