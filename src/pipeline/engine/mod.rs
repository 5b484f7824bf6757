//! The engine of one sink: it reads records from the buffer, schedules their ops by key, executes
//! ops concurrently, and settles the records in the buffer.
//!
//! This module only wires `schedule`, `usercom`, `deliver` and `buffer` together.
//!
//! # Invariants
//! A record is settled in the buffer only after every op made from it has a final status.

mod completion_writer;
mod in_flight;
mod mapping_stage;
mod marks;
mod pending;
pub(super) mod subject;
mod warnings;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::advice;
use crate::buffer::{Buffer, DeadLetter, Store};
use crate::call::CallKind;
use crate::clock;
use crate::config::sink::UsercomSink;
use crate::deliver::{Attempts, SendError};
use crate::mapping::CompiledMapping;
use crate::schedule::dedupe::{DedupeDecision, InFlightMessages};
use crate::schedule::{Coalescing, KeyedScheduler, Op, OpOutcome, OpResult, ScheduledOp};
use crate::sink::SinkError;
use crate::telemetry::SinkMetrics;
use crate::usercom::{
    ExecuteError, ExecutorObserver, OpExecutor, PriorSend, Settings, excerpt, remediation,
};

use completion_writer::{Committed, CompletionWriter};
use in_flight::{InFlightOps, STALLED_FACTOR};
use mapping_stage::{MappedRecord, MappingOutcome, MappingStage, PlannedCall};
use marks::{AnnouncedRequest, DispatchMarks};
use pending::{CallRef, PendingId, PendingRecords};
use subject::subject;
use warnings::{DeadLetterWarnings, UnmatchedWarnings};

/// Ops executed concurrently at most, without [stalled](in_flight) ones. The transport limits
/// requests in flight; this only bounds tasks.
const MAX_RUNNING_OPS: usize = 1024;

/// Record bytes between buffer and settlement at most; twice as much if records are
/// [stalled](in_flight).
const MAX_PENDING_BYTES: usize = 64 << 20;

/// How often the age of the oldest record is reported.
const AGE_INTERVAL: Duration = Duration::from_secs(1);
/// How long an engine that leaves waits for open requests. What is cut off is marked as possibly
/// sent.
const OPEN_REQUESTS_TIMEOUT: Duration = Duration::from_secs(5);

/// Batches mapped ahead. [`InFlightMessages`] must remember closed messages for longer than this.
const MAX_BATCHES_AHEAD: usize = 2;

/// The parts that an engine is built from.
pub(super) struct EngineParts {
    pub(super) name: String,
    pub(super) config: Arc<UsercomSink>,
    pub(super) plan: Arc<CompiledMapping>,
    pub(super) settings: Settings,
    pub(super) usercom: Arc<OpExecutor>,
    pub(super) buffer: Arc<dyn Buffer>,
    pub(super) store: Store,
    pub(super) metrics: SinkMetrics,
    pub(super) probe: Arc<dyn ExecutorObserver>,
    /// Cancelled when the rest is to stay in the buffer.
    pub(super) leave: CancellationToken,
    pub(super) stop: CancellationToken,
}

/// An op that was executed, and its result.
struct ExecutedOp {
    task: ScheduledOp<CallRef>,
    number: u64,
    attempts: Attempts,
    result: Result<(), ExecuteError>,
}

/// The engine of one sink.
pub(super) struct Engine {
    name: String,
    config: Arc<UsercomSink>,
    usercom: Arc<OpExecutor>,
    metrics: SinkMetrics,
    leave: CancellationToken,
    /// When an engine that leaves no longer waits for open requests.
    leave_by: Option<Instant>,
    stop: CancellationToken,
    buffer: Arc<dyn Buffer>,
    incoming: mpsc::Receiver<Vec<MappedRecord>>,
    input_ended: bool,
    scheduler: KeyedScheduler<CallRef>,
    pending: PendingRecords,
    messages: InFlightMessages<String, CallRef>,
    marks: DispatchMarks,
    running: JoinSet<ExecutedOp>,
    in_flight: InFlightOps,
    completions: CompletionWriter,
    committed: mpsc::Receiver<Committed>,
    /// Records in the completion writer.
    completing: usize,
    dead_letter_warnings: DeadLetterWarnings,
    /// Folded ops already reported to the metrics.
    folds_reported: u64,
    /// When the age of the oldest record is reported.
    age_interval: tokio::time::Interval,
    helpers: JoinSet<()>,
}

impl Engine {
    pub(super) fn new(parts: EngineParts) -> Self {
        let delivery = &parts.config.delivery;
        let (mapped_out, incoming) = mpsc::channel(MAX_BATCHES_AHEAD);
        let stage = MappingStage {
            sink: parts.name.clone(),
            plan: parts.plan,
            settings: parts.settings,
            unmatched: parts.config.unmatched,
            dedupe: delivery.dedupe_window_secs > 0,
            store: parts.store,
            metrics: parts.metrics.clone(),
            probe: parts.probe,
            unmatched_warnings: UnmatchedWarnings::default(),
        };
        let mut helpers = JoinSet::new();
        helpers.spawn(stage.run(Arc::clone(&parts.buffer), mapped_out));
        let (completions, committed) =
            CompletionWriter::start(&mut helpers, Arc::clone(&parts.buffer));
        let marks = DispatchMarks::new();
        helpers.spawn(marks.clone().write(Arc::clone(&parts.buffer)));
        let folding = match (delivery.fold, parts.config.account.company_in_upsert.adds_members()) {
            (true, true) => Coalescing::WithMemberships,
            (true, false) => Coalescing::On,
            (false, _) => Coalescing::Off,
        };
        Self {
            name: parts.name,
            usercom: parts.usercom,
            metrics: parts.metrics,
            leave: parts.leave,
            leave_by: None,
            stop: parts.stop,
            buffer: parts.buffer,
            incoming,
            input_ended: false,
            scheduler: KeyedScheduler::new(folding, parts.config.users.cache_size),
            pending: PendingRecords::default(),
            messages: InFlightMessages::new(MAX_BATCHES_AHEAD as u64 + 2),
            marks,
            running: JoinSet::new(),
            in_flight: InFlightOps::new(),
            completions,
            committed,
            completing: 0,
            dead_letter_warnings: DeadLetterWarnings::default(),
            folds_reported: 0,
            age_interval: tokio::time::interval(AGE_INTERVAL),
            helpers,
            config: parts.config,
        }
    }

    /// Runs until the buffer is closed and everything in it is settled, or until it leaves.
    pub(super) async fn run(mut self) -> Result<(), SinkError> {
        let end = self.work().await;
        self.running.shutdown().await;
        self.dead_letter_warnings.flush(&self.name);
        drop(self.completions);
        // Completions that are queued are still written.
        while self.committed.recv().await.is_some() {}
        self.helpers.shutdown().await;
        // Records that are still pending go back to the buffer.
        self.buffer.return_unsettled(self.pending.take_all()).await;
        end
    }

    async fn work(&mut self) -> Result<(), SinkError> {
        let (stop, leave) = (self.stop.clone(), self.leave.clone());
        loop {
            if self.leave_by.is_none() {
                self.dispatch().await?;
            }
            self.metrics.activity().pending((self.pending.len() + self.completing) as u64);
            self.metrics.activity().full(!self.has_record_capacity());
            if self.is_done() {
                return Ok(());
            }
            tokio::select! {
                Some(executed) = self.running.join_next() => {
                    self.op_executed(executed.map_err(task_failed)?).await?;
                }
                Some(committed) = self.committed.recv() => self.records_committed(committed).await?,
                batch = self.incoming.recv(), if self.has_record_capacity() => match batch {
                    Some(batch) => self.batch_mapped(batch).await?,
                    None => self.input_ended = true,
                },
                () = tokio::time::sleep_until(self.in_flight.count_at()), if self.is_crowded() => {
                    self.in_flight.count(&self.scheduler, &self.pending, || self.usercom.is_alive());
                }
                _ = self.age_interval.tick() => {
                    self.metrics.activity().oldest_pending(self.pending.oldest());
                    self.dead_letter_warnings.tick(&self.name);
                }
                () = leave.cancelled(), if self.leave_by.is_none() => {
                    self.leave_by = Some(Instant::now() + OPEN_REQUESTS_TIMEOUT);
                }
                () = tokio::time::sleep_until(self.leave_by.unwrap_or_else(Instant::now)),
                    if self.leave_by.is_some() => return Ok(()),
                () = stop.cancelled() => {
                    if self.leave_by.is_some() {
                        // What is left is in the buffer.
                        return Ok(());
                    }
                    let left = self.pending.len() as u64 + self.buffer.size().events;
                    return Err(SinkError::Aborted { pending: left });
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        if self.leave_by.is_some() {
            return self.running.is_empty() && self.completing == 0;
        }
        self.input_ended && self.pending.len() == 0 && self.completing == 0
    }

    fn has_record_capacity(&self) -> bool {
        let (records, bytes) = (self.pending.len(), self.pending.bytes());
        let most = self.config.delivery.max_in_flight;
        let stalled = self.in_flight.stalled();
        !self.input_ended
            && self.leave_by.is_none()
            && records.saturating_sub(stalled.records) < most
            && records < most.saturating_mul(STALLED_FACTOR)
            && bytes.saturating_sub(stalled.bytes) < MAX_PENDING_BYTES
            && bytes < MAX_PENDING_BYTES * 2
    }

    fn has_task_capacity(&self) -> bool {
        let running = self.running.len();
        running.saturating_sub(self.in_flight.stalled().ops) < MAX_RUNNING_OPS
            && running < MAX_RUNNING_OPS * STALLED_FACTOR
    }

    /// Whether a limit is reached, so that stalled ops must be counted.
    fn is_crowded(&self) -> bool {
        self.in_flight.stalled().ops > 0
            || self.running.len() >= MAX_RUNNING_OPS
            || self.pending.len() >= self.config.delivery.max_in_flight
            || self.pending.bytes() >= MAX_PENDING_BYTES
    }

    /// Starts the ops that are ready.
    async fn dispatch(&mut self) -> Result<(), SinkError> {
        while self.has_task_capacity() {
            let Some(task) = self.scheduler.pop_ready() else { break };
            if self.usercom.unchanged(task.op(), clock::now()) {
                self.metrics.saved("unchanged", 1);
                self.op_finished(task, OpOutcome::Completed).await?;
                continue;
            }
            let doubt =
                match task.tickets().any(|call_ref| self.pending.is_maybe_sent(call_ref.record)) {
                    true => PriorSend::Possible,
                    false => PriorSend::None,
                };
            let announced = self.announce(&task);
            let usercom = Arc::clone(&self.usercom);
            let rest = Duration::from_secs(self.config.request.retry_max_duration_secs);
            let stop = self.stop.clone();
            let mut attempts = self.attempts(&task);
            let call_refs = task.tickets().copied().collect();
            let number =
                self.in_flight.insert(task.queue_key(), call_refs, attempts.stalled.clone());
            self.running.spawn(async move {
                let result = match &announced {
                    Some(announced) => {
                        usercom.execute_noted(task.op(), doubt, announced, &mut attempts).await
                    }
                    None => usercom.execute(task.op(), doubt, &mut attempts).await,
                };
                drop(announced);
                if let Err(ExecuteError::Send(SendError::GivenUp { .. })) = &result {
                    // The queue of its key waits with it; without this pause it would be retried in
                    // a loop.
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(rest) => {}
                    }
                }
                ExecutedOp { task, number, attempts, result: result.map(|_| ()) }
            });
        }
        let folded = self.scheduler.coalesced();
        if folded > self.folds_reported {
            self.metrics.saved("folded", folded - self.folds_reported);
            self.folds_reported = folded;
        }
        Ok(())
    }

    /// The state an op starts with: its name for logs and its earlier failures.
    fn attempts(&mut self, task: &ScheduledOp<CallRef>) -> Attempts {
        let first = task.tickets().next().expect("a scheduled op has at least one call").record;
        Attempts {
            subject: Some(subject(task.op(), self.pending.record(first))),
            failure_history: self.pending.take_failure_history(first),
            ..Attempts::default()
        }
    }

    /// Announces events and page views to the marks. They are never folded, so each belongs to one
    /// record.
    fn announce(&mut self, task: &ScheduledOp<CallRef>) -> Option<AnnouncedRequest> {
        match task.op() {
            Op::Track { .. } | Op::Page { .. } => {
                let call_ref = task.tickets().next().expect("a scheduled op has at least one call");
                let (token, sent) = self.pending.start_sending(call_ref.record);
                Some(self.marks.announce(token, sent))
            }
            Op::Identify { .. } | Op::Company { .. } | Op::Join { .. } | Op::Merge { .. } => None,
        }
    }

    /// Schedules the ops of a mapped batch.
    async fn batch_mapped(&mut self, batch: Vec<MappedRecord>) -> Result<(), SinkError> {
        self.messages.begin_batch();
        self.metrics.received(batch.len() as u64);
        for MappedRecord { buffered, outcome } in batch {
            let id = self.pending.insert(buffered);
            match outcome {
                MappingOutcome::Unmatched => self.metrics.unmatched(),
                MappingOutcome::Dead(letter) => {
                    self.metrics.error("parser_failed", "processing");
                    self.pending.reject_call(CallRef { record: id, call: 0 }, |_| *letter);
                }
                MappingOutcome::Calls(calls) => {
                    for (n, call) in (0..).zip(calls) {
                        self.push_call(CallRef { record: id, call: n }, call);
                    }
                }
            }
            self.release(id).await?;
        }
        Ok(())
    }

    fn push_call(&mut self, call_ref: CallRef, call: PlannedCall) {
        self.metrics.call(call.kind);
        self.pending.has_call(call_ref.record);
        if call.seen {
            self.metrics.saved("deduplicated", 1);
            return;
        }
        if let Some(key) = call.key {
            match self.messages.offer(key.clone(), call_ref) {
                DedupeDecision::First(call_ref) => self.pending.owns_key(call_ref, key),
                DedupeDecision::Queued => {
                    self.metrics.saved("deduplicated", 1);
                    self.pending.retain(call_ref.record);
                    return;
                }
                DedupeDecision::AlreadySettled(_) => {
                    self.metrics.saved("deduplicated", 1);
                    return;
                }
            }
        }
        let first_link = call
            .identity_link
            .is_some_and(|(anonymous, user)| self.scheduler.link_identities(&anonymous, &user));
        let mut after = None;
        for op in call.ops {
            // An alias asks for a merge explicitly; the merge of a login is only needed once per
            // pair of ids.
            if matches!(op, Op::Merge { .. }) && !first_link && call.kind != CallKind::Alias {
                self.metrics.saved("merged", 1);
                continue;
            }
            self.pending.retain(call_ref.record);
            let company = matches!(op, Op::Company { .. });
            let part = self.scheduler.push(op, after, call_ref);
            after = company.then_some(part);
        }
    }

    /// Handles the result of an op.
    async fn op_executed(&mut self, executed: ExecutedOp) -> Result<(), SinkError> {
        let ExecutedOp { task, number, attempts, result } = executed;
        self.in_flight.remove(number);
        match result {
            Ok(()) => self.op_finished(task, OpOutcome::Completed).await,
            Err(ExecuteError::Reject { status, reason, body }) => {
                let word = status.map_or("rejected".to_owned(), |s| format!("status_{s}"));
                let rejection = Rejection { word, reason, status, body: Some(body) };
                self.op_rejected(task, &attempts, rejection).await
            }
            Err(ExecuteError::MatchConflict { reason }) => {
                let word = "match_conflict".to_owned();
                let rejection = Rejection { word, reason, status: None, body: None };
                self.op_rejected(task, &attempts, rejection).await
            }
            Err(ExecuteError::Send(error @ SendError::Poison { .. })) => {
                let rejection = Rejection::poison(&error);
                self.op_rejected(task, &attempts, rejection).await
            }
            Err(ExecuteError::Send(error @ SendError::RouteClosed { status, .. })) => {
                let reason = format!("{error}; {}", remediation(status));
                let word = "route_closed".to_owned();
                let rejection = Rejection { word, reason, status: Some(status), body: None };
                self.op_rejected(task, &attempts, rejection).await
            }
            Err(ExecuteError::Send(SendError::Refused { status })) => {
                self.scheduler.requeue(task);
                Err(SinkError::KeyRefused { status, cure: remediation(status) })
            }
            Err(ExecuteError::Send(error)) => {
                // Not rejected: it stays at the head of its queue and is retried.
                // In an outage this happens to every call; its begin and its end are logged.
                let is_outage = self.metrics.activity().present().outage.is_some();
                if !is_outage && !matches!(error, SendError::Stopped) {
                    let subject = attempts.subject();
                    tracing::warn!(
                        sink = self.name,
                        op = subject.op,
                        user = subject.user,
                        company = subject.company,
                        record = subject.record,
                        %error,
                        "a call is retried; only its user waits, nothing is lost"
                    );
                }
                // The next execution does not know whether the last attempt arrived.
                for call_ref in task.tickets() {
                    self.pending.mark_maybe_sent(call_ref.record);
                }
                let first =
                    task.tickets().next().expect("a scheduled op has at least one call").record;
                self.pending.set_failure_history(first, attempts.failure_history);
                self.scheduler.requeue(task);
                Ok(())
            }
        }
    }

    /// Rejects an op. A folded op is split, and its parts are executed alone.
    async fn op_rejected(
        &mut self,
        task: ScheduledOp<CallRef>,
        attempts: &Attempts,
        rejection: Rejection,
    ) -> Result<(), SinkError> {
        if task.op_count() == 1 {
            let call_ref = *task.tickets().next().expect("a scheduled op has at least one call");
            self.metrics.error("request_failed", "sending");
            let Rejection { word, reason, status, body } = rejection;
            if let "poison" | "route_closed" = word.as_str() {
                let subject = attempts.subject();
                tracing::error!(
                    sink = self.name,
                    op = subject.op,
                    user = subject.user,
                    company = subject.company,
                    record = subject.record,
                    reason,
                    "a call becomes a dead letter ({word}); later calls of its user continue. `dead-letters replay` sends it again"
                );
            }
            self.pending.reject_call(call_ref, |record| {
                let mut letter = DeadLetter::new(record, word, reason, clock::now());
                letter.status = status;
                letter.response = body;
                letter.attempts = attempts.sent;
                letter
            });
        }
        self.op_finished(task, OpOutcome::Rejected).await
    }

    async fn op_finished(
        &mut self,
        task: ScheduledOp<CallRef>,
        fate: OpOutcome,
    ) -> Result<(), SinkError> {
        for settled in self.scheduler.finish(task, fate) {
            let (OpResult::Completed(call_ref)
            | OpResult::Rejected(call_ref)
            | OpResult::Cancelled(call_ref)) = settled;
            self.release(call_ref.record).await?;
        }
        Ok(())
    }

    /// Releases one share of a record. A finished record goes to the completion writer, and so do
    /// records that waited for a message of it that was not delivered.
    async fn release(&mut self, id: PendingId) -> Result<(), SinkError> {
        let mut releasing = vec![id];
        while let Some(id) = releasing.pop() {
            let Some(finished) = self.pending.release(id) else {
                continue;
            };
            for key in finished.abandoned {
                releasing.extend(self.messages.release(&key).into_iter().map(|t| t.record));
            }
            match finished.settled.dead.first() {
                Some(letter) => self.count_dead_letter(letter),
                None if finished.has_calls => self.metrics.delivered(1),
                None => {}
            }
            self.metrics.activity().settled(1);
            self.completing += 1;
            self.completions.settle(finished.settled).await?;
        }
        Ok(())
    }

    fn count_dead_letter(&mut self, letter: &DeadLetter) {
        self.metrics.dead_letter(&letter.reason);
        self.dead_letter_warnings.dead_letter(&self.name, letter);
        let activity = self.metrics.activity();
        activity.dead().add(&letter.reason, letter.rule.as_deref().unwrap_or_default());
        let detail = advice::dead_letter_detail(letter);
        activity.errors().add(&letter.reason, detail, advice::for_dead_letter(&letter.reason));
    }

    /// Handles a stored group of completions: records that waited for their messages are released
    /// too.
    async fn records_committed(&mut self, committed: Committed) -> Result<(), SinkError> {
        self.completing -= committed.records;
        for key in committed.seen {
            for call_ref in self.messages.commit(&key) {
                self.release(call_ref.record).await?;
            }
        }
        Ok(())
    }
}

/// Why an op was rejected, as its dead letter says it.
struct Rejection {
    word: String,
    reason: String,
    status: Option<u16>,
    body: Option<String>,
}

impl Rejection {
    fn poison(error: &SendError) -> Self {
        let answer = match error {
            SendError::Poison { answer, .. } => answer.as_ref(),
            _ => None,
        };
        Self {
            word: "poison".to_owned(),
            reason: error.to_string(),
            status: answer.map(|answer| answer.status),
            body: answer.map(excerpt),
        }
    }
}

fn task_failed(error: tokio::task::JoinError) -> SinkError {
    SinkError::Storage(format!("a delivery task ended abnormally: {error}"))
}
