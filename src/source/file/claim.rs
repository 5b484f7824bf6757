//! How far a file's records may have been sent, as the next process must know it.
//!
//! A claim stands beside the checkpoint: "records before this position may have been sent, and this
//! is their time".
//!
//! # Invariants
//!
//! A record leaves only while a saved claim covers it, so what a dead process may have sent lies
//! between its checkpoint and its last claim.
//!
//! Claims carry a time because User.com knows an event again by its time: an event without a time of
//! its own has that of its claim, each time it is read.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::source::DownstreamBuffer;

/// How long a claim covers what is written to the file later: no time differs more from the true one.
const MAX_CLAIM_AGE: Duration = Duration::from_secs(1);
/// A claim that is used up sooner than this is followed by a longer one.
const MIN_CLAIM_AGE: Duration = Duration::from_millis(200);
/// The fewest and the most bytes a claim reaches ahead.
const MIN_CLAIM_BYTES: u64 = 16 << 10;
const MAX_CLAIM_BYTES: u64 = 4 << 20;
/// Claims kept of one file; beyond that, neighbours are joined.
const MAX_CLAIMS: usize = 256;

/// One claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClaimedRange {
    /// Records that end here or before are claimed.
    pub(super) end: u64,
    /// Milliseconds of the epoch.
    pub(super) time: i64,
}

/// The claims of one content.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    buffer: DownstreamBuffer,
    /// What an earlier process claimed.
    claimed_before: u64,
    granted: Vec<ClaimedRange>,
    /// To be saved before more is sent.
    requested: Option<ClaimedRange>,
    /// Behind the last record that was sent.
    sent_to: u64,
    reach: u64,
    made: Option<Instant>,
}

impl Claims {
    /// `left` are those of an earlier process, `start` is where reading begins.
    pub(super) fn new(buffer: DownstreamBuffer, left: Vec<ClaimedRange>, start: u64) -> Self {
        let claimed_before = left.last().map_or(0, |claim| claim.end);
        Self {
            buffer,
            claimed_before,
            granted: left,
            requested: None,
            sent_to: start,
            reach: MIN_CLAIM_BYTES,
            made: None,
        }
    }

    /// Whether a record that ends at `end` may leave. If not, `want` a claim and save it.
    pub(super) fn covers(&self, end: u64) -> bool {
        if self.buffer == DownstreamBuffer::Durable || end <= self.claimed_before {
            return true;
        }
        let fresh = self.made.is_some_and(|made| made.elapsed() < MAX_CLAIM_AGE);
        fresh && self.granted.last().is_some_and(|claim| end <= claim.end)
    }

    /// Wants a claim that covers `end`; `available` is where the file ends by now.
    pub(super) fn request(&mut self, end: u64, available: u64) {
        let age = self.made.map(|made| made.elapsed());
        self.reach = match age {
            Some(age) if age < MIN_CLAIM_AGE => (self.reach * 2).min(MAX_CLAIM_BYTES),
            Some(age) if age > MAX_CLAIM_AGE => (self.reach / 2).max(MIN_CLAIM_BYTES),
            _ => self.reach,
        };
        // Beyond what is there only where much is written: what comes later has a later time.
        let beyond = match age {
            Some(age) if age < MAX_CLAIM_AGE => available.max(end).saturating_add(MIN_CLAIM_BYTES),
            _ => available.max(end),
        };
        let end = end.saturating_add(self.reach).min(beyond);
        self.requested = Some(ClaimedRange { end, time: crate::clock::now().as_millisecond() });
    }

    pub(super) fn is_requested(&self) -> bool {
        self.requested.is_some()
    }

    /// What was wanted is saved.
    pub(super) fn grant(&mut self) {
        if let Some(claim) = self.requested.take() {
            self.trim();
            self.granted.push(claim);
            self.made = Some(Instant::now());
        }
    }

    /// A record that starts and ends here leaves: whether it may have been sent before, and the
    /// time of its claim.
    pub(super) fn record_sent(&mut self, start: u64, end: u64) -> (bool, Option<Timestamp>) {
        self.sent_to = self.sent_to.max(end);
        let first = self.granted.partition_point(|claim| claim.end < end);
        let time = self.granted.get(first).map(|claim| claim.time);
        (start < self.claimed_before, time.and_then(|time| Timestamp::from_millisecond(time).ok()))
    }

    /// The claims to be saved beside this checkpoint.
    pub(super) fn rows(&mut self, position: u64) -> Vec<ClaimedRange> {
        if self.made.is_none_or(|made| made.elapsed() > MAX_CLAIM_AGE) {
            self.trim();
        }
        self.granted.retain(|claim| claim.end > position);
        if self.granted.len() > MAX_CLAIMS {
            let mut odd = false;
            self.granted.retain(|_| {
                odd = !odd;
                !odd
            });
        }
        let mut rows = self.granted.clone();
        if let Some(requested) = self.requested {
            if let Some(last) = rows.last_mut() {
                last.end = self.trimmed(last.end);
            }
            rows.retain(|claim| claim.end > position);
            rows.push(requested);
        }
        rows
    }

    /// Claims no more than what was sent, or was left by an earlier process.
    fn trim(&mut self) {
        let Some(last) = self.granted.last().copied() else {
            return;
        };
        let end = self.trimmed(last.end);
        let before = self.granted.len().checked_sub(2).map_or(0, |n| self.granted[n].end);
        match end > before {
            true => {
                *self.granted.last_mut().expect("it was looked at above") =
                    ClaimedRange { end, ..last }
            }
            false => {
                self.granted.pop();
            }
        }
    }

    fn trimmed(&self, end: u64) -> u64 {
        end.min(self.sent_to.max(self.claimed_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims::new(DownstreamBuffer::Memory, Vec::new(), 0)
    }

    fn ends(rows: &[ClaimedRange]) -> Vec<u64> {
        rows.iter().map(|claim| claim.end).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn record_is_sent_only_under_a_saved_claim() {
        // Nothing is covered before the claim is saved; what it covers has its time, and what was
        // written to the file after a second needs a new one.
        let mut claims = claims();
        assert!(!claims.covers(10));
        claims.request(10, 100);
        assert!(!claims.covers(10));
        assert_eq!(ends(&claims.rows(0)), [100]);
        claims.grant();
        assert!(claims.covers(100) && !claims.covers(101));
        let (sent_before, time) = claims.record_sent(0, 10);
        assert!(!sent_before && time.is_some());
        tokio::time::sleep(MAX_CLAIM_AGE * 2).await;
        assert!(!claims.covers(20));
        claims.request(20, 100);
        assert_eq!(ends(&claims.rows(0)), [10, 100], "what was not sent is claimed anew");
    }

    #[tokio::test(start_paused = true)]
    async fn records_claimed_by_earlier_process_are_maybe_sent_at_claim_time() {
        // A later process takes every record before the last claim for one that may have been sent,
        // at the time of the claim that covers it; records behind it are new.
        let left =
            vec![ClaimedRange { end: 100, time: 1_000 }, ClaimedRange { end: 200, time: 2_000 }];
        let mut claims = Claims::new(DownstreamBuffer::Memory, left.clone(), 50);
        assert!(claims.covers(200) && !claims.covers(201));
        assert_eq!(claims.record_sent(50, 100), (true, Timestamp::from_millisecond(1_000).ok()));
        assert_eq!(claims.record_sent(100, 150), (true, Timestamp::from_millisecond(2_000).ok()));
        assert_eq!(claims.rows(100), left[1..]);
        assert_eq!(claims.rows(200), []);
        let mut durable = Claims::new(DownstreamBuffer::Durable, left, 50);
        assert!(durable.covers(1_000));
        assert_eq!(durable.record_sent(200, 300), (false, None));
        assert!(durable.record_sent(150, 200).0);
    }

    #[tokio::test(start_paused = true)]
    async fn claims_grow_with_the_write_rate() {
        // A claim that is used up at once is followed by longer ones, up to a limit.
        let mut claims = claims();
        let mut end = 0;
        for _ in 0..20 {
            claims.request(end + 1, u64::MAX);
            claims.grant();
            end = claims.rows(end).last().unwrap().end;
            assert!(claims.covers(end));
        }
        claims.request(end + 1, u64::MAX);
        assert_eq!(claims.rows(end).last().unwrap().end, end + 1 + MAX_CLAIM_BYTES);
    }
}
