//! The engine of one sink: records come out of the buffer as planned ops, go through their lanes,
//! are carried out side by side, and are settled back into the buffer.
//!
//! The decisions live elsewhere (`plan`, `usercom`, `deliver`, `buffer`); here they are only
//! introduced to each other. One invariant: a record is settled in the buffer only after every op
//! made from it has a verdict.

mod intake;
mod marks;
mod pending;
mod settler;
mod stalled;
mod subject;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::buffer::{Buffer, DeadLetter, Store};
use crate::call::CallKind;
use crate::clock;
use crate::config::sink::UsercomSink;
use crate::deliver::{Attempts, SendError};
use crate::mapping::Plan;
use crate::plan::dedupe::{InFlight, Offer};
use crate::plan::{Fate, Folding, Lanes, Op, Settled as SettledOp, Task};
use crate::sink::SinkError;
use crate::telemetry::SinkMetrics;
use crate::usercom::{Doubt, Failure, Probe, Settings, Usercom, cure, excerpt};

use intake::{Intake, Meaning, PlannedCall, Prepared};
use marks::{Announced, DispatchMarks};
use pending::{PendingRecords, RecordId, Ticket};
use settler::{Committed, Settler};
use stalled::{OutOps, STALLED_FACTOR};
use subject::subject;

/// Ops carried out side by side at most, without those that are [stalled]. Requests in flight are
/// limited by the transport; this only bounds tasks.
const ACTIVE: usize = 1024;

/// Record text held between buffer and settlement at most, in bytes; as much again where records
/// are [stalled].
const BYTES_IN_FLIGHT: usize = 64 << 20;

/// Batches prepared ahead. [`InFlight`] must remember closed messages for longer than this.
const PREPARED_AHEAD: usize = 2;

/// What an engine is made of.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) config: Arc<UsercomSink>,
    pub(super) plan: Arc<Plan>,
    pub(super) settings: Settings,
    pub(super) usercom: Arc<Usercom>,
    pub(super) buffer: Arc<dyn Buffer>,
    pub(super) store: Store,
    pub(super) metrics: SinkMetrics,
    pub(super) probe: Arc<dyn Probe>,
    pub(super) stop: CancellationToken,
}

/// One op's way back from the network.
struct Carried {
    task: Task<Ticket>,
    number: u64,
    attempts: Attempts,
    result: Result<(), Failure>,
}

/// The engine of one sink.
pub(super) struct Engine {
    config: Arc<UsercomSink>,
    usercom: Arc<Usercom>,
    metrics: SinkMetrics,
    stop: CancellationToken,
    buffer: Arc<dyn Buffer>,
    incoming: mpsc::Receiver<Vec<Prepared>>,
    input_ended: bool,
    lanes: Lanes<Ticket>,
    pending: PendingRecords,
    messages: InFlight<String, Ticket>,
    marks: DispatchMarks,
    running: JoinSet<Carried>,
    out: OutOps,
    settler: Settler,
    committed: mpsc::Receiver<Committed>,
    /// Finished records on their way through the settler.
    settling: usize,
    /// Folds already told to the metrics.
    folds_told: u64,
    helpers: JoinSet<()>,
}

impl Engine {
    pub(super) fn new(parts: Parts) -> Self {
        let delivery = &parts.config.delivery;
        let (prepared_out, incoming) = mpsc::channel(PREPARED_AHEAD);
        let intake = Intake {
            sink: parts.name,
            plan: parts.plan,
            settings: parts.settings,
            unmatched: parts.config.unmatched,
            dedupe: delivery.dedupe_window_secs > 0,
            store: parts.store,
            metrics: parts.metrics.clone(),
            probe: parts.probe,
        };
        let mut helpers = JoinSet::new();
        helpers.spawn(intake.run(Arc::clone(&parts.buffer), prepared_out));
        let (settler, committed) = Settler::start(&mut helpers, Arc::clone(&parts.buffer));
        let marks = DispatchMarks::new();
        helpers.spawn(marks.clone().write(Arc::clone(&parts.buffer)));
        let folding = if delivery.fold { Folding::On } else { Folding::Off };
        Self {
            usercom: parts.usercom,
            metrics: parts.metrics,
            stop: parts.stop,
            buffer: parts.buffer,
            incoming,
            input_ended: false,
            lanes: Lanes::new(folding, parts.config.users.cache_size),
            pending: PendingRecords::default(),
            messages: InFlight::new(PREPARED_AHEAD as u64 + 2),
            marks,
            running: JoinSet::new(),
            out: OutOps::new(),
            settler,
            committed,
            settling: 0,
            folds_told: 0,
            helpers,
            config: parts.config,
        }
    }

    /// Runs until the buffer is closed and everything in it is settled.
    pub(super) async fn run(mut self) -> Result<(), SinkError> {
        let end = self.work().await;
        self.running.shutdown().await;
        drop(self.settler);
        // What finished is still written down; intake ends by itself or is of no use any more.
        while self.committed.recv().await.is_some() {}
        self.helpers.shutdown().await;
        // Whatever is still pending goes back to where it came from.
        self.buffer.return_unsettled(self.pending.take_all()).await;
        end
    }

    async fn work(&mut self) -> Result<(), SinkError> {
        let stop = self.stop.clone();
        loop {
            self.dispatch().await?;
            if self.is_done() {
                return Ok(());
            }
            tokio::select! {
                Some(carried) = self.running.join_next() => {
                    self.carried(carried.map_err(crashed)?).await?;
                }
                Some(committed) = self.committed.recv() => self.committed(committed).await?,
                batch = self.incoming.recv(), if self.has_room() => match batch {
                    Some(batch) => self.arrived(batch).await?,
                    None => self.input_ended = true,
                },
                () = tokio::time::sleep_until(self.out.count_at()), if self.is_crowded() => {
                    self.out.count(&self.lanes, &self.pending, || self.usercom.is_alive());
                }
                () = stop.cancelled() => {
                    let left = self.pending.len() as u64 + self.buffer.size().events;
                    return Err(SinkError::Aborted { pending: left });
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        self.input_ended && self.pending.len() == 0 && self.settling == 0
    }

    fn has_room(&self) -> bool {
        let (records, bytes) = (self.pending.len(), self.pending.bytes());
        let most = self.config.delivery.max_in_flight;
        let stalled = self.out.stalled();
        !self.input_ended
            && records.saturating_sub(stalled.records) < most
            && records < most.saturating_mul(STALLED_FACTOR)
            && bytes.saturating_sub(stalled.bytes) < BYTES_IN_FLIGHT
            && bytes < BYTES_IN_FLIGHT * 2
    }

    fn has_place(&self) -> bool {
        let running = self.running.len();
        running.saturating_sub(self.out.stalled().ops) < ACTIVE && running < ACTIVE * STALLED_FACTOR
    }

    /// Whether it matters how much is stalled.
    fn is_crowded(&self) -> bool {
        self.out.stalled().ops > 0
            || self.running.len() >= ACTIVE
            || self.pending.len() >= self.config.delivery.max_in_flight
            || self.pending.bytes() >= BYTES_IN_FLIGHT
    }

    /// Starts what may start.
    async fn dispatch(&mut self) -> Result<(), SinkError> {
        while self.has_place() {
            let Some(task) = self.lanes.take_next() else { break };
            if self.usercom.unchanged(task.op(), clock::now()) {
                self.metrics.saved("unchanged", 1);
                self.finished(task, Fate::Done).await?;
                continue;
            }
            let doubt = match task.tickets().any(|ticket| self.pending.in_doubt(ticket.record)) {
                true => Doubt::MaybeSent,
                false => Doubt::No,
            };
            let announced = self.announce(&task);
            let usercom = Arc::clone(&self.usercom);
            let rest = Duration::from_secs(self.config.request.retry_max_duration_secs);
            let stop = self.stop.clone();
            let mut attempts = self.attempts(&task);
            let tickets = task.tickets().copied().collect();
            let number = self.out.insert(task.lane(), tickets, attempts.stalled.clone());
            self.running.spawn(async move {
                let result = match &announced {
                    Some(announced) => {
                        usercom.execute_noted(task.op(), doubt, announced, &mut attempts).await
                    }
                    None => usercom.execute(task.op(), doubt, &mut attempts).await,
                };
                drop(announced);
                if let Err(Failure::Send(SendError::GivenUp { .. })) = &result {
                    // Its lane waits with it; without this it would be tried without a pause.
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(rest) => {}
                    }
                }
                Carried { task, number, attempts, result: result.map(|_| ()) }
            });
        }
        let folded = self.lanes.folded();
        if folded > self.folds_told {
            self.metrics.saved("folded", folded - self.folds_told);
            self.folds_told = folded;
        }
        Ok(())
    }

    /// What an op starts with: its name for logs, and what has failed of it before.
    fn attempts(&mut self, task: &Task<Ticket>) -> Attempts {
        let first = task.tickets().next().expect("a task has parts").record;
        Attempts {
            subject: Some(subject(task.op(), self.pending.record(first))),
            troubles: self.pending.take_troubles(first),
            ..Attempts::default()
        }
    }

    /// Ops that count, events and page views, are never folded: each is of one record.
    fn announce(&mut self, task: &Task<Ticket>) -> Option<Announced> {
        match task.op() {
            Op::Track { .. } | Op::Page { .. } => {
                let ticket = task.tickets().next().expect("a task has parts");
                let (token, sent) = self.pending.sending(ticket.record);
                Some(self.marks.announce(token, sent))
            }
            Op::Identify { .. } | Op::Company { .. } | Op::Join { .. } | Op::Merge { .. } => None,
        }
    }

    /// A batch of records has been prepared.
    async fn arrived(&mut self, batch: Vec<Prepared>) -> Result<(), SinkError> {
        self.messages.begin_batch();
        self.metrics.received(batch.len() as u64);
        for Prepared { buffered, meaning } in batch {
            let id = self.pending.open(buffered);
            match meaning {
                Meaning::Unmatched => self.metrics.unmatched(),
                Meaning::Dead(letter) => {
                    self.metrics.error("parser_failed", "processing");
                    self.pending.refuse(Ticket { record: id, call: 0 }, |_| *letter);
                }
                Meaning::Calls(calls) => {
                    for (n, call) in (0..).zip(calls) {
                        self.push_call(Ticket { record: id, call: n }, call);
                    }
                }
            }
            self.close(id).await?;
        }
        Ok(())
    }

    fn push_call(&mut self, ticket: Ticket, call: PlannedCall) {
        self.metrics.call(call.kind);
        self.pending.has_call(ticket.record);
        if call.seen {
            self.metrics.saved("deduplicated", 1);
            return;
        }
        if let Some(key) = call.key {
            match self.messages.offer(key.clone(), ticket) {
                Offer::First(ticket) => self.pending.owns_key(ticket, key),
                Offer::Waits => {
                    self.metrics.saved("deduplicated", 1);
                    self.pending.hold(ticket.record);
                    return;
                }
                Offer::Settled(_) => {
                    self.metrics.saved("deduplicated", 1);
                    return;
                }
            }
        }
        let first_login =
            call.login.is_some_and(|(anonymous, user)| self.lanes.unite(&anonymous, &user));
        let mut after = None;
        for op in call.ops {
            // An alias is asked for; only merges at logins go without saying after the first.
            if matches!(op, Op::Merge { .. }) && !first_login && call.kind != CallKind::Alias {
                self.metrics.saved("merged", 1);
                continue;
            }
            self.pending.hold(ticket.record);
            let company = matches!(op, Op::Company { .. });
            let part = self.lanes.push(op, after, ticket);
            after = company.then_some(part);
        }
    }

    /// An op came back.
    async fn carried(&mut self, carried: Carried) -> Result<(), SinkError> {
        let Carried { task, number, attempts, result } = carried;
        self.out.remove(number);
        match result {
            Ok(()) => self.finished(task, Fate::Done).await,
            Err(Failure::Reject { status, reason, body }) => {
                let word = status.map_or("rejected".to_owned(), |s| format!("status_{s}"));
                let refusal = Refusal { word, reason, status, body: Some(body) };
                self.refused(task, &attempts, refusal).await
            }
            Err(Failure::Send(error @ SendError::Poison { .. })) => {
                let refusal = Refusal::poison(&error);
                self.refused(task, &attempts, refusal).await
            }
            Err(Failure::Send(error @ SendError::RouteClosed { status, .. })) => {
                let reason = format!("{error}; {}", cure(status));
                let word = "route_closed".to_owned();
                let refusal = Refusal { word, reason, status: Some(status), body: None };
                self.refused(task, &attempts, refusal).await
            }
            Err(Failure::Send(SendError::Refused { status })) => {
                self.lanes.put_back(task);
                Err(SinkError::KeyRefused { status, cure: cure(status) })
            }
            Err(Failure::Send(error)) => {
                // Not rejected: it stays at the head of its lane and is tried again.
                if !matches!(error, SendError::Stopped) {
                    let subject = attempts.subject.as_deref().unwrap_or("a call");
                    tracing::warn!(%error, "{subject} is tried again from the start");
                }
                // What its last attempt came to is forgotten with the attempt.
                for ticket in task.tickets() {
                    self.pending.doubt(ticket.record);
                }
                let first = task.tickets().next().expect("a task has parts").record;
                self.pending.keep_troubles(first, attempts.troubles);
                self.lanes.put_back(task);
                Ok(())
            }
        }
    }

    /// An op will never be done. One that was folded is taken apart, and its parts are tried alone.
    async fn refused(
        &mut self,
        task: Task<Ticket>,
        attempts: &Attempts,
        refusal: Refusal,
    ) -> Result<(), SinkError> {
        if task.parts() == 1 {
            let ticket = *task.tickets().next().expect("a task has parts");
            self.metrics.error("request_failed", "sending");
            let Refusal { word, reason, status, body } = refusal;
            if let "poison" | "route_closed" = word.as_str() {
                let subject = attempts.subject.as_deref().unwrap_or("a call");
                tracing::error!(
                    reason,
                    "{subject} becomes a dead letter ({word}); what waits behind it goes on, `dead-letters replay` sends it again"
                );
            }
            self.pending.refuse(ticket, |record| {
                let mut letter = DeadLetter::new(record, word, reason, clock::now());
                letter.status = status;
                letter.response = body;
                letter.attempts = attempts.sent;
                letter
            });
        }
        self.finished(task, Fate::Refused).await
    }

    async fn finished(&mut self, task: Task<Ticket>, fate: Fate) -> Result<(), SinkError> {
        for settled in self.lanes.finish(task, fate) {
            let (SettledOp::Done(ticket) | SettledOp::Refused(ticket) | SettledOp::Skipped(ticket)) =
                settled;
            self.close(ticket.record).await?;
        }
        Ok(())
    }

    /// One share of a record is done; a record that is finished goes to the settler, and with it
    /// those that waited for a message of it that was not delivered.
    async fn close(&mut self, id: RecordId) -> Result<(), SinkError> {
        let mut closing = vec![id];
        while let Some(id) = closing.pop() {
            let Some(finished) = self.pending.close(id) else {
                continue;
            };
            for key in finished.abandoned {
                closing.extend(self.messages.abandon(&key).into_iter().map(|t| t.record));
            }
            match finished.settled.dead.first() {
                Some(letter) => self.metrics.dead_letter(&letter.reason),
                None if finished.has_calls => self.metrics.delivered(1),
                None => {}
            }
            self.settling += 1;
            self.settler.settle(finished.settled).await?;
        }
        Ok(())
    }

    /// Records are written down as settled; those that waited for their messages are done too.
    async fn committed(&mut self, committed: Committed) -> Result<(), SinkError> {
        self.settling -= committed.records;
        for key in committed.seen {
            for ticket in self.messages.close(&key) {
                self.close(ticket.record).await?;
            }
        }
        Ok(())
    }
}

/// Why an op will never be done, as a dead letter says it.
struct Refusal {
    word: String,
    reason: String,
    status: Option<u16>,
    body: Option<String>,
}

impl Refusal {
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

fn crashed(error: tokio::task::JoinError) -> SinkError {
    SinkError::Storage(format!("a delivery task ended abnormally: {error}"))
}
