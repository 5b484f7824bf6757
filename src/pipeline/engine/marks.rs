//! Write-ahead marks of records whose events and page views are sent. A mark is durable before the
//! request is sent, so after a crash only marked records may have been sent.
//!
//! One task writes marks in groups. A group contains the requests that wait to be sent now, plus as
//! many queued ones as were sent while the last group was written, so that most requests find their
//! mark already written. At a low request rate nothing is marked ahead.
//!
//! # Invariants
//!
//! A request is sent only after the mark of its record is durable. A mark is removed
//! only while no request of its record can have been sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use crate::buffer::{Buffer, Token};
use crate::deliver::{BeforeSend, SendError};

/// Records that may be marked before their requests are sent.
const MAX_MARKED_AHEAD: usize = 64;

/// How long the removal of a mark waits for others, so that they share one write.
const REMOVAL_DELAY: Duration = Duration::from_millis(20);

/// How many requests of one record may have been sent.
pub(super) type SentCount = Arc<AtomicU32>;

/// The marks of one engine. Clones share them.
#[derive(Clone)]
pub(super) struct DispatchMarks {
    shared: Arc<MarksShared>,
}

struct MarksShared {
    state: Mutex<MarksState>,
    /// Wakes the writer.
    work: Notify,
    /// Counts the groups written; wakes those that wait for one.
    written: watch::Sender<u64>,
}

#[derive(Clone)]
struct MarkedRequest {
    token: Token,
    sent: SentCount,
}

#[derive(Default)]
struct MarksState {
    next_id: u64,
    /// Announced, in the order in which they will probably be sent.
    queued: BTreeMap<u64, MarkedRequest>,
    /// Ready to be sent, waiting for their marks.
    wanted: BTreeMap<u64, MarkedRequest>,
    /// In the group that is being written.
    writing: BTreeMap<u64, MarkedRequest>,
    /// Marked, not sent yet.
    ahead: BTreeMap<u64, MarkedRequest>,
    /// Marked, and perhaps not sent at all.
    removable: HashMap<i64, MarkedRequest>,
    /// Requests that were sent, or became ready, since the last group started.
    pace: usize,
    /// How many are to be marked ahead.
    target: usize,
    closed: bool,
}

/// Whether a request may be sent.
enum SendPermission {
    Granted,
    Pending,
    Closed,
}

impl DispatchMarks {
    pub(super) fn new() -> Self {
        Self {
            shared: Arc::new(MarksShared {
                state: Mutex::default(),
                work: Notify::new(),
                written: watch::Sender::new(0),
            }),
        }
    }

    /// Announces a request of a record. `sent` counts for the record, over all its requests.
    pub(super) fn announce(&self, token: Token, sent: SentCount) -> AnnouncedRequest {
        let mut state = self.shared.state();
        let id = state.next_id;
        state.next_id += 1;
        if token.seq().is_some() {
            state.queued.insert(id, MarkedRequest { token, sent: Arc::clone(&sent) });
        }
        drop(state);
        AnnouncedRequest {
            shared: Arc::clone(&self.shared),
            id,
            token,
            sent,
            attempts: AtomicU32::new(0),
        }
    }

    /// Writes marks until storage fails permanently.
    pub(super) async fn write(self, buffer: Arc<dyn Buffer>) {
        loop {
            self.shared.work.notified().await;
            if self.shared.state().wanted.is_empty() {
                tokio::time::sleep(REMOVAL_DELAY).await;
            }
            let (sent, not_sent) = self.shared.state().begin_group();
            if sent.is_empty() && not_sent.is_empty() {
                continue;
            }
            let written = buffer.mark_dispatched(sent, not_sent).await;
            if let Err(error) = &written {
                tracing::error!(%error, "events and page views could not be marked as sent, so they are not sent: the sink stops, and delivers them after a restart");
            }
            self.shared.state().end_group(written.is_ok());
            self.shared.written.send_modify(|groups| *groups += 1);
            if written.is_err() {
                return;
            }
        }
    }
}

impl MarksShared {
    fn state(&self) -> MutexGuard<'_, MarksState> {
        self.state.lock()
    }
}

impl MarksState {
    /// Starts a group. Returns the records to mark and those to unmark.
    fn begin_group(&mut self) -> (Vec<Token>, Vec<Token>) {
        self.pace = 0;
        self.writing = std::mem::take(&mut self.wanted);
        while self.ahead.len() + self.writing.len() < self.target.max(self.writing.len()) {
            let Some((id, entry)) = self.queued.pop_first() else { break };
            self.writing.insert(id, entry);
        }
        let sent: Vec<Token> = self.writing.values().map(|entry| entry.token).collect();
        let removable = std::mem::take(&mut self.removable).into_values();
        let not_sent = removable
            .filter(|entry| entry.sent.load(Ordering::Acquire) == 0 && !self.is_needed(entry.token))
            .map(|entry| entry.token)
            .collect();
        (sent, not_sent)
    }

    /// Whether a request that may be sent at any moment depends on this record's mark.
    fn is_needed(&self, token: Token) -> bool {
        self.ahead.values().chain(self.writing.values()).any(|entry| entry.token == token)
    }

    fn end_group(&mut self, written: bool) {
        self.closed = !written;
        let done = std::mem::take(&mut self.writing);
        if written {
            self.ahead.extend(done);
        }
        // Twice the number of requests that were sent or became ready while one group was written.
        self.target = (2 * self.pace).min(MAX_MARKED_AHEAD);
    }

    /// A request has its permits and is ready to be sent.
    fn request_permission(&mut self, id: u64, token: Token, sent: &SentCount) -> SendPermission {
        if self.closed {
            return SendPermission::Closed;
        }
        if self.ahead.remove(&id).is_some() {
            self.pace += 1;
            sent.fetch_add(1, Ordering::AcqRel);
            return SendPermission::Granted;
        }
        if !self.writing.contains_key(&id) && !self.wanted.contains_key(&id) {
            self.pace += 1;
            let fresh = MarkedRequest { token, sent: Arc::clone(sent) };
            let entry = self.queued.remove(&id).unwrap_or(fresh);
            self.wanted.insert(id, entry);
        }
        SendPermission::Pending
    }

    /// Whether to start another group although no request waits for it.
    fn needs_more_marks(&self) -> bool {
        !self.queued.is_empty() && self.writing.is_empty() && self.ahead.len() < self.target / 2
    }

    fn remove_mark(&mut self, token: Token, sent: &SentCount) {
        if let Some(seq) = token.seq()
            && sent.load(Ordering::Acquire) == 0
        {
            self.removable.insert(seq, MarkedRequest { token, sent: Arc::clone(sent) });
        }
    }
}

/// A request that will be sent; its mark is written at that moment or shortly before.
pub(super) struct AnnouncedRequest {
    shared: Arc<MarksShared>,
    id: u64,
    token: Token,
    sent: SentCount,
    /// Attempts that were sent, or may have been.
    attempts: AtomicU32,
}

#[async_trait]
impl BeforeSend for AnnouncedRequest {
    async fn before_send(&self) -> Result<(), SendError> {
        if self.attempts.fetch_add(1, Ordering::AcqRel) > 0 {
            return Ok(());
        }
        if self.token.seq().is_none() {
            self.sent.fetch_add(1, Ordering::AcqRel);
            return Ok(());
        }
        // If this future is dropped, the attempt was not sent.
        let waiting = AttemptGuard { attempts: &self.attempts };
        let mut written = self.shared.written.subscribe();
        loop {
            let (permission, low) = {
                let mut state = self.shared.state();
                let permission = state.request_permission(self.id, self.token, &self.sent);
                (permission, state.needs_more_marks())
            };
            match permission {
                SendPermission::Granted => {
                    if low {
                        self.shared.work.notify_one();
                    }
                    std::mem::forget(waiting);
                    return Ok(());
                }
                SendPermission::Closed => return Err(SendError::Stopped),
                SendPermission::Pending => self.shared.work.notify_one(),
            }
            if written.changed().await.is_err() {
                return Err(SendError::Stopped);
            }
        }
    }

    fn not_sent(&self) {
        if self.attempts.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.sent.fetch_sub(1, Ordering::AcqRel);
            self.shared.state().remove_mark(self.token, &self.sent);
            self.shared.work.notify_one();
        }
    }
}

/// An attempt that waits for its mark.
struct AttemptGuard<'a> {
    attempts: &'a AtomicU32,
}

impl Drop for AttemptGuard<'_> {
    fn drop(&mut self) {
        self.attempts.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for AnnouncedRequest {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if state.queued.remove(&self.id).is_some() {
            return;
        }
        let marked = [
            state.wanted.remove(&self.id),
            state.writing.remove(&self.id),
            state.ahead.remove(&self.id),
        ];
        if marked.iter().any(Option::is_some) {
            state.remove_mark(self.token, &self.sent);
        }
    }
}

#[cfg(test)]
#[path = "marks_tests.rs"]
mod tests;
