//! KeyedScheduler: one queue per user and per company, at most one op of each in flight, fair between them.
//!
//! A pure state machine: it is told what arrives and what became of what it handed out, and says
//! what may go next. It knows neither time nor network. Whatever carries the ops out may be as
//! concurrent as it likes: two ops of one lane are never out at once, so order within a lane cannot
//! be lost, not even by a retry.
//!
//! `T` is the ticket of whoever pushed: it comes back when the op it was pushed with is settled.

use std::collections::{HashMap, HashSet, VecDeque};

use super::coalesce::{self, Weight};
use super::identity_links::IdentityLinks;
use super::op::{ExternalCompanyId, ExternalUserId, Op};

/// Waiting entries that are looked through for one a new op may be folded into.
const COALESCE_SEARCH_LIMIT: usize = 64;

/// Names one pushed op until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(u64);

/// Whether waiting writes may become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coalescing {
    /// They may.
    On,
    /// Each is sent by itself.
    Off,
}

/// What a lane is keyed by.
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
    /// A company's write this op waits for.
    after: Option<OpId>,
    ticket: T,
}

/// What goes out together: one part, or several folded into one op.
#[derive(Debug)]
struct CoalescedOps<T> {
    ops: Vec<PendingOp<T>>,
    weight: Weight,
    state: EntryState,
}

/// Whether others may be folded into an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryState {
    Open,
    /// An entry that was refused as a whole is taken apart, and its parts stay apart.
    Isolated,
}

impl EntryState {
    fn of(coalescing: Coalescing) -> Self {
        if coalescing == Coalescing::On { Self::Open } else { Self::Isolated }
    }
}

impl<T> CoalescedOps<T> {
    /// One part by itself.
    fn of(part: PendingOp<T>, state: EntryState) -> Self {
        let weight = Weight::of(&part.op);
        Self { ops: vec![part], weight, state }
    }

    fn op(&self) -> Op {
        coalesce::coalesced(&self.ops[0].op, self.ops[1..].iter().map(|part| &part.op))
    }
}

#[derive(Debug)]
struct KeyQueue<T> {
    keys: Vec<EntityKey>,
    queue: VecDeque<CoalescedOps<T>>,
    /// Whose ops are out. More than one only after two lanes with ops out became one.
    in_flight: Vec<Option<ExternalUserId>>,
    /// Whether the lane stands in the line of ready lanes.
    queued: bool,
}

type QueueId = u64;

/// An op handed out, to be given back to [`KeyedScheduler::finish`] or [`KeyedScheduler::requeue`].
#[derive(Debug)]
pub struct ScheduledOp<T> {
    /// Finds the lane again, also when it has been joined to another meanwhile.
    key: EntityKey,
    entry: CoalescedOps<T>,
    op: Op,
}

impl<T> ScheduledOp<T> {
    /// What is to be done.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// The lane it came from.
    pub fn queue_key(&self) -> QueueKey {
        QueueKey(self.key.clone())
    }

    /// The tickets of all that was folded into it.
    pub fn tickets(&self) -> impl Iterator<Item = &T> {
        self.entry.ops.iter().map(|part| &part.ticket)
    }

    /// How many pushed ops it stands for.
    pub fn parts(&self) -> usize {
        self.entry.ops.len()
    }
}

/// Names the lane of a task that is out.
#[derive(Debug, Clone)]
pub struct QueueKey(EntityKey);

/// What became of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpOutcome {
    /// It is done.
    Completed,
    /// It was refused for good.
    Rejected,
}

/// What became of one pushed op.
#[derive(Debug, PartialEq, Eq)]
pub enum OpResult<T> {
    /// Done.
    Completed(T),
    /// Refused for good.
    Rejected(T),
    /// Not attempted, because what it depended on was refused.
    Cancelled(T),
}

/// All lanes of one sink.
pub struct KeyedScheduler<T> {
    coalescing: Coalescing,
    identities: IdentityLinks,
    by_key: HashMap<EntityKey, QueueId>,
    queues: HashMap<QueueId, KeyQueue<T>>,
    ready: VecDeque<QueueId>,
    /// Company writes not yet settled.
    pending_writes: HashSet<OpId>,
    /// KeyedScheduler whose head waits for a company write.
    blocked_on: HashMap<OpId, Vec<QueueId>>,
    next_id: u64,
    unsettled: usize,
    coalesced: u64,
}

impl<T> KeyedScheduler<T> {
    /// Empty lanes that remember at most `identities` anonymous ids.
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
        }
    }

    /// Pushed ops that are not settled, in flight included.
    pub fn len(&self) -> usize {
        self.unsettled
    }

    /// Whether everything is settled.
    pub fn is_empty(&self) -> bool {
        self.unsettled == 0
    }

    /// The tickets of what waits in a lane behind the op that is out.
    pub fn queued_behind(&self, lane: &QueueKey) -> impl Iterator<Item = &T> {
        let lane = self.by_key.get(&lane.0).and_then(|id| self.queues.get(id));
        let entries = lane.into_iter().flat_map(|lane| &lane.queue);
        entries.flat_map(|entry| &entry.ops).map(|part| &part.ticket)
    }

    /// How many pushed ops were folded into another so far.
    pub fn coalesced(&self) -> u64 {
        self.coalesced
    }

    /// From now on, what is done under `anonymous` is ordered with what is done by `user`, and
    /// so is what already waits. Tells whether that is news.
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

    /// Whether a lane has work under this very id. Without it there is no order to keep, and lanes
    /// that share an anonymous id by chance (a constant one, say) must not all become one.
    fn has_work_for(&mut self, lane: QueueId, id: &ExternalUserId) -> bool {
        let lane = self.queue(lane);
        lane.in_flight.iter().flatten().any(|out| out == id)
            || lane.queue.iter().flat_map(|e| &e.ops).any(|part| user_of(&part.op) == Some(id))
    }

    fn merge_queues(&mut self, from: QueueId, into: QueueId) {
        let gone = self.queues.remove(&from).expect("by_key names only lanes that exist");
        for key in &gone.keys {
            self.by_key.insert(key.clone(), into);
        }
        for lanes in self.blocked_on.values_mut() {
            for lane in lanes.iter_mut().filter(|lane| **lane == from) {
                *lane = into;
            }
        }
        let lane = self.queue(into);
        lane.keys.extend(gone.keys);
        lane.in_flight.extend(gone.in_flight);
        let mut all: Vec<_> = lane.queue.drain(..).chain(gone.queue).collect();
        all.sort_by_key(|entry| entry.ops[0].id);
        lane.queue = all.into();
        self.mark_ready(into);
    }

    /// Adds an op. `after` is a company write it must wait for.
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
        let lane = self.queue_for(key);
        self.enqueue(lane, PendingOp { id, op, after, ticket });
        self.mark_ready(lane);
        id
    }

    fn queue_for(&mut self, key: EntityKey) -> QueueId {
        if let Some(&lane) = self.by_key.get(&key) {
            return lane;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.by_key.insert(key.clone(), id);
        let lane = KeyQueue {
            keys: vec![key],
            queue: VecDeque::new(),
            in_flight: Vec::new(),
            queued: false,
        };
        self.queues.insert(id, lane);
        id
    }

    fn queue(&mut self, id: QueueId) -> &mut KeyQueue<T> {
        self.queues.get_mut(&id).expect("lane ids are kept only while the lane exists")
    }

    fn enqueue(&mut self, lane: QueueId, part: PendingOp<T>) {
        let coalescing = self.coalescing;
        let lane = self.queue(lane);
        if coalescing == Coalescing::On {
            let weight = Weight::of(&part.op);
            let waiting = lane.queue.iter_mut().rev().take(COALESCE_SEARCH_LIMIT);
            for entry in waiting.filter(|entry| entry.state == EntryState::Open) {
                if coalesce::can_coalesce(&entry.ops[0].op, &part.op) {
                    let Some(both) = entry.weight.with(weight) else {
                        break;
                    };
                    entry.weight = both;
                    entry.ops.push(part);
                    self.coalesced += 1;
                    return;
                }
                if !coalesce::can_reorder(&part.op, &entry.ops[0].op) {
                    break;
                }
            }
        }
        lane.queue.push_back(CoalescedOps::of(part, EntryState::of(coalescing)));
    }

    /// Puts a lane in line if its head may go.
    fn mark_ready(&mut self, id: QueueId) {
        let Some(lane) = self.queues.get_mut(&id) else {
            return;
        };
        if lane.queued || !lane.in_flight.is_empty() {
            return;
        }
        let Some(head) = lane.queue.front() else {
            let gone = self.queues.remove(&id).expect("it was there a moment ago");
            for key in &gone.keys {
                self.by_key.remove(key);
            }
            return;
        };
        let waits_for = head
            .ops
            .iter()
            .find_map(|part| part.after.filter(|after| self.pending_writes.contains(after)));
        match waits_for {
            Some(write) => {
                let blocked_on = self.blocked_on.entry(write).or_default();
                if !blocked_on.contains(&id) {
                    blocked_on.push(id);
                }
            }
            None => {
                lane.queued = true;
                self.ready.push_back(id);
            }
        }
    }

    /// The next op that may go, if any: lanes take turns.
    pub fn pop_ready(&mut self) -> Option<ScheduledOp<T>> {
        loop {
            let id = self.ready.pop_front()?;
            // Since it got in line a lane may have been joined to another, and with it have got an
            // op out or another head.
            let Some(lane) = self.queues.get_mut(&id) else {
                continue;
            };
            lane.queued = false;
            let open = &self.pending_writes;
            let may_go =
                |part: &PendingOp<T>| part.after.is_none_or(|write| !open.contains(&write));
            let fit = lane.in_flight.is_empty()
                && lane.queue.front().is_some_and(|head| head.ops.iter().all(may_go));
            if !fit {
                self.mark_ready(id);
                continue;
            }
            let entry = lane.queue.pop_front().expect("a fit lane has a head");
            let op = entry.op();
            lane.in_flight.push(user_of(&op).cloned());
            let key = lane.keys[0].clone();
            return Some(ScheduledOp { key, entry, op });
        }
    }

    /// Takes back a task that was carried out, and says what became of each pushed op. A folded
    /// task that was refused is taken apart instead: its parts go again, one by one, so that only
    /// the one at fault is refused.
    pub fn finish(&mut self, task: ScheduledOp<T>, fate: OpOutcome) -> Vec<OpResult<T>> {
        if fate == OpOutcome::Rejected && task.entry.ops.len() > 1 {
            let parts = task.entry.ops.into_iter();
            let alone = parts.map(|part| CoalescedOps::of(part, EntryState::Isolated)).collect();
            self.return_in_flight(&task.key, user_of(&task.op), alone);
            return Vec::new();
        }
        let mut settled = Vec::with_capacity(task.entry.ops.len());
        let mut woken = Vec::new();
        for part in task.entry.ops {
            if self.pending_writes.remove(&part.id) {
                let blocked_on = self.blocked_on.remove(&part.id).unwrap_or_default();
                if fate == OpOutcome::Rejected {
                    self.cancel_dependents(part.id, &mut settled);
                }
                woken.extend(blocked_on);
            }
            self.unsettled -= 1;
            settled.push(match fate {
                OpOutcome::Completed => OpResult::Completed(part.ticket),
                OpOutcome::Rejected => OpResult::Rejected(part.ticket),
            });
        }
        self.return_in_flight(&task.key, user_of(&task.op), Vec::new());
        for lane in woken {
            self.mark_ready(lane);
        }
        settled
    }

    /// Takes back a task that could not be carried out now; it stays at the head of its lane.
    pub fn requeue(&mut self, task: ScheduledOp<T>) {
        self.return_in_flight(&task.key, user_of(&task.op), vec![task.entry]);
    }

    fn return_in_flight(
        &mut self,
        key: &EntityKey,
        user: Option<&ExternalUserId>,
        entries: Vec<CoalescedOps<T>>,
    ) {
        let id = *self.by_key.get(key).expect("a lane with an op out keeps its keys");
        let lane = self.queue(id);
        let out = lane.in_flight.iter().position(|out| out.as_ref() == user);
        lane.in_flight.swap_remove(out.expect("the op was out"));
        for entry in entries.into_iter().rev() {
            lane.queue.push_front(entry);
        }
        self.mark_ready(id);
    }

    /// Drops what waits for a company write that was refused.
    fn cancel_dependents(&mut self, write: OpId, settled: &mut Vec<OpResult<T>>) {
        let mut emptied = Vec::new();
        for (id, lane) in &mut self.queues {
            for entry in &mut lane.queue {
                let (skipped, kept) = std::mem::take(&mut entry.ops)
                    .into_iter()
                    .partition::<Vec<_>, _>(|part| part.after == Some(write));
                entry.ops = kept;
                self.unsettled -= skipped.len();
                settled.extend(skipped.into_iter().map(|part| OpResult::Cancelled(part.ticket)));
            }
            let before = lane.queue.len();
            lane.queue.retain(|entry| !entry.ops.is_empty());
            if lane.queue.is_empty() && before > 0 {
                emptied.push(*id);
            }
        }
        for lane in emptied {
            self.ready.retain(|ready| *ready != lane);
            self.queue(lane).queued = false;
            self.mark_ready(lane);
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
