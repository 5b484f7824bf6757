//! Searches for the record of a person by the keys of a call.
//!
//! # Invariants
//! An answer that says nothing about the key is no reason to reject a call: the key counts as one
//! that no record has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::OpExecutor;
use super::matching::OpUser;
use super::users::UNREADABLE_ANSWER_PAUSES;
use crate::clock;
use crate::config::sink::MatchBy;
use crate::deliver::{ApiReply, Attempts, Need, Request, SendError};
use crate::schedule::KeyKind;
use crate::usercom::endpoint;
use crate::usercom::endpoint::users::{self as wire, NoSearchAnswer, OwnId, SearchHit};
use crate::usercom::identity::{Candidate, Decision, Findings};
use crate::usercom::outcome::ExecuteError;

/// For how long a search may fail while User.com answers other requests.
const SEARCH_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is checked whether a search is still worth the wait.
const PATIENCE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of the user key of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserKeyOwner {
    /// It was not asked, because another key had decided; or there was no answer.
    Unknown,
    /// No record has it.
    None,
    /// A record has it.
    Record,
}

/// What the searches for a person found.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) decision: Decision,
    /// The key that decided.
    pub(super) by: Option<KeyKind>,
    pub(super) user_key: UserKeyOwner,
}

impl OpExecutor {
    /// The kinds of keys that are asked for, in order.
    pub(super) fn kinds(&self) -> impl Iterator<Item = KeyKind> {
        self.users.match_by.iter().map(|by| match by {
            MatchBy::UserKey => KeyKind::UserKey,
            MatchBy::Email => KeyKind::Email,
            MatchBy::Phone => KeyKind::Phone,
        })
    }

    /// Asks for the records of a person, key by key.
    pub(super) async fn look_up(
        &self,
        subject: OpUser<'_>,
        attempts: &mut Attempts,
    ) -> Result<Lookup, ExecuteError> {
        let mut findings = Findings::default();
        let mut user_key = UserKeyOwner::Unknown;
        for kind in self.kinds() {
            let Some(key) = subject.keys.get(kind) else {
                continue;
            };
            let Some(found) = self.search(subject.id, kind, key, attempts).await? else {
                continue;
            };
            if kind == KeyKind::UserKey {
                user_key = match found.is_empty() {
                    true => UserKeyOwner::None,
                    false => UserKeyOwner::Record,
                };
            }
            if let Some(decision) = findings.add(subject.id, kind, &found) {
                return Ok(Lookup { decision, by: Some(kind), user_key });
            }
        }
        Ok(Lookup { decision: findings.end(), by: None, user_key })
    }

    /// The records that have a key. `None` where there is no answer about it.
    async fn search(
        &self,
        user: &str,
        kind: KeyKind,
        key: &str,
        attempts: &mut Attempts,
    ) -> Result<Option<Vec<Candidate>>, ExecuteError> {
        let claim = self.memory.claim((kind, key), clock::now());
        if let Some(claim) = claim.filter(|claim| *claim.own_id != *user) {
            let own_id = Some(claim.own_id.to_string());
            return Ok(Some(vec![Candidate { number: claim.number, own_id }]));
        }
        if !self.searches.allows(kind, Instant::now()) {
            return Ok(None);
        }
        let hits = match self.search_hits(kind, key, attempts).await? {
            Ok(hits) => hits,
            Err(why) => {
                if self.searches.unanswered(kind, Instant::now()) {
                    self.probe.search_unanswered(name(kind), &why);
                }
                return Ok(None);
            }
        };
        self.searches.answered(kind);
        let mut found = Vec::new();
        for mut hit in hits {
            if hit.has_key.is_none() || hit.own_id == OwnId::Unsaid {
                // The record itself says what the list leaves out.
                let request = wire::by_number(hit.number);
                let shown = self.send_with_patience(kind, request, attempts).await?;
                let Some(whole) = shown.ok().and_then(|reply| wire::shown(&reply, kind, key))
                else {
                    continue;
                };
                hit = SearchHit { number: hit.number, ..whole };
            }
            // A record that does not show the key at all may be any other person's.
            if hit.has_key != Some(true) {
                continue;
            }
            let own_id = match (hit.own_id, self.memory.adopted(hit.number)) {
                (OwnId::Some(own_id), _) => Some(own_id),
                // An adoption of this user's own may not have been carried out.
                (_, adopted) => adopted.filter(|id| **id != *user).map(|id| id.to_string()),
            };
            found.push(Candidate { number: hit.number, own_id });
        }
        Ok(Some(found))
    }

    /// Asks which records have a key. The inner error says why there is no answer about it.
    async fn search_hits(
        &self,
        kind: KeyKind,
        key: &str,
        attempts: &mut Attempts,
    ) -> Result<Result<Vec<SearchHit>, String>, ExecuteError> {
        let mut pauses = UNREADABLE_ANSWER_PAUSES.into_iter();
        loop {
            let sent = self.send_with_patience(kind, wire::search(kind, key), attempts).await?;
            let status = match sent.map(|reply| wire::searched(&reply, kind, key)) {
                Err(why) => return Ok(Err(why)),
                Ok(Ok(hits)) => return Ok(Ok(hits)),
                Ok(Err(NoSearchAnswer::Refused(status))) => {
                    return Ok(Err(format!("status {status}")));
                }
                Ok(Err(NoSearchAnswer::Unreadable(status))) => status,
            };
            // An empty or damaged answer proves nothing about the key: it is asked again.
            match pauses.next().filter(|_| !self.searches.is_suspended(kind)) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Ok(Err(format!("status {status} without JSON"))),
            }
        }
    }

    /// Sends a request of a search. The inner error says why there is no answer that means anything.
    async fn send_with_patience(
        &self,
        kind: KeyKind,
        request: Request,
        attempts: &mut Attempts,
    ) -> Result<Result<ApiReply, String>, ExecuteError> {
        let request = endpoint::needed(request, Need::Optional);
        let failed = attempts.failed;
        let stalled = attempts.stalled.clone();
        stalled.clear();
        let got_page = AtomicBool::new(false);
        let is_failing = || stalled.is_set() || got_page.load(Ordering::Relaxed);
        let sent = tokio::select! {
            biased;
            sent = self.send_past_pages(&request, &got_page, attempts) => sent,
            () = self.out_of_patience(kind, is_failing) => {
                attempts.failed = failed;
                stalled.clear();
                return Ok(Err("no usable answer, while other requests succeed".into()));
            }
        };
        match sent {
            Ok(reply) => Ok(Ok(reply)),
            Err(error @ (SendError::RouteClosed { .. } | SendError::Poison { .. })) => {
                attempts.failed = failed;
                stalled.clear();
                Ok(Err(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a request again while a web page or a redirect comes in place of an answer: during an
    /// outage it proves nothing about a key.
    async fn send_past_pages(
        &self,
        request: &Request,
        got_page: &AtomicBool,
        attempts: &mut Attempts,
    ) -> Result<ApiReply, SendError> {
        loop {
            let reply = self.send(request, attempts).await?;
            if !ExecuteError::refused("the search", &reply).is_page() {
                return Ok(reply);
            }
            got_page.store(true, Ordering::Relaxed);
            // The transport has waited between its attempts; this is for one that does not.
            tokio::time::sleep(PATIENCE_CHECK_INTERVAL).await;
        }
    }

    /// Waits until a search has failed for so long, while User.com answered others, that it is not
    /// worth the wait; or until others found out that such searches are not answered.
    async fn out_of_patience(&self, kind: KeyKind, is_failing: impl Fn() -> bool) {
        let mut failing_since = None;
        loop {
            tokio::time::sleep(PATIENCE_CHECK_INTERVAL).await;
            if !is_failing() || !self.transport.is_alive() {
                failing_since = None;
                continue;
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= SEARCH_PATIENCE || self.searches.is_suspended(kind) {
                return;
            }
        }
    }
}

/// A kind of key as `users.match_by` names it.
fn name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::UserKey => "user_key",
        KeyKind::Email => "email",
        KeyKind::Phone => "phone",
    }
}
