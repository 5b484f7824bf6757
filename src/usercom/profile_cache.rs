//! The cache of users and companies, which saves look-ups and writes.
//!
//! Every entry may be removed at any time: that costs requests, never data. Rows are plain JSON, so
//! that a store can keep them over a restart.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::confirmed_fields::{ConfirmedFieldHashes, is_fresh};

/// Companies stored per user.
const MAX_COMPANIES: usize = 64;
/// Members stored per company.
const MAX_MEMBERS: usize = 10_000;

/// What is known of a user. If there is a row, User.com has the user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct UserRow {
    /// User.com's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<u64>,
    /// The key that page views use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<Box<str>>,
    /// The record has another external id than the user, or none: only its remote id leads to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by_number: Option<bool>,
    /// Hash of the user key that no other record had when it was written here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) own_key: Option<u64>,
    /// When this process gave the record its external id, in seconds.
    #[serde(skip)]
    pub(super) adopted_at: Option<i64>,
    /// Fields as last confirmed.
    #[serde(skip_serializing_if = "ConfirmedFieldHashes::is_empty")]
    pub(super) fields: ConfirmedFieldHashes,
    /// When this process created it, or found it first by writing it.
    #[serde(skip)]
    pub(super) written: Option<Instant>,
    /// Companies of which the user is a member, and since when that is known; the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    companies: Vec<(Box<str>, i64)>,
}

/// What we know of a company.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CompanyRow {
    /// User.com's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<u64>,
    /// Fields as last confirmed.
    #[serde(skip_serializing_if = "ConfirmedFieldHashes::is_empty")]
    pub(super) fields: ConfirmedFieldHashes,
    /// When this process created it.
    #[serde(skip)]
    pub(super) written: Option<Instant>,
    /// Members named by a response, and when, in seconds. Not stored: the users' rows contain it
    /// too.
    #[serde(skip)]
    pub(super) members: Option<(Arc<HashSet<u64>>, i64)>,
}

impl UserRow {
    /// The remote id that leads to the record where the external id does not.
    pub(super) fn only_number(&self) -> Option<u64> {
        self.id.filter(|_| self.by_number == Some(true))
    }

    /// The remote id where it is more reliable: the external id may not lead yet to a record that
    /// got it recently.
    pub(super) fn surer_number(&self, now: Timestamp) -> Option<u64> {
        let is_new = self.adopted_at.is_some_and(|at| is_fresh(at, now, CLAIM_SECS));
        self.id.filter(|_| is_new).or_else(|| self.only_number())
    }

    /// Records a membership.
    pub(super) fn joined(&mut self, group: &str, now: Timestamp) {
        self.companies.retain(|(known, _)| **known != *group);
        if self.companies.len() >= MAX_COMPANIES {
            self.companies.remove(0);
        }
        // Most users are members of one company.
        self.companies.reserve_exact(1);
        self.companies.push((group.into(), now.as_second()));
    }

    /// When a membership was recorded, in seconds.
    pub(super) fn member_since(&self, group: &str) -> Option<i64> {
        self.companies.iter().find_map(|(known, at)| (**known == *group).then_some(*at))
    }
}

impl CompanyRow {
    /// Records the members named by a response.
    pub(super) fn has_members(&mut self, members: &[u64], now: Timestamp) {
        if members.len() <= MAX_MEMBERS {
            self.members = Some((Arc::new(members.iter().copied().collect()), now.as_second()));
        }
    }
}

/// The record that has a key.
#[derive(Debug)]
pub(super) struct KeyClaim {
    pub(super) own_id: Box<str>,
    pub(super) number: u64,
    /// When that was found, in seconds.
    at: i64,
}

/// A hash that is the same in every process.
pub(super) fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Users, companies and merges; as many of each as the settings allow.
pub(super) struct ProfileCache {
    users: Cache<Box<str>, Arc<UserRow>>,
    companies: Cache<Box<str>, Arc<CompanyRow>>,
    /// Which user was merged into which; removed when the merged one is found again.
    merged: Cache<Box<str>, Box<str>>,
    /// Fingerprint of an event or page view -> how many equal ones are known to have arrived.
    arrived: Cache<u64, u32>,
    /// Values that User.com refused, and when, in seconds.
    refused: Cache<u64, i64>,
    /// Records to which this process gave an external id, and which one: a search may show an older
    /// state for a while.
    adopted: Cache<u64, Arc<str>>,
    /// Keys by which a record was found or written recently.
    claims: Cache<u64, Arc<KeyClaim>>,
    /// Users with a conflict, and why.
    conflicts: Cache<Box<str>, Arc<str>>,
    /// Hashes of user keys that no record has, by the user whom they are about to be written to.
    free_keys: Cache<Box<str>, u64>,
    /// When attributes were created within the last hour, in seconds; the oldest first.
    creations: Mutex<VecDeque<i64>>,
    changed: Mutex<HashSet<String>>,
    capacity: usize,
}

/// The row of created attributes.
const CREATIONS: &str = "n:attributes";
/// Created attributes stored at most.
const MAX_CREATIONS: usize = 100_000;
/// Keys and conflicts stored at most.
const MAX_CLAIMS: usize = 10_000;
const MAX_CONFLICTS: usize = 10_000;
/// For how long, in seconds, a key is assumed to lead to the same record.
const CLAIM_SECS: u64 = 60;
/// Refused values stored at most.
const MAX_REFUSED: usize = 10_000;
/// Seconds for which a created attribute counts.
const HOUR: i64 = 3_600;

/// Begins the key of a saved user.
pub(super) const USER: &str = "u:";
/// Begins the key of a saved company.
pub(super) const COMPANY: &str = "g:";

impl ProfileCache {
    /// An empty cache for `capacity` users and as many companies.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            users: Cache::new(capacity),
            companies: Cache::new(capacity),
            merged: Cache::new(capacity),
            arrived: Cache::new(capacity),
            refused: Cache::new(MAX_REFUSED),
            adopted: Cache::new(capacity),
            claims: Cache::new(MAX_CLAIMS),
            conflicts: Cache::new(MAX_CONFLICTS),
            free_keys: Cache::new(MAX_CLAIMS),
            creations: Mutex::default(),
            changed: Mutex::default(),
            capacity,
        }
    }

    /// The entry of a user.
    pub(super) fn user(&self, own_id: &str) -> Option<Arc<UserRow>> {
        self.users.get(own_id)
    }

    /// Changes the entry of a user; creates it if it is missing.
    pub(super) fn know_user(&self, own_id: &str, change: impl FnOnce(&mut UserRow)) {
        let mut row = self.users.get(own_id).unwrap_or_default();
        let changed = Arc::make_mut(&mut row);
        change(changed);
        if let Some((_, key)) = self.free_keys.remove(own_id) {
            changed.own_key = Some(key);
        }
        self.users.insert(own_id.into(), row);
        self.merged.remove(own_id);
        self.note(USER, own_id);
    }

    /// Removes a user that User.com does not have any more.
    pub(super) fn forget_user(&self, own_id: &str) {
        self.users.remove(own_id);
        self.note(USER, own_id);
    }

    /// The entry of a company.
    pub(super) fn company(&self, group: &str) -> Option<Arc<CompanyRow>> {
        self.companies.get(group)
    }

    /// Changes the entry of a company.
    pub(super) fn know_company(&self, group: &str, change: impl FnOnce(&mut CompanyRow)) {
        let mut row = self.companies.get(group).unwrap_or_default();
        change(Arc::make_mut(&mut row));
        self.companies.insert(group.into(), row);
        self.note(COMPANY, group);
    }

    /// Removes a company that User.com does not have any more.
    pub(super) fn forget_company(&self, group: &str) {
        self.companies.remove(group);
        self.note(COMPANY, group);
    }

    /// Whether a value was refused within `ttl` seconds.
    pub(super) fn refused(&self, value: impl Hash, now: Timestamp, ttl: u64) -> bool {
        let noted = || self.refused.get(&hash(value));
        !self.refused.is_empty() && noted().is_some_and(|at| is_fresh(at, now, ttl))
    }

    /// Records a refused value.
    pub(super) fn note_refused(&self, value: impl Hash, now: Timestamp) {
        self.refused.insert(hash(value), now.as_second());
    }

    /// How many attributes were created within the last hour.
    pub(super) fn creations_within_an_hour(&self, now: Timestamp) -> usize {
        let mut creations = self.creations();
        forget_old(&mut creations, now);
        creations.len()
    }

    /// Records the creation of an attribute, unless `limit` of them were within the last hour.
    pub(super) fn book_creation(&self, limit: usize, now: Timestamp) -> bool {
        let mut creations = self.creations();
        forget_old(&mut creations, now);
        if creations.len() >= limit {
            return false;
        }
        if creations.len() >= MAX_CREATIONS {
            creations.pop_front();
        }
        creations.push_back(now.as_second());
        drop(creations);
        self.changed().insert(CREATIONS.to_owned());
        true
    }

    fn creations(&self) -> parking_lot::MutexGuard<'_, VecDeque<i64>> {
        self.creations.lock()
    }

    /// How many of this event or page view are known to have arrived.
    pub(super) fn arrivals(&self, fingerprint: u64) -> u32 {
        self.arrived.get(&fingerprint).unwrap_or_default()
    }

    /// Records an arrival.
    pub(super) fn arrived(&self, fingerprint: u64) {
        let count = self.arrivals(fingerprint).saturating_add(1);
        self.arrived.insert(fingerprint, count);
    }

    /// Whether this merge was done.
    pub(super) fn is_merged(&self, from: &str, into: &str) -> bool {
        self.merged.get(from).is_some_and(|known| *known == *into)
    }

    /// Records a merge.
    pub(super) fn merged(&self, from: &str, into: &str) {
        self.forget_user(from);
        self.merged.insert(from.into(), into.into());
    }

    /// The record that has a key, if that was found recently.
    pub(super) fn claim(&self, key: impl Hash, now: Timestamp) -> Option<Arc<KeyClaim>> {
        self.claims.get(&hash(key)).filter(|claim| is_fresh(claim.at, now, CLAIM_SECS))
    }

    /// Records which record has a key.
    pub(super) fn note_claim(&self, key: impl Hash, own_id: &str, number: u64, now: Timestamp) {
        let claim = KeyClaim { own_id: own_id.into(), number, at: now.as_second() };
        self.claims.insert(hash(key), Arc::new(claim));
    }

    /// The external id that this process gave to a record.
    pub(super) fn adopted(&self, number: u64) -> Option<Arc<str>> {
        self.adopted.get(&number)
    }

    /// Records the external id that a record was given.
    pub(super) fn note_adopted(&self, number: u64, own_id: &str) {
        self.adopted.insert(number, own_id.into());
    }

    /// Removes that: the record was not given it.
    pub(super) fn forget_adopted(&self, number: u64) {
        self.adopted.remove(&number);
    }

    /// Why a user is in conflict.
    pub(super) fn conflict(&self, own_id: &str) -> Option<Arc<str>> {
        self.conflicts.get(own_id)
    }

    /// Records a conflict; returns whether it is the first of the user.
    pub(super) fn note_conflict(&self, own_id: &str, why: &str) -> bool {
        let first = self.conflicts.get(own_id).is_none();
        self.conflicts.insert(own_id.into(), why.into());
        first
    }

    /// Notes the user key, by its hash, that may be written to a user who is about to be written for
    /// the first time.
    pub(super) fn set_free_key(&self, own_id: &str, key: Option<u64>) {
        match key {
            Some(key) => self.free_keys.insert(own_id.into(), key),
            None => drop(self.free_keys.remove(own_id)),
        }
    }

    /// Whether a user key, by its hash, is the user's own or one that no record has.
    pub(super) fn is_own_key(&self, own_id: &str, key: u64) -> bool {
        let of_row = || self.users.peek(own_id)?.own_key;
        self.free_keys.peek(own_id).or_else(of_row) == Some(key)
    }

    fn note(&self, kind: &str, id: &str) {
        let mut changed = self.changed();
        changed.insert(format!("{kind}{id}"));
        // Changes are not fetched: what was removed from the cache need not be stored.
        if changed.len() > self.capacity.saturating_mul(4) {
            changed.retain(|key| self.row(key).is_some());
        }
    }

    /// Up to `max` rows that changed since the last call, by key; `None` for one that was removed.
    pub(super) fn take_changes(&self, max: usize) -> Vec<(String, Option<String>)> {
        let keys: Vec<String> = self.changed().extract_if(|_| true).take(max).collect();
        keys.into_iter()
            .map(|key| {
                let row = self.row(&key);
                (key, row)
            })
            .collect()
    }

    fn row(&self, key: &str) -> Option<String> {
        if let Some(id) = key.strip_prefix(USER) {
            return serde_json::to_string(&*self.users.peek(id)?).ok();
        }
        if key == CREATIONS {
            return serde_json::to_string(&*self.creations()).ok();
        }
        let id = key.strip_prefix(COMPANY)?;
        serde_json::to_string(&*self.companies.peek(id)?).ok()
    }

    /// Loads stored rows; what cannot be parsed is skipped.
    pub(super) fn restore(&self, rows: impl IntoIterator<Item = (String, String)>) {
        for (key, json) in rows {
            if let Some(id) = key.strip_prefix(USER) {
                if let Ok(row) = serde_json::from_str::<UserRow>(&json) {
                    // A search may not show yet that the record has this external id.
                    if let Some(number) = row.id.filter(|_| row.only_number().is_none()) {
                        self.note_adopted(number, id);
                    }
                    self.users.insert(id.into(), Arc::new(row));
                }
            } else if key == CREATIONS {
                if let Ok(creations) = serde_json::from_str(&json) {
                    *self.creations() = creations;
                }
            } else if let Some(id) = key.strip_prefix(COMPANY)
                && let Ok(row) = serde_json::from_str::<CompanyRow>(&json)
            {
                self.companies.insert(id.into(), Arc::new(row));
            }
        }
    }

    fn changed(&self) -> parking_lot::MutexGuard<'_, HashSet<String>> {
        self.changed.lock()
    }
}

/// If the clock was set back, creations have times in the future, which count as well.
fn forget_old(creations: &mut VecDeque<i64>, now: Timestamp) {
    let then = now.as_second() - HOUR;
    while creations.front().is_some_and(|at| *at <= then || *at > now.as_second() + HOUR) {
        creations.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creations_are_counted_for_one_hour() {
        // At most this many attributes are created within an hour, also after a restart.
        let at = |second| Timestamp::from_second(second).unwrap();
        let memory = ProfileCache::new(10);
        assert!((0..3).all(|n| memory.book_creation(3, at(1_000 + n))));
        assert!(!memory.book_creation(3, at(1_010)));
        let next = ProfileCache::new(10);
        next.restore(memory.take_changes(9).into_iter().filter_map(|(k, row)| Some((k, row?))));
        assert!(!next.book_creation(3, at(4_599)));
        assert_eq!(next.creations_within_an_hour(at(4_601)), 1);
        assert!(next.book_creation(3, at(4_601)));
    }

    #[test]
    fn memory_is_bounded() {
        // Neither rows nor pending changes grow beyond the settings, also if the changes are never
        // fetched.
        let memory = ProfileCache::new(100);
        for n in 0..10_000 {
            memory.know_user(&format!("u{n}"), |row| row.id = Some(n));
        }
        assert!(memory.users.len() <= 100);
        assert!(memory.take_changes(usize::MAX).len() <= 500);
        let mut row = UserRow::default();
        for n in 0..1_000 {
            row.joined(&format!("g{n}"), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(row.companies.len(), MAX_COMPANIES);
    }

    #[test]
    fn evicted_entries_are_reported() {
        // A removed row is passed to the store as `None`; rows that cannot be parsed are skipped.
        let memory = ProfileCache::new(100);
        memory.know_user("u1", |row| row.id = Some(1));
        memory.know_company("u1", |row| row.id = Some(2));
        let mut rows = memory.take_changes(usize::MAX);
        rows.sort();
        let expected = [("g:u1", "{\"id\":2}"), ("u:u1", "{\"id\":1}")];
        assert_eq!(rows, expected.map(|(key, row)| (key.to_owned(), Some(row.to_owned()))));
        memory.forget_user("u1");
        assert_eq!(memory.take_changes(usize::MAX), [("u:u1".to_owned(), None)]);
        let next = ProfileCache::new(100);
        next.restore([("u:u1".into(), "null".into()), ("g:u1".into(), "{\"id\":2}".into())]);
        assert!(next.user("u1").is_none());
        assert_eq!(next.company("u1").and_then(|row| row.id), Some(2));
    }
}
