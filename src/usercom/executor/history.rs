//! Looks up whether an event or page view that was possibly sent has arrived.
//!
//! A user's history is read once for all records that an earlier process may have sent, and stored
//! until the first record of that user that was not sent before: see `history_snapshots`. After a
//! timeout of a request of this process it is read again.
//!
//! # Invariants
//!
//! An entry of a history proves the arrival of one record only: n equal events need n entries.

use serde_json::Value;

use super::OpExecutor;
use super::history_snapshots::{HistoryKey, HistoryKind, Snapshot};
use crate::deliver::{Attempts, Request};
use crate::usercom::endpoint;
use crate::usercom::outcome::ExecuteError;

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
    LostAnswer,
    /// An attempt of this process was answered with 429.
    TooMany,
}

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
        let kept = match cause {
            LookupCause::EarlierRun => self.snapshots.take(wanted.place),
            LookupCause::LostAnswer | LookupCause::TooMany => None,
        };
        let mut snapshot = kept.unwrap_or_else(|| Snapshot::unread(request));
        let read = self.read_on(&mut snapshot, wanted.at, attempts).await;
        attempts.failed = failed;
        read?;
        let arrivals = self.memory.arrivals(wanted.fingerprint);
        let known = arrivals.saturating_sub(snapshot.arrived_since(wanted.fingerprint));
        let found = snapshot.find(known, &self.zone, wanted.offset);
        if cause == LookupCause::TooMany {
            self.throttled.looked(found.is_some());
        }
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
        if cause == LookupCause::EarlierRun {
            self.snapshots.keep(wanted.place, snapshot);
        }
        if found.is_some() {
            self.has_sent(wanted.place, wanted.fingerprint);
        }
        Ok(found.is_some())
    }

    /// Records that an event or page view has arrived.
    pub(super) fn has_sent(&self, place: HistoryKey<'_>, fingerprint: u64) {
        self.memory.arrived(fingerprint);
        self.snapshots.arrived(place, fingerprint);
    }

    /// Reads on until an event at the time `at` must have been in the pages read.
    async fn read_on(
        &self,
        snapshot: &mut Snapshot,
        at: i64,
        attempts: &mut Attempts,
    ) -> Result<(), ExecuteError> {
        let mut pauses = super::users::UNREADABLE_ANSWER_PAUSES.into_iter();
        while !snapshot.is_cut_short()
            && snapshot.reaches_back_to().is_none_or(|oldest| oldest >= at - SURELY_OLDER)
        {
            let Some(mut request) = snapshot.next.take() else { break };
            let reply = match self.send(&request, attempts).await {
                Ok(reply) => reply,
                Err(error) => {
                    snapshot.next = Some(request);
                    return Err(error.into());
                }
            };
            if !reply.is_success() {
                if reply.status != 404 {
                    let subject = attempts.subject();
                    tracing::warn!(
                        op = subject.op,
                        user = subject.user,
                        record = subject.record,
                        status = reply.status,
                        route = request.route,
                        "a user's history cannot be read: what may have been sent before is sent \
                         again"
                    );
                }
                break;
            }
            if endpoint::json(&reply).is_null()
                && let Some(pause) = pauses.next()
            {
                // An empty or truncated response proves nothing about the history: it is requested
                // again.
                snapshot.next = Some(request);
                tokio::time::sleep(pause).await;
                continue;
            }
            let page = endpoint::page(&reply, &request.path);
            snapshot.add(page.results);
            snapshot.next = page.next.map(|next| {
                request.path = next;
                request
            });
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
