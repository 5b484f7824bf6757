//! Finds the record of a person: before the first write for an unknown external id, the person is
//! looked up by the other keys of the call.
//!
//! # Invariants
//!
//! Two external ids with the same key are handled one after the other, from the look-up to the
//! first write. An external id that a record has is never overwritten.

use jiff::Timestamp;

use super::OpExecutor;
use super::adoption::Adoption;
use super::person_search::{Lookup, UserKeyOwner};
use super::users::{UserState, renumber};
use crate::clock;
use crate::config::sink::MatchConflict;
use crate::deliver::Attempts;
use crate::schedule::{KeyKind, PackedFields, UserKeys};
use crate::usercom::identity::Decision;
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
    /// The external id is in the account, in a record that none of the keys leads to.
    Known,
    /// The record that was found has the external id.
    Itself,
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
        let mut conflict = None;
        for _ in 0..MAX_LOOKS {
            match self.person(subject, fields, attempts).await? {
                Person::Adopt(number) => {
                    match self.adopt(subject, number, fields, attempts).await? {
                        Adoption::Done => return Ok(OpSuccess::Sent),
                        Adoption::Outdated => continue,
                        Adoption::Refused(status) => self.probe.adoption_refused(user, status),
                    }
                }
                Person::New(why) => conflict = why,
                Person::Known | Person::Itself | Person::Use => {}
            }
            break;
        }
        let created = self.upsert(user, fields, now, attempts).await?;
        self.learn(created);
        self.claim(subject, fields, now);
        if let Some(why) = conflict.filter(|_| created != Some(false)) {
            self.report_conflict(user, &why);
        }
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
            return Ok(match self.person(subject, &nothing, attempts).await? {
                Person::New(None) => None,
                Person::New(Some(_)) if !self.users.create_missing => None,
                Person::New(Some(why)) => {
                    let created = self.upsert(subject.id, &nothing, clock::now(), attempts).await?;
                    self.learn(created);
                    if created != Some(false) {
                        self.report_conflict(subject.id, &why);
                    }
                    Some(UserState::Created)
                }
                Person::Known | Person::Itself | Person::Use => Some(UserState::Fetched),
                Person::Adopt(number) => {
                    match self.adopt(subject, number, &nothing, attempts).await? {
                        Adoption::Done => Some(UserState::Created),
                        Adoption::Outdated => continue,
                        Adoption::Refused(status) => {
                            self.probe.adoption_refused(subject.id, status);
                            None
                        }
                    }
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
        fields: &PackedFields,
        attempts: &mut Attempts,
    ) -> Result<Person, ExecuteError> {
        let user = subject.id;
        let Lookup { decision, by, user_key } = self.look_up(subject, attempts).await?;
        let person = self.decide(user, decision, attempts).await?;
        let is_found_record = matches!(person, Person::Adopt(_) | Person::Use | Person::Itself);
        let may_write_key = match user_key {
            UserKeyOwner::None => true,
            UserKeyOwner::Record => is_found_record && by == Some(KeyKind::UserKey),
            UserKeyOwner::Unknown => false,
        };
        self.judge_user_key(subject, fields, may_write_key);
        Ok(person)
    }

    /// What a decision means under the setting for conflicts.
    async fn decide(
        &self,
        user: &str,
        decision: Decision,
        attempts: &mut Attempts,
    ) -> Result<Person, ExecuteError> {
        let policy = self.users.match_conflict;
        let asked_before_writing = match &decision {
            Decision::Adopt(_) => true,
            Decision::Conflict { .. } => policy != MatchConflict::Create,
            Decision::NotFound | Decision::Itself(_) => false,
        };
        if asked_before_writing && self.is_known_by_id(user, attempts).await? {
            self.new_users.observe(UnseenId::Known);
            return Ok(Person::Known);
        }
        Ok(match (decision, policy) {
            (Decision::NotFound, _) => Person::New(None),
            (Decision::Itself(number), _) => {
                self.memory.know_user(user, |row| renumber(row, Some(number)));
                self.new_users.observe(UnseenId::Known);
                Person::Itself
            }
            (Decision::Adopt(number), _) => Person::Adopt(number),
            (Decision::Conflict { why, .. }, MatchConflict::Create) => Person::New(Some(why)),
            (Decision::Conflict { why, .. }, MatchConflict::DeadLetter) => {
                self.report_conflict(user, &why);
                return Err(conflict(&why));
            }
            (Decision::Conflict { number, why }, MatchConflict::Use) => {
                self.report_conflict(user, &why);
                self.memory.know_user(user, |row| {
                    renumber(row, Some(number));
                    row.by_number = Some(true);
                });
                Person::Use
            }
        })
    }

    fn report_conflict(&self, user: &str, why: &str) {
        if self.memory.note_conflict(user, why) {
            let then = match self.users.match_conflict {
                MatchConflict::Create => "the user gets a separate record",
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
