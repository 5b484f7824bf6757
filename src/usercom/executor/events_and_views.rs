//! Events and page views: each is delivered once, as far as this can be known.
//!
//! Two of the same content may be two different events: the history has to show one more than are
//! known to have arrived before it proves that the possibly sent one did.

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::OpExecutor;
use super::history::{HistoryQuery, LookupCause};
use super::history_lag::SampleEntry;
use super::history_snapshots::HistoryKey;
use super::matching::OpUser;
use super::refused_properties::LeftOutProperties;
use super::unseen::{knows_no_user, unseen};
use super::users::UserState;
use crate::clock;
use crate::config::account::PageViewUser;
use crate::deliver::{Attempts, BeforeSend, Denial, SendError};
use crate::schedule::PackedFields;
use crate::usercom::endpoint::site_views::{View, Viewer};
use crate::usercom::endpoint::{events, site_views};
use crate::usercom::new_users::UnseenId;
use crate::usercom::outcome::{ExecuteError, OpSuccess, PriorSend};
use crate::usercom::profile_cache::hash;
use crate::usercom::visibility::VisibilityWait;

/// An event as it is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingEvent<'a> {
    pub(super) name: &'a str,
    pub(super) at: Timestamp,
    pub(super) data: &'a PackedFields,
}

impl PendingEvent<'_> {
    /// The same for events that a history cannot distinguish.
    fn fingerprint(&self, user: &str) -> u64 {
        let data: Vec<(&str, &str)> = self.data.iter().map(|f| (f.name, f.json)).collect();
        hash((user, self.name, self.at.as_second(), data))
    }

    fn sample(&self) -> SampleEntry {
        SampleEntry::Event { name: self.name.into(), at: self.at }
    }
}

impl OpExecutor {
    /// Sends an event.
    pub(super) async fn track(
        &self,
        subject: OpUser<'_>,
        event: PendingEvent<'_>,
        doubt: PriorSend,
        before: &dyn BeforeSend,
        attempts: &mut Attempts,
    ) -> Result<OpSuccess, ExecuteError> {
        let user = subject.id;
        let fingerprint = event.fingerprint(user);
        let place = HistoryKey::events(user);
        let mut standing = self.standing(subject, attempts).await?;
        let mut look = self.first_look(doubt, place);
        let mut wait = VisibilityWait::default();
        let mut left_out = self.refused_properties.left_out(event.name, event.data);
        let mut kept = left_out.rest_of(event.data);
        loop {
            let whose = self.whose_for_sure(user, attempts).await?;
            if let Some(cause) = look.take() {
                let offset =
                    |entry: &Value| events::same_at(entry, event.name, Some(event.at), event.data);
                let wanted =
                    HistoryQuery { place, fingerprint, at: event.at.as_second(), offset: &offset };
                let request = events::history(whose);
                if self.has_arrived(&wanted, cause, request, attempts).await? {
                    self.probe.duplicate_avoided();
                    return Ok(OpSuccess::AlreadyThere);
                }
            }
            let data = kept.as_ref().unwrap_or(event.data);
            let request = events::occurrence(whose, event.name, Some(event.at), data);
            let reply = match self.transport.send_counted(&request, attempts, before).await {
                Err(SendError::Ambiguous { denial, .. }) => {
                    look = self.look_after(denial, attempts);
                    continue;
                }
                answer => answer?,
            };
            match (reply.status, standing) {
                (200..300, _) => {
                    self.has_sent(place, fingerprint);
                    self.history_lag.accepted(place, || event.sample());
                    self.note_left_out(event, data, &left_out);
                    self.is_seen(self.user_written(user), &wait);
                    if standing == UserState::Unknown {
                        self.new_users.observe(UnseenId::Known);
                        self.memory.know_user(user, |_| ());
                    }
                    return Ok(OpSuccess::Sent);
                }
                _ if knows_no_user(&reply)
                    && self.wait_until_seen(self.user_written(user), &mut wait, attempts).await => {
                }
                (400, _) if left_out.add_named(&reply, data) => {
                    kept = left_out.rest_of(event.data);
                }
                (404, UserState::Created) => return Err(unseen("the event", &reply)),
                (404, UserState::Cached | UserState::Fetched | UserState::Unknown) => {
                    if standing == UserState::Unknown {
                        self.new_users.observe(UnseenId::New);
                    }
                    self.memory.forget_user(user);
                    // A known user that is missing now may have become another record.
                    let was_known = standing == UserState::Cached;
                    if !was_known || self.find_person(subject, attempts).await?.is_none() {
                        self.create_missing(user, attempts).await?;
                    }
                    standing = UserState::Created;
                }
                _ => return Err(ExecuteError::refused("the event", &reply)),
            }
        }
    }

    /// Records that an event was accepted, possibly without some of its properties.
    fn note_left_out(
        &self,
        event: PendingEvent<'_>,
        sent: &PackedFields,
        left_out: &LeftOutProperties,
    ) {
        self.refused_properties.taken(event.name, sent, left_out);
        for name in left_out.names() {
            self.probe.field_dropped(name, "User.com refused the event's property");
        }
    }

    /// Whether to look up an event or page view before it is sent again.
    fn look_after(&self, denial: Denial, attempts: &Attempts) -> Option<LookupCause> {
        match denial {
            Denial::TooMany if !self.throttled.look_due() => None,
            Denial::None | Denial::Unavailable | Denial::TooMany => {
                let at = attempts.failed_at.unwrap_or_else(Instant::now);
                Some(LookupCause::LostAnswer { at, denial })
            }
        }
    }

    /// Whether to look up before the first send. The first record of a user that needs no look-up
    /// ends the period of those that do.
    fn first_look(&self, doubt: PriorSend, place: HistoryKey<'_>) -> Option<LookupCause> {
        match doubt {
            PriorSend::Possible => Some(LookupCause::EarlierRun),
            PriorSend::None => {
                self.snapshots.forget(place);
                None
            }
        }
    }

    /// How a page view names its user, as the account allows it.
    async fn viewer<'u>(
        &self,
        subject: OpUser<'u>,
        attempts: &mut Attempts,
    ) -> Result<(Viewer<'u>, UserState), ExecuteError> {
        let field = match self.account.page_view_user {
            PageViewUser::UserKey => None,
            PageViewUser::ClientUser => Some("client_user"),
            PageViewUser::UserCustomId => Some("user_custom_id"),
            PageViewUser::CustomId => Some("custom_id"),
            PageViewUser::UserId => {
                let cached = self.memory.user(subject.id).is_some_and(|row| row.id.is_some());
                let number = self.number(subject, attempts).await?;
                let standing = if cached { UserState::Cached } else { UserState::Fetched };
                return Ok((Viewer::Number(number), standing));
            }
        };
        if let Some(field) = field {
            let standing = self.standing(subject, attempts).await?;
            // A record that only its number leads to has another own id.
            if !self.is_named_by_number(subject.id) {
                return Ok((Viewer::ExternalUserId(field, subject.id), standing));
            }
        }
        let (key, standing) = self.key(subject, attempts).await?;
        Ok((Viewer::Key(key.into()), standing))
    }

    /// Whether a user's number is the surer way to its record than its own id.
    pub(super) fn is_named_by_number(&self, user: &str) -> bool {
        self.memory.user(user).is_some_and(|row| row.surer_number(clock::now()).is_some())
    }

    /// Sends a page view.
    pub(super) async fn page(
        &self,
        subject: OpUser<'_>,
        view: View<'_>,
        doubt: PriorSend,
        before: &dyn BeforeSend,
        attempts: &mut Attempts,
    ) -> Result<OpSuccess, ExecuteError> {
        let user = subject.id;
        let fingerprint = hash((user, view.domain, view.path, view.at.as_millisecond()));
        let place = HistoryKey::views(user);
        let (mut viewer, mut standing) = self.viewer(subject, attempts).await?;
        let mut look = self.first_look(doubt, place);
        let mut wait = VisibilityWait::default();
        loop {
            if let Some(cause) = look.take() {
                let request = site_views::history(self.whose_for_sure(user, attempts).await?);
                let offset = |entry: &Value| site_views::same_at(entry, view);
                let wanted =
                    HistoryQuery { place, fingerprint, at: view.at.as_second(), offset: &offset };
                if self.has_arrived(&wanted, cause, request, attempts).await? {
                    self.probe.duplicate_avoided();
                    return Ok(OpSuccess::AlreadyThere);
                }
            }
            let request = site_views::view(&viewer, view);
            let reply = match self.transport.send_counted(&request, attempts, before).await {
                Err(SendError::Ambiguous { denial, .. }) => {
                    look = self.look_after(denial, attempts);
                    continue;
                }
                answer => answer?,
            };
            match (reply.status, standing) {
                (200..300, _) => {
                    self.has_sent(place, fingerprint);
                    self.history_lag.accepted(place, || SampleEntry::View {
                        domain: view.domain.into(),
                        path: view.path.into(),
                        at: view.at,
                    });
                    self.is_seen(self.user_written(user), &wait);
                    if standing == UserState::Unknown {
                        self.new_users.observe(UnseenId::Known);
                        self.memory.know_user(user, |_| ());
                    }
                    return Ok(OpSuccess::Sent);
                }
                (400 | 404, UserState::Cached | UserState::Unknown)
                    if matches!(viewer, Viewer::ExternalUserId(..)) && knows_no_user(&reply) =>
                {
                    if self.wait_until_seen(self.user_written(user), &mut wait, attempts).await {
                        continue;
                    }
                    if standing == UserState::Unknown {
                        self.new_users.observe(UnseenId::New);
                    }
                    self.memory.forget_user(user);
                    // A user that was known and is gone may have become another record.
                    let was_known = standing == UserState::Cached;
                    if !was_known || self.find_person(subject, attempts).await?.is_none() {
                        self.create_missing(user, attempts).await?;
                    }
                    viewer = self.viewer(subject, attempts).await?.0;
                    standing = UserState::Created;
                }
                // The user may have been merged or deleted since its key or number was seen.
                (400 | 404, UserState::Cached) => {
                    match viewer {
                        Viewer::Number(_) => self.memory.forget_user(user),
                        Viewer::Key(_) | Viewer::ExternalUserId(..) => self.forget_key(user),
                    }
                    let (fresh, now_standing) = self.viewer(subject, attempts).await?;
                    let waits = fresh != viewer
                        || (knows_no_user(&reply)
                            && self
                                .wait_until_seen(self.user_written(user), &mut wait, attempts)
                                .await);
                    if !waits {
                        return Err(ExecuteError::refused("the page view", &reply));
                    }
                    (viewer, standing) = (fresh, now_standing);
                }
                _ if knows_no_user(&reply)
                    && self.wait_until_seen(self.user_written(user), &mut wait, attempts).await => {
                }
                _ => return Err(ExecuteError::refused("the page view", &reply)),
            }
        }
    }
}
