//! One person, one record: people who are in the account without an id of ours, and with one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use proptest::prelude::*;
use serde_json::{Value, json};
use usercom_sink::config::sink::{DeliveryConfig, MatchBy, MatchConflict, UsersConfig};
use usercom_sink::deliver::{ApiReply, Attempts, Method, Request, SendError, Transport};
use usercom_sink::emulator::Faults;
use usercom_sink::schedule::{ExternalUserId, Field, FieldClass, KeyKind, Op, UserKeys};
use usercom_sink::usercom::{ExecuteError, ExecutorObserver, OpExecutor, PriorSend};

use crate::support::{EmulatorAccount, TestDir, json_of};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It does not arrive.
    LostRequest,
    /// It is carried out, and no answer comes.
    LostReply,
}

#[derive(Debug, Default)]
struct People {
    users: Vec<Value>,
    /// Own id an event was sent for -> number of the record it is on.
    events: Vec<(String, u64)>,
    log: Vec<String>,
    faults: Vec<Fault>,
    adopted: usize,
    conflicts: Vec<String>,
    /// Searches show records as they were at the start.
    stale_search: Option<Vec<Value>>,
}

/// An account of people.
#[derive(Default)]
struct Account(Mutex<People>);

impl People {
    fn seed(&mut self, fields: Value) -> u64 {
        let number = self.users.len() as u64 + 1;
        let mut user = json!({"id": number, "custom_id": null, "email": "", "phone_number": ""});
        user["user_key"] = format!("key{number}").into();
        for (name, value) in fields.as_object().unwrap() {
            user[name] = value.clone();
        }
        self.users.push(user);
        number
    }

    fn answer(&mut self, request: &Request) -> (u16, Value) {
        let body: Value = request
            .body
            .as_deref()
            .map_or(Value::Null, |body| serde_json::from_slice(body).unwrap());
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let segment = path.split('/').nth(1).unwrap_or_default().to_owned();
        let missing = (404, json!({"detail": "Not found."}));
        let at = self.users.iter().position(|user| match request.route {
            "users-by-id/:id/" | "users-by-id/:id/events/" => user["custom_id"] == *segment,
            "users/:id/" => user["id"].to_string() == segment,
            "events/" => user["id"] == body["user_id"],
            "users/update_or_create/" => user["custom_id"] == body["custom_id"],
            _ => false,
        });
        match (request.method, request.route, at) {
            (Method::Get, "attributes/", _) => (200, json!({"next": null, "results": []})),
            (Method::Get, "users/search/", _) => self.search(query),
            (Method::Post, "users/update_or_create/", _) => {
                let created = at.is_none();
                let at = at.unwrap_or_else(|| self.seed(json!({})) as usize - 1);
                self.change(at, &body);
                (200, json!({"created": created, "id": self.users[at]["id"]}))
            }
            (Method::Put, "users/:id/", Some(at)) => {
                let id = &body["custom_id"];
                let taken = !id.is_null() && self.users.iter().any(|u| u["custom_id"] == *id);
                if taken && self.users[at]["custom_id"] != *id {
                    return (400, json!({"custom_id": ["This id is taken."]}));
                }
                self.change(at, &body);
                (200, self.users[at].clone())
            }
            (Method::Post, "users-by-id/:id/events/" | "events/", Some(at)) => {
                let number = self.users[at]["id"].as_u64().unwrap();
                self.events.push((body["data"]["of"].as_str().unwrap().to_owned(), number));
                (201, json!({"id": self.events.len(), "created": false}))
            }
            (Method::Get, _, Some(at)) => (200, self.users[at].clone()),
            _ => missing,
        }
    }

    fn change(&mut self, at: usize, body: &Value) {
        let old = self.users[at]["custom_id"].clone();
        for (name, value) in body.as_object().unwrap() {
            self.users[at][name] = value.clone();
        }
        assert!(old.is_null() || old == self.users[at]["custom_id"], "an own id was overwritten");
    }

    fn search(&self, query: &str) -> (u16, Value) {
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let digits = |text: &str| text.replace([' ', '-'], "");
        let users = self.stale_search.as_ref().unwrap_or(&self.users).iter().cloned();
        let text = |user: &Value, name: &str| user[name].as_str().unwrap_or_default().to_owned();
        if let Some(key) = query.get("key") {
            let found = users.into_iter().find(|user| text(user, "user_key") == *key);
            return found.map_or((404, Value::Null), |user| (200, user));
        }
        if let Some(email) = query.get("email") {
            assert_eq!(query.get("many").map(String::as_str), Some("true"));
            let is_it = |u: &Value| text(u, "email").trim().to_lowercase() == email.to_lowercase();
            return (200, users.filter(is_it).collect());
        }
        let phone = digits(&query["phone_number"]);
        let found: Vec<Value> =
            users.filter(|user| digits(&text(user, "phone_number")) == phone).collect();
        (200, json!({"count": found.len(), "next": null, "results": found}))
    }
}

#[async_trait]
impl Transport for Account {
    async fn send(
        &self,
        request: &Request,
        attempts: &mut Attempts,
    ) -> Result<ApiReply, SendError> {
        attempts.sent += 1;
        tokio::task::yield_now().await;
        let mut people = self.0.lock().unwrap();
        people.log.push(format!("{} {}", request.method.as_str(), request.route));
        let fault = people.faults.pop().unwrap_or(Fault::None);
        let lost = || SendError::GivenUp { attempts: 1, why: "cut".into() };
        if fault == Fault::LostRequest {
            return Err(lost());
        }
        let (status, body) = people.answer(request);
        // An event of unknown fate is another test's matter.
        if fault == Fault::LostReply && !request.route.ends_with("events/") {
            return Err(lost());
        }
        Ok(ApiReply { status, body: body.to_string().into() })
    }
}

struct Watching(Arc<Account>);

impl ExecutorObserver for Watching {
    fn user_adopted(&self, _: &str) {
        self.0.0.lock().unwrap().adopted += 1;
    }
    fn match_conflict(&self, user: &str, _: &str, _: &'static str) {
        self.0.0.lock().unwrap().conflicts.push(user.to_owned());
    }
}

fn executor(account: &Arc<Account>, match_conflict: MatchConflict) -> OpExecutor {
    let match_by = vec![MatchBy::UserKey, MatchBy::Email, MatchBy::Phone];
    let users = UsersConfig { match_by, match_conflict, ..UsersConfig::default() };
    let watching = Arc::new(Watching(Arc::clone(account)));
    OpExecutor::new(Arc::<Account>::clone(account), users, DeliveryConfig::default(), watching)
}

fn keys(of: &[(KeyKind, &str)]) -> UserKeys {
    let mut keys = UserKeys::default();
    of.iter().for_each(|(kind, key)| keys.set(*kind, *key));
    keys
}

fn identify(user: &str, of: &[(KeyKind, &str)]) -> Op {
    let json: Vec<(&str, String)> = of
        .iter()
        .filter_map(|(kind, key)| match kind {
            KeyKind::Email => Some(("email", format!("{key:?}"))),
            KeyKind::Phone => Some(("phone_number", format!("{key:?}"))),
            KeyKind::UserKey => None,
        })
        .collect();
    let fields = json.iter().map(|(name, json)| Field { name, class: FieldClass::Standard, json });
    Op::Identify { user: ExternalUserId::from(user), fields: fields.collect(), keys: keys(of) }
}

fn track(user: &str, of: &[(KeyKind, &str)]) -> Op {
    let own = format!("{user:?}");
    let data = [Field { name: "of", class: FieldClass::Standard, json: &own }];
    Op::Track {
        user: ExternalUserId::from(user),
        name: "e".into(),
        at: Some(super::fake::at(1_700_000_000)),
        data: data.into_iter().collect(),
        keys: keys(of),
    }
}

async fn run(usercom: &OpExecutor, op: &Op) -> Result<(), ExecuteError> {
    usercom.execute(op, PriorSend::None, &mut Attempts::default()).await.map(|_| ())
}

const MAIL: (KeyKind, &str) = (KeyKind::Email, "ann@x.y");
const SEARCH: &str = "GET users/search/";
const EXISTS: &str = "GET users-by-id/:id/";
const UPSERT: &str = "POST users/update_or_create/";
const BY_NUMBER: &str = "PUT users/:id/";

fn account(seeds: &[Value]) -> Arc<Account> {
    let account = Arc::<Account>::default();
    seeds.iter().for_each(|seed| {
        account.0.lock().unwrap().seed(seed.clone());
    });
    account
}

impl Account {
    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().log)
    }
    fn own_id(&self, number: usize) -> Value {
        self.0.lock().unwrap().users[number - 1]["custom_id"].clone()
    }
    fn users(&self) -> usize {
        self.0.lock().unwrap().users.len()
    }
}

#[tokio::test(start_paused = true)]
async fn person_without_id_is_adopted_and_gets_everything() {
    // A person by e-mail gets the id and the call's fields in one write, later calls and events go
    // to the same record, and nothing more is asked.
    let account = account(&[json!({"email": " Ann@X.y"})]);
    let usercom = executor(&account, MatchConflict::Create);
    run(&usercom, &identify("u1", &[MAIL, (KeyKind::Phone, "+48600")])).await.unwrap();
    assert_eq!(account.log(), [SEARCH, EXISTS, BY_NUMBER]);
    assert_eq!(account.own_id(1), "u1");
    assert_eq!(account.0.lock().unwrap().users[0]["phone_number"], "+48600");
    run(&usercom, &track("u1", &[MAIL])).await.unwrap();
    run(&usercom, &identify("u1", &[(KeyKind::Email, "new@x.y")])).await.unwrap();
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    run(&usercom, &track("u1", &[])).await.unwrap();
    assert!(!account.log().contains(&SEARCH.to_owned()));
    let people = account.0.lock().unwrap();
    assert_eq!((people.users.len(), people.adopted), (1, 1));
    assert_eq!(people.events, [("u1".to_owned(), 1), ("u1".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn never_seen_user_costs_one_lookup_a_key_and_known_user_none() {
    // Guarantees the price of matching: one search for each key of a new user, none afterwards,
    // none without keys.
    let account = account(&[]);
    let usercom = executor(&account, MatchConflict::Create);
    let all = [(KeyKind::UserKey, "k"), MAIL, (KeyKind::Phone, "+48600100200")];
    run(&usercom, &identify("u1", &all)).await.unwrap();
    assert_eq!(account.log(), [SEARCH, SEARCH, SEARCH, UPSERT]);
    run(&usercom, &identify("u1", &all)).await.unwrap();
    run(&usercom, &identify("u2", &[])).await.unwrap();
    assert_eq!(account.log(), [UPSERT, UPSERT]);
}

#[tokio::test(start_paused = true)]
async fn event_of_never_seen_user_goes_to_the_adopted_record() {
    // An event that carries the browser's key lands on the visitor's record, which gets the id.
    let account = account(&[json!({"user_key": "cookie"})]);
    let usercom = executor(&account, MatchConflict::Create);
    run(&usercom, &track("u1", &[(KeyKind::UserKey, "cookie")])).await.unwrap();
    assert_eq!(account.own_id(1), "u1");
    assert_eq!(account.0.lock().unwrap().events, [("u1".to_owned(), 1)]);
    assert_eq!(account.users(), 1);
}

#[tokio::test(start_paused = true)]
async fn user_that_is_known_by_id_is_not_matched_with_another_record() {
    // A user that User.com has under its id keeps its record, even if another record has the address.
    for policy in [MatchConflict::Create, MatchConflict::DeadLetter, MatchConflict::Use] {
        let account = account(&[json!({"email": "ann@x.y"}), json!({"custom_id": "u1"})]);
        run(&executor(&account, policy), &identify("u1", &[MAIL])).await.unwrap();
        assert_eq!((account.own_id(1), account.users()), (Value::Null, 2), "{policy:?}");
        assert_eq!(account.0.lock().unwrap().users[1]["email"], "ann@x.y");
        assert!(account.0.lock().unwrap().conflicts.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn conflict_is_decided_by_the_setting_and_told_once() {
    // Another id or several records: a record of its own, a dead letter, or the record that was
    // found, the oldest of several, whose own id stays.
    let other = [json!({"email": "ann@x.y", "custom_id": "u9"})];
    let several = [json!({"email": "x"}), json!({"email": "Ann@x.y"}), json!({"email": "ann@x.y"})];
    for (seeds, found) in [(&other[..], 1), (&several[..], 2)] {
        let own = account(seeds);
        let usercom = executor(&own, MatchConflict::Create);
        for op in [identify("u1", &[MAIL]), track("u1", &[MAIL]), identify("u1", &[MAIL])] {
            run(&usercom, &op).await.unwrap();
        }
        assert_eq!(own.own_id(seeds.len() + 1), "u1");
        assert_eq!(own.0.lock().unwrap().conflicts, ["u1"]);

        let dead = account(seeds);
        let usercom = executor(&dead, MatchConflict::DeadLetter);
        for op in [identify("u1", &[MAIL]), track("u1", &[]), identify("u1", &[MAIL])] {
            let end = run(&usercom, &op).await;
            assert!(matches!(end, Err(ExecuteError::MatchConflict { .. })), "{end:?}");
        }
        assert_eq!((dead.users(), dead.0.lock().unwrap().conflicts.len()), (seeds.len(), 1));

        let used = account(seeds);
        let usercom = executor(&used, MatchConflict::Use);
        let before = used.own_id(found);
        for op in [identify("u1", &[MAIL]), track("u1", &[]), identify("u1", &[])] {
            run(&usercom, &op).await.unwrap();
        }
        assert_eq!((used.users(), used.own_id(found)), (seeds.len(), before));
        let people = used.0.lock().unwrap();
        assert_eq!(people.events, [("u1".to_owned(), found as u64)]);
        assert_eq!(people.conflicts, ["u1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn two_ids_with_one_key_take_turns_also_where_the_search_lags() {
    // Of two ids that arrive at once with one key the first adopts the record and the second gets
    // one of its own; also where searches do not show the adoption yet.
    for stale in [false, true] {
        let account = account(&[json!({"email": "ann@x.y"}), json!({"user_key": "cookie"})]);
        if stale {
            let mut people = account.0.lock().unwrap();
            people.stale_search = Some(people.users.clone());
        }
        let usercom = executor(&account, MatchConflict::Create);
        let both = [(KeyKind::UserKey, "cookie"), MAIL];
        let ops = [
            identify("u1", &[MAIL]),
            identify("u2", &[MAIL]),
            track("u3", &both),
            identify("u4", &both),
        ];
        for end in futures::future::join_all(ops.iter().map(|op| run(&usercom, op))).await {
            end.unwrap();
        }
        let people = account.0.lock().unwrap();
        let owners: Vec<&Value> = people.users.iter().map(|user| &user["custom_id"]).collect();
        assert_eq!(owners.len(), 4, "{owners:?}");
        assert!(["u1", "u2"].contains(&owners[0].as_str().unwrap()), "{owners:?}");
        assert!(["u3", "u4"].contains(&owners[1].as_str().unwrap()), "{owners:?}");
        assert_eq!(people.conflicts.len(), 2);
    }
}

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
        kills in prop::collection::vec(any::<bool>(), 16),
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
            while queues.values().any(|queue| !queue.is_empty()) {
                let heads = queues.iter().filter_map(|(id, queue)| Some((*id, queue.first()?.clone())));
                let heads: Vec<(usize, Op)> = heads.collect();
                let ends = futures::future::join_all(heads.iter().map(|(_, op)| run(&usercom, op))).await;
                for ((id, _), end) in heads.iter().zip(ends) {
                    match end {
                        Ok(()) => drop(queues.get_mut(id).unwrap().remove(0)),
                        Err(ExecuteError::Send(SendError::GivenUp { .. })) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
                if kills.next() == Some(true) {
                    // The next process knows what was stored, or nothing.
                    usercom = executor(&account, MatchConflict::Create);
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
}

/// The people of the load that the account has by e-mail only.
const BY_EMAIL: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_into_an_account_of_people_by_email_makes_no_duplicate() {
    // 1,000 records of people of whom 60 are in the account by e-mail only: each of them gets the
    // id and everything, no person has two records, and each person costs one look-up at most.
    let records = crate::support::mix::beside_the_project().unwrap_or_else(|| {
        let mut records = crate::support::mix::records(1_000, "match");
        records.sort_by_key(|record| record["type"] != "identify");
        records
    });
    let account = EmulatorAccount::open(Faults::default()).await;
    let mut by_email = std::collections::BTreeSet::new();
    for record in &records {
        if let (Some(email), true) = (record["traits"]["email"].as_str(), by_email.len() < BY_EMAIL)
            && record["type"] == "identify"
            && by_email.insert(email.to_owned())
        {
            account.post("users/", &json!({"email": email.to_uppercase()})).await;
        }
    }
    assert_eq!(by_email.len(), BY_EMAIL);
    let dir = TestDir::new();
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    dir.write("records.ndjson", &lines.join("\n"));
    let sink = "preset = \"segment\"\n[sinks.crm.users]\nmatch_by = [\"email\"]\n";
    let summary = json_of(&dir.run_once(&dir.pipeline(&account.endpoint(), sink), &[]), 0);
    assert_eq!(summary["sinks"]["crm"]["dead_letters"], json!({}), "{summary}");
    let users = account.all("users/").await;
    let people: std::collections::BTreeSet<&str> =
        records.iter().filter_map(|r| r["userId"].as_str().or(r["anonymousId"].as_str())).collect();
    let ids: std::collections::BTreeSet<&str> =
        users.iter().map(|user| user["custom_id"].as_str().expect("everybody has an id")).collect();
    assert_eq!((ids.len(), users.len()), (people.len(), people.len()));
    assert_eq!(ids, people);
    let seen = |user: &Value| user["email"].as_str().unwrap_or_default().to_lowercase();
    let emails: Vec<String> = users.iter().map(seen).filter(|email| !email.is_empty()).collect();
    let different: std::collections::BTreeSet<&String> = emails.iter().collect();
    assert_eq!(different.len(), emails.len(), "a person has two records");
    let requests = account.admin("requests").await;
    let searched: Vec<&str> = requests
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|r| r["path"].as_str().filter(|path| path.contains("users/search/")))
        .collect();
    let once: std::collections::BTreeSet<&&str> = searched.iter().collect();
    assert_eq!(once.len(), searched.len(), "a person was looked up twice");
    println!("{} people, {} look-ups, {} adopted", people.len(), searched.len(), BY_EMAIL);
    account.close().await;
}
