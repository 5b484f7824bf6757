//! How far a partition is claimed: which records this process may hand on, and which of them
//! another process may have sent before.
//!
//! A claim is a text beside the committed offset: "records before this offset may have been sent".
//! Not here: the client, and what is settled. One invariant: a record is handed on only while the
//! brokers have a claim that covers it. So the next owner of the partition knows all records that
//! may have been sent: those between the committed offset and the claim.

/// What a claim's text begins with. A number follows.
const CLAIM_PREFIX: &str = "usercom-sink: may have sent before ";

/// The fewest offsets one claim reaches ahead.
const MIN_CLAIM: u64 = 32;

/// How far a claim reaches beyond the record it is made for, where so many records may be in flight
/// in so many partitions.
pub(super) fn reach(max_in_flight: usize, partitions: usize) -> u64 {
    let share = max_in_flight / partitions.max(1);
    u64::try_from(share).unwrap_or(u64::MAX).clamp(MIN_CLAIM, u64::from(u32::MAX))
}

/// How many records behind a committed offset may have been sent by a process whose claim cannot be
/// read: those in flight, and as many that were settled, or claimed, since.
pub(super) fn awaiting_lookup(max_in_flight: usize) -> u64 {
    let in_flight = u64::try_from(max_in_flight).unwrap_or(u64::MAX);
    in_flight.saturating_mul(2).saturating_add(MIN_CLAIM)
}

/// What the last owner of a partition left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PreviousOwnerState {
    committed: Option<u64>,
    /// Records before this offset may have been sent.
    maybe_sent_to: u64,
}

impl PreviousOwnerState {
    /// A committed offset and the text beside it. Where the text is not ours, the offset is that of
    /// an operator, of another program, or of brokers that keep no texts: then `unknown` records
    /// behind it are in doubt.
    pub(super) fn of(committed: u64, text: &str, awaiting_lookup: u64) -> Self {
        let claim = text.strip_prefix(CLAIM_PREFIX).and_then(|number| number.parse().ok());
        let maybe_sent_to = claim.unwrap_or_else(|| committed.saturating_add(awaiting_lookup));
        Self { committed: Some(committed), maybe_sent_to }
    }
}

/// The claim of one partition, from the first record that was read of it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SendAheadClaim {
    /// Records before this offset may have been handed on before.
    maybe_sent_to: u64,
    /// Behind the last record that was handed on.
    sent_to: u64,
    /// The claim that is to be made.
    wanted: u64,
    /// The claim that the brokers have.
    granted: u64,
}

impl SendAheadClaim {
    /// Nothing is claimed yet of a partition whose first record is this one.
    pub(super) fn new(first: u64, previous: PreviousOwnerState) -> Self {
        // Before the committed offset begins a partition that was made again, or was cut: what was
        // left to us speaks of other records.
        let valid = previous.committed.is_none_or(|committed| committed <= first);
        let maybe_sent_to = if valid { previous.maybe_sent_to } else { 0 };
        Self { maybe_sent_to, sent_to: first, wanted: 0, granted: 0 }
    }

    /// Wants to hand on a record. Half of a claim before it is used up, the next is wanted: then
    /// `true`.
    pub(super) fn request(&mut self, offset: u64, reach: u64) -> bool {
        let more = offset.saturating_add(reach / 2) >= self.wanted;
        if more {
            self.wanted = offset.saturating_add(reach).max(self.maybe_sent_to);
        }
        more
    }

    /// Whether a record may be handed on.
    pub(super) fn covers(&self, offset: u64) -> bool {
        offset < self.granted
    }

    /// A record is handed on. Whether another process may have done so before.
    pub(super) fn admit(&mut self, offset: u64) -> bool {
        self.sent_to = self.sent_to.max(offset.saturating_add(1));
        offset < self.maybe_sent_to
    }

    /// What was handed on is read again.
    pub(super) fn rewind(&mut self) {
        self.maybe_sent_to = self.maybe_sent_to.max(self.sent_to);
    }

    /// Nothing more is handed on: no more is claimed than what may have been sent.
    pub(super) fn release(&mut self) {
        self.wanted = self.sent_to.max(self.maybe_sent_to);
        self.granted = self.granted.min(self.wanted);
    }

    /// The claim that is to be made.
    pub(super) fn wanted(&self) -> u64 {
        self.wanted
    }

    /// The brokers have this claim.
    pub(super) fn grant(&mut self, claim: u64) {
        self.granted = claim;
    }

    /// Whether a record waits for a claim, or will soon.
    pub(super) fn is_awaiting_grant(&self) -> bool {
        self.wanted > self.granted
    }
}

/// A position and a claim, as they are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommitState {
    /// Everything before this offset is settled.
    pub(super) position: u64,
    /// Nothing from this offset on was handed on.
    pub(super) claim: u64,
}

impl CommitState {
    /// The text beside the position.
    pub(super) fn text(self) -> String {
        format!("{CLAIM_PREFIX}{}", self.claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_read_as_it_was_written() {
        // What one process writes beside an offset, the next one reads; any other text leaves the
        // records behind the offset in doubt, as many as may have been in flight.
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
    fn the_next_claim_is_wanted_before_the_last_is_used_up() {
        // Records wait for the first claim only: from the middle of each, the next is asked for.
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
    fn a_release_claims_what_was_handed_on() {
        // What was claimed and not handed on is not in doubt; what was left in doubt and not yet
        // read remains so.
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
    fn a_partition_that_begins_before_its_commit_is_another() {
        // In a topic that was made again, what was left of the old one puts nothing in doubt.
        let previous = PreviousOwnerState::of(900, "", 100);
        assert!(!SendAheadClaim::new(0, previous).admit(0));
        assert!(SendAheadClaim::new(900, previous).admit(900));
        assert!(SendAheadClaim::new(950, previous).admit(950), "records between were removed");
    }

    #[test]
    fn members_with_many_partitions_claim_less_of_each() {
        // All claims together reach as far ahead as may be in flight, but each a little.
        assert_eq!(reach(1000, 1), 1000);
        assert_eq!(reach(1000, 4), 250);
        assert_eq!((reach(1, 1), reach(1000, 500), reach(1000, 0)), (32, 32, 1000));
    }
}
