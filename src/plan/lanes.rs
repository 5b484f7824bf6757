//! Lanes: one queue per user and per company, at most one op of each in flight, fair between them.
//!
//! A pure state machine: it is told what arrives and what became of what it handed out, and says
//! what may go next. It knows neither time nor network. Whatever carries the ops out may be as
//! concurrent as it likes: two ops of one lane are never out at once, so order within a lane cannot
//! be lost, not even by a retry.
//!
//! `T` is the ticket of whoever pushed: it comes back when the op it was pushed with is settled.

use std::collections::{HashMap, HashSet, VecDeque};

use super::aliases::Aliases;
use super::fold::{self, Weight};
use super::op::{GroupId, Op, OwnId};

/// Waiting entries that are looked through for one a new op may be folded into.
const LOOK_BACK: usize = 64;

/// Names one pushed op until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartId(u64);

/// Whether waiting writes may become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folding {
    /// They may.
    On,
    /// Each is sent by itself.
    Off,
}

/// What a lane is keyed by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    User(OwnId),
    Company(GroupId),
}

/// One op as it was pushed.
#[derive(Debug)]
struct Part<T> {
    id: PartId,
    op: Op,
    /// A company's write this op waits for.
    after: Option<PartId>,
    ticket: T,
}

/// What goes out together: one part, or several folded into one op.
#[derive(Debug)]
struct Entry<T> {
    parts: Vec<Part<T>>,
    weight: Weight,
    standing: Standing,
}

/// Whether others may be folded into an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Open,
    /// An entry that was refused as a whole is taken apart, and its parts stay apart.
    Alone,
}

impl Standing {
    fn of(folding: Folding) -> Self {
        if folding == Folding::On { Self::Open } else { Self::Alone }
    }
}

impl<T> Entry<T> {
    /// One part by itself.
    fn of(part: Part<T>, standing: Standing) -> Self {
        let weight = Weight::of(&part.op);
        Self { parts: vec![part], weight, standing }
    }

    fn op(&self) -> Op {
        fold::folded(&self.parts[0].op, self.parts[1..].iter().map(|part| &part.op))
    }
}

#[derive(Debug)]
struct Lane<T> {
    keys: Vec<Key>,
    queue: VecDeque<Entry<T>>,
    /// Whose ops are out. More than one only after two lanes with ops out became one.
    out: Vec<Option<OwnId>>,
    /// Whether the lane stands in the line of ready lanes.
    in_line: bool,
}

type LaneId = u64;

/// An op handed out, to be given back to [`Lanes::finish`] or [`Lanes::put_back`].
#[derive(Debug)]
pub struct Task<T> {
    /// Finds the lane again, also when it has been joined to another meanwhile.
    key: Key,
    entry: Entry<T>,
    op: Op,
}

impl<T> Task<T> {
    /// What is to be done.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// The lane it came from.
    pub fn lane(&self) -> LaneKey {
        LaneKey(self.key.clone())
    }

    /// The tickets of all that was folded into it.
    pub fn tickets(&self) -> impl Iterator<Item = &T> {
        self.entry.parts.iter().map(|part| &part.ticket)
    }

    /// How many pushed ops it stands for.
    pub fn parts(&self) -> usize {
        self.entry.parts.len()
    }
}

/// Names the lane of a task that is out.
#[derive(Debug, Clone)]
pub struct LaneKey(Key);

/// What became of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is done.
    Done,
    /// It was refused for good.
    Refused,
}

/// What became of one pushed op.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled<T> {
    /// Done.
    Done(T),
    /// Refused for good.
    Refused(T),
    /// Not attempted, because what it depended on was refused.
    Skipped(T),
}

/// All lanes of one sink.
pub struct Lanes<T> {
    folding: Folding,
    aliases: Aliases,
    by_key: HashMap<Key, LaneId>,
    lanes: HashMap<LaneId, Lane<T>>,
    ready: VecDeque<LaneId>,
    /// Company writes not yet settled.
    open_writes: HashSet<PartId>,
    /// Lanes whose head waits for a company write.
    parked: HashMap<PartId, Vec<LaneId>>,
    next_id: u64,
    waiting: usize,
    folded: u64,
}

impl<T> Lanes<T> {
    /// Empty lanes that remember at most `aliases` anonymous ids.
    pub fn new(folding: Folding, aliases: usize) -> Self {
        Self {
            folding,
            aliases: Aliases::new(aliases),
            by_key: HashMap::new(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            open_writes: HashSet::new(),
            parked: HashMap::new(),
            next_id: 0,
            waiting: 0,
            folded: 0,
        }
    }

    /// Pushed ops that are not settled, in flight included.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether everything is settled.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// The tickets of what waits in a lane behind the op that is out.
    pub fn waiting_in(&self, lane: &LaneKey) -> impl Iterator<Item = &T> {
        let lane = self.by_key.get(&lane.0).and_then(|id| self.lanes.get(id));
        let entries = lane.into_iter().flat_map(|lane| &lane.queue);
        entries.flat_map(|entry| &entry.parts).map(|part| &part.ticket)
    }

    /// How many pushed ops were folded into another so far.
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// From now on, what is done under `anonymous` is ordered with what is done by `user`, and
    /// so is what already waits. Tells whether that is news.
    pub fn unite(&mut self, anonymous: &OwnId, user: &OwnId) -> bool {
        let Some(before) = self.aliases.learn(anonymous, user) else {
            return false;
        };
        let (old, new) = (Key::User(before), Key::User(user.clone()));
        let Some(&from) = self.by_key.get(&old) else {
            return true;
        };
        if !self.concerns(from, anonymous) {
            return true;
        }
        match self.by_key.get(&new) {
            Some(&into) if into != from => self.join_lanes(from, into),
            Some(_) => {}
            None => {
                self.by_key.insert(new.clone(), from);
                self.lane(from).keys.push(new);
            }
        }
        true
    }

    /// Whether a lane has work under this very id. Without it there is no order to keep, and lanes
    /// that share an anonymous id by chance (a constant one, say) must not all become one.
    fn concerns(&mut self, lane: LaneId, id: &OwnId) -> bool {
        let lane = self.lane(lane);
        lane.out.iter().flatten().any(|out| out == id)
            || lane.queue.iter().flat_map(|e| &e.parts).any(|part| user_of(&part.op) == Some(id))
    }

    fn join_lanes(&mut self, from: LaneId, into: LaneId) {
        let gone = self.lanes.remove(&from).expect("by_key names only lanes that exist");
        for key in &gone.keys {
            self.by_key.insert(key.clone(), into);
        }
        for lanes in self.parked.values_mut() {
            for lane in lanes.iter_mut().filter(|lane| **lane == from) {
                *lane = into;
            }
        }
        let lane = self.lane(into);
        lane.keys.extend(gone.keys);
        lane.out.extend(gone.out);
        let mut all: Vec<_> = lane.queue.drain(..).chain(gone.queue).collect();
        all.sort_by_key(|entry| entry.parts[0].id);
        lane.queue = all.into();
        self.offer(into);
    }

    /// Adds an op. `after` is a company write it must wait for.
    pub fn push(&mut self, op: Op, after: Option<PartId>, ticket: T) -> PartId {
        let id = PartId(self.next_id);
        self.next_id += 1;
        self.waiting += 1;
        let key = match &op {
            Op::Company { company, .. } => Key::Company(company.clone()),
            Op::Identify { user, .. }
            | Op::Track { user, .. }
            | Op::Page { user, .. }
            | Op::Join { user, .. }
            | Op::Merge { into: user, .. } => Key::User(self.aliases.resolve(user).clone()),
        };
        if matches!(op, Op::Company { .. }) {
            self.open_writes.insert(id);
        }
        let lane = self.lane_for(key);
        self.enqueue(lane, Part { id, op, after, ticket });
        self.offer(lane);
        id
    }

    fn lane_for(&mut self, key: Key) -> LaneId {
        if let Some(&lane) = self.by_key.get(&key) {
            return lane;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.by_key.insert(key.clone(), id);
        let lane =
            Lane { keys: vec![key], queue: VecDeque::new(), out: Vec::new(), in_line: false };
        self.lanes.insert(id, lane);
        id
    }

    fn lane(&mut self, id: LaneId) -> &mut Lane<T> {
        self.lanes.get_mut(&id).expect("lane ids are kept only while the lane exists")
    }

    fn enqueue(&mut self, lane: LaneId, part: Part<T>) {
        let folding = self.folding;
        let lane = self.lane(lane);
        if folding == Folding::On {
            let weight = Weight::of(&part.op);
            let waiting = lane.queue.iter_mut().rev().take(LOOK_BACK);
            for entry in waiting.filter(|entry| entry.standing == Standing::Open) {
                if fold::folds(&entry.parts[0].op, &part.op) {
                    let Some(both) = entry.weight.with(weight) else {
                        break;
                    };
                    entry.weight = both;
                    entry.parts.push(part);
                    self.folded += 1;
                    return;
                }
                if !fold::passes(&part.op, &entry.parts[0].op) {
                    break;
                }
            }
        }
        lane.queue.push_back(Entry::of(part, Standing::of(folding)));
    }

    /// Puts a lane in line if its head may go.
    fn offer(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        if lane.in_line || !lane.out.is_empty() {
            return;
        }
        let Some(head) = lane.queue.front() else {
            let gone = self.lanes.remove(&id).expect("it was there a moment ago");
            for key in &gone.keys {
                self.by_key.remove(key);
            }
            return;
        };
        let waits_for = head
            .parts
            .iter()
            .find_map(|part| part.after.filter(|after| self.open_writes.contains(after)));
        match waits_for {
            Some(write) => {
                let parked = self.parked.entry(write).or_default();
                if !parked.contains(&id) {
                    parked.push(id);
                }
            }
            None => {
                lane.in_line = true;
                self.ready.push_back(id);
            }
        }
    }

    /// The next op that may go, if any: lanes take turns.
    pub fn take_next(&mut self) -> Option<Task<T>> {
        loop {
            let id = self.ready.pop_front()?;
            // Since it got in line a lane may have been joined to another, and with it have got an
            // op out or another head.
            let Some(lane) = self.lanes.get_mut(&id) else {
                continue;
            };
            lane.in_line = false;
            let open = &self.open_writes;
            let may_go = |part: &Part<T>| part.after.is_none_or(|write| !open.contains(&write));
            let fit = lane.out.is_empty()
                && lane.queue.front().is_some_and(|head| head.parts.iter().all(may_go));
            if !fit {
                self.offer(id);
                continue;
            }
            let entry = lane.queue.pop_front().expect("a fit lane has a head");
            let op = entry.op();
            lane.out.push(user_of(&op).cloned());
            let key = lane.keys[0].clone();
            return Some(Task { key, entry, op });
        }
    }

    /// Takes back a task that was carried out, and says what became of each pushed op. A folded
    /// task that was refused is taken apart instead: its parts go again, one by one, so that only
    /// the one at fault is refused.
    pub fn finish(&mut self, task: Task<T>, fate: Fate) -> Vec<Settled<T>> {
        if fate == Fate::Refused && task.entry.parts.len() > 1 {
            let parts = task.entry.parts.into_iter();
            let alone = parts.map(|part| Entry::of(part, Standing::Alone)).collect();
            self.give_back(&task.key, user_of(&task.op), alone);
            return Vec::new();
        }
        let mut settled = Vec::with_capacity(task.entry.parts.len());
        let mut woken = Vec::new();
        for part in task.entry.parts {
            if self.open_writes.remove(&part.id) {
                let parked = self.parked.remove(&part.id).unwrap_or_default();
                if fate == Fate::Refused {
                    self.skip_dependants(part.id, &mut settled);
                }
                woken.extend(parked);
            }
            self.waiting -= 1;
            settled.push(match fate {
                Fate::Done => Settled::Done(part.ticket),
                Fate::Refused => Settled::Refused(part.ticket),
            });
        }
        self.give_back(&task.key, user_of(&task.op), Vec::new());
        for lane in woken {
            self.offer(lane);
        }
        settled
    }

    /// Takes back a task that could not be carried out now; it stays at the head of its lane.
    pub fn put_back(&mut self, task: Task<T>) {
        self.give_back(&task.key, user_of(&task.op), vec![task.entry]);
    }

    fn give_back(&mut self, key: &Key, user: Option<&OwnId>, entries: Vec<Entry<T>>) {
        let id = *self.by_key.get(key).expect("a lane with an op out keeps its keys");
        let lane = self.lane(id);
        let out = lane.out.iter().position(|out| out.as_ref() == user);
        lane.out.swap_remove(out.expect("the op was out"));
        for entry in entries.into_iter().rev() {
            lane.queue.push_front(entry);
        }
        self.offer(id);
    }

    /// Drops what waits for a company write that was refused.
    fn skip_dependants(&mut self, write: PartId, settled: &mut Vec<Settled<T>>) {
        let mut emptied = Vec::new();
        for (id, lane) in &mut self.lanes {
            for entry in &mut lane.queue {
                let (skipped, kept) = std::mem::take(&mut entry.parts)
                    .into_iter()
                    .partition::<Vec<_>, _>(|part| part.after == Some(write));
                entry.parts = kept;
                self.waiting -= skipped.len();
                settled.extend(skipped.into_iter().map(|part| Settled::Skipped(part.ticket)));
            }
            let before = lane.queue.len();
            lane.queue.retain(|entry| !entry.parts.is_empty());
            if lane.queue.is_empty() && before > 0 {
                emptied.push(*id);
            }
        }
        for lane in emptied {
            self.ready.retain(|ready| *ready != lane);
            self.lane(lane).in_line = false;
            self.offer(lane);
        }
    }
}

fn user_of(op: &Op) -> Option<&OwnId> {
    match op {
        Op::Identify { user, .. }
        | Op::Track { user, .. }
        | Op::Page { user, .. }
        | Op::Join { user, .. }
        | Op::Merge { into: user, .. } => Some(user),
        Op::Company { .. } => None,
    }
}
