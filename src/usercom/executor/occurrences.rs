//! Events and page views: each arrives once, as far as anybody can tell.
//!
//! Two of the same content may both be meant: the history has to show one more than we know to
//! have arrived before it proves that the one in doubt did.

use jiff::Timestamp;
use serde_json::Value;

use super::history::{Cause, Wanted};
use super::snapshots::Place;
use super::users::Standing;
use super::{SETTLES, Usercom};
use crate::deliver::{Attempts, BeforeSend, SendError};
use crate::schedule::PackedFields;
use crate::usercom::endpoint::site_views::View;
use crate::usercom::endpoint::{events, site_views};
use crate::usercom::memory::hash;
use crate::usercom::odds::Found as Was;
use crate::usercom::outcome::{Done, Doubt, Failure};

/// An event as it is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event<'a> {
    pub(super) name: &'a str,
    pub(super) at: Timestamp,
    pub(super) data: &'a PackedFields,
}

impl Event<'_> {
    /// The same for events that cannot be told apart in a history.
    fn fingerprint(&self, user: &str) -> u64 {
        let data: Vec<(&str, &str)> = self.data.iter().map(|f| (f.name, f.json)).collect();
        hash((user, self.name, self.at.as_second(), data))
    }
}

impl Usercom {
    /// Records an event occurrence.
    pub(super) async fn track(
        &self,
        user: &str,
        event: Event<'_>,
        doubt: Doubt,
        before: &dyn BeforeSend,
        attempts: &mut Attempts,
    ) -> Result<Done, Failure> {
        let fingerprint = event.fingerprint(user);
        let place = Place::events(user);
        let mut standing = self.standing(user, attempts).await?;
        let mut look = self.first_look(doubt, place);
        let mut patience = 1;
        loop {
            let whose = self.whose_for_sure(user, attempts).await?;
            if let Some(cause) = look.take() {
                let offset =
                    |entry: &Value| events::same_at(entry, event.name, Some(event.at), event.data);
                let wanted =
                    Wanted { place, fingerprint, at: event.at.as_second(), offset: &offset };
                let request = events::history(whose);
                if self.has_arrived(&wanted, cause, request, attempts).await? {
                    self.probe.duplicate_avoided();
                    return Ok(Done::AlreadyThere);
                }
            }
            let request = events::occurrence(whose, event.name, Some(event.at), event.data);
            let reply = match self.transport.send_counted(&request, attempts, before).await {
                Err(SendError::Ambiguous { .. }) => {
                    look = Some(Cause::LostAnswer);
                    continue;
                }
                answer => answer?,
            };
            match (reply.status, standing) {
                (200..300, _) => {
                    self.has_sent(place, fingerprint);
                    if standing == Standing::Untried {
                        self.new_users.observe(Was::Known);
                        self.memory.know_user(user, |_| ());
                    }
                    return Ok(Done::Sent);
                }
                (404, Standing::Written) if patience > 0 => {
                    patience -= 1;
                    tokio::time::sleep(SETTLES).await;
                }
                (404, Standing::Remembered | Standing::Read | Standing::Untried) => {
                    if standing == Standing::Untried {
                        self.new_users.observe(Was::New);
                    }
                    self.memory.forget_user(user);
                    self.create_missing(user, attempts).await?;
                    standing = Standing::Written;
                }
                _ => return Err(Failure::refused("the event", &reply)),
            }
        }
    }

    /// Whether to look before the first send. Who needs no look ends the time of those that do.
    fn first_look(&self, doubt: Doubt, place: Place<'_>) -> Option<Cause> {
        match doubt {
            Doubt::MaybeSent => Some(Cause::EarlierRun),
            Doubt::No => {
                self.snapshots.forget(place);
                None
            }
        }
    }

    /// Records a page view.
    pub(super) async fn page(
        &self,
        user: &str,
        view: View<'_>,
        doubt: Doubt,
        before: &dyn BeforeSend,
        attempts: &mut Attempts,
    ) -> Result<Done, Failure> {
        let fingerprint = hash((user, view.domain, view.path, view.at.as_millisecond()));
        let place = Place::views(user);
        let (mut key, mut standing) = self.key(user, attempts).await?;
        let mut look = self.first_look(doubt, place);
        let mut patience = 1;
        loop {
            if let Some(cause) = look.take() {
                let request = site_views::history(self.whose_for_sure(user, attempts).await?);
                let offset = |entry: &Value| site_views::same_at(entry, view);
                let wanted =
                    Wanted { place, fingerprint, at: view.at.as_second(), offset: &offset };
                if self.has_arrived(&wanted, cause, request, attempts).await? {
                    self.probe.duplicate_avoided();
                    return Ok(Done::AlreadyThere);
                }
            }
            let request = site_views::view(&key, view);
            let reply = match self.transport.send_counted(&request, attempts, before).await {
                Err(SendError::Ambiguous { .. }) => {
                    look = Some(Cause::LostAnswer);
                    continue;
                }
                answer => answer?,
            };
            match (reply.status, standing) {
                (200..300, _) => {
                    self.has_sent(place, fingerprint);
                    return Ok(Done::Sent);
                }
                (404, Standing::Written) if patience > 0 => {
                    patience -= 1;
                    tokio::time::sleep(SETTLES).await;
                }
                // The user may have been merged or deleted since its key was seen.
                (400 | 404, Standing::Remembered) => {
                    self.forget_key(user);
                    let (fresh, now_standing) = self.key(user, attempts).await?;
                    if fresh == key {
                        return Err(Failure::refused("the page view", &reply));
                    }
                    (key, standing) = (fresh, now_standing);
                }
                _ => return Err(Failure::refused("the page view", &reply)),
            }
        }
    }
}
