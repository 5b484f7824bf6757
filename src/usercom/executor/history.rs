//! Looks up whether an event or page view that was possibly sent has arrived.
//!
//! A user's history is read once for all records that an earlier process may have sent, and stored
//! until the first record of that user that was not sent before: see `history_snapshots`. After a
//! timeout of a request of this process it is read again.
//!
//! # Invariants
//!
//! An entry of a history proves the arrival of one record only: n equal events need n entries.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::OpExecutor;
use super::history_lag::HistoryRead;
use super::history_snapshots::{HistoryKey, HistoryKind, Snapshot};
use crate::deliver::{Attempts, Denial, Request, SendError};
use crate::usercom::endpoint;
use crate::usercom::outcome::ExecuteError;
use crate::usercom::visibility::VisibilityWait;

/// Pages that are read of one history at most.
const MAX_PAGES: usize = 100;

/// Bytes of entries that are stored of one history at most: 16 MiB.
const MAX_BYTES: usize = 16 << 20;

/// In a history that begins with the newest entry, reading stops at an entry that is older than the
/// event by this many seconds.
const SURELY_OLDER: i64 = 60;

/// Why it is not known whether an event arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookupCause {
    /// An earlier process may have sent it.
    EarlierRun,
    /// The result of an attempt of this process is unknown.
    LostAnswer {
        /// When.
        at: Instant,
        /// Whether the server said that it did not carry it out.
        denial: Denial,
    },
}

/// What a history says of an event that was surely taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SampleLook {
    Shown,
    NotShown,
    /// There is no such event, or its history cannot be read.
    None,
}

/// How long a lost event is looked for where there is nothing to compare it with.
const WITHOUT_SAMPLE: Duration = Duration::from_secs(5);

/// The event or page view that is searched.
pub(super) struct HistoryQuery<'a> {
    pub(super) place: HistoryKey<'a>,
    /// The same for events that a history cannot distinguish.
    pub(super) fingerprint: u64,
    /// Its time, in seconds.
    pub(super) at: i64,
    /// The zone offset, in seconds, under which an entry is the searched one; `None` if it is
    /// another. Times that name their zone have the offset 0.
    pub(super) offset: &'a (dyn Fn(&Value) -> Option<i64> + Sync),
}

impl OpExecutor {
    /// Whether a user's history shows that the event arrived. `false` if histories are not read, or
    /// cannot be: then it is sent again, because a duplicate is better than a loss.
    pub(super) async fn has_arrived(
        &self,
        wanted: &HistoryQuery<'_>,
        cause: LookupCause,
        request: Request,
        attempts: &mut Attempts,
    ) -> Result<bool, ExecuteError> {
        if !self.delivery.verify_ambiguous {
            return Ok(false);
        }
        // Reading the history is not a success of the request whose result is unknown.
        let failed = attempts.failed;
        let found = match cause {
            LookupCause::EarlierRun => {
                let kept = self.snapshots.take(wanted.place);
                let mut snapshot = kept.unwrap_or_else(|| Snapshot::unread(request));
                let found = self.look(&mut snapshot, wanted, attempts).await;
                if found.is_ok() {
                    self.snapshots.keep(wanted.place, snapshot);
                }
                found
            }
            LookupCause::LostAnswer { at, denial } => {
                let found = self.has_arrived_since(wanted, at, denial, request, attempts).await;
                if let (Ok(found), Denial::TooMany) = (&found, denial) {
                    self.throttled.looked(*found);
                }
                found
            }
        };
        attempts.failed = failed;
        let found = found?;
        if found {
            self.has_sent(wanted.place, wanted.fingerprint);
        }
        Ok(found)
    }

    /// Looks for an event whose answer was lost at `at`, until a history must show it. One that was
    /// answered 429 is looked for once where nothing was measured.
    async fn has_arrived_since(
        &self,
        wanted: &HistoryQuery<'_>,
        at: Instant,
        denial: Denial,
        request: Request,
        attempts: &mut Attempts,
    ) -> Result<bool, ExecuteError> {
        let kind = wanted.place.kind;
        let mut wait = VisibilityWait::default();
        let mut measured_again = false;
        loop {
            let pause = self.history_lag.pause_before_look(kind, at.elapsed());
            if !measured_again && !pause.is_zero() && self.history_lag.may_be_shorter(kind) {
                measured_again = true;
                self.look_at_sample(kind, attempts).await?;
                continue;
            }
            if !pause.is_zero() {
                attempts.stalled.set();
                tokio::time::sleep(pause).await;
            }
            let age = at.elapsed();
            let mut snapshot = Snapshot::unread(request.clone());
            if self.look(&mut snapshot, wanted, attempts).await? {
                return Ok(true);
            }
            match snapshot.refused {
                // The user may only be unseen yet.
                Some(404) => {
                    let written = self.user_written(wanted.place.user);
                    if self.wait_until_seen(written, &mut wait, attempts).await {
                        continue;
                    }
                    return Ok(false);
                }
                Some(_) => return Ok(false),
                None => {}
            }
            let measured = self.history_lag.settled_after(kind);
            if denial == Denial::TooMany || measured.is_some_and(|settled| age >= settled) {
                return Ok(false);
            }
            let look = match measured {
                Some(_) => continue,
                None => self.look_at_sample(kind, attempts).await?,
            };
            let longest = match look {
                // Measured just now: the look may have come too early.
                SampleLook::Shown => match self.history_lag.settled_after(kind) {
                    Some(settled) if age < settled => continue,
                    _ => return Ok(false),
                },
                SampleLook::None => WITHOUT_SAMPLE,
                SampleLook::NotShown => Duration::MAX,
            };
            if age >= longest || !self.wait_until_seen(Some(at), &mut wait, attempts).await {
                return Ok(false);
            }
        }
    }

    /// Whether a history shows the last event that was surely taken.
    async fn look_at_sample(
        &self,
        kind: HistoryKind,
        attempts: &mut Attempts,
    ) -> Result<SampleLook, ExecuteError> {
        let Some(sample) = self.history_lag.sample(kind) else { return Ok(SampleLook::None) };
        let Some(whose) = self.whose(&sample.user) else { return Ok(SampleLook::None) };
        let request = match kind {
            HistoryKind::Events => endpoint::events::history(whose),
            HistoryKind::Views => endpoint::site_views::history(whose),
        };
        let age = sample.accepted.elapsed();
        let mut snapshot = Snapshot::unread(request);
        self.read_on(&mut snapshot, kind, sample.entry.second(), attempts).await?;
        if snapshot.find(0, &self.zone, &|entry| sample.entry.offset(entry)).is_some() {
            self.history_lag.shown(kind, age);
            return Ok(SampleLook::Shown);
        }
        if snapshot.refused.is_some_and(|status| status != 404) {
            return Ok(SampleLook::None);
        }
        self.history_lag.hidden(kind, age);
        if self.visibility.is_over(age) {
            self.history_lag.is_useless(kind);
        }
        Ok(SampleLook::NotShown)
    }

    /// Reads a history as far as it must show the event, and says whether it does.
    async fn look(
        &self,
        snapshot: &mut Snapshot,
        wanted: &HistoryQuery<'_>,
        attempts: &mut Attempts,
    ) -> Result<bool, ExecuteError> {
        self.read_on(snapshot, wanted.place.kind, wanted.at, attempts).await?;
        let arrivals = self.memory.arrivals(wanted.fingerprint);
        let known = arrivals.saturating_sub(snapshot.arrived_since(wanted.fingerprint));
        let found = snapshot.find(known, &self.zone, wanted.offset);
        if let Some(found) = found {
            snapshot.use_up(found);
        }
        if found.is_none() && snapshot.is_cut_short() {
            let subject = attempts.subject();
            tracing::warn!(
                op = subject.op,
                user = subject.user,
                record = subject.record,
                pages = snapshot.pages,
                "a user's history is too long to be read whole: an event that may have been sent \
                 before is not in the part that was read, so it is sent, perhaps a second time"
            );
        }
        Ok(found.is_some())
    }

    /// Records that an event or page view has arrived.
    pub(super) fn has_sent(&self, place: HistoryKey<'_>, fingerprint: u64) {
        self.memory.arrived(fingerprint);
        self.snapshots.arrived(place, fingerprint);
    }

    /// Reads on until an event at the time `at` must have been in the pages read. A history that
    /// cannot be read is requested a few times: a look-up never decides about the record.
    async fn read_on(
        &self,
        snapshot: &mut Snapshot,
        kind: HistoryKind,
        at: i64,
        attempts: &mut Attempts,
    ) -> Result<(), ExecuteError> {
        let mut pauses = super::users::UNREADABLE_ANSWER_PAUSES.iter();
        while !snapshot.is_cut_short()
            && snapshot.reaches_back_to().is_none_or(|oldest| oldest >= at - SURELY_OLDER)
        {
            let Some(mut request) = snapshot.next.take() else { break };
            let (status, page) = match self.send(&request, attempts).await {
                Ok(reply) => {
                    let page = endpoint::page(&reply, &request.path);
                    (reply.status, Some(page).filter(|page| reply.is_success() && page.is_list))
                }
                Err(SendError::RouteClosed { status, .. }) => {
                    // It is not waited for: the route is forbidden for all.
                    pauses = [].iter();
                    (status, None)
                }
                Err(SendError::Poison { answer, .. }) => {
                    // Nothing more is to be expected of this history.
                    self.history_lag.note_read(kind, HistoryRead::Unreadable);
                    (answer.map_or(0, |answer| answer.status), None)
                }
                Err(error) => {
                    snapshot.next = Some(request);
                    return Err(error.into());
                }
            };
            let Some(page) = page else {
                if status != 404
                    && !self.history_lag.is_unreadable(kind)
                    && let Some(pause) = pauses.next()
                {
                    snapshot.next = Some(request);
                    tokio::time::sleep(*pause).await;
                    continue;
                }
                snapshot.refused = Some(status);
                if status != 404 {
                    self.history_lag.note_read(kind, HistoryRead::Unreadable);
                    let subject = attempts.subject();
                    tracing::warn!(
                        op = subject.op,
                        user = subject.user,
                        record = subject.record,
                        status,
                        route = request.route,
                        "a user's history cannot be read: what may have been sent before is sent \
                         again, perhaps a second time; check that the API key may read users"
                    );
                }
                break;
            };
            self.history_lag.note_read(kind, HistoryRead::Read);
            snapshot.add(page.results);
            snapshot.continue_with(page.next.map(|next| {
                request.path = next;
                request
            }));
        }
        Ok(())
    }
}

impl Snapshot {
    /// Whether the history is longer than the part that is ever read.
    fn is_cut_short(&self) -> bool {
        self.next.is_some() && (self.pages >= MAX_PAGES || self.bytes >= MAX_BYTES)
    }
}

impl HistoryKey<'_> {
    /// A user's events.
    pub(super) fn events(user: &str) -> HistoryKey<'_> {
        HistoryKey { kind: HistoryKind::Events, user }
    }

    /// A user's page views.
    pub(super) fn views(user: &str) -> HistoryKey<'_> {
        HistoryKey { kind: HistoryKind::Views, user }
    }
}
