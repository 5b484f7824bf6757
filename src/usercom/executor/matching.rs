//! Finds the record of a person: before the first write for an unknown external id, the person is
//! looked up by the other keys of the call.
//!
//! # Invariants
//!
//! Two external ids with the same key are handled one after the other, from the look-up to the
//! first write. An external id that a record has is never overwritten.

use jiff::Timestamp;

use super::OpExecutor;
use super::users::{UserState, renumber};
use crate::clock;
use crate::config::sink::{MatchBy, MatchConflict};
use crate::deliver::Attempts;
use crate::schedule::{KeyKind, PackedFields, UserKeys};
use crate::usercom::attributes::AttributeOwner;
use crate::usercom::endpoint;
use crate::usercom::endpoint::users::{self as wire, RecordExternalId};
use crate::usercom::identity::{Candidate, Decision, Findings};
use crate::usercom::keyed_mutex::KeyedMutexGuard;
use crate::usercom::new_users::UnseenId;
use crate::usercom::outcome::{ExecuteError, OpSuccess};
use crate::usercom::profile_cache::hash;

/// How often a person is looked up again because the record that was found was deleted or got
/// another id.
const MAX_LOOKS: usize = 3;

/// The user of an op.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpUser<'o> {
    /// The external id.
    pub(super) id: &'o str,
    /// The other keys of the person.
    pub(super) keys: &'o UserKeys,
}

impl<'o> OpUser<'o> {
    /// A user of whom only the external id is known.
    pub(super) fn unkeyed(id: &'o str) -> Self {
        static NONE: std::sync::LazyLock<UserKeys> = std::sync::LazyLock::new(UserKeys::default);
        Self { id, keys: &NONE }
    }
}

/// The result of looking up an unknown user.
enum Person {
    /// A new person, or one who gets a separate record because of a conflict.
    New(Option<String>),
    /// The external id is in the account.
    Known,
    /// This record has no external id yet.
    Adopt(u64),
    /// This record has another external id, and is used nevertheless.
    Use,
}

type KeyGuards<'a> = Vec<KeyedMutexGuard<'a, u64>>;

impl OpExecutor {
    /// Whether an unknown user has to be looked up.
    ///
    /// # Errors
    ///
    /// When the user is known to be in conflict and its calls are dead letters.
    pub(super) fn is_to_be_looked_for(&self, subject: OpUser<'_>) -> Result<bool, ExecuteError> {
        if self.kinds().any(|kind| subject.keys.get(kind).is_some()) {
            return Ok(true);
        }
        match self.memory.conflict(subject.id) {
            Some(why) if self.users.match_conflict == MatchConflict::DeadLetter => {
                Err(conflict(&why))
            }
            _ => Ok(false),
        }
    }

    /// The kinds of keys that are looked up, in order.
    fn kinds(&self) -> impl Iterator<Item = KeyKind> {
        self.users.match_by.iter().map(|by| match by {
            MatchBy::UserKey => KeyKind::UserKey,
            MatchBy::Email => KeyKind::Email,
            MatchBy::Phone => KeyKind::Phone,
        })
    }

    /// Writes an unknown user to the record that the person has.
    pub(super) async fn identify_person(
        &self,
        subject: OpUser<'_>,
        fields: &PackedFields,
        now: Timestamp,
        attempts: &mut Attempts,
    ) -> Result<OpSuccess, ExecuteError> {
        let user = subject.id;
        let _turns = self.key_turns(subject).await;
        for _ in 0..MAX_LOOKS {
            let person = self.person(subject, attempts).await?;
            if let Person::Adopt(number) = person {
                match self.adopt(subject, number, fields, attempts).await? {
                    true => return Ok(OpSuccess::Sent),
                    false => continue,
                }
            }
            let created = self.upsert(user, fields, now, attempts).await?;
            self.learn(created);
            self.claim(subject, fields, now);
            if let Person::New(Some(why)) = person
                && created != Some(false)
            {
                self.tell_conflict(user, &why);
            }
            return Ok(OpSuccess::Sent);
        }
        let created = self.upsert(user, fields, now, attempts).await?;
        self.learn(created);
        Ok(OpSuccess::Sent)
    }

    /// Looks up the person of a call that writes nothing to the profile. `None` if no record was
    /// found: then the user is new, or known by the external id alone.
    pub(super) async fn find_person(
        &self,
        subject: OpUser<'_>,
        attempts: &mut Attempts,
    ) -> Result<Option<UserState>, ExecuteError> {
        if !self.is_to_be_looked_for(subject)? {
            return Ok(None);
        }
        let _turns = self.key_turns(subject).await;
        let nothing = PackedFields::default();
        for _ in 0..MAX_LOOKS {
            return Ok(match self.person(subject, attempts).await? {
                Person::New(None) => None,
                Person::New(Some(_)) if !self.users.create_missing => None,
                Person::New(Some(why)) => {
                    let created = self.upsert(subject.id, &nothing, clock::now(), attempts).await?;
                    self.learn(created);
                    if created != Some(false) {
                        self.tell_conflict(subject.id, &why);
                    }
                    Some(UserState::Created)
                }
                Person::Known | Person::Use => Some(UserState::Fetched),
                Person::Adopt(number) => {
                    if !self.adopt(subject, number, &nothing, attempts).await? {
                        continue;
                    }
                    Some(UserState::Created)
                }
            });
        }
        Ok(None)
    }

    /// Waits until no other user is being looked up by one of the same keys.
    async fn key_turns(&self, subject: OpUser<'_>) -> KeyGuards<'_> {
        let mut locks: Vec<u64> =
            self.kinds().filter_map(|kind| Some(hash((kind, subject.keys.get(kind)?)))).collect();
        // Every task locks in the same order, so that no two tasks wait for each other.
        locks.sort_unstable();
        locks.dedup();
        let mut guards = Vec::with_capacity(locks.len());
        for lock in locks {
            guards.push(self.key_turns.turn(lock).await);
        }
        guards
    }

    /// Finds the record of an unknown user, and caches the result.
    async fn person(
        &self,
        subject: OpUser<'_>,
        attempts: &mut Attempts,
    ) -> Result<Person, ExecuteError> {
        let user = subject.id;
        let policy = self.users.match_conflict;
        let decision = self.look_up(subject, attempts).await?;
        let asked_before_writing = match &decision {
            Decision::Adopt(_) => true,
            Decision::Conflict { .. } => policy != MatchConflict::Create,
            Decision::NotFound | Decision::Itself(_) => false,
        };
        if asked_before_writing && self.read_user(user, attempts).await?.is_some() {
            self.new_users.observe(UnseenId::Known);
            return Ok(Person::Known);
        }
        Ok(match (decision, policy) {
            (Decision::NotFound, _) => Person::New(None),
            (Decision::Itself(number), _) => {
                self.memory.know_user(user, |row| renumber(row, Some(number)));
                self.new_users.observe(UnseenId::Known);
                Person::Known
            }
            (Decision::Adopt(number), _) => Person::Adopt(number),
            (Decision::Conflict { why, .. }, MatchConflict::Create) => Person::New(Some(why)),
            (Decision::Conflict { why, .. }, MatchConflict::DeadLetter) => {
                self.tell_conflict(user, &why);
                return Err(conflict(&why));
            }
            (Decision::Conflict { number, why }, MatchConflict::Use) => {
                self.tell_conflict(user, &why);
                self.memory.know_user(user, |row| {
                    renumber(row, Some(number));
                    row.by_number = Some(true);
                });
                Person::Use
            }
        })
    }

    /// Looks up the records of a person, key by key.
    async fn look_up(
        &self,
        subject: OpUser<'_>,
        attempts: &mut Attempts,
    ) -> Result<Decision, ExecuteError> {
        let mut findings = Findings::default();
        for kind in self.kinds() {
            let Some(key) = subject.keys.get(kind) else {
                continue;
            };
            let found = self.search(subject.id, kind, key, attempts).await?;
            if let Some(decision) = findings.add(subject.id, kind, &found) {
                return Ok(decision);
            }
        }
        Ok(findings.end())
    }

    /// The records that have a key.
    async fn search(
        &self,
        user: &str,
        kind: KeyKind,
        key: &str,
        attempts: &mut Attempts,
    ) -> Result<Vec<Candidate>, ExecuteError> {
        let claim = self.memory.claim((kind, key), clock::now());
        if let Some(claim) = claim.filter(|claim| *claim.own_id != *user) {
            let own_id = Some(claim.own_id.to_string());
            return Ok(vec![Candidate { number: claim.number, own_id }]);
        }
        let reply = self.send(&wire::search(kind, key), attempts).await?;
        // User.com refuses the form of the key, so no record has it.
        if matches!(reply.status, 400 | 404) {
            return Ok(Vec::new());
        }
        if !reply.is_success() {
            return Err(ExecuteError::refused("the search for the user", &reply));
        }
        let mut found = Vec::new();
        for (number, own_id) in wire::searched(&reply, kind, key) {
            let own_id = match own_id {
                RecordExternalId::Unsaid => self.external_id_of(number, attempts).await?,
                said => said,
            };
            let own_id = match (own_id, self.memory.adopted(number)) {
                (RecordExternalId::Some(own_id), _) => Some(own_id),
                // An earlier adoption by this user may not have been carried out.
                (_, adopted) => adopted.filter(|id| **id != *user).map(|id| id.to_string()),
            };
            found.push(Candidate { number, own_id });
        }
        Ok(found)
    }

    /// The external id of a record, from the record itself.
    async fn external_id_of(
        &self,
        number: u64,
        attempts: &mut Attempts,
    ) -> Result<RecordExternalId, ExecuteError> {
        let reply = self.send(&wire::by_number(number), attempts).await?;
        match reply.is_success() {
            true => Ok(wire::external_id(&reply)),
            false => Err(ExecuteError::refused("to show the user", &reply)),
        }
    }

    /// Gives a record the external id of a user, and writes to it. `false` if the record or the id
    /// was taken meanwhile.
    async fn adopt(
        &self,
        subject: OpUser<'_>,
        number: u64,
        fields: &PackedFields,
        attempts: &mut Attempts,
    ) -> Result<bool, ExecuteError> {
        let user = subject.id;
        let now = clock::now();
        // Two users may find one record by two keys.
        let _turn = self.key_turns.turn(hash(("record", number))).await;
        if self.memory.adopted(number).is_some_and(|other| *other != *user) {
            return Ok(false);
        }
        // Recorded before it is sent: a request whose response is lost may have been carried out.
        self.memory.note_adopted(number, user);
        let written = self
            .write(AttributeOwner::User, fields, attempts, |entries| {
                wire::update_number(number, Some(user), entries)
            })
            .await?;
        if !written.reply.is_success() {
            self.memory.forget_adopted(number);
        }
        match written.reply.status {
            200..300 => {}
            404 => return Ok(false),
            400 | 409
                if endpoint::segment(user).is_none()
                    || self.read_user(user, attempts).await?.is_some() =>
            {
                return Ok(false);
            }
            _ => return Err(ExecuteError::refused("the user", &written.reply)),
        }
        let found = wire::found(&written.reply);
        let by_number = wire::external_id(&written.reply) == RecordExternalId::None;
        self.memory.know_user(user, |row| {
            renumber(row, Some(number));
            row.key = found.key.as_deref().map(Box::from).or(row.key.take());
            // An account that does not accept the id in this way still accepts all requests by
            // remote id.
            row.by_number = by_number.then_some(true);
            row.adopted_at = Some(now.as_second());
            row.written = Some(tokio::time::Instant::now());
            row.fields.note(written.facts, now);
        });
        self.claim(subject, fields, now);
        self.new_users.observe(UnseenId::Known);
        self.probe.user_adopted(user);
        Ok(true)
    }

    /// Writes to a record that only its remote id leads to. `false` if it was deleted: then the
    /// user is unknown again.
    pub(super) async fn update_number(
        &self,
        user: &str,
        number: u64,
        fields: &PackedFields,
        now: Timestamp,
        attempts: &mut Attempts,
    ) -> Result<bool, ExecuteError> {
        let written = self
            .write(AttributeOwner::User, fields, attempts, |entries| {
                wire::update_number(number, None, entries)
            })
            .await?;
        if written.reply.status == 404 {
            self.memory.forget_user(user);
            return Ok(false);
        }
        if !written.reply.is_success() {
            return Err(ExecuteError::refused("the user", &written.reply));
        }
        let found = wire::found(&written.reply);
        self.memory.know_user(user, |row| {
            row.key = found.key.as_deref().map(Box::from).or(row.key.take());
            row.fields.note(written.facts, now);
        });
        Ok(true)
    }

    /// Records that the record of a user has the keys that were written: a search may not show it
    /// yet.
    fn claim(&self, subject: OpUser<'_>, fields: &PackedFields, now: Timestamp) {
        let Some(row) = self.memory.user(subject.id) else {
            return;
        };
        let Some(number) = row.id.filter(|_| row.only_number().is_none()) else {
            return;
        };
        for (kind, field) in [(KeyKind::Email, "email"), (KeyKind::Phone, "phone_number")] {
            if let Some(key) = subject.keys.get(kind).filter(|_| fields.get(field).is_some()) {
                self.memory.note_claim((kind, key), subject.id, number, now);
            }
        }
    }

    fn tell_conflict(&self, user: &str, why: &str) {
        if self.memory.note_conflict(user, why) {
            let then = match self.users.match_conflict {
                MatchConflict::Create => "the user has a record of its own",
                MatchConflict::DeadLetter => "its records go to the dead letters",
                MatchConflict::Use => "everything is written to that record",
            };
            self.probe.match_conflict(user, why, then);
        }
    }
}

fn conflict(why: &str) -> ExecuteError {
    ExecuteError::MatchConflict { reason: format!("the person is in the account already: {why}") }
}
