//! One person, one record: people who are in the account without an id of ours, and with one.

mod built;
mod model;
mod odd_answers;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};
use usercom_sink::config::sink::{DeliveryConfig, MatchBy, MatchConflict, UsersConfig};
use usercom_sink::deliver::{ApiReply, Attempts, Method, Request, SendError, Transport};
use usercom_sink::schedule::{ExternalUserId, Field, FieldClass, KeyKind, Op, UserKeys};
use usercom_sink::usercom::{ExecuteError, ExecutorObserver, OpExecutor, PriorSend};

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
    /// Searches are answered like this.
    search_answer: Option<(u16, &'static str)>,
    /// A record cannot be given an id; the status.
    no_adoption: Option<u16>,
    unanswered: Vec<&'static str>,
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
            "users/:id/" => user["id"].as_u64() == segment.parse().ok(),
            "events/" => user["id"] == body["user_id"],
            "users/update_or_create/" => user["custom_id"] == body["custom_id"],
            _ => false,
        });
        match (request.method, request.route, at) {
            (Method::Get, "attributes/", _) => (200, json!({"next": null, "results": []})),
            (Method::Get, "users/search/", _) => self.search(query),
            (Method::Post, "users/update_or_create/", _) => {
                let created = at.is_none();
                let at = at.unwrap_or_else(|| usize::try_from(self.seed(json!({}))).unwrap() - 1);
                self.change(at, &body);
                (200, json!({"created": created, "id": self.users[at]["id"]}))
            }
            (Method::Put, "users/:id/", Some(at)) => {
                let id = &body["custom_id"];
                if let Some(status) = self.no_adoption.filter(|_| !id.is_null()) {
                    return (status, json!({"detail": "no"}));
                }
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
        let number = self.users[at]["id"].clone();
        if let Some(key) = body["user_key"].as_str() {
            let is_other = |user: &Value| user["user_key"] == *key && user["id"] != number;
            assert!(!self.users.iter().any(is_other), "the user key of another was written");
        }
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
        if let Some((status, text)) =
            people.search_answer.filter(|_| request.route == "users/search/")
        {
            return Ok(ApiReply { status, body: text.into() });
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
    fn search_unanswered(&self, key: &'static str, _: &str) {
        self.0.0.lock().unwrap().unanswered.push(key);
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
        .map(|(kind, key)| match kind {
            KeyKind::Email => ("email", format!("{key:?}")),
            KeyKind::Phone => ("phone_number", format!("{key:?}")),
            KeyKind::UserKey => ("user_key", format!("{key:?}")),
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
        at: Some(crate::usercom::fake::at(1_700_000_000)),
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
