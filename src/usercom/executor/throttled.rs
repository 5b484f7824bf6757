//! Whether an event that was answered 429 is looked up before it is sent again.
//!
//! As a rule a server counts a request before it carries it out, so a look-up finds nothing and
//! costs a request of the quota that is used up. Some proxies count afterwards. The account tells:
//! the first refusals are all looked up, later ones now and then, and all again once one was found
//! that had been taken.

use parking_lot::Mutex;

/// Look-ups without a find before most refusals are believed.
const LOOKUPS_FOR_TRUST: u32 = 100;
/// Afterwards each of so many refusals is looked up.
const SAMPLE_EVERY: u32 = 10;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct ThrottledLookups(Mutex<LookupRecord>);

#[derive(Debug, Default)]
struct LookupRecord {
    /// Look-ups that found nothing.
    in_vain: u32,
    /// Refusals that were believed since the last look-up.
    believed: u32,
    /// A refused event was found.
    taken: bool,
}

impl ThrottledLookups {
    /// An event was refused: whether to look it up.
    pub(super) fn look_due(&self) -> bool {
        let mut record = self.0.lock();
        if record.taken || record.in_vain < LOOKUPS_FOR_TRUST {
            return true;
        }
        record.believed += 1;
        let due = record.believed >= SAMPLE_EVERY;
        if due {
            record.believed = 0;
        }
        due
    }

    /// A refused event was looked up.
    pub(super) fn looked(&self, found: bool) {
        let mut record = self.0.lock();
        if !found {
            record.in_vain = record.in_vain.saturating_add(1);
            return;
        }
        if !std::mem::replace(&mut record.taken, true) {
            tracing::warn!(
                "User.com answers 429 to an event that it has taken: each event that is answered so \
                 is looked up in its user's history before it is sent again, which costs a request. \
                 Nothing need be done"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_believed_until_one_was_taken() {
        // Guarantees that the first hundred refusals are looked up, then one in ten, and all of them
        // from the first one on that had been taken.
        let lookups = ThrottledLookups::default();
        let looks = |refusals: u32, found: bool| {
            (0..refusals)
                .filter(|_| {
                    let due = lookups.look_due();
                    if due {
                        lookups.looked(found);
                    }
                    due
                })
                .count()
        };
        assert_eq!(looks(100, false), 100);
        assert_eq!(looks(1_000, false), 100);
        assert_eq!(looks(10, true), 1);
        assert_eq!(looks(1_000, false), 1_000);
    }
}
