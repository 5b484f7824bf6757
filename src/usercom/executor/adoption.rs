//! Writing to a record that was found for a person: giving it the external id, and reaching it by
//! its number where the external id does not lead to it.
//!
//! # Invariants
//! An external id that a record has is never overwritten, and neither is the user key of another
//! record.

use std::borrow::Cow;

use jiff::Timestamp;

use super::OpExecutor;
use super::matching::OpUser;
use super::resolve::BodyEntry;
use super::users::renumber;
use crate::clock;
use crate::config::sink::MatchBy;
use crate::deliver::{Attempts, SendError};
use crate::schedule::{KeyKind, PackedFields};
use crate::usercom::attributes::AttributeOwner;
use crate::usercom::endpoint;
use crate::usercom::endpoint::users::{self as wire, OwnId};
use crate::usercom::identity::normalized;
use crate::usercom::new_users::UnseenId;
use crate::usercom::outcome::ExecuteError;
use crate::usercom::profile::text;
use crate::usercom::profile_cache::hash;

/// How an adoption ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adoption {
    /// The record has the external id.
    Done,
    /// The record is gone, or the record or the id is taken meanwhile.
    Outdated,
    /// User.com does not let the record have an external id.
    Refused(u16),
}

impl OpExecutor {
    /// Gives a record the external id of a user, and writes to it.
    pub(super) async fn adopt(
        &self,
        subject: OpUser<'_>,
        number: u64,
        fields: &PackedFields,
        attempts: &mut Attempts,
    ) -> Result<Adoption, ExecuteError> {
        let user = subject.id;
        let now = clock::now();
        // Two users may find one record by two keys.
        let _turn = self.key_turns.turn(hash(("record", number))).await;
        if self.memory.adopted(number).is_some_and(|other| *other != *user) {
            return Ok(Adoption::Outdated);
        }
        // Noted before it is sent: a request whose answer is lost may have been carried out.
        self.memory.note_adopted(number, user);
        let written = self
            .write(AttributeOwner::User, fields, attempts, |entries| {
                wire::update_number(number, Some(user), &self.without_foreign_key(user, entries))
            })
            .await;
        let written = match written {
            Err(ExecuteError::Send(SendError::RouteClosed { status, .. })) => {
                self.memory.forget_adopted(number);
                return Ok(Adoption::Refused(status));
            }
            written => written?,
        };
        if !written.reply.is_success() {
            self.memory.forget_adopted(number);
        }
        match written.reply.status {
            200..300 => {}
            404 => return Ok(Adoption::Outdated),
            400 | 409
                if endpoint::segment(user).is_none()
                    || self.is_known_by_id(user, attempts).await? =>
            {
                return Ok(Adoption::Outdated);
            }
            status => return Ok(Adoption::Refused(status)),
        }
        let found = wire::found(&written.reply);
        let by_number = wire::own_id(&written.reply) == OwnId::None;
        self.memory.know_user(user, |row| {
            renumber(row, Some(number));
            row.key = found.key.as_deref().map(Box::from).or(row.key.take());
            // An account that does not take the id by this way still takes everything by number.
            row.by_number = by_number.then_some(true);
            row.adopted_at = Some(now.as_second());
            row.written = Some(tokio::time::Instant::now());
            row.fields.note(written.facts, now);
        });
        self.claim(subject, fields, now);
        self.new_users.observe(UnseenId::Known);
        self.probe.user_adopted(user);
        Ok(Adoption::Done)
    }

    /// Whether User.com has a record of an external id; `false` where it does not say.
    pub(super) async fn is_known_by_id(
        &self,
        user: &str,
        attempts: &mut Attempts,
    ) -> Result<bool, ExecuteError> {
        match self.read_user(user, attempts).await {
            Ok(found) => Ok(found.is_some()),
            // Then the adoption itself shows whether the id is taken.
            Err(ExecuteError::Reject { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes to a record that only its number leads to. `false` where it is gone: then the user is
    /// unknown again.
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
                wire::update_number(number, None, &self.without_foreign_key(user, entries))
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

    /// Notes that the record of a user has the keys that were written: a search may not show it yet.
    pub(super) fn claim(&self, subject: OpUser<'_>, fields: &PackedFields, now: Timestamp) {
        let Some(row) = self.memory.user(subject.id) else {
            return;
        };
        let Some(number) = row.id.filter(|_| row.only_number().is_none()) else {
            return;
        };
        for (kind, field) in [
            (KeyKind::UserKey, "user_key"),
            (KeyKind::Email, "email"),
            (KeyKind::Phone, "phone_number"),
        ] {
            let is_written = |key: &&str| {
                let is_own = || self.memory.is_own_key(subject.id, hash(key));
                fields.get(field).is_some() && (kind != KeyKind::UserKey || is_own())
            };
            if let Some(key) = subject.keys.get(kind).filter(is_written) {
                self.memory.note_claim((kind, key), subject.id, number, now);
            }
        }
    }

    /// Notes whether the user key that a call writes may be written to the user, who was never seen.
    pub(super) fn judge_user_key(
        &self,
        subject: OpUser<'_>,
        fields: &PackedFields,
        may_be_written: bool,
    ) {
        let written = fields.get("user_key").and_then(user_key);
        // It was looked up only if the call is looked up by the same key.
        let looked_up = subject.keys.get(KeyKind::UserKey).map(hash);
        let free = written.filter(|_| may_be_written && written == looked_up);
        self.memory.set_free_key(subject.id, free);
        self.report_foreign_key(subject.id, fields);
    }

    /// Reports a user key that is not written.
    pub(super) fn report_foreign_key(&self, user: &str, fields: &PackedFields) {
        if fields.get("user_key").is_some_and(|json| self.is_foreign_key(user, json)) {
            let why = "the user has another key, and a record that has this key keeps it";
            self.probe.field_dropped("user_key", why);
        }
    }

    /// Whether a user key may belong to another record: it was not looked up for this user, or is
    /// not free. Without `user_key` in `match_by` the mapping alone decides.
    fn is_foreign_key(&self, user: &str, json: &str) -> bool {
        if !self.users.match_by.contains(&MatchBy::UserKey) {
            return false;
        }
        let row = self.memory.user(user);
        let of_record = row.and_then(|row| row.key.clone());
        text(json).and_then(|key| normalized(KeyKind::UserKey, &key)).is_some_and(|key| {
            of_record.as_deref() != Some(key.as_str()) && !self.memory.is_own_key(user, hash(key))
        })
    }

    /// The fields of a body without a user key that may belong to another record.
    pub(super) fn without_foreign_key<'e, 'f>(
        &self,
        user: &str,
        entries: &'e [BodyEntry<'f>],
    ) -> Cow<'e, [BodyEntry<'f>]> {
        let is_foreign =
            |(name, json): &BodyEntry<'_>| name == "user_key" && self.is_foreign_key(user, json);
        match entries.iter().any(is_foreign) {
            false => Cow::Borrowed(entries),
            true => entries.iter().filter(|entry| !is_foreign(entry)).cloned().collect(),
        }
    }
}

/// The hash of a user key in JSON.
fn user_key(json: &str) -> Option<u64> {
    normalized(KeyKind::UserKey, &text(json)?).map(hash)
}
