//! An account of User.com, written from the reference's text alone. It knows neither the emulator
//! nor the client, and each part of its behaviour is a switch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::behaviour::{Behaviour, Effect, Order, Route, UnknownKey, When};
use super::routes::{page, route};
use crate::support::stub::{Answer, Asked, Stub, answer};

/// Names of the fields of a user that are no custom attributes.
const STANDARD: &[&str] = &[
    "custom_id",
    "email",
    "first_name",
    "last_name",
    "phone_number",
    "city",
    "region",
    "country",
    "gender",
    "status",
    "score",
    "unsubscribed",
    "notifications",
    "timezone",
    "gravatar_url",
    "facebook_url",
    "linkedin_url",
    "twitter_url",
    "google_url",
    "assigned_to",
    "company_custom_id",
    "tags",
    "user_key",
    "name",
    "address",
    "postal_code",
    "description",
    "phone_numbers",
    "size",
];

/// An event or a page view as it was taken.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) number: u64,
    /// The event's name, or the page's path.
    pub(super) name: String,
    domain: String,
    at: i64,
    data: Value,
    is_view: bool,
    /// When it was taken.
    pub(super) taken: Instant,
}

/// A user or a company.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) number: u64,
    pub(super) key: String,
    pub(super) own_id: Option<String>,
    pub(super) fields: Map<String, Value>,
    seen_from: Instant,
}

#[derive(Debug, Clone)]
struct Attribute {
    number: u64,
    name: String,
    kind: String,
    owner: String,
}

/// What the account holds.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) users: Vec<Row>,
    pub(super) companies: Vec<Row>,
    /// By the user's number, in order of arrival.
    pub(super) entries: BTreeMap<u64, Vec<Entry>>,
    /// Company's number and user's number.
    pub(super) members: BTreeSet<(u64, u64)>,
    attributes: Vec<Attribute>,
    numbers: u64,
    requests: usize,
    counts: BTreeMap<usize, usize>,
    pub(super) by_route: BTreeMap<Route, u64>,
    pub(super) began: Option<Instant>,
}

/// A usual answer: status and body.
type Usual = (u16, Value);

fn not_found() -> Usual {
    (404, json!({"detail": "Not found."}))
}

/// The account with its server.
pub(super) struct Account {
    pub(super) stub: Stub,
    state: Arc<Mutex<State>>,
}

impl Account {
    pub(super) fn start(behaviour: Behaviour) -> Self {
        let mut state = State { numbers: behaviour.numbers_from, ..State::default() };
        for (name, kind) in [("plan", "string"), ("seats", "integer")] {
            state.add_attribute(name, kind, "clientuser");
        }
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let stub = Stub::start(move |asked| {
            let mut state = shared.lock().unwrap();
            state.answer(&behaviour, asked)
        });
        Self { stub, state }
    }

    /// What it holds now.
    pub(super) fn look<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock().unwrap())
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn add_attribute(&mut self, name: &str, kind: &str, owner: &str) -> Value {
        let number = self.number();
        let (name, kind, owner) = (name.to_owned(), kind.to_owned(), owner.to_owned());
        let attribute = Attribute { number, name, kind, owner };
        let shown = attribute.shown();
        self.attributes.push(attribute);
        shown
    }

    pub(super) fn add_user(&mut self, own_id: Option<String>, fields: Map<String, Value>) -> usize {
        let number = self.number();
        let key = fields.get("user_key").and_then(Value::as_str).map(str::to_owned);
        let key = key.unwrap_or_else(|| format!("key{number:09}"));
        self.users.push(Row { number, key, own_id, fields, seen_from: Instant::now() });
        self.users.len() - 1
    }

    /// One request to one answer.
    fn answer(&mut self, behaviour: &Behaviour, asked: &Asked) -> Answer {
        let began = *self.began.get_or_insert(asked.at);
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let words: Vec<String> = path
            .split('/')
            .filter(|word| !word.is_empty())
            .map(|word| percent_decode_str(word).decode_utf8_lossy().into_owned())
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let route = route(&asked.method, &words);
        *self.by_route.entry(route).or_default() += 1;
        for (at, rule) in behaviour.rules.iter().enumerate() {
            if !rule.routes.is_empty() && !rule.routes.contains(&route) {
                continue;
            }
            let count = self.counts.entry(at).or_default();
            *count += 1;
            let since = asked.at.duration_since(began);
            let holds = match rule.when {
                When::Always => true,
                When::First(first) => *count <= first,
                When::Every(n) => count.is_multiple_of(n),
                When::Between(from, to) => (from..to).contains(&since),
                When::Holds(text) => asked.path.contains(text) || asked.body.contains(text),
                When::Of(is_meant) => is_meant(asked, since),
            };
            if holds {
                let (status, body) = match rule.effect {
                    Effect::Applied => self.usual(behaviour, route, &words, query, asked),
                    Effect::NotApplied => (200, json!({})),
                };
                return (rule.answer)(status, &body);
            }
        }
        self.requests += 1;
        let n = self.requests;
        if behaviour.fault_every > 0 && n.is_multiple_of(behaviour.fault_every) {
            return match (n / behaviour.fault_every) % 4 {
                0 => answer(503, &[], "unavailable"),
                1 => answer(429, &[("Retry-After", "1")], r#"{"detail":"throttled"}"#),
                2 => Answer::Close,
                _ => {
                    // Taken, and the answer is lost.
                    self.usual(behaviour, route, &words, query, asked);
                    Answer::Close
                }
            };
        }
        let (status, mut body) = self.usual(behaviour, route, &words, query, asked);
        if let Some(reshape) = behaviour.reshape {
            reshape(route, &mut body);
        }
        let text = format!("{}{body}", behaviour.prefix);
        if let Some(encode) = behaviour.encode {
            return encode(status, &text);
        }
        answer(status, &[("Content-Type", "application/json")], &text)
    }

    fn usual(
        &mut self,
        behaviour: &Behaviour,
        route: Route,
        words: &[&str],
        query: &str,
        asked: &Asked,
    ) -> Usual {
        let body: Value = serde_json::from_str(&asked.body).unwrap_or(Value::Null);
        let fields = body.as_object().cloned().unwrap_or_default();
        match route {
            Route::AttributeList => {
                let all: Vec<Value> = self.attributes.iter().map(Attribute::shown).collect();
                page(&all, query, behaviour.page_size, "attributes/")
            }
            Route::AttributeCreate => {
                let word = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or("");
                if self
                    .attributes
                    .iter()
                    .any(|known| known.name == word("name") && known.owner == word("content_type"))
                {
                    return (400, json!({"name": ["attribute with this name already exists."]}));
                }
                let (name, kind, owner) = (word("name"), word("value_type"), word("content_type"));
                (201, self.add_attribute(name, kind, owner))
            }
            Route::Upsert => self.upsert(behaviour, fields),
            Route::UserCreate => match self.refusal(behaviour, "clientuser", &fields) {
                Some(refusal) => refusal,
                None => {
                    let own_id = text(&fields, "custom_id");
                    let at = self.add_user(own_id, self.kept(behaviour, "clientuser", fields));
                    (201, self.user_shown(at))
                }
            },
            Route::UserRead | Route::UserUpdate => {
                let Some(at) = self.find_user(behaviour, words) else { return not_found() };
                if route == Route::UserUpdate {
                    if let Some(refusal) = self.refusal(behaviour, "clientuser", &fields) {
                        return refusal;
                    }
                    let fields = self.kept(behaviour, "clientuser", fields);
                    if let Some(own_id) = text(&fields, "custom_id") {
                        self.users[at].own_id = Some(own_id);
                    }
                    write(&mut self.users[at].fields, fields);
                }
                (200, self.user_shown(at))
            }
            Route::UserSearch => self.search(query),
            Route::Event => self.event(behaviour, words, &fields),
            Route::View => self.view(&fields),
            Route::EventHistory | Route::ViewHistory => {
                let Some(at) = self.find_user(behaviour, words) else { return not_found() };
                let all = self.history(behaviour, self.users[at].number, route);
                page(&all, query, behaviour.page_size, &format!("{}/", words.join("/")))
            }
            Route::CompanyCreate => {
                let number = self.number();
                let own_id = text(&fields, "custom_id");
                let seen_from = Instant::now();
                let fields = self.kept(behaviour, "company", fields);
                self.companies.push(Row { number, key: String::new(), own_id, fields, seen_from });
                (201, self.company_shown(self.companies.len() - 1))
            }
            Route::CompanyUpsert | Route::CompanyRead | Route::CompanyUpdate => {
                let Some(at) = self.find_company(behaviour, words) else { return not_found() };
                if route != Route::CompanyRead {
                    let fields = self.kept(behaviour, "company", fields);
                    write(&mut self.companies[at].fields, fields);
                }
                (200, self.company_shown(at))
            }
            Route::AddMember => self.add_member(behaviour, words, &fields),
            Route::Merge => (200, json!({"success": true})),
            Route::Unknown => not_found(),
        }
    }

    fn upsert(&mut self, behaviour: &Behaviour, fields: Map<String, Value>) -> Usual {
        let Some(own_id) = text(&fields, "custom_id") else {
            return (400, json!({"custom_id": ["This field is required."]}));
        };
        if let Some(refusal) = self.refusal(behaviour, "clientuser", &fields) {
            return refusal;
        }
        let fields = self.kept(behaviour, "clientuser", fields);
        let known = self.users.iter().position(|row| row.is(&own_id, behaviour));
        let at = match known {
            Some(at) => {
                write(&mut self.users[at].fields, fields);
                at
            }
            None => self.add_user(Some(own_id), fields),
        };
        if behaviour.upsert_answers_user {
            let mut shown = self.user_shown(at);
            shown["created"] = json!(known.is_none());
            return (200, shown);
        }
        (200, json!({"created": known.is_none(), "id": self.users[at].number}))
    }

    /// Whether a write is refused for one of its keys.
    fn refusal(
        &self,
        behaviour: &Behaviour,
        owner: &str,
        fields: &Map<String, Value>,
    ) -> Option<Usual> {
        let unknown = |name: &&String| !self.is_known(owner, name);
        if behaviour.unknown_key == UnknownKey::Refused
            && let Some(name) = fields.keys().find(unknown)
        {
            let mut body = Map::new();
            body.insert(name.clone(), json!(["Unknown attribute."]));
            return Some((400, Value::Object(body)));
        }
        let refused = behaviour.refused_value.filter(|name| fields.contains_key(*name))?;
        Some((400, json!({ refused: ["A valid value is required."] })))
    }

    fn is_known(&self, owner: &str, name: &str) -> bool {
        STANDARD.contains(&name)
            || self.attributes.iter().any(|known| known.owner == owner && known.slug() == name)
    }

    fn kept(
        &self,
        behaviour: &Behaviour,
        owner: &str,
        mut fields: Map<String, Value>,
    ) -> Map<String, Value> {
        if behaviour.unknown_key != UnknownKey::Stored {
            fields.retain(|name, _| self.is_known(owner, name));
        }
        fields
    }

    fn find_user(&self, behaviour: &Behaviour, words: &[&str]) -> Option<usize> {
        let now = Instant::now();
        let seen = |row: &Row| now.duration_since(row.seen_from) >= behaviour.unseen_for;
        self.users.iter().position(|row| {
            let same = match words[0] {
                "users-by-id" => row.is(words[1], behaviour),
                _ => row.number.to_string() == words[1],
            };
            same && seen(row)
        })
    }

    fn find_company(&self, behaviour: &Behaviour, words: &[&str]) -> Option<usize> {
        let now = Instant::now();
        self.companies.iter().position(|row| {
            let same = match words[0] {
                "companies-by-id" => row.is(words[1], behaviour),
                _ => row.number.to_string() == words[1],
            };
            same && now.duration_since(row.seen_from) >= behaviour.unseen_for
        })
    }

    fn user_shown(&self, at: usize) -> Value {
        let row = &self.users[at];
        let mut shown = row.fields.clone();
        let views = self.entries.get(&row.number).into_iter().flatten().filter(|e| e.is_view);
        shown.insert("id".into(), json!(row.number));
        shown.insert("user_key".into(), json!(row.key));
        shown.insert("custom_id".into(), json!(row.own_id));
        shown.insert("page_views".into(), json!(views.count()));
        Value::Object(shown)
    }

    fn company_shown(&self, at: usize) -> Value {
        let row = &self.companies[at];
        let of_this = self.members.iter().filter(|(company, _)| *company == row.number);
        let members: Vec<u64> = of_this.map(|(_, user)| *user).collect();
        let mut shown = row.fields.clone();
        shown.insert("id".into(), json!(row.number));
        shown.insert("custom_id".into(), json!(row.own_id));
        shown.insert("employees".into(), json!(members));
        Value::Object(shown)
    }

    fn search(&self, query: &str) -> Usual {
        let mut many = false;
        let mut wanted: Option<(String, String)> = None;
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value).decode_utf8_lossy().into_owned();
            match name {
                "many" => many = value == "true",
                _ => wanted = Some((name.to_owned(), value)),
            }
        }
        let Some((name, value)) = wanted else { return (400, json!({"detail": "no query"})) };
        let found: Vec<Value> = (0..self.users.len())
            .filter(|at| {
                let row = &self.users[*at];
                match name.as_str() {
                    "key" => row.key == value,
                    _ => {
                        let known = row.fields.get(&name).and_then(Value::as_str);
                        known.is_some_and(|known| known.eq_ignore_ascii_case(&value))
                    }
                }
            })
            .map(|at| self.user_shown(at))
            .collect();
        match (name.as_str(), many) {
            ("phone_number", _) => (
                200,
                json!({
                    "count": found.len(), "next": null, "previous": null, "results": found,
                }),
            ),
            (_, true) => (200, Value::Array(found)),
            _ => found.into_iter().next().map_or_else(not_found, |user| (200, user)),
        }
    }

    fn event(
        &mut self,
        behaviour: &Behaviour,
        words: &[&str],
        fields: &Map<String, Value>,
    ) -> Usual {
        let at = match words[0] {
            "events" => {
                let number = fields.get("user_id").and_then(Value::as_u64);
                self.users.iter().position(|row| Some(row.number) == number)
            }
            _ => self.find_user(behaviour, words),
        };
        let Some(at) = at else { return not_found() };
        let Some(name) = text(fields, "name") else {
            return (400, json!({"name": ["This field is required."]}));
        };
        let when = fields.get("timestamp").and_then(Value::as_i64).unwrap_or_default();
        let data = fields.get("data").cloned().unwrap_or_default();
        let number = self.number();
        let user = self.users[at].number;
        let (domain, taken) = (String::new(), Instant::now());
        let entry = Entry { number, name, domain, at: when, data, is_view: false, taken };
        self.entries.entry(user).or_default().push(entry);
        (201, json!({"id": number, "created": true}))
    }

    fn view(&mut self, fields: &Map<String, Value>) -> Usual {
        let key = text(fields, "client_user").unwrap_or_default();
        let Some(at) = self.users.iter().position(|row| row.key == key) else {
            return (400, json!({"client_user": ["Invalid key."]}));
        };
        let when: Option<Timestamp> = text(fields, "timestamp").and_then(|t| t.parse().ok());
        let Some(when) = when else { return (400, json!({"timestamp": ["Invalid."]})) };
        let (number, user) = (self.number(), self.users[at].number);
        let entry = Entry {
            number,
            name: text(fields, "page_path").unwrap_or_default(),
            domain: text(fields, "page_domain").unwrap_or_default(),
            at: when.as_second(),
            data: Value::Null,
            is_view: true,
            taken: Instant::now(),
        };
        self.entries.entry(user).or_default().push(entry);
        (201, json!({"id": number}))
    }

    fn history(&self, behaviour: &Behaviour, user: u64, route: Route) -> Vec<Value> {
        let is_view = route == Route::ViewHistory;
        let taken = self.entries.get(&user).into_iter().flatten();
        let shown = |e: &&Entry| e.is_view == is_view && e.taken.elapsed() >= behaviour.hidden_for;
        let mut entries: Vec<Entry> = taken.filter(shown).cloned().collect();
        for old in 0..behaviour.old_entries {
            let (number, at) = (900_000 + old as u64, 1_500_000_000 + old as i64 * 60);
            let (name, domain) = (format!("/old{old}"), "old.example".to_owned());
            let (data, taken) = (json!({}), Instant::now());
            entries.push(Entry { number, name, domain, at, data, is_view, taken });
        }
        match behaviour.order {
            Order::NewestFirst => entries.sort_by_key(|e| (-e.at, e.number)),
            Order::OldestFirst => entries.sort_by_key(|e| (e.at, e.number)),
            Order::ByName => entries.sort_by(|a, b| a.name.cmp(&b.name)),
        }
        entries.iter().map(|entry| entry.shown(behaviour)).collect()
    }

    fn add_member(
        &mut self,
        behaviour: &Behaviour,
        words: &[&str],
        fields: &Map<String, Value>,
    ) -> Usual {
        let Some(company) = self.find_company(behaviour, words) else { return not_found() };
        let number = fields.get("user_id").and_then(Value::as_u64);
        let own_id = text(fields, "user_custom_id");
        let user = self.users.iter().find(|row| {
            Some(row.number) == number || own_id.as_deref().is_some_and(|id| row.is(id, behaviour))
        });
        let Some(user) = user else { return not_found() };
        let pair = (self.companies[company].number, user.number);
        if !self.members.insert(pair) && behaviour.member_again != 200 {
            return (behaviour.member_again, json!({"detail": "already a member"}));
        }
        (200, json!({"success": true}))
    }
}

impl Row {
    fn is(&self, own_id: &str, behaviour: &Behaviour) -> bool {
        self.own_id.as_deref().is_some_and(|known| match behaviour.ids_without_case {
            true => known.eq_ignore_ascii_case(own_id),
            false => known == own_id,
        })
    }
}

impl Entry {
    fn shown(&self, behaviour: &Behaviour) -> Value {
        let at = Timestamp::from_second(self.at).unwrap();
        let at = match behaviour.local_hours {
            Some(hours) => {
                let text = (at + SignedDuration::from_hours(hours)).to_string();
                text.trim_end_matches('Z').to_owned()
            }
            None => at.to_string(),
        };
        match self.is_view {
            true => json!({
                "id": self.number,
                "url": format!("https://{}{}", self.domain, self.name),
                "timestamp": at,
            }),
            false => json!({
                "id": self.number, "name": self.name, "timestamp": at, "data": self.data,
            }),
        }
    }
}

impl Attribute {
    fn slug(&self) -> String {
        self.name.to_lowercase().replace(' ', "_")
    }

    fn shown(&self) -> Value {
        json!({
            "id": self.number, "name": self.name, "name_std": self.slug(),
            "value_type": self.kind, "content_type": self.owner,
        })
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    fields.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// Fields that are named are written, all others stay; tags are only added.
fn write(row: &mut Map<String, Value>, fields: Map<String, Value>) {
    for (name, value) in fields {
        row.insert(name, value);
    }
}
