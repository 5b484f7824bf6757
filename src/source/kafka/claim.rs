//! How far a partition is claimed: which records this process may hand on, and which of them
//! somebody may have handed on before.
//!
//! A claim is a text beside the committed offset: "records before this offset may have been sent".
//! Not here: the client, and what is settled. One invariant: a record is handed on only while the
//! brokers have a claim that covers it. So whoever reads the partition next knows all records that
//! may have been sent: those between the committed offset and the claim.

/// What a claim's text begins with. A number follows.
const TEXT: &str = "usercom-sink: may have sent before ";

/// The fewest offsets one claim reaches ahead.
const LEAST: u64 = 32;

/// How far a claim reaches beyond the record it is made for, where so many records may be in flight
/// in so many partitions.
pub(super) fn reach(max_in_flight: usize, partitions: usize) -> u64 {
    let share = max_in_flight / partitions.max(1);
    u64::try_from(share).unwrap_or(u64::MAX).clamp(LEAST, u64::from(u32::MAX))
}

/// How many records behind a committed offset may have been sent by somebody whose claim cannot be
/// read: those in flight, and as many that were settled, or claimed, since.
pub(super) fn unknown(max_in_flight: usize) -> u64 {
    let in_flight = u64::try_from(max_in_flight).unwrap_or(u64::MAX);
    in_flight.saturating_mul(2).saturating_add(LEAST)
}

/// What the last owner of a partition left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bequest {
    committed: Option<u64>,
    /// Records before this offset may have been sent.
    doubt: u64,
}

impl Bequest {
    /// A committed offset and the text beside it. Where the text is not ours, the offset is that of
    /// an operator, of another program, or of brokers that keep no texts: then `unknown` records
    /// behind it are in doubt.
    pub(super) fn of(committed: u64, text: &str, unknown: u64) -> Self {
        let claim = text.strip_prefix(TEXT).and_then(|number| number.parse().ok());
        let doubt = claim.unwrap_or_else(|| committed.saturating_add(unknown));
        Self { committed: Some(committed), doubt }
    }
}

/// The claim of one partition, from the first record that was read of it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// Records before this offset may have been handed on before.
    doubt: u64,
    /// Behind the last record that was handed on.
    handed: u64,
    /// The claim that is to be made.
    wanted: u64,
    /// The claim that the brokers have.
    granted: u64,
}

impl Claim {
    /// Nothing is claimed yet of a partition whose first record is this one.
    pub(super) fn new(first: u64, bequest: Bequest) -> Self {
        // Before the committed offset begins a partition that was made again, or was cut: what was
        // left to us speaks of other records.
        let valid = bequest.committed.is_none_or(|committed| committed <= first);
        let doubt = if valid { bequest.doubt } else { 0 };
        Self { doubt, handed: first, wanted: 0, granted: 0 }
    }

    /// Wants to hand on a record. Half of a claim before it is used up, the next is wanted: then
    /// `true`.
    pub(super) fn reach_for(&mut self, offset: u64, reach: u64) -> bool {
        let more = offset.saturating_add(reach / 2) >= self.wanted;
        if more {
            self.wanted = offset.saturating_add(reach).max(self.doubt);
        }
        more
    }

    /// Whether a record may be handed on.
    pub(super) fn covers(&self, offset: u64) -> bool {
        offset < self.granted
    }

    /// A record is handed on. Whether somebody may have done so before.
    pub(super) fn hand_on(&mut self, offset: u64) -> bool {
        self.handed = self.handed.max(offset.saturating_add(1));
        offset < self.doubt
    }

    /// What was handed on is read again.
    pub(super) fn rewind(&mut self) {
        self.doubt = self.doubt.max(self.handed);
    }

    /// Nothing more is handed on: no more is claimed than what may have been sent.
    pub(super) fn release(&mut self) {
        self.wanted = self.handed.max(self.doubt);
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
    pub(super) fn is_short(&self) -> bool {
        self.wanted > self.granted
    }
}

/// A position and a claim, as they are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stand {
    /// Everything before this offset is settled.
    pub(super) position: u64,
    /// Nothing from this offset on was handed on.
    pub(super) claim: u64,
}

impl Stand {
    /// The text beside the position.
    pub(super) fn text(self) -> String {
        format!("{TEXT}{}", self.claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_read_as_it_was_written() {
        // What one process writes beside an offset, the next one reads; any other text leaves the
        // records behind the offset in doubt, as many as may have been in flight.
        let text = Stand { position: 7, claim: 4711 }.text();
        assert_eq!(Bequest::of(7, &text, 100), Bequest { committed: Some(7), doubt: 4711 });
        for foreign in ["", "4711", "usercom-sink: may have sent before", "host-17", &text[1..]] {
            let bequest = Bequest::of(7, foreign, 100);
            assert_eq!(bequest, Bequest { committed: Some(7), doubt: 107 }, "{foreign}");
        }
        assert_eq!(Bequest::of(7, "x", u64::MAX).doubt, u64::MAX);
    }

    #[test]
    fn the_next_claim_is_wanted_before_the_last_is_used_up() {
        // Records wait for the first claim only: from the middle of each, the next is asked for.
        let mut claim = Claim::new(50, Bequest::default());
        assert!(claim.reach_for(50, 100));
        assert!(!claim.covers(50) && claim.is_short());
        claim.grant(claim.wanted());
        for offset in 50..100 {
            assert!(!claim.reach_for(offset, 100));
            assert!(claim.covers(offset) && !claim.is_short() && !claim.hand_on(offset));
        }
        assert!(claim.reach_for(100, 100));
        assert!(claim.covers(100) && claim.is_short());
        assert_eq!(claim.wanted(), 200);
    }

    #[test]
    fn a_release_claims_what_was_handed_on() {
        // What was claimed and not handed on is nobody's doubt; what was left in doubt and not yet
        // read remains so.
        let mut claim = Claim::new(50, Bequest::of(50, "", 10));
        assert!(claim.reach_for(50, 100));
        claim.grant(claim.wanted());
        assert!(claim.hand_on(50));
        claim.release();
        assert_eq!((claim.wanted(), claim.covers(60)), (60, false));
        assert!(!claim.hand_on(60));
        claim.release();
        assert_eq!(claim.wanted(), 61);
    }

    #[test]
    fn a_partition_that_begins_before_its_commit_is_another() {
        // In a topic that was made again, what was left of the old one puts nothing in doubt.
        let bequest = Bequest::of(900, "", 100);
        assert!(!Claim::new(0, bequest).hand_on(0));
        assert!(Claim::new(900, bequest).hand_on(900));
        assert!(Claim::new(950, bequest).hand_on(950), "records between were removed");
    }

    #[test]
    fn members_with_many_partitions_claim_less_of_each() {
        // All claims together reach as far ahead as may be in flight, but each a little.
        assert_eq!(reach(1000, 1), 1000);
        assert_eq!(reach(1000, 4), 250);
        assert_eq!((reach(1, 1), reach(1000, 500), reach(1000, 0)), (32, 32, 1000));
    }
}
