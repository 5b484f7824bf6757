//! Looking up whether an event or page view that may have been sent has arrived.
//!
//! A user's history is read once for all records that an earlier process may have sent, and kept
//! until the first record of that user that was not sent before: see `snapshots`. After a timeout
//! of our own it is read again.
//!
//! # Invariants
//! An entry of a history answers for one record only: n equal events need n entries.

use serde_json::Value;

use super::OpExecutor;
use super::history_snapshots::{HistoryKey, HistoryKind, Snapshot};
use crate::deliver::{Attempts, Request};
use crate::usercom::endpoint;
use crate::usercom::outcome::ExecuteError;

/// Pages read of one history at most.
const MAX_PAGES: usize = 100;

/// Bytes of entries kept of one history at most: 16 MiB.
const MAX_BYTES: usize = 16 << 20;

/// How far an entry's time must lie before the one we look for, in seconds, before the rest of a
/// history that begins with the newest is left unread.
const SURELY_OLDER: i64 = 60;

/// Why it is not known whether an event arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookupCause {
    /// An earlier process may have sent it.
    EarlierRun,
    /// An attempt of this run had no clear end.
    LostAnswer,
    /// An attempt of this run was answered 429.
    TooMany,
}

/// What is looked for.
pub(super) struct HistoryQuery<'a> {
    pub(super) place: HistoryKey<'a>,
    /// The same for events that cannot be told apart in a history.
    pub(super) fingerprint: u64,
    /// Its time, in seconds.
    pub(super) at: i64,
    /// The zone's offset, in seconds, under which an entry is the one that is looked for. `None`
    /// where it is another. Times that name their zone have the offset 0.
    pub(super) offset: &'a (dyn Fn(&Value) -> Option<i64> + Sync),
}

impl OpExecutor {
    /// Whether a user's history shows that the event arrived. `false` where histories are not read,
    /// or cannot be: then it is sent again, since once too often is better than never.
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
        // A look at the history is no success of the request that is in doubt.
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
            tracing::warn!(
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

    /// An event or page view is known to have arrived.
    pub(super) fn has_sent(&self, place: HistoryKey<'_>, fingerprint: u64) {
        self.memory.arrived(fingerprint);
        self.snapshots.arrived(place, fingerprint);
    }

    /// Reads on until what happened at `at` must have been seen.
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
                    tracing::warn!(
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
                // An empty or damaged answer proves nothing about the history: it is asked again.
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
    /// Whether there is more of the history than is ever read.
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
