//! Own ids in any interleaving with faults and kills, against what must be true of the account.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use usercom_sink::config::sink::MatchConflict;
use usercom_sink::deliver::SendError;
use usercom_sink::schedule::{KeyKind, Op};
use usercom_sink::usercom::ExecuteError;

use super::{Fault, account, executor, identify, run, track};

/// Keys of the model: three people, each with an address, a number and a browser.
const PEOPLE: [[(KeyKind, &str); 3]; 3] = [
    [(KeyKind::UserKey, "kA"), (KeyKind::Email, "a@x.y"), (KeyKind::Phone, "+480000001")],
    [(KeyKind::UserKey, "kB"), (KeyKind::Email, "b@x.y"), (KeyKind::Phone, "+480000002")],
    [(KeyKind::UserKey, "kC"), (KeyKind::Email, "c@x.y"), (KeyKind::Phone, "+480000003")],
];

/// How a person came into the account.
#[derive(Debug, Clone, Copy)]
enum Came {
    Not,
    Widget,
    Form,
    Import,
    OwnId,
}

fn came() -> impl Strategy<Value = Came> {
    prop::sample::select(vec![Came::Not, Came::Widget, Came::Form, Came::Import, Came::OwnId])
}

fn seeds(came: &[Came]) -> Vec<Value> {
    came.iter()
        .zip(PEOPLE)
        .zip(1..)
        .filter_map(|((came, [(_, key), (_, email), (_, phone)]), n)| {
            Some(match came {
                Came::Not => return None,
                Came::Widget => json!({"user_key": key}),
                Came::Form => json!({"email": email.to_uppercase()}),
                Came::Import => json!({"email": email, "phone_number": phone}),
                Came::OwnId => json!({"email": email, "custom_id": format!("old{n}")}),
            })
        })
        .collect()
}

/// A call of one of five ids: which id, which person's keys, which of them, and what it is.
#[derive(Debug, Clone)]
struct ModelCall {
    id: usize,
    person: usize,
    kinds: [bool; 3],
    is_event: bool,
}

fn model_call() -> impl Strategy<Value = ModelCall> {
    (0..5_usize, 0..3_usize, any::<[bool; 3]>(), any::<bool>())
        .prop_map(|(id, person, kinds, is_event)| ModelCall { id, person, kinds, is_event })
}

impl ModelCall {
    fn keys(&self) -> Vec<(KeyKind, &'static str)> {
        let keys = PEOPLE[self.person].into_iter().zip(self.kinds);
        keys.filter_map(|(key, carried)| carried.then_some(key)).collect()
    }

    fn op(&self) -> Op {
        let user = format!("u{}", self.id);
        if self.is_event { track(&user, &self.keys()) } else { identify(&user, &self.keys()) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn ids_in_any_interleaving_with_faults_and_kills_give_one_record_a_person(
        came in prop::collection::vec(came(), 3),
        calls in prop::collection::vec(model_call(), 1..16),
        faults in prop::collection::vec(
            prop::sample::select(vec![Fault::None, Fault::None, Fault::None, Fault::LostRequest, Fault::LostReply]),
            0..24,
        ),
        kills in prop::collection::vec((any::<bool>(), any::<bool>(), 0..8_usize), 16),
    ) {
        // Never one record for two ids, never an own id overwritten (asserted in the account), one
        // record for each id, every event on the record of its id, and a person who was in the
        // account without an id is adopted where the first call of an id carried a key of theirs.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let seeds = seeds(&came);
            let account = account(&seeds);
            account.0.lock().unwrap().faults = faults;
            let mut queues: BTreeMap<usize, Vec<Op>> = BTreeMap::new();
            let mut first: BTreeMap<usize, ModelCall> = BTreeMap::new();
            for call in &calls {
                queues.entry(call.id).or_default().push(call.op());
                first.entry(call.id).or_insert_with(|| call.clone());
            }
            let mut usercom = executor(&account, MatchConflict::Create);
            let mut kills = kills.into_iter();
            let mut store: BTreeMap<String, String> = BTreeMap::new();
            let mut done: BTreeMap<usize, Op> = BTreeMap::new();
            while queues.values().any(|queue| !queue.is_empty()) {
                let heads = queues.iter().filter_map(|(id, queue)| Some((*id, queue.first()?.clone())));
                let heads: Vec<(usize, Op)> = heads.collect();
                let ends = futures::future::join_all(heads.iter().map(|(_, op)| run(&usercom, op))).await;
                for ((id, _), end) in heads.iter().zip(ends) {
                    match end {
                        Ok(()) => {
                            done.insert(*id, queues.get_mut(id).unwrap().remove(0));
                        }
                        Err(ExecuteError::Send(SendError::GivenUp { .. })) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
                // The store is written a few rows at a time.
                let (is_killed, runs_again, stored) = kills.next().unwrap_or((false, false, 3));
                for (key, row) in usercom.take_changes(stored) {
                    match row {
                        Some(row) => drop(store.insert(key, row)),
                        None => drop(store.remove(&key)),
                    }
                }
                if is_killed {
                    // The next process knows what was stored, and is given again what was done
                    // since the source was told.
                    usercom = executor(&account, MatchConflict::Create);
                    usercom.restore(store.clone());
                    for (id, op) in std::mem::take(&mut done).into_iter().filter(|_| runs_again) {
                        queues.entry(id).or_default().insert(0, op);
                    }
                }
            }
            let people = account.0.lock().unwrap();
            let mut owners: BTreeMap<String, u64> = BTreeMap::new();
            for user in &people.users {
                if let Some(own_id) = user["custom_id"].as_str() {
                    let twice = owners.insert(own_id.to_owned(), user["id"].as_u64().unwrap());
                    assert!(twice.is_none(), "two records of {own_id}: {:?}", people.users);
                }
            }
            for id in first.keys() {
                assert!(owners.contains_key(&format!("u{id}")), "u{id} has no record");
            }
            for (own_id, number) in &people.events {
                assert_eq!(owners[own_id], *number, "an event of {own_id} is elsewhere");
            }
            let had_id = came.iter().filter(|came| matches!(came, Came::OwnId)).count();
            assert!(people.users.len() <= seeds.len() + first.len());
            assert_eq!(owners.len(), had_id + first.len());
            for (seed, user) in seeds.iter().zip(&people.users) {
                let key_of = |kind: KeyKind| match kind {
                    KeyKind::UserKey => seed["user_key"].as_str().map(str::to_owned),
                    KeyKind::Email => seed["email"].as_str().map(str::to_lowercase),
                    KeyKind::Phone => seed["phone_number"].as_str().map(str::to_owned),
                };
                let carries = |call: &ModelCall| {
                    let keys = call.keys();
                    let found = keys.iter().any(|(kind, key)| key_of(*kind).as_deref() == Some(*key));
                    // Another key may have led to another record, and a key that another id
                    // carries may be on that one's record by now.
                    let shared = calls.iter().any(|other| {
                        other.id != call.id && other.keys().iter().any(|key| keys.contains(key))
                    });
                    found && keys.len() == 1 && !shared
                };
                if first.values().any(carries) && seed.get("custom_id").is_none() {
                    assert!(!user["custom_id"].is_null(), "{user} was not adopted: {:?}", people.users);
                }
            }
        });
    }

    #[test]
    fn ids_in_conflict_follow_the_setting(
        came in prop::collection::vec(came(), 3),
        calls in prop::collection::vec(model_call(), 1..16),
        faults in prop::collection::vec(
            prop::sample::select(vec![Fault::None, Fault::None, Fault::LostRequest, Fault::LostReply]),
            0..16,
        ),
        policy in prop::sample::select(vec![MatchConflict::Use, MatchConflict::DeadLetter]),
    ) {
        // No own id is overwritten (asserted in the account). With `use` all events of an id are on
        // one record; with `dead_letter` an id of which every call is rejected leaves no trace.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let seeds = seeds(&came);
            let account = account(&seeds);
            account.0.lock().unwrap().faults = faults;
            let usercom = executor(&account, policy);
            let mut taken: BTreeMap<String, bool> = BTreeMap::new();
            for call in &calls {
                let is_taken = taken.entry(format!("u{}", call.id)).or_default();
                loop {
                    match run(&usercom, &call.op()).await {
                        Ok(()) => *is_taken = true,
                        Err(ExecuteError::Send(SendError::GivenUp { .. })) => continue,
                        Err(ExecuteError::MatchConflict { .. }) => {
                            assert_eq!(policy, MatchConflict::DeadLetter);
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                    break;
                }
            }
            let people = account.0.lock().unwrap();
            let mut places: BTreeMap<&str, u64> = BTreeMap::new();
            for (own_id, number) in &people.events {
                assert_eq!(*places.entry(own_id).or_insert(*number), *number, "{own_id}");
            }
            for (own_id, _) in taken.iter().filter(|(_, is_taken)| !**is_taken) {
                assert!(!places.contains_key(own_id.as_str()), "{own_id} has events");
                let has_it = |user: &Value| user["custom_id"] == **own_id;
                assert!(!people.users.iter().any(has_it), "{own_id} has a record");
            }
            assert!(people.users.len() <= seeds.len() + taken.len());
        });
    }
}
