//! Decides whether an event that was answered with 429 is looked up before it is sent again.
//!
//! Usually a server counts a request before it carries it out, so a look-up finds nothing and costs
//! a request of the exhausted quota. Some proxies count afterwards. The account shows which: the
//! first refusals are all looked up, later ones now and then, and all again once a refused event
//! was found.

use parking_lot::Mutex;

/// Look-ups without a find after which most refusals are not looked up.
const LOOKUPS_FOR_TRUST: u32 = 100;
/// Afterwards one of this many refusals is looked up.
const SAMPLE_EVERY: u32 = 10;

/// The results of look-ups so far.
#[derive(Debug, Default)]
pub(super) struct ThrottledLookups(Mutex<LookupRecord>);

#[derive(Debug, Default)]
struct LookupRecord {
    /// Look-ups that found nothing.
    in_vain: u32,
    /// Refusals without a look-up since the last one.
    believed: u32,
    /// A refused event was found.
    taken: bool,
}

impl ThrottledLookups {
    /// Returns whether to look up a refused event.
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

    /// Records the look-up of a refused event.
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
        // Guarantees that the first hundred refusals are looked up, then one in ten, and all of
        // them after the first one that had been carried out.
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
