//! Companies: written, created once, joined once.
//!
//! A company is always looked up before it is created: it is not documented that User.com refuses a
//! second one of the same id, and a request is cheaper than a duplicate company. An id that is not
//! safe in a path is searched in the list of all companies, once.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use tokio::time::Instant;

use super::body::Written;
use super::matching::OpUser;
use super::resolve::BodyEntry;
use super::unseen::{knows_no_user, unseen};
use super::users::UNREADABLE_ANSWER_PAUSES;
use super::{JUST_SEEN, OpExecutor};
use crate::call::Json;
use crate::clock;
use crate::config::account::{MemberCompany, MemberUser};
use crate::deliver::{ApiReply, Attempts, Denial, Need, Request, SendError};
use crate::schedule::{Field, FieldClass, PackedFields};
use crate::usercom::attributes::AttributeOwner;
use crate::usercom::confirmed_fields::{Facts, is_fresh};
use crate::usercom::endpoint;
use crate::usercom::endpoint::companies::{self as wire, CompanyRef, Found};
use crate::usercom::endpoint::events::UserRef;
use crate::usercom::outcome::{ExecuteError, OpSuccess};
use crate::usercom::profile_cache;
use crate::usercom::visibility::VisibilityWait;

/// Pages of companies that are searched for one whose id is not safe in a path.
const MAX_PAGES: usize = 1_000;

/// How `add_member` names user and company.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NamedBy {
    /// By own ids where the account takes them.
    OwnIds,
    /// By User.com's numbers.
    Numbers,
}

/// The fields of a user, and the company it becomes a member of.
fn with_company(fields: &PackedFields, group: &str) -> PackedFields {
    let json = Json::string(group).into_text();
    let company = Field { name: "company_custom_id", class: FieldClass::Standard, json: &json };
    let company: PackedFields = std::iter::once(company).collect();
    if fields.is_empty() {
        return company;
    }
    let writes = fields.layers().iter().cloned().chain(std::iter::once(company));
    PackedFields::coalesced(writes.collect())
}

impl OpExecutor {
    /// Updates a company, or creates it.
    pub(super) async fn company(
        &self,
        group: &str,
        fields: &PackedFields,
        now: Timestamp,
        attempts: &mut Attempts,
    ) -> Result<OpSuccess, ExecuteError> {
        let _turn = self.company_turns.turn(group.into()).await;
        let mut facts = Facts::default();
        let updated = self.update_company(group, fields, &mut facts, attempts).await?;
        let found = match updated {
            Some(found) => found,
            None => self.create_company(group, fields, &mut facts, attempts).await?,
        };
        self.remember(group, &found, now);
        self.memory.know_company(group, |row| row.fields.note(facts, now));
        Ok(OpSuccess::Sent)
    }

    /// Writes to an existing company; `facts` is set to what was written. `None` if it does not
    /// exist.
    async fn update_company(
        &self,
        group: &str,
        fields: &PackedFields,
        facts: &mut Facts,
        attempts: &mut Attempts,
    ) -> Result<Option<Found>, ExecuteError> {
        if fields.is_empty() {
            return self.find_company(group, attempts).await;
        }
        if endpoint::segment(group).is_some()
            && !self.no_company_update_by_own_id.load(Ordering::Relaxed)
        {
            let written = self
                .write_seen(group, fields, attempts, |entries| {
                    wire::update(group, entries).expect("the id was found safe in a path")
                })
                .await?;
            // An account without this route accepts the update by remote id.
            if !matches!(written.reply.status, 405 | 501) {
                *facts = written.facts;
                return self.company_in(group, &written.reply);
            }
            self.no_company_update_by_own_id.store(true, Ordering::Relaxed);
            tracing::warn!(
                status = written.reply.status,
                "User.com does not update companies by your own id; they are updated by User.com's \
                 number, which costs one look-up for each company. Nothing need be done"
            );
        }
        let known = self.memory.company(group).and_then(|row| row.id);
        let id = match known {
            Some(id) => Some(id),
            None => self.find_company(group, attempts).await?.and_then(|found| found.id),
        };
        let Some(id) = id else {
            return Ok(None);
        };
        let written = self
            .write_seen(group, fields, attempts, |entries| wire::update_number(id, entries))
            .await?;
        *facts = written.facts;
        self.company_in(group, &written.reply)
    }

    /// Writes to a company; waits for one that was just created and is not visible yet.
    async fn write_seen(
        &self,
        group: &str,
        fields: &PackedFields,
        attempts: &mut Attempts,
        request: impl Fn(&[BodyEntry<'_>]) -> Request + Send + Sync,
    ) -> Result<Written, ExecuteError> {
        let created = self.company_written(group);
        let mut wait = VisibilityWait::default();
        loop {
            let written = self.write(AttributeOwner::Company, fields, attempts, &request).await?;
            match written.reply.status {
                404 if self.wait_until_seen(created, &mut wait, attempts).await => {}
                200..300 => {
                    self.is_seen(created, &wait);
                    return Ok(written);
                }
                _ => return Ok(written),
            }
        }
    }

    /// Parses the response to a read or an update.
    fn company_in(&self, group: &str, reply: &ApiReply) -> Result<Option<Found>, ExecuteError> {
        match reply.status {
            200..300 => Ok(Some(wire::found(reply))),
            404 => {
                self.memory.forget_company(group);
                Ok(None)
            }
            _ => Err(ExecuteError::refused("the company", reply)),
        }
    }

    /// Looks up a company; waits for one that was just created and is not visible yet.
    async fn find_company(
        &self,
        group: &str,
        attempts: &mut Attempts,
    ) -> Result<Option<Found>, ExecuteError> {
        let created = self.company_written(group);
        let mut wait = VisibilityWait::default();
        loop {
            let found = self.look_for_company(group, attempts).await?;
            if found.is_some() {
                self.is_seen(created, &wait);
                return Ok(found);
            }
            if !self.wait_until_seen(created, &mut wait, attempts).await {
                self.memory.forget_company(group);
                return Ok(None);
            }
        }
    }

    /// Looks up a company once.
    async fn look_for_company(
        &self,
        group: &str,
        attempts: &mut Attempts,
    ) -> Result<Option<Found>, ExecuteError> {
        if let Some(request) = wire::by_own_id(group) {
            let reply = self.send(&request, attempts).await?;
            return match reply.status {
                200..300 => Ok(Some(wire::found(&reply))),
                404 => Ok(None),
                _ => Err(ExecuteError::refused("the company", &reply)),
            };
        }
        let mut request = wire::list();
        let mut asked = HashSet::new();
        for page_number in 0..MAX_PAGES {
            let reply = self.send(&request, attempts).await?;
            if reply.status == 404 && page_number > 0 {
                break;
            }
            if !reply.is_success() {
                return Err(ExecuteError::refused("to list companies", &reply));
            }
            let page = endpoint::page(&reply, &request.path);
            if let Some(entry) = page.results.iter().find(|entry| wire::is_named(entry, group)) {
                return Ok(Some(wire::found_in(entry)));
            }
            match page.next {
                Some(next) if asked.insert(next.clone()) => request.path = next,
                _ => break,
            }
        }
        Ok(None)
    }

    /// Creates a company that does not exist.
    async fn create_company(
        &self,
        group: &str,
        fields: &PackedFields,
        facts: &mut Facts,
        attempts: &mut Attempts,
    ) -> Result<Found, ExecuteError> {
        loop {
            let sent = Instant::now();
            let made = self
                .write(AttributeOwner::Company, fields, attempts, |entries| {
                    wire::create(group, entries)
                })
                .await;
            let written = match made {
                Err(ExecuteError::Send(SendError::Ambiguous { denial, .. })) => {
                    // A look-up is not a success of the request whose result is unknown.
                    let failed = attempts.failed;
                    if let Some(found) = self.find_lost(group, sent, denial, attempts).await? {
                        return self.update_found(group, fields, found, facts, attempts).await;
                    }
                    attempts.failed = failed;
                    continue;
                }
                answer => answer?,
            };
            let reply = written.reply;
            if reply.is_success() {
                *facts = written.facts;
                self.memory.know_company(group, |row| row.written = Some(Instant::now()));
                return Ok(wire::found(&reply));
            }
            // Another process may have created it since the look-up.
            if matches!(reply.status, 400 | 409)
                && let Some(found) = self.find_lost(group, sent, Denial::None, attempts).await?
            {
                return self.update_found(group, fields, found, facts, attempts).await;
            }
            return Err(ExecuteError::refused("the company", &reply));
        }
    }

    /// Looks up a company that may have been created at `sent`, until it should be visible.
    async fn find_lost(
        &self,
        group: &str,
        sent: Instant,
        denial: Denial,
        attempts: &mut Attempts,
    ) -> Result<Option<Found>, ExecuteError> {
        let mut wait = VisibilityWait::default();
        loop {
            let found = self.look_for_company(group, attempts).await?;
            if found.is_some() {
                self.is_seen(Some(sent), &wait);
                self.memory.know_company(group, |row| row.written = Some(sent));
            }
            if found.is_some() || !self.wait_if_lost(sent, denial, &mut wait, attempts).await {
                return Ok(found);
            }
        }
    }

    /// Writes to a company that appeared while it was being created: it may lack fields of this op.
    async fn update_found(
        &self,
        group: &str,
        fields: &PackedFields,
        found: Found,
        facts: &mut Facts,
        attempts: &mut Attempts,
    ) -> Result<Found, ExecuteError> {
        if fields.is_empty() {
            return Ok(found);
        }
        let updated = self.update_company(group, fields, facts, attempts).await?;
        Ok(updated.unwrap_or(found))
    }

    fn remember(&self, group: &str, found: &Found, now: Timestamp) {
        self.memory.know_company(group, |row| {
            if found.id.is_some() && row.id.is_some() && row.id != found.id {
                *row = profile_cache::CompanyRow::default();
            }
            row.id = found.id.or(row.id);
            if let Some(members) = &found.members {
                row.has_members(members, now);
            }
        });
    }

    /// Whether a membership was confirmed within `ttl` seconds.
    pub(super) fn is_member(&self, user: &str, group: &str, now: Timestamp, ttl: u64) -> bool {
        let Some(row) = self.memory.user(user) else {
            return false;
        };
        let noted = row.member_since(group);
        if noted.is_some_and(|at| is_fresh(at, now, ttl)) {
            return true;
        }
        let company = self.memory.company(group);
        match (row.id, company.and_then(|company| company.members.clone())) {
            (Some(id), Some((members, at))) => is_fresh(at, now, ttl) && members.contains(&id),
            _ => false,
        }
    }

    /// Makes a user a member of a company, and writes what was merged with it; whichever of user
    /// and company is missing is created.
    pub(super) async fn join(
        &self,
        subject: OpUser<'_>,
        group: &str,
        fields: &PackedFields,
        now: Timestamp,
        attempts: &mut Attempts,
    ) -> Result<OpSuccess, ExecuteError> {
        if self.account.company_in_upsert.adds_members() {
            let ttl = self.users.unchanged_ttl_secs.max(JUST_SEEN);
            let known = self.is_member(subject.id, group, now, ttl);
            if !known
                && let Some(sent) = self.join_in_upsert(subject, group, fields, attempts).await?
            {
                return Ok(sent);
            }
        }
        if !fields.is_empty() {
            self.identify(subject, fields, now, attempts).await?;
        }
        self.add_member(subject, group, now, attempts).await
    }

    /// Writes a user with the company it becomes a member of. `None` where the record has to be
    /// named by its number.
    async fn join_in_upsert(
        &self,
        subject: OpUser<'_>,
        group: &str,
        fields: &PackedFields,
        attempts: &mut Attempts,
    ) -> Result<Option<OpSuccess>, ExecuteError> {
        let (user, now) = (subject.id, clock::now());
        let unseen = self.memory.user(user).is_none();
        if unseen && self.is_to_be_looked_for(subject)? {
            Box::pin(self.find_person(subject, attempts)).await?;
        }
        if self.is_named_by_number(user) {
            return Ok(None);
        }
        if unseen && !self.users.create_missing && fields.is_empty() {
            // An upsert would create the user.
            self.number(subject, attempts).await?;
        }
        {
            let _turn = self.company_turns.turn(group.into()).await;
            self.company_number(group, now, attempts).await?;
        }
        let created = self.upsert(user, &with_company(fields, group), now, attempts).await?;
        if unseen {
            self.learn(created);
        }
        self.memory.know_user(user, |row| row.joined(group, now));
        Ok(Some(OpSuccess::Sent))
    }

    async fn add_member(
        &self,
        subject: OpUser<'_>,
        group: &str,
        now: Timestamp,
        attempts: &mut Attempts,
    ) -> Result<OpSuccess, ExecuteError> {
        let user = subject.id;
        let ttl = self.users.unchanged_ttl_secs.max(JUST_SEEN);
        let known = || self.is_member(user, group, now, ttl);
        if known() {
            self.probe.saved("member");
            return Ok(OpSuccess::Unchanged);
        }
        let mut wait = VisibilityWait::default();
        let mut was_forgotten = false;
        // A refusal may mean that the user is a member already.
        let mut need = Need::EvenForbidden;
        let mut named_by = NamedBy::OwnIds;
        loop {
            let member = self.member_ref(subject, named_by, attempts).await?;
            let turn = self.company_turns.turn(group.into()).await;
            let company = self.member_company(group, named_by, now, attempts).await?;
            if known() {
                self.probe.saved("member");
                return Ok(OpSuccess::Unchanged);
            }
            let request = endpoint::needed(wire::add_member(company, member), need);
            let reply = self.send(&request, attempts).await?;
            let written = self.user_written(user).max(self.company_written(group));
            let listed = match reply.status {
                400 | 403 | 405 => self.lists(group, subject, now, attempts).await?,
                _ => Some(false),
            };
            match reply.status {
                200..300 | 409 => self.is_seen(written, &wait),
                _ if listed == Some(true) => {}
                // The user is not a member: the server forbids it, or the whole route.
                403 if need == Need::EvenForbidden => {
                    need = Need::Required;
                    continue;
                }
                400 | 404 if knows_no_user(&reply) => {
                    // Other users join meanwhile.
                    drop(turn);
                    if self.wait_until_seen(written, &mut wait, attempts).await {
                        continue;
                    }
                    if reply.status == 400 || was_forgotten {
                        return Err(unseen("the membership", &reply));
                    }
                    // One of the two was deleted: the cached entries are out of date.
                    self.memory.forget_user(user);
                    self.memory.forget_company(group);
                    was_forgotten = true;
                    named_by = NamedBy::Numbers;
                    continue;
                }
                400 | 405 if listed.is_none() => self.log_unknown_membership(reply.status),
                _ => return Err(ExecuteError::refused("the membership", &reply)),
            }
            self.memory.know_user(user, |row| row.joined(group, now));
            return Ok(OpSuccess::Sent);
        }
    }

    /// How `add_member` names the user.
    async fn member_ref<'u>(
        &self,
        subject: OpUser<'u>,
        named_by: NamedBy,
        attempts: &mut Attempts,
    ) -> Result<UserRef<'u>, ExecuteError> {
        if named_by == NamedBy::OwnIds && self.account.member_user == MemberUser::UserCustomId {
            self.standing(subject, attempts).await?;
            if !self.is_named_by_number(subject.id) {
                return Ok(UserRef::ExternalUserId(subject.id));
            }
        }
        Ok(UserRef::Number(self.number(subject, attempts).await?))
    }

    /// How `add_member` names the company.
    async fn member_company<'g>(
        &self,
        group: &'g str,
        named_by: NamedBy,
        now: Timestamp,
        attempts: &mut Attempts,
    ) -> Result<CompanyRef<'g>, ExecuteError> {
        if named_by == NamedBy::OwnIds
            && self.account.member_company == MemberCompany::CustomId
            && endpoint::segment(group).is_some()
        {
            return Ok(CompanyRef::ExternalCompanyId(group));
        }
        Ok(CompanyRef::Number(self.company_number(group, now, attempts).await?))
    }

    /// User.com's id of a company, which is created without fields if it is missing.
    async fn company_number(
        &self,
        group: &str,
        now: Timestamp,
        attempts: &mut Attempts,
    ) -> Result<u64, ExecuteError> {
        if let Some(id) = self.memory.company(group).and_then(|row| row.id) {
            return Ok(id);
        }
        let found = match self.find_company(group, attempts).await? {
            Some(found) => found,
            None => {
                let mut facts = Facts::default();
                self.create_company(group, &PackedFields::default(), &mut facts, attempts).await?
            }
        };
        self.remember(group, &found, now);
        if let Some(id) = found.id {
            return Ok(id);
        }
        // The write succeeded, even if its response cannot be parsed.
        let mut found = self.find_company(group, attempts).await?.and_then(|found| found.id);
        for pause in UNREADABLE_ANSWER_PAUSES {
            if found.is_some() {
                break;
            }
            // An empty or truncated response proves nothing about the company.
            tokio::time::sleep(pause).await;
            found = self.find_company(group, attempts).await?.and_then(|found| found.id);
        }
        found.ok_or_else(|| ExecuteError::own("User.com did not tell the company's number"))
    }

    /// Whether User.com lists the user as a member: then a refusal to add it means that it is one
    /// already. `None` if it lists no members.
    async fn lists(
        &self,
        group: &str,
        subject: OpUser<'_>,
        now: Timestamp,
        attempts: &mut Attempts,
    ) -> Result<Option<bool>, ExecuteError> {
        let member = self.number(subject, attempts).await?;
        let Some(found) = self.find_company(group, attempts).await? else {
            return Ok(Some(false));
        };
        self.remember(group, &found, now);
        Ok(found.members.map(|members| members.contains(&member)))
    }

    /// Logs that a membership was refused without a sign that it existed already.
    fn log_unknown_membership(&self, status: u16) {
        if !self.logged_unknown_membership.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                status,
                "User.com refuses to add a user to a company and does not list the company's \
                 members: the user is taken for a member, as for every further refusal of this \
                 kind; look at one of the companies at User.com"
            );
        }
    }
}
