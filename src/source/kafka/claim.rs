//! Send-ahead claims of one partition: which records this process may forward, and which of them
//! another process may already have sent.
//!
//! A claim is metadata of the committed offset: "records before this offset may have been sent".
//!
//! # Invariants
//!
//! A record is forwarded only while the brokers store a claim that covers it. So the next owner of
//! the partition knows all records that may have been sent: those between the committed offset and
//! the claim.

/// The prefix of a claim's text; a number follows.
const CLAIM_PREFIX: &str = "usercom-sink: may have sent before ";

/// The fewest offsets that one claim covers ahead.
const MIN_CLAIM: u64 = 32;

/// How many offsets a claim covers after the record that it is made for, given the limit of records
/// in flight and the number of partitions.
pub(super) fn reach(max_in_flight: usize, partitions: usize) -> u64 {
    let share = max_in_flight / partitions.max(1);
    u64::try_from(share).unwrap_or(u64::MAX).clamp(MIN_CLAIM, u64::from(u32::MAX))
}

/// How many records after a committed offset may have been sent by a process whose claim cannot be
/// read: those in flight, and as many that were settled, or claimed, since the commit.
pub(super) fn awaiting_lookup(max_in_flight: usize) -> u64 {
    let in_flight = u64::try_from(max_in_flight).unwrap_or(u64::MAX);
    in_flight.saturating_mul(2).saturating_add(MIN_CLAIM)
}

/// What the previous owner of a partition committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PreviousOwnerState {
    committed: Option<u64>,
    /// Records before this offset may have been sent.
    maybe_sent_to: u64,
}

impl PreviousOwnerState {
    /// A committed offset and its metadata. Metadata that is not ours comes from an operator,
    /// another program, or brokers that do not store metadata: then `awaiting_lookup` records after
    /// the offset may already have been sent.
    pub(super) fn of(committed: u64, text: &str, awaiting_lookup: u64) -> Self {
        let claim = text.strip_prefix(CLAIM_PREFIX).and_then(|number| number.parse().ok());
        let maybe_sent_to = claim.unwrap_or_else(|| committed.saturating_add(awaiting_lookup));
        Self { committed: Some(committed), maybe_sent_to }
    }
}

/// The claim of one partition, from the first record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SendAheadClaim {
    /// Records before this offset may have been sent by an earlier owner.
    maybe_sent_to: u64,
    /// The offset after the last forwarded record.
    sent_to: u64,
    /// The claim that is to be committed.
    wanted: u64,
    /// The claim that the brokers store.
    granted: u64,
}

impl SendAheadClaim {
    /// The state before any claim, for a partition whose first record has this offset.
    pub(super) fn new(first: u64, previous: PreviousOwnerState) -> Self {
        // A first record before the committed offset means that the partition was created again or
        // truncated: the previous owner's claim is about other records.
        let valid = previous.committed.is_none_or(|committed| committed <= first);
        let maybe_sent_to = if valid { previous.maybe_sent_to } else { 0 };
        Self { maybe_sent_to, sent_to: first, wanted: 0, granted: 0 }
    }

    /// Requests to forward a record. Returns `true` where the next claim must be committed, which
    /// is half a claim before the present one is used up.
    pub(super) fn request(&mut self, offset: u64, reach: u64) -> bool {
        let more = offset.saturating_add(reach / 2) >= self.wanted;
        if more {
            self.wanted = offset.saturating_add(reach).max(self.maybe_sent_to);
        }
        more
    }

    /// Whether a record may be forwarded.
    pub(super) fn covers(&self, offset: u64) -> bool {
        offset < self.granted
    }

    /// A record is forwarded. Returns whether another process may already have sent it.
    pub(super) fn admit(&mut self, offset: u64) -> bool {
        self.sent_to = self.sent_to.max(offset.saturating_add(1));
        offset < self.maybe_sent_to
    }

    /// Forwarded records are read again.
    pub(super) fn rewind(&mut self) {
        self.maybe_sent_to = self.maybe_sent_to.max(self.sent_to);
    }

    /// Nothing more is forwarded: the claim is reduced to what may have been sent.
    pub(super) fn release(&mut self) {
        self.wanted = self.sent_to.max(self.maybe_sent_to);
        self.granted = self.granted.min(self.wanted);
    }

    /// The claim that is to be committed.
    pub(super) fn wanted(&self) -> u64 {
        self.wanted
    }

    /// The brokers store this claim now.
    pub(super) fn grant(&mut self, claim: u64) {
        self.granted = claim;
    }

    /// Whether a record waits for a claim, or will soon.
    pub(super) fn is_awaiting_grant(&self) -> bool {
        self.wanted > self.granted
    }
}

/// A position and a claim, as they are committed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommitState {
    /// Everything before this offset is settled.
    pub(super) position: u64,
    /// Nothing from this offset on was forwarded.
    pub(super) claim: u64,
}

impl CommitState {
    /// The metadata of the position.
    pub(super) fn text(self) -> String {
        format!("{CLAIM_PREFIX}{}", self.claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_text_round_trips() {
        // The next process reads what this one wrote as metadata. After any other metadata, as many
        // records as may have been in flight count as possibly already sent.
        let text = CommitState { position: 7, claim: 4711 }.text();
        assert_eq!(
            PreviousOwnerState::of(7, &text, 100),
            PreviousOwnerState { committed: Some(7), maybe_sent_to: 4711 }
        );
        for foreign in ["", "4711", "usercom-sink: may have sent before", "host-17", &text[1..]] {
            let previous = PreviousOwnerState::of(7, foreign, 100);
            assert_eq!(
                previous,
                PreviousOwnerState { committed: Some(7), maybe_sent_to: 107 },
                "{foreign}"
            );
        }
        assert_eq!(PreviousOwnerState::of(7, "x", u64::MAX).maybe_sent_to, u64::MAX);
    }

    #[test]
    fn next_claim_is_requested_before_the_last_is_used_up() {
        // Only the first claim makes records wait: from the middle of each claim, the next is
        // requested.
        let mut claim = SendAheadClaim::new(50, PreviousOwnerState::default());
        assert!(claim.request(50, 100));
        assert!(!claim.covers(50) && claim.is_awaiting_grant());
        claim.grant(claim.wanted());
        for offset in 50..100 {
            assert!(!claim.request(offset, 100));
            assert!(claim.covers(offset) && !claim.is_awaiting_grant() && !claim.admit(offset));
        }
        assert!(claim.request(100, 100));
        assert!(claim.covers(100) && claim.is_awaiting_grant());
        assert_eq!(claim.wanted(), 200);
    }

    #[test]
    fn release_reduces_claim_to_forwarded_records() {
        // What was claimed but not forwarded does not count as possibly sent; what an earlier owner
        // may have sent and is not read yet still does.
        let mut claim = SendAheadClaim::new(50, PreviousOwnerState::of(50, "", 10));
        assert!(claim.request(50, 100));
        claim.grant(claim.wanted());
        assert!(claim.admit(50));
        claim.release();
        assert_eq!((claim.wanted(), claim.covers(60)), (60, false));
        assert!(!claim.admit(60));
        claim.release();
        assert_eq!(claim.wanted(), 61);
    }

    #[test]
    fn partition_that_begins_before_its_commit_ignores_the_claim() {
        // In a topic that was created again, the claim of the old topic is ignored.
        let previous = PreviousOwnerState::of(900, "", 100);
        assert!(!SendAheadClaim::new(0, previous).admit(0));
        assert!(SendAheadClaim::new(900, previous).admit(900));
        assert!(SendAheadClaim::new(950, previous).admit(950), "records between were removed");
    }

    #[test]
    fn member_with_many_partitions_claims_less_of_each() {
        // All claims together cover as many offsets as may be in flight; each covers a share.
        assert_eq!(reach(1000, 1), 1000);
        assert_eq!(reach(1000, 4), 250);
        assert_eq!((reach(1, 1), reach(1000, 500), reach(1000, 0)), (32, 32, 1000));
    }
}
