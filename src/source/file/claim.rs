//! Records how far a file's records may have been sent, for the next process.
//!
//! A claim is stored with the checkpoint: "records before this position may have been sent, and
//! this is their time". It has a time because User.com identifies an event by its time: an event
//! without a time gets the time of its claim, whenever it is read.
//!
//! # Invariants
//!
//! A record is sent only while a saved claim covers it, so what a killed process may have sent is
//! between its checkpoint and its last claim.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::source::DownstreamBuffer;

/// How long a claim covers lines that are written later: a claimed time differs from the true one
/// by at most this.
const MAX_CLAIM_AGE: Duration = Duration::from_secs(1);
/// A claim that is used up sooner than this is followed by a longer one.
const MIN_CLAIM_AGE: Duration = Duration::from_millis(200);
/// The fewest and the most bytes that a claim covers ahead.
const MIN_CLAIM_BYTES: u64 = 16 << 10;
const MAX_CLAIM_BYTES: u64 = 4 << 20;
/// The most claims that are kept of one file; beyond it, neighbours are merged.
const MAX_CLAIMS: usize = 256;

/// One claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClaimedRange {
    /// Records that end at or before this position are claimed.
    pub(super) end: u64,
    /// Milliseconds since 1970.
    pub(super) time: i64,
}

/// The claims of one content.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    buffer: DownstreamBuffer,
    /// The end of what an earlier process claimed.
    claimed_before: u64,
    granted: Vec<ClaimedRange>,
    /// To be saved before more is sent.
    requested: Option<ClaimedRange>,
    /// The end of the last record that was sent.
    sent_to: u64,
    reach: u64,
    made: Option<Instant>,
}

impl Claims {
    /// `left` are the claims of an earlier process, `start` is where reading begins.
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

    /// Whether a record that ends at `end` may be sent. If not, `request` a claim and save it.
    pub(super) fn covers(&self, end: u64) -> bool {
        if self.buffer == DownstreamBuffer::Durable || end <= self.claimed_before {
            return true;
        }
        let fresh = self.made.is_some_and(|made| made.elapsed() < MAX_CLAIM_AGE);
        fresh && self.granted.last().is_some_and(|claim| end <= claim.end)
    }

    /// Requests a claim that covers `end`; `available` is the present end of the file.
    pub(super) fn request(&mut self, end: u64, available: u64) {
        let age = self.made.map(|made| made.elapsed());
        self.reach = match age {
            Some(age) if age < MIN_CLAIM_AGE => (self.reach * 2).min(MAX_CLAIM_BYTES),
            Some(age) if age > MAX_CLAIM_AGE => (self.reach / 2).max(MIN_CLAIM_BYTES),
            _ => self.reach,
        };
        // Ahead of the end of the file only where much is written, because later lines have a later
        // time.
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

    /// The requested claim is saved.
    pub(super) fn grant(&mut self) {
        if let Some(claim) = self.requested.take() {
            self.trim();
            self.granted.push(claim);
            self.made = Some(Instant::now());
        }
    }

    /// A record that starts and ends here is sent. Returns whether it may have been sent before,
    /// and the time of its claim.
    pub(super) fn record_sent(&mut self, start: u64, end: u64) -> (bool, Option<Timestamp>) {
        self.sent_to = self.sent_to.max(end);
        let first = self.granted.partition_point(|claim| claim.end < end);
        let time = self.granted.get(first).map(|claim| claim.time);
        (start < self.claimed_before, time.and_then(|time| Timestamp::from_millisecond(time).ok()))
    }

    /// The claims to save with this checkpoint.
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

    /// Reduces the last claim to what was sent, or was claimed by an earlier process.
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
        // Nothing is covered before the claim is saved; what it covers has its time, and lines
        // written more than a second later need a new claim.
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
        // A later process treats every record before the last claim as possibly sent, at the time
        // of the claim that covers it; records after it are new.
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
