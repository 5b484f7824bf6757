//! The scheduler: one queue per user and per company, served in turn.
//!
//! A pure state machine without clock or I/O. The caller pushes ops, pops those that are ready, and
//! reports the outcome of each. `T` is the caller's ticket for an op: it is returned when the op is
//! settled.
//!
//! # Invariants
//! At most one op of a queue is in flight, however many tasks execute ops. Order within a queue
//! therefore holds across retries, too.

use std::collections::{HashMap, HashSet, VecDeque};

use super::coalesce::{self, Weight};
use super::identity_links::IdentityLinks;
use super::op::{ExternalCompanyId, ExternalUserId, Op};

/// Entries, from the newest, that are searched for one that a new op may be merged into.
const COALESCE_SEARCH_LIMIT: usize = 64;

/// Waiting entries, and ops of each, that are searched for keys of an op's user.
const LOOK_AHEAD_LIMIT: usize = 64;

/// Identifies a pushed op until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(u64);

/// Whether waiting writes are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coalescing {
    /// Writes of one user or company are merged.
    On,
    /// Also a membership with the writes of its user: the account takes both in one request.
    WithMemberships,
    /// Each is sent alone.
    Off,
}

/// The key of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum EntityKey {
    User(ExternalUserId),
    Company(ExternalCompanyId),
}

/// One op as it was pushed.
#[derive(Debug)]
struct PendingOp<T> {
    id: OpId,
    op: Op,
    /// A write of a company that must complete before this op.
    after: Option<OpId>,
    ticket: T,
}

/// Ops that are executed as one.
#[derive(Debug)]
struct CoalescedOps<T> {
    ops: Vec<PendingOp<T>>,
    weight: Weight,
    state: EntryState,
}

/// Whether ops may be merged into an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryState {
    Open,
    /// After a merged entry is rejected, its ops are executed one by one.
    Isolated,
}

impl EntryState {
    fn of(coalescing: Coalescing) -> Self {
        if coalescing == Coalescing::Off { Self::Isolated } else { Self::Open }
    }
}

impl<T> CoalescedOps<T> {
    /// An entry of one op.
    fn of(op: PendingOp<T>, state: EntryState) -> Self {
        let weight = Weight::of(&op.op);
        Self { ops: vec![op], weight, state }
    }

    fn op(&self) -> Op {
        coalesce::coalesced(&self.ops[0].op, self.ops[1..].iter().map(|op| &op.op))
    }
}

#[derive(Debug)]
struct KeyQueue<T> {
    keys: Vec<EntityKey>,
    entries: VecDeque<CoalescedOps<T>>,
    /// The users of the ops in flight. More than one only after two queues, each with an op in
    /// flight, were merged.
    in_flight: Vec<Option<ExternalUserId>>,
    /// Whether the queue is in the list of ready queues.
    queued: bool,
}

type QueueId = u64;

/// An op in flight. It must be returned to [`KeyedScheduler::finish`] or
/// [`KeyedScheduler::requeue`].
#[derive(Debug)]
pub struct ScheduledOp<T> {
    /// The key of its queue, which holds also after the queue was merged into another.
    key: EntityKey,
    entry: CoalescedOps<T>,
    op: Op,
}

impl<T> ScheduledOp<T> {
    /// The op to execute.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// The key of its queue.
    pub fn queue_key(&self) -> QueueKey {
        QueueKey(self.key.clone())
    }

    /// The tickets of all ops that were merged into it.
    pub fn tickets(&self) -> impl Iterator<Item = &T> {
        self.entry.ops.iter().map(|op| &op.ticket)
    }

    /// How many pushed ops were merged into it.
    pub fn op_count(&self) -> usize {
        self.entry.ops.len()
    }
}

/// The key of the queue of an op in flight.
#[derive(Debug, Clone)]
pub struct QueueKey(EntityKey);

/// The outcome of an op in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpOutcome {
    /// The destination accepted it.
    Completed,
    /// The destination rejected it permanently.
    Rejected,
}

/// The result of one pushed op, with its ticket.
#[derive(Debug, PartialEq, Eq)]
pub enum OpResult<T> {
    /// Accepted.
    Completed(T),
    /// Rejected permanently.
    Rejected(T),
    /// Not executed, because the write it depends on was rejected.
    Cancelled(T),
}

/// The queues of one sink.
pub struct KeyedScheduler<T> {
    coalescing: Coalescing,
    identities: IdentityLinks,
    by_key: HashMap<EntityKey, QueueId>,
    queues: HashMap<QueueId, KeyQueue<T>>,
    ready: VecDeque<QueueId>,
    /// Company writes that are not settled.
    pending_writes: HashSet<OpId>,
    /// Queues whose first entry waits for a company write.
    blocked_on: HashMap<OpId, Vec<QueueId>>,
    next_id: u64,
    unsettled: usize,
    coalesced: u64,
    /// Whether any op so far had keys in addition to the user's id.
    has_keys: bool,
}

impl<T> KeyedScheduler<T> {
    /// A scheduler without ops that remembers at most `identities` anonymous ids.
    pub fn new(coalescing: Coalescing, identities: usize) -> Self {
        Self {
            coalescing,
            identities: IdentityLinks::new(identities),
            by_key: HashMap::new(),
            queues: HashMap::new(),
            ready: VecDeque::new(),
            pending_writes: HashSet::new(),
            blocked_on: HashMap::new(),
            next_id: 0,
            unsettled: 0,
            coalesced: 0,
            has_keys: false,
        }
    }

    /// Pushed ops that are not settled, including those in flight.
    pub fn len(&self) -> usize {
        self.unsettled
    }

    /// Whether everything is settled.
    pub fn is_empty(&self) -> bool {
        self.unsettled == 0
    }

    /// The tickets of the ops that wait in a queue after the op in flight.
    pub fn queued_after(&self, queue: &QueueKey) -> impl Iterator<Item = &T> {
        let queue = self.by_key.get(&queue.0).and_then(|id| self.queues.get(id));
        let entries = queue.into_iter().flat_map(|queue| &queue.entries);
        entries.flat_map(|entry| &entry.ops).map(|op| &op.ticket)
    }

    /// How many pushed ops were merged into another so far.
    pub fn coalesced(&self) -> u64 {
        self.coalesced
    }

    /// Orders ops of `anonymous` together with those of `user`, including ops that already wait.
    /// Returns whether the link is new.
    pub fn link_identities(&mut self, anonymous: &ExternalUserId, user: &ExternalUserId) -> bool {
        let Some(before) = self.identities.link(anonymous, user) else {
            return false;
        };
        let (old, new) = (EntityKey::User(before), EntityKey::User(user.clone()));
        let Some(&from) = self.by_key.get(&old) else {
            return true;
        };
        if !self.has_work_for(from, anonymous) {
            return true;
        }
        match self.by_key.get(&new) {
            Some(&into) if into != from => self.merge_queues(from, into),
            Some(_) => {}
            None => {
                self.by_key.insert(new.clone(), from);
                self.queue(from).keys.push(new);
            }
        }
        true
    }

    /// Whether a queue has ops of exactly this id. Otherwise there is no order to keep, and queues
    /// that share an anonymous id by mistake (a constant, for example) must not all be merged.
    fn has_work_for(&mut self, queue: QueueId, id: &ExternalUserId) -> bool {
        let queue = self.queue(queue);
        queue.in_flight.iter().flatten().any(|out| out == id)
            || queue.entries.iter().flat_map(|e| &e.ops).any(|op| user_of(&op.op) == Some(id))
    }

    fn merge_queues(&mut self, from: QueueId, into: QueueId) {
        let gone = self.queues.remove(&from).expect("by_key holds only queues that exist");
        for key in &gone.keys {
            self.by_key.insert(key.clone(), into);
        }
        for queues in self.blocked_on.values_mut() {
            for queue in queues.iter_mut().filter(|queue| **queue == from) {
                *queue = into;
            }
        }
        let queue = self.queue(into);
        queue.keys.extend(gone.keys);
        queue.in_flight.extend(gone.in_flight);
        let mut all: Vec<_> = queue.entries.drain(..).chain(gone.entries).collect();
        all.sort_by_key(|entry| entry.ops[0].id);
        queue.entries = all.into();
        self.mark_ready(into);
    }

    /// Adds an op. `after` is a company write that must complete first.
    pub fn push(&mut self, op: Op, after: Option<OpId>, ticket: T) -> OpId {
        let id = OpId(self.next_id);
        self.next_id += 1;
        self.unsettled += 1;
        let key = match &op {
            Op::Company { company, .. } => EntityKey::Company(company.clone()),
            Op::Identify { user, .. }
            | Op::Track { user, .. }
            | Op::Page { user, .. }
            | Op::Join { user, .. }
            | Op::Merge { into: user, .. } => {
                EntityKey::User(self.identities.resolve(user).clone())
            }
        };
        if matches!(op, Op::Company { .. }) {
            self.pending_writes.insert(id);
        }
        self.has_keys |= op.keys().is_some_and(|keys| !keys.is_empty());
        let queue = self.queue_for(key);
        self.enqueue(queue, PendingOp { id, op, after, ticket });
        self.mark_ready(queue);
        id
    }

    fn queue_for(&mut self, key: EntityKey) -> QueueId {
        if let Some(&queue) = self.by_key.get(&key) {
            return queue;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.by_key.insert(key.clone(), id);
        let queue = KeyQueue {
            keys: vec![key],
            entries: VecDeque::new(),
            in_flight: Vec::new(),
            queued: false,
        };
        self.queues.insert(id, queue);
        id
    }

    fn queue(&mut self, id: QueueId) -> &mut KeyQueue<T> {
        self.queues.get_mut(&id).expect("queue ids are removed together with their queue")
    }

    fn enqueue(&mut self, queue: QueueId, op: PendingOp<T>) {
        let coalescing = self.coalescing;
        let queue = self.queue(queue);
        if coalescing != Coalescing::Off {
            let weight = Weight::of(&op.op);
            let waiting = queue.entries.iter_mut().rev().take(COALESCE_SEARCH_LIMIT);
            for entry in waiting.filter(|entry| entry.state == EntryState::Open) {
                let ops = entry.ops.iter().map(|op| &op.op);
                if coalesce::can_merge(ops, &op.op, coalescing) {
                    let Some(both) = entry.weight.with(weight) else {
                        break;
                    };
                    entry.weight = both;
                    entry.ops.push(op);
                    self.coalesced += 1;
                    return;
                }
                if !coalesce::can_reorder(&op.op, &entry.ops[0].op) {
                    break;
                }
            }
        }
        queue.entries.push_back(CoalescedOps::of(op, EntryState::of(coalescing)));
    }

    /// Adds a queue to the ready ones if its first entry may be executed; removes an empty one.
    fn mark_ready(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        if queue.queued || !queue.in_flight.is_empty() {
            return;
        }
        let Some(head) = queue.entries.front() else {
            let gone = self.queues.remove(&id).expect("get_mut found it");
            for key in &gone.keys {
                self.by_key.remove(key);
            }
            return;
        };
        let waits_for = head
            .ops
            .iter()
            .find_map(|op| op.after.filter(|after| self.pending_writes.contains(after)));
        match waits_for {
            Some(write) => {
                let blocked_on = self.blocked_on.entry(write).or_default();
                if !blocked_on.contains(&id) {
                    blocked_on.push(id);
                }
            }
            None => {
                queue.queued = true;
                self.ready.push_back(id);
            }
        }
    }

    /// The next op to execute, if one is ready. Queues are served in turn.
    pub fn pop_ready(&mut self) -> Option<ScheduledOp<T>> {
        loop {
            let id = self.ready.pop_front()?;
            // Since it became ready, the queue may have been merged with another and so have an op
            // in flight or another first entry.
            let Some(queue) = self.queues.get_mut(&id) else {
                continue;
            };
            queue.queued = false;
            let open = &self.pending_writes;
            let may_go = |op: &PendingOp<T>| op.after.is_none_or(|write| !open.contains(&write));
            let is_ready = queue.in_flight.is_empty()
                && queue.entries.front().is_some_and(|head| head.ops.iter().all(may_go));
            if !is_ready {
                self.mark_ready(id);
                continue;
            }
            let entry = queue.entries.pop_front().expect("a ready queue has a first entry");
            let mut op = entry.op();
            if self.has_keys {
                look_ahead(&mut op, &queue.entries);
            }
            queue.in_flight.push(user_of(&op).cloned());
            let key = queue.keys[0].clone();
            return Some(ScheduledOp { key, entry, op });
        }
    }

    /// Settles an executed op and returns the result of each pushed op. A merged op that was
    /// rejected is not settled: its ops are executed again one by one, so that only the invalid one
    /// is rejected.
    pub fn finish(&mut self, task: ScheduledOp<T>, fate: OpOutcome) -> Vec<OpResult<T>> {
        if fate == OpOutcome::Rejected && task.entry.ops.len() > 1 {
            let ops = task.entry.ops.into_iter();
            let alone = ops.map(|op| CoalescedOps::of(op, EntryState::Isolated)).collect();
            self.return_in_flight(&task.key, user_of(&task.op), alone);
            return Vec::new();
        }
        let mut settled = Vec::with_capacity(task.entry.ops.len());
        let mut woken = Vec::new();
        for op in task.entry.ops {
            if self.pending_writes.remove(&op.id) {
                let blocked_on = self.blocked_on.remove(&op.id).unwrap_or_default();
                if fate == OpOutcome::Rejected {
                    self.cancel_dependents(op.id, &mut settled);
                }
                woken.extend(blocked_on);
            }
            self.unsettled -= 1;
            settled.push(match fate {
                OpOutcome::Completed => OpResult::Completed(op.ticket),
                OpOutcome::Rejected => OpResult::Rejected(op.ticket),
            });
        }
        self.return_in_flight(&task.key, user_of(&task.op), Vec::new());
        for queue in woken {
            self.mark_ready(queue);
        }
        settled
    }

    /// Returns an op that could not be executed now. It stays first in its queue.
    pub fn requeue(&mut self, task: ScheduledOp<T>) {
        self.return_in_flight(&task.key, user_of(&task.op), vec![task.entry]);
    }

    fn return_in_flight(
        &mut self,
        key: &EntityKey,
        user: Option<&ExternalUserId>,
        entries: Vec<CoalescedOps<T>>,
    ) {
        let id = *self.by_key.get(key).expect("a queue with an op in flight keeps its keys");
        let queue = self.queue(id);
        let out = queue.in_flight.iter().position(|out| out.as_ref() == user);
        queue.in_flight.swap_remove(out.expect("the op was in flight"));
        for entry in entries.into_iter().rev() {
            queue.entries.push_front(entry);
        }
        self.mark_ready(id);
    }

    /// Cancels the ops that wait for a company write that was rejected.
    fn cancel_dependents(&mut self, write: OpId, settled: &mut Vec<OpResult<T>>) {
        let mut emptied = Vec::new();
        for (id, queue) in &mut self.queues {
            for entry in &mut queue.entries {
                let (skipped, kept) = std::mem::take(&mut entry.ops)
                    .into_iter()
                    .partition::<Vec<_>, _>(|op| op.after == Some(write));
                entry.ops = kept;
                self.unsettled -= skipped.len();
                settled.extend(skipped.into_iter().map(|op| OpResult::Cancelled(op.ticket)));
            }
            let before = queue.entries.len();
            queue.entries.retain(|entry| !entry.ops.is_empty());
            if queue.entries.is_empty() && before > 0 {
                emptied.push(*id);
            }
        }
        for queue in emptied {
            self.ready.retain(|ready| *ready != queue);
            self.queue(queue).queued = false;
            self.mark_ready(queue);
        }
    }
}

/// Adds the keys that waiting ops of the same user have: a person is looked up before the first
/// write, and what names the person may come with a later call.
fn look_ahead<T>(op: &mut Op, waiting: &VecDeque<CoalescedOps<T>>) {
    let Some(user) = user_of(op).cloned() else {
        return;
    };
    let Some(keys) = op.keys_mut() else {
        return;
    };
    for entry in waiting.iter().take(LOOK_AHEAD_LIMIT) {
        for later in entry.ops.iter().take(LOOK_AHEAD_LIMIT).map(|waiting| &waiting.op) {
            if let Some(more) = later.keys().filter(|_| user_of(later) == Some(&user)) {
                keys.fill(more);
            }
        }
    }
}

fn user_of(op: &Op) -> Option<&ExternalUserId> {
    match op {
        Op::Identify { user, .. }
        | Op::Track { user, .. }
        | Op::Page { user, .. }
        | Op::Join { user, .. }
        | Op::Merge { into: user, .. } => Some(user),
        Op::Company { .. } => None,
    }
}
