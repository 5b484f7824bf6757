//! Which fields of a user or company User.com confirmed, with which values, and when: eight bytes
//! per field, because there may be a hundred thousand users.
//!
//! It stores no values, only the part of a hash that suffices to tell whether a value is the same.
//!
//! # Invariants
//!
//! A value that was not confirmed counts as confirmed with a probability of at most 2^-44. Two
//! names with the same hash cost a request, never an update.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use smallvec::SmallVec;

use super::profile::limits::std_form;

/// Fields and tags stored per row.
const MAX_FIELDS: usize = 512;

/// Up to this many facts are compared one by one.
const INLINE_CAP: usize = 32;

/// Bits of a fact that identify its value; those above identify its name.
const VALUE_BITS: u32 = 44;

/// Facts in groups of one time each, the newest group first: a head, which holds the time in
/// seconds and the number of facts, then the facts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ConfirmedFieldHashes(Box<[u64]>);

impl ConfirmedFieldHashes {
    /// Whether nothing is confirmed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Records facts as confirmed. Beyond the limit of a row the oldest are removed.
    pub(super) fn note(&mut self, facts: Facts, now: Timestamp) {
        let Facts(mut new) = facts;
        new.truncate(MAX_FIELDS);
        if new.is_empty() {
            return;
        }
        let at = u32::try_from(now.as_second()).unwrap_or_default();
        let names: HashSet<u64> = new.iter().map(|new| name(*new)).collect();
        let mut room = MAX_FIELDS - new.len();
        let mut all = Vec::with_capacity(self.0.len() + new.len() + 1);
        all.push(head(at, new.len()));
        all.extend(&new);
        for (then, facts) in self.groups() {
            let start = all.len();
            all.push(0);
            let old = facts.iter().filter(|old| !names.contains(&name(**old)));
            all.extend(old.take(room));
            let kept = all.len() - start - 1;
            room -= kept;
            match kept {
                0 => all.truncate(start),
                kept => all[start] = head(then, kept),
            }
        }
        self.0 = all.into();
    }

    /// Whether all of these facts were confirmed within `ttl` seconds.
    pub(super) fn holds(&self, facts: &Facts, now: Timestamp, ttl: u64) -> bool {
        if facts.0.len() > MAX_FIELDS {
            return false;
        }
        let fresh = self.groups().filter(|(at, _)| is_fresh((*at).into(), now, ttl));
        if facts.0.len() <= INLINE_CAP {
            let known: SmallVec<[&[u64]; 4]> = fresh.map(|(_, facts)| facts).collect();
            return facts.0.iter().all(|fact| known.iter().any(|group| group.contains(fact)));
        }
        let known: HashSet<u64> = fresh.flat_map(|(_, facts)| facts).copied().collect();
        facts.0.iter().all(|fact| known.contains(fact))
    }

    fn groups(&self) -> impl Iterator<Item = (u32, &[u64])> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (at, count) = parts(*rest.first()?);
            // Stored rows were checked when they were loaded, and those built here are complete.
            let (facts, more) = rest[1..].split_at_checked(count)?;
            rest = more;
            Some((at, facts))
        })
    }
}

fn head(at: u32, count: usize) -> u64 {
    (count as u64) << 32 | u64::from(at)
}

fn parts(head: u64) -> (u32, usize) {
    let low = u32::try_from(head & u64::from(u32::MAX)).unwrap_or_default();
    (low, usize::try_from(head >> 32).unwrap_or(usize::MAX))
}

fn name(fact: u64) -> u64 {
    fact >> VALUE_BITS
}

/// Whether a confirmation at this second is still valid.
pub(super) fn is_fresh(at: i64, now: Timestamp, ttl: u64) -> bool {
    u64::try_from(now.as_second().saturating_sub(at)).is_ok_and(|age| age < ttl)
}

/// The content of a write: a fact for every value that it sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts(Vec<u64>);

impl Facts {
    /// Adds a value as it is sent. `kind` and `id` distinguish values that are equal in JSON but
    /// not at User.com; `kind` is empty for text and for standard fields.
    pub(super) fn value(&mut self, name: &str, kind: &str, id: Option<u64>, json: &str) {
        let name = std_form(name);
        let id = id.map(|id| id.to_string()).unwrap_or_default();
        let end = if kind.is_empty() && id.is_empty() { "" } else { "\0" };
        // The name's part of a fact does not depend on the type: a new value replaces the old.
        self.0.push(fact(&[&name], &[kind, end, &id, end, json]));
    }

    /// Adds an element of a list that only grows.
    pub(super) fn element(&mut self, name: &str, json: &str) {
        self.0.push(fact(&[&std_form(name), "=", json], &[json]));
    }
}

/// The hash of a value includes the name, so that names with the same hash do not share values. It
/// is the same in every process.
fn fact(name: &[&str], value: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in name {
        hasher.write(part.as_bytes());
    }
    // A separator that no text contains; otherwise name and value could be divided elsewhere.
    hasher.write_u8(0xff);
    let name = hasher.finish();
    for part in value {
        hasher.write(part.as_bytes());
    }
    let value = hasher.finish();
    name >> VALUE_BITS << VALUE_BITS | value & ((1 << VALUE_BITS) - 1)
}

impl Serialize for ConfirmedFieldHashes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        serializer.serialize_str(&BASE64.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for ConfirmedFieldHashes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.as_bytes()).map_err(de::Error::custom)?;
        let (words, rest) = bytes.as_chunks::<8>();
        let confirmed = Self(words.iter().map(|word| u64::from_le_bytes(*word)).collect());
        let told: usize = confirmed.groups().map(|(_, facts)| facts.len() + 1).sum();
        if !rest.is_empty() || told != words.len() {
            return Err(de::Error::custom("the groups are not whole"));
        }
        Ok(confirmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(fields: &[(&str, &str)]) -> Facts {
        let mut facts = Facts::default();
        for (name, json) in fields {
            match *name {
                "tags" => crate::call::elements(json).for_each(|tag| facts.element(name, tag)),
                name => facts.value(name, "", None, json),
            }
        }
        facts
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn last_written_value_is_confirmed() {
        // A value is valid until another of its name is confirmed, or its time is over; a name in
        // another spelling is the same name.
        let mut confirmed = ConfirmedFieldHashes::default();
        confirmed.note(set(&[("plan", "\"pro\""), ("Logins", "7")]), at(100));
        assert!(confirmed.holds(&set(&[("logins", "7"), ("plan", "\"pro\"")]), at(109), 10));
        assert!(!confirmed.holds(&set(&[("plan", "\"pro\"")]), at(110), 10));
        assert!(!confirmed.holds(&set(&[("plan", "\"free\"")]), at(100), 10));
        confirmed.note(set(&[("plan", "\"free\"")]), at(105));
        assert!(!confirmed.holds(&set(&[("plan", "\"pro\"")]), at(105), 10));
        assert!(confirmed.holds(&set(&[("plan", "\"free\""), ("logins", "7")]), at(109), 10));
        assert!(!confirmed.holds(&set(&[("plan", "\"free\""), ("logins", "7")]), at(110), 10));
        assert!(confirmed.holds(&set(&[("plan", "\"free\"")]), at(110), 10));
    }

    #[test]
    fn tags_are_confirmed_individually() {
        // Any of the confirmed tags count as confirmed, in any combination; another one does not.
        let mut confirmed = ConfirmedFieldHashes::default();
        confirmed.note(set(&[("tags", "[\"a\",\"b\"]")]), at(1));
        confirmed.note(set(&[("tags", "[\"c\"]")]), at(1));
        assert!(confirmed.holds(&set(&[("tags", "[\"c\",\"a\"]")]), at(1), 10));
        assert!(!confirmed.holds(&set(&[("tags", "[\"d\",\"a\"]")]), at(1), 10));
    }

    #[test]
    fn oldest_facts_are_evicted_first() {
        // A row is bounded, and what was confirmed last stays.
        let mut confirmed = ConfirmedFieldHashes::default();
        let names: Vec<String> = (0..MAX_FIELDS + 10).map(|n| format!("f{n}")).collect();
        for (second, name) in names.iter().enumerate() {
            confirmed.note(set(&[(name, "1")]), at(i64::try_from(second).unwrap()));
        }
        assert!(confirmed.0.len() <= 2 * MAX_FIELDS);
        assert!(!confirmed.holds(&set(&[("f0", "1")]), at(600), 1000));
        assert!(confirmed.holds(&set(&[(&names[MAX_FIELDS + 9], "1")]), at(600), 1000));
    }

    #[test]
    fn stored_facts_round_trip() {
        // What is loaded is what was stored; anything else is rejected.
        let mut confirmed = ConfirmedFieldHashes::default();
        confirmed.note(set(&[("a", "1"), ("b", "2")]), at(5));
        confirmed.note(set(&[("a", "2")]), at(6));
        let json = serde_json::to_string(&confirmed).unwrap();
        assert_eq!(serde_json::from_str::<ConfirmedFieldHashes>(&json).unwrap(), confirmed);
        for broken in ["\"AAAA\"", "\"////////////\"", "7", "\"AQAAAAEAAAA\"", "{}"] {
            assert!(serde_json::from_str::<ConfirmedFieldHashes>(broken).is_err(), "{broken}");
        }
    }
}
