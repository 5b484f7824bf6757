//! A User.com made of maps, with faults to order, and shorthands for calls and ops.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use usercom_sink::call::{Call, CallKind, Json, Object};
use usercom_sink::config::sink::{DeliveryConfig, UsersConfig};
use usercom_sink::deliver::{ApiReply, Attempts, Denial, Method, Request, SendError, Transport};
use usercom_sink::schedule::{
    ExternalCompanyId, ExternalUserId, Field, FieldClass, Op, PackedFields, UserKeys,
};
use usercom_sink::usercom::{ExecuteError, ExecutorObserver, OpExecutor, OpSuccess, PriorSend};

/// What happens to the next request of a route.
pub(super) enum Fault {
    /// It is carried out, and the answer is lost.
    LostReply,
    /// It never arrives, and there is no answer.
    LostRequest,
    /// It is answered 429.
    Throttled,
    /// It is carried out, and answered 429.
    TakenAndThrottled,
    /// It is answered like this.
    Answer(u16, Value),
}

/// How a user's histories are listed.
#[derive(Debug, Clone, Default)]
pub(super) struct Histories {
    pub(super) order: HistoryOrder,
    /// Entries on a page; 0 = all.
    pub(super) page_size: usize,
    pub(super) ids: HistoryIds,
    pub(super) times: HistoryTimes,
    /// How long after its arrival an entry is not listed.
    pub(super) delay: Duration,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum HistoryOrder {
    #[default]
    NewestFirst,
    OldestFirst,
    Shuffled,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum HistoryIds {
    #[default]
    Numbers,
    Texts,
    Uuids,
    None,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum HistoryTimes {
    /// As they were sent.
    #[default]
    Sent,
    Iso,
    /// ISO with the offset of this zone.
    Zoned(&'static str),
    /// ISO in this zone, without saying so.
    Local(&'static str),
}

impl Histories {
    fn listed(&self, mut entries: Vec<Value>, request: &Request) -> (u16, Value) {
        match self.order {
            HistoryOrder::OldestFirst => {}
            HistoryOrder::NewestFirst => entries.reverse(),
            HistoryOrder::Shuffled => entries.sort_by_key(|e| {
                e["id"].as_u64().unwrap_or_default().wrapping_mul(0x9E37_79B9_7F4A_7C15)
            }),
        }
        let from: usize =
            request.path.split_once("cursor=").map_or(0, |(_, at)| at.parse().unwrap());
        let size = if self.page_size == 0 { usize::MAX } else { self.page_size };
        let more = entries.len() > from.saturating_add(size);
        let page: Vec<Value> =
            entries.into_iter().skip(from).take(size).map(|entry| self.shown(entry)).collect();
        let path = request.path.split('?').next().unwrap();
        let next = more.then(|| format!("https://x.example/{path}?cursor={}", from + size));
        (200, json!({"next": next, "results": page}))
    }

    fn shown(&self, mut entry: Value) -> Value {
        let id = entry["id"].as_u64().unwrap_or_default();
        entry["id"] = match self.ids {
            HistoryIds::Numbers => json!(id),
            HistoryIds::Texts => json!(id.to_string()),
            HistoryIds::Uuids => {
                json!(format!("{:032x}", u128::from(id).wrapping_mul(u128::MAX / 3)))
            }
            HistoryIds::None => Value::Null,
        };
        let at = match &entry["timestamp"] {
            Value::Number(seconds) => Timestamp::from_second(seconds.as_i64().unwrap()).unwrap(),
            Value::String(text) => text.parse().unwrap(),
            other => panic!("no time: {other}"),
        };
        let zoned = |zone: &str| at.in_tz(zone).unwrap();
        entry["timestamp"] = match self.times {
            HistoryTimes::Sent => return entry,
            HistoryTimes::Iso => json!(at.to_string()),
            HistoryTimes::Zoned(zone) => {
                json!(zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string())
            }
            HistoryTimes::Local(zone) => {
                json!(zoned(zone).strftime("%Y-%m-%d %H:%M:%S%.f").to_string())
            }
        };
        entry
    }
}

#[derive(Default)]
pub(super) struct Account {
    pub(super) users: BTreeMap<String, Value>,
    pub(super) events: Vec<Value>,
    /// When each event came in; events that a test put there have none.
    event_times: Vec<Instant>,
    pub(super) views: Vec<Value>,
    pub(super) companies: BTreeMap<String, Value>,
    pub(super) members: BTreeSet<(u64, u64)>,
    pub(super) attributes: Vec<Value>,
    pub(super) log: Vec<String>,
    pub(super) bodies: Vec<Value>,
    faults: VecDeque<(String, Fault)>,
    last: u64,
    /// How a user's histories are listed.
    pub(super) histories: Histories,
    /// How many attributes a page of the list holds; 0 = all.
    pub(super) page_size: usize,
}

#[derive(Default)]
pub(super) struct Fake(Mutex<Account>);

impl Fake {
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Account) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    /// `METHOD route`, so far, and forgets them.
    pub(super) fn log(&self) -> Vec<String> {
        self.with(|account| std::mem::take(&mut account.log))
    }

    pub(super) fn body(&self) -> Value {
        self.with(|account| account.bodies.last().cloned().unwrap_or(Value::Null))
    }

    pub(super) fn fault(&self, route: &str, fault: Fault) {
        self.with(|account| account.faults.push_back((route.into(), fault)));
    }

    pub(super) fn user(&self, own_id: &str) -> u64 {
        self.with(|account| account.user(own_id)["id"].as_u64().unwrap())
    }

    pub(super) fn attribute(&self, name: &str, kind: &str, content: &str) {
        self.with(|account| {
            account.attributes.push(json!({
                "name": name, "name_std": name, "value_type": kind, "content_type": content,
            }));
        });
    }
}

impl Account {
    /// Everything is answered as usual from now on.
    pub(super) fn forget_faults(&mut self) {
        self.faults.clear();
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn user(&mut self, own_id: &str) -> Value {
        if !self.users.contains_key(own_id) {
            let id = self.next();
            let user = json!({"id": id, "user_key": format!("k{id}"), "custom_id": own_id});
            self.users.insert(own_id.into(), user);
        }
        self.users[own_id].clone()
    }

    fn named(&self, request: &Request) -> Option<Value> {
        let segment = request.path.split('/').nth(1).unwrap();
        let id = percent_encoding::percent_decode_str(segment).decode_utf8().unwrap();
        if request.route.starts_with("users-by-id") {
            return self.users.get(&*id).cloned();
        }
        if request.route.starts_with("companies-by-id") {
            return self.companies.get(&*id).cloned();
        }
        let number: u64 = id.parse().unwrap();
        let all = if request.route.starts_with("users") { &self.users } else { &self.companies };
        all.values().find(|entry| entry["id"] == number).cloned()
    }

    fn carry_out(&mut self, request: &Request) -> (u16, Value) {
        let body: Value = match &request.body {
            Some(body) => serde_json::from_slice(body).unwrap(),
            None => Value::Null,
        };
        let not_found = (404, json!({"detail": "Not found."}));
        let list = |results: Vec<Value>| (200, json!({"next": null, "results": results}));
        match (request.method, request.route) {
            (Method::Get, "attributes/") => self.list_attributes(request),
            (Method::Post, "attributes/") => self.create_attribute(&body),
            (Method::Post, "users/update_or_create/") => {
                let own_id = body["custom_id"].as_str().unwrap().to_owned();
                let created = !self.users.contains_key(&own_id);
                let id = self.user(&own_id)["id"].clone();
                let user = self.users.get_mut(&own_id).unwrap();
                for (name, value) in body.as_object().unwrap() {
                    user[name] = value.clone();
                }
                (200, json!({"created": created, "id": id}))
            }
            (Method::Post, "users-by-id/:id/events/") => match self.named(request) {
                Some(user) => self.occur(&user["id"], &body),
                None => not_found,
            },
            (Method::Post, "events/") => self.occur(&body["user_id"], &body),
            (Method::Post, "site-views/") => {
                if !self.users.values().any(|user| user["user_key"] == body["client_user"]) {
                    return (400, json!({"client_user": ["Unknown."]}));
                }
                self.views.push(body);
                (201, Value::Null)
            }
            (Method::Get, "users-by-id/:id/events/" | "users/:id/events/") => {
                match self.named(request) {
                    Some(user) => {
                        let delay = self.histories.delay;
                        let is_listed = |n: usize| {
                            self.event_times.get(n).is_none_or(|at| at.elapsed() >= delay)
                        };
                        let listed = self.events.iter().enumerate().filter(|(n, _)| is_listed(*n));
                        let own = listed.map(|(_, e)| e).filter(|e| e["user"] == user["id"]);
                        self.histories.listed(own.cloned().collect(), request)
                    }
                    None => not_found,
                }
            }
            (Method::Get, "users-by-id/:id/ping_hits/" | "users/:id/ping_hits/") => {
                self.histories.listed(self.views.clone(), request)
            }
            (Method::Post, "companies/") => {
                let id = self.next();
                let mut company = body.clone();
                company["id"] = id.into();
                company["employees"] = json!([]);
                self.companies.insert(body["custom_id"].as_str().unwrap().into(), company.clone());
                (201, company)
            }
            (Method::Get, "companies/") => list(self.companies.values().cloned().collect()),
            (_, "companies/:id/add_member/") => {
                let company = request.path.split('/').nth(1).unwrap().parse().unwrap();
                let user = body["user_id"].as_u64().unwrap();
                if !self.users.values().any(|known| known["id"] == user) {
                    return not_found;
                }
                self.members.insert((company, user));
                (200, json!({"success": true}))
            }
            (Method::Post, "users/merge/") => {
                let gone = body["users_list"][0].clone();
                self.users.retain(|_, user| user["id"] != gone);
                (200, json!({"success": true}))
            }
            (_, route) if route.contains(":id/") => {
                self.named(request).map_or(not_found, |found| {
                    let mut found = found;
                    let id = found["id"].as_u64().unwrap();
                    if route.starts_with("companies") {
                        let members: Vec<u64> = self
                            .members
                            .iter()
                            .filter(|(c, _)| *c == id)
                            .map(|(_, u)| *u)
                            .collect();
                        found["employees"] = json!(members);
                    }
                    (200, found)
                })
            }
            (method, route) => panic!("unexpected {method:?} {route}"),
        }
    }

    fn occur(&mut self, user: &Value, body: &Value) -> (u16, Value) {
        let id = self.next();
        let mut event = body.clone();
        event["id"] = id.into();
        event["user"] = user.clone();
        self.events.push(event);
        self.event_times.push(Instant::now());
        (201, json!({"id": id, "created": false}))
    }

    fn list_attributes(&self, request: &Request) -> (u16, Value) {
        if self.page_size == 0 {
            return (200, json!({"next": null, "results": self.attributes}));
        }
        let from: usize =
            request.path.split_once("cursor=").map_or(0, |(_, at)| at.parse().unwrap());
        if from >= self.attributes.len() && from > 0 {
            return (404, json!({"detail": "Invalid cursor"}));
        }
        let page: Vec<&Value> = self.attributes.iter().skip(from).take(self.page_size).collect();
        let next = format!(
            "https://elsewhere.example/api/public/attributes/?cursor={}",
            from + self.page_size
        );
        (200, json!({"next": next, "results": page}))
    }

    fn create_attribute(&mut self, body: &Value) -> (u16, Value) {
        let name = body["name"].as_str().unwrap();
        let name_std = name.to_lowercase().replace(' ', "_");
        let same = |known: &&Value| {
            known["name_std"] == *name_std && known["content_type"] == body["content_type"]
        };
        if self.attributes.iter().any(|known| same(&known)) {
            return (400, json!({"name": ["already exists"]}));
        }
        let mut attribute = body.clone();
        attribute["name_std"] = name_std.into();
        self.attributes.push(attribute.clone());
        (201, attribute)
    }
}

fn ambiguous<T>(why: &'static str, denial: Denial) -> Result<T, SendError> {
    Err(SendError::Ambiguous { why: why.into(), denial })
}

#[async_trait]
impl Transport for Fake {
    async fn send(
        &self,
        request: &Request,
        attempts: &mut Attempts,
    ) -> Result<ApiReply, SendError> {
        attempts.sent += 1;
        // Others get a turn, as they would on a network.
        tokio::task::yield_now().await;
        assert!(
            request.path.split('?').next().unwrap().ends_with('/'),
            "no trailing slash: {}",
            request.path
        );
        let (status, body) = self.with(|account| {
            account.log.push(format!("{} {}", request.method.as_str(), request.route));
            if let Some(body) = &request.body {
                account.bodies.push(serde_json::from_slice(body).unwrap());
            }
            let route = format!("{} {}", request.method.as_str(), request.route);
            let ordered = account.faults.iter().position(|(of, _)| *of == route);
            match ordered.and_then(|at| account.faults.remove(at)) {
                None => Ok(account.carry_out(request)),
                Some((_, Fault::Answer(status, body))) => Ok((status, body)),
                Some((_, Fault::LostRequest)) => ambiguous("reset", Denial::None),
                Some((_, Fault::LostReply)) => {
                    account.carry_out(request);
                    ambiguous("timeout", Denial::None)
                }
                Some((_, Fault::Throttled)) => ambiguous("status 429", Denial::TooMany),
                Some((_, Fault::TakenAndThrottled)) => {
                    account.carry_out(request);
                    ambiguous("status 429", Denial::TooMany)
                }
            }
        })?;
        Ok(ApiReply { status, body: body.to_string().into() })
    }
}

/// Writes down what it is told.
#[derive(Default)]
pub(super) struct Ears(pub(super) Mutex<Vec<String>>);

impl Ears {
    fn hear(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    pub(super) fn heard(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl ExecutorObserver for Ears {
    fn attribute_created(&self, name: &str, _: &str) {
        self.hear(format!("created {name}"));
    }
    fn conversion_failed(&self, name: &str, reason: &str) {
        self.hear(format!("unconverted {name}: {reason}"));
    }
    fn cropped(&self, field: &str) {
        self.hear(format!("cropped {field}"));
    }
    fn field_dropped(&self, field: &str, _: &str) {
        self.hear(format!("dropped {field}"));
    }
    fn duplicate_avoided(&self) {
        self.hear("duplicate".into());
    }
}

/// A sink and what it talks to.
pub(super) struct Bench {
    pub(super) fake: Arc<Fake>,
    pub(super) ears: Arc<Ears>,
    pub(super) usercom: Arc<OpExecutor>,
}

pub(super) fn bench() -> Bench {
    bench_with(UsersConfig::default(), DeliveryConfig::default())
}

pub(super) fn bench_with(users: UsersConfig, delivery: DeliveryConfig) -> Bench {
    bench_at(Arc::default(), users, delivery)
}

pub(super) fn bench_at(fake: Arc<Fake>, users: UsersConfig, delivery: DeliveryConfig) -> Bench {
    let ears = Arc::<Ears>::default();
    let transport = Arc::<Fake>::clone(&fake);
    let usercom = OpExecutor::new(transport, users, delivery, Arc::<Ears>::clone(&ears));
    Bench { fake, ears, usercom: Arc::new(usercom) }
}

impl Bench {
    pub(super) async fn run(&self, op: &Op) -> Result<OpSuccess, ExecuteError> {
        self.usercom.execute(op, PriorSend::None, &mut Attempts::default()).await
    }

    pub(super) async fn doubtful(&self, op: &Op) -> Result<OpSuccess, ExecuteError> {
        self.usercom.execute(op, PriorSend::Possible, &mut Attempts::default()).await
    }
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn custom<'a>(name: &'a str, json: &'a str) -> Field<'a> {
    Field { name, class: FieldClass::Custom, json }
}

pub(super) fn standard<'a>(name: &'a str, json: &'a str) -> Field<'a> {
    Field { name, class: FieldClass::Standard, json }
}

pub(super) fn identify(user: &str, fields: Vec<Field<'_>>) -> Op {
    Op::Identify {
        user: ExternalUserId::from(user),
        fields: fields.into_iter().collect(),
        keys: UserKeys::default(),
    }
}

pub(super) fn track(user: &str, name: &str) -> Op {
    let data: PackedFields = [standard("n", "1"), standard("s", "\"x\"")].into_iter().collect();
    Op::Track {
        user: ExternalUserId::from(user),
        name: name.into(),
        at: Some(at(1_700_000_000)),
        data,
        keys: UserKeys::default(),
    }
}

pub(super) fn page(user: &str) -> Op {
    let at = Some("2026-01-02T03:04:05.678Z".parse().unwrap());
    Op::Page {
        user: ExternalUserId::from(user),
        domain: "shop.example".into(),
        path: "/a".into(),
        at,
        keys: UserKeys::default(),
    }
}

pub(super) fn company(group: &str, fields: Vec<Field<'_>>) -> Op {
    Op::Company { company: ExternalCompanyId::from(group), fields: fields.into_iter().collect() }
}

pub(super) fn join(user: &str, group: &str) -> Op {
    Op::Join {
        user: ExternalUserId::from(user),
        company: ExternalCompanyId::from(group),
        fields: PackedFields::default(),
        keys: UserKeys::default(),
    }
}

fn fields(object: &Value) -> Object<'static> {
    let Value::Object(object) = object else {
        return Object::default();
    };
    let json = |value: &Value| Json::from_valid_unchecked(value.to_string());
    Object::Parsed(object.iter().map(|(name, value)| (name.clone().into(), json(value))).collect())
}

/// A call of user `u1`.
pub(super) fn call(kind: CallKind, about: &Value, context: &Value) -> Call<'static> {
    let mut call = Call::new(kind);
    call.user_id = Some("u1".into());
    call.fields = fields(about);
    call.context = fields(context);
    call
}
