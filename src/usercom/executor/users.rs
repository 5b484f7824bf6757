//! Users: writes them, finds their remote id and key, merges them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::OpExecutor;
use super::body::Written;
use super::matching::OpUser;
use crate::clock;
use crate::config::account::UpsertAnswer;
use crate::deliver::Attempts;
use crate::schedule::PackedFields;
use crate::usercom::attributes::AttributeOwner;
use crate::usercom::endpoint;
use crate::usercom::endpoint::events::UserRef;
use crate::usercom::endpoint::users::{self as wire, Found};
use crate::usercom::new_users::UnseenId;
use crate::usercom::outcome::{ExecuteError, OpSuccess};
use crate::usercom::profile_cache;
use crate::usercom::visibility::VisibilityWait;

/// How long to wait before a user or a history is read again whose response could not be parsed.
pub(super) const UNREADABLE_ANSWER_PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// How long to wait before a write is repeated that User.com answered with a conflict.
const CONFLICT_PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

/// How it is known that a user exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserState {
    /// Cached by an earlier op.
    Cached,
    /// Read during this op.
    Fetched,
    /// Written during this op.
    Created,
    /// It was not looked up.
    Unknown,
}

impl OpExecutor {
    /// One upsert. An unknown person is looked up first.
    pub(super) async fn identify(
        &self,
        subject: OpUser<'_>,
        fields: &PackedFields,
        now: Timestamp,
        attempts: &mut Attempts,
    ) -> Result<OpSuccess, ExecuteError> {
        let user = subject.id;
        let unseen = self.memory.user(user).is_none();
        if unseen && self.is_to_be_looked_for(subject)? {
            return Box::pin(self.identify_person(subject, fields, now, attempts)).await;
        }
        self.report_foreign_key(user, fields);
        let created = self.upsert(user, fields, now, attempts).await?;
        if unseen {
            self.learn(created);
        }
        Ok(OpSuccess::Sent)
    }

    /// Writes a user; returns whether it was new, if User.com says so.
    pub(super) async fn upsert(
        &self,
        user: &str,
        fields: &PackedFields,
        now: Timestamp,
        attempts: &mut Attempts,
    ) -> Result<Option<bool>, ExecuteError> {
        if let Some(number) = self.memory.user(user).and_then(|row| row.surer_number(now))
            && self.update_number(user, number, fields, now, attempts).await?
        {
            return Ok(Some(false));
        }
        let mut pauses = CONFLICT_PAUSES.into_iter();
        let Written { reply, facts } = loop {
            let written = self
                .write(AttributeOwner::User, fields, attempts, |entries| {
                    wire::upsert(user, &self.without_foreign_key(user, entries))
                })
                .await?;
            // Concurrent writes of one user may conflict inside User.com: a later one finds the
            // user.
            match pauses.next() {
                Some(pause) if written.reply.status == 409 => tokio::time::sleep(pause).await,
                _ => break written,
            }
        };
        if !reply.is_success() {
            return Err(ExecuteError::refused("the user", &reply));
        }
        let answer = wire::upserted(&reply);
        let known = self.memory.user(user);
        let is_new = known.is_none_or(|row| is_other(&row, answer.id));
        self.memory.know_user(user, |row| {
            renumber(row, answer.id);
            row.key = answer.key.as_deref().map(Box::from).or(row.key.take());
            if is_new || answer.created == Some(true) {
                row.written = Some(Instant::now());
            }
            row.fields.note(facts, now);
        });
        Ok(answer.created)
    }

    pub(super) fn learn(&self, created: Option<bool>) {
        match created {
            Some(true) => self.new_users.observe(UnseenId::New),
            Some(false) => self.new_users.observe(UnseenId::Known),
            None => {}
        }
    }

    /// Creates a user that does not exist, if that is configured.
    pub(super) async fn create_missing(
        &self,
        user: &str,
        attempts: &mut Attempts,
    ) -> Result<(), ExecuteError> {
        if !self.users.create_missing {
            return Err(ExecuteError::Reject {
                status: Some(404),
                reason: "User.com has no such user, and `create_missing` is off".into(),
                body: String::new(),
            });
        }
        self.upsert(user, &PackedFields::default(), clock::now(), attempts).await?;
        Ok(())
    }

    /// What is known of a user before the first request; one that is probably new is created.
    pub(super) async fn standing(
        &self,
        subject: OpUser<'_>,
        attempts: &mut Attempts,
    ) -> Result<UserState, ExecuteError> {
        let user = subject.id;
        if self.memory.user(user).is_some() {
            return Ok(UserState::Cached);
        }
        if let Some(state) = Box::pin(self.find_person(subject, attempts)).await? {
            return Ok(state);
        }
        // An id that is not safe in a path can only be resolved to the remote id by an upsert.
        let only_way = endpoint::segment(user).is_none();
        if only_way || (self.users.create_missing && self.new_users.likely_new()) {
            if !self.users.create_missing {
                self.create_missing(user, attempts).await?;
            }
            let fields = PackedFields::default();
            let created = self.upsert(user, &fields, clock::now(), attempts).await?;
            self.learn(created);
            return Ok(UserState::Created);
        }
        Ok(UserState::Unknown)
    }

    /// The id of a user in a path: the external id, or the remote id if that is not safe. `None` if
    /// the remote id is needed and not known.
    pub(super) fn whose<'u>(&self, user: &'u str) -> Option<UserRef<'u>> {
        let row = self.memory.user(user);
        if let Some(number) = row.and_then(|row| row.surer_number(clock::now())) {
            return Some(UserRef::Number(number));
        }
        if endpoint::segment(user).is_some() {
            return Some(UserRef::ExternalUserId(user));
        }
        Some(UserRef::Number(self.memory.user(user)?.id?))
    }

    /// The same; writes the user if the remote id is needed and not known.
    pub(super) async fn whose_for_sure<'u>(
        &self,
        user: &'u str,
        attempts: &mut Attempts,
    ) -> Result<UserRef<'u>, ExecuteError> {
        if let Some(whose) = self.whose(user) {
            return Ok(whose);
        }
        self.create_missing(user, attempts).await?;
        self.whose(user)
            .ok_or_else(|| ExecuteError::own("User.com did not tell the number of a user it took"))
    }

    /// Reads a user. `None` if User.com has none.
    pub(super) async fn read_user(
        &self,
        user: &str,
        attempts: &mut Attempts,
    ) -> Result<Option<Found>, ExecuteError> {
        let request = match self.whose(user) {
            Some(UserRef::Number(id)) => Some(wire::by_number(id)),
            Some(UserRef::ExternalUserId(id)) => wire::by_own_id(id),
            None => None,
        };
        let Some(request) = request else {
            return Ok(None);
        };
        let written = self.user_written(user);
        let mut wait = VisibilityWait::default();
        let reply = loop {
            let reply = self.send(&request, attempts).await?;
            if reply.status != 404 {
                break reply;
            }
            if !self.wait_until_seen(written, &mut wait, attempts).await {
                self.memory.forget_user(user);
                return Ok(None);
            }
        };
        if !reply.is_success() {
            return Err(ExecuteError::refused("to show the user", &reply));
        }
        self.is_seen(written, &wait);
        let found = wire::found(&reply);
        self.memory.know_user(user, |row| {
            renumber(row, found.id);
            row.key = found.key.as_deref().map(Box::from);
        });
        Ok(Some(found))
    }

    /// Reads a user, and creates it if it does not exist.
    async fn found(
        &self,
        user: &str,
        mut standing: UserState,
        attempts: &mut Attempts,
    ) -> Result<(Found, UserState), ExecuteError> {
        if standing != UserState::Created {
            if let Some(found) = self.read_user(user, attempts).await? {
                if standing == UserState::Unknown {
                    self.new_users.observe(UnseenId::Known);
                }
                return Ok((found, UserState::Fetched));
            }
            if standing == UserState::Unknown {
                self.new_users.observe(UnseenId::New);
            }
            self.create_missing(user, attempts).await?;
            standing = UserState::Created;
        }
        match self.read_user(user, attempts).await? {
            Some(found) => Ok((found, standing)),
            None => Err(ExecuteError::own(
                "User.com does not show a user that it has taken; if it shows users later, raise \
                 `account.read_after_write_secs`",
            )),
        }
    }

    /// The key by which page views name a user.
    pub(super) async fn key(
        &self,
        subject: OpUser<'_>,
        attempts: &mut Attempts,
    ) -> Result<(String, UserState), ExecuteError> {
        let user = subject.id;
        let mut standing = self.standing(subject, attempts).await?;
        if standing == UserState::Unknown
            && self.users.create_missing
            && self.account.upsert_answer == UpsertAnswer::UserKey
        {
            // The answer contains the key, whether the user is new or not.
            let nothing = PackedFields::default();
            let created = self.upsert(user, &nothing, clock::now(), attempts).await?;
            self.learn(created);
            standing = UserState::Created;
        }
        if let Some(key) = self.memory.user(user).and_then(|row| row.key.clone()) {
            return Ok((key.into(), standing));
        }
        let (mut found, standing) = self.found(user, standing, attempts).await?;
        for pause in UNREADABLE_ANSWER_PAUSES {
            if found.is_readable() {
                break;
            }
            // An empty or truncated response proves nothing about the user: it is requested again.
            tokio::time::sleep(pause).await;
            match self.read_user(user, attempts).await? {
                Some(again) => found = again,
                None => break,
            }
        }
        match found.key {
            Some(key) => Ok((key, standing)),
            None => {
                Err(ExecuteError::own("User.com told no key of the user, so it cannot have pages"))
            }
        }
    }

    /// Removes a user's key that was refused.
    pub(super) fn forget_key(&self, user: &str) {
        self.memory.know_user(user, |row| row.key = None);
    }

    /// User.com's id of a user, who is created if missing.
    pub(super) async fn number(
        &self,
        subject: OpUser<'_>,
        attempts: &mut Attempts,
    ) -> Result<u64, ExecuteError> {
        let user = subject.id;
        let known = |row: Option<Arc<profile_cache::UserRow>>| row.and_then(|row| row.id);
        if let Some(id) = known(self.memory.user(user)) {
            return Ok(id);
        }
        // An upsert returns the id at once, and so does a search.
        if self.memory.user(user).is_none() {
            self.standing(subject, attempts).await?;
            if let Some(id) = known(self.memory.user(user)) {
                return Ok(id);
            }
        }
        let mut looked_up = match self.read_user(user, attempts).await? {
            Some(found) => {
                self.new_users.observe(UnseenId::Known);
                found.id
            }
            None => {
                self.new_users.observe(UnseenId::New);
                self.create_missing(user, attempts).await?;
                match known(self.memory.user(user)) {
                    // The write succeeded, even if its response cannot be parsed.
                    None => self.read_user(user, attempts).await?.and_then(|found| found.id),
                    id => id,
                }
            }
        };
        for pause in UNREADABLE_ANSWER_PAUSES {
            if looked_up.is_some() {
                break;
            }
            // An empty or truncated response proves nothing about the user.
            tokio::time::sleep(pause).await;
            looked_up = self.read_user(user, attempts).await?.and_then(|found| found.id);
        }
        looked_up.ok_or_else(|| ExecuteError::own("User.com did not tell the user's number"))
    }

    /// Merges one user into another. If the merged one does not exist, nothing is merged; the
    /// remaining one exists afterwards, unless users are not created by configuration.
    pub(super) async fn merge(
        &self,
        from: &str,
        into: &str,
        attempts: &mut Attempts,
    ) -> Result<OpSuccess, ExecuteError> {
        if self.memory.is_merged(from, into) {
            return Ok(OpSuccess::Unchanged);
        }
        // A record that is shared with another external id belongs to that id, and is not merged.
        if self.memory.user(from).is_some_and(|row| row.only_number().is_some()) {
            return Ok(OpSuccess::Unchanged);
        }
        let into_subject = OpUser::unkeyed(into);
        let Some(gone) = self.number_if_there(from, attempts).await? else {
            if self.users.create_missing {
                self.number(into_subject, attempts).await?;
            }
            self.memory.merged(from, into);
            return Ok(OpSuccess::Unchanged);
        };
        let parent = self.number(into_subject, attempts).await?;
        if parent == gone {
            self.memory.merged(from, into);
            return Ok(OpSuccess::Unchanged);
        }
        let mut reply = self.send(&wire::merge(parent, gone), attempts).await?;
        if !reply.is_success() {
            // A cached id may be out of date, and a repetition finds no user to merge.
            let Some(Found { id: Some(gone), .. }) = self.read_user(from, attempts).await? else {
                self.memory.merged(from, into);
                return Ok(OpSuccess::AlreadyThere);
            };
            self.memory.forget_user(into);
            let parent = self.number(into_subject, attempts).await?;
            reply = self.send(&wire::merge(parent, gone), attempts).await?;
        }
        if !reply.is_success() {
            return Err(ExecuteError::refused("the merge", &reply));
        }
        self.memory.merged(from, into);
        Ok(OpSuccess::Sent)
    }

    async fn number_if_there(
        &self,
        user: &str,
        attempts: &mut Attempts,
    ) -> Result<Option<u64>, ExecuteError> {
        if let Some(id) = self.memory.user(user).and_then(|row| row.id) {
            return Ok(Some(id));
        }
        if endpoint::segment(user).is_none() {
            return Ok(Some(self.number(OpUser::unkeyed(user), attempts).await?));
        }
        Ok(self.read_user(user, attempts).await?.and_then(|found| found.id))
    }
}

/// Whether a cached user has another remote id.
fn is_other(row: &profile_cache::UserRow, id: Option<u64>) -> bool {
    id.is_some() && row.id.is_some() && row.id != id
}

/// A user with another remote id is another user: nothing in the cache is valid.
pub(super) fn renumber(row: &mut profile_cache::UserRow, id: Option<u64>) {
    if is_other(row, id) {
        *row = profile_cache::UserRow::default();
    }
    row.id = id.or(row.id);
}
