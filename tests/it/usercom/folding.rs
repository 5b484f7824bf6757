//! Folded writes against writes sent one at a time, in an account whose attributes have types and
//! change while writes wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use proptest::prelude::*;
use serde_json::{Value, json};
use usercom_sink::clock;
use usercom_sink::config::sink::{
    AttributeType, AttributeTypes, DeliveryConfig, UnknownAttributes, UsersConfig,
};
use usercom_sink::deliver::{ApiReply, Attempts, Method, Request, SendError, Transport};
use usercom_sink::schedule::{
    Coalescing, Field, FieldClass, KeyedScheduler, Op, OpOutcome, PackedFields, ParentObject,
    UserKeys,
};
use usercom_sink::usercom::{NoopExecutorObserver, OpExecutor, PriorSend};

/// An account that refuses a value of the wrong type by name, as Django does.
#[derive(Default)]
struct Account(Mutex<State>);

#[derive(Default)]
struct State {
    /// By content and name: number, type.
    attributes: BTreeMap<(String, String), (u64, String)>,
    users: BTreeMap<String, BTreeMap<String, Value>>,
    companies: BTreeMap<String, BTreeMap<String, Value>>,
    last: u64,
    upserts: usize,
}

type Profiles = BTreeMap<String, BTreeMap<String, Value>>;

impl State {
    /// Deletes an attribute with its values, and creates it again unless there is no type.
    fn retype(&mut self, content: &str, name: &str, kind: Option<&str>) {
        let owners = if content == "company" { &mut self.companies } else { &mut self.users };
        owners.values_mut().for_each(|owner| drop(owner.remove(name)));
        let key = (content.to_owned(), name.to_owned());
        self.attributes.remove(&key);
        if let Some(kind) = kind {
            self.last += 1;
            self.attributes.insert(key, (self.last, kind.into()));
        }
    }

    fn listed(&self) -> Vec<Value> {
        let entry = |((content, name), (id, kind)): (&(String, String), &(u64, String))| {
            json!({
                "id": id, "name": name, "name_std": name, "value_type": kind,
                "content_type": content, "choices": ["red", "blue"],
                "allow_multiple_choices": false,
            })
        };
        self.attributes.iter().map(entry).collect()
    }

    /// What a body writes; the names that are refused otherwise.
    fn read(&self, content: &str, body: &Value) -> Result<BTreeMap<String, Value>, Value> {
        let (mut written, mut refused) = (BTreeMap::new(), serde_json::Map::new());
        for (name, value) in body.as_object().unwrap() {
            let key = (content.to_owned(), name.clone());
            let taken = match self.attributes.get(&key) {
                Some((_, kind)) => fits(kind, value),
                None if matches!(&**name, "email" | "city") => value != "refused",
                None => continue,
            };
            match taken {
                true => drop(written.insert(name.clone(), value.clone())),
                false => drop(refused.insert(name.clone(), json!(["Not a valid value."]))),
            }
        }
        if refused.is_empty() { Ok(written) } else { Err(Value::Object(refused)) }
    }

    fn answer(&mut self, request: &Request) -> (u16, Value) {
        let body: Value =
            request.body.as_deref().map_or(Value::Null, |b| serde_json::from_slice(b).unwrap());
        let own_id = |body: &Value| body["custom_id"].as_str().unwrap().to_owned();
        match (request.method, request.route) {
            (Method::Get, "attributes/") => (200, json!({"results": self.listed(), "next": null})),
            (Method::Post, "attributes/") => {
                let [content, name] = ["content_type", "name"].map(|key| body[key].as_str());
                let key = (content.unwrap().to_owned(), name.unwrap().to_owned());
                if self.attributes.contains_key(&key) {
                    return (400, json!({"name": ["Attribute with this name already exists."]}));
                }
                self.retype(&key.0, &key.1, body["value_type"].as_str());
                let mut made = body.clone();
                made["name_std"] = body["name"].clone();
                made["id"] = self.last.into();
                (201, made)
            }
            (Method::Post, "users/update_or_create/") => match self.read("clientuser", &body) {
                Ok(written) => {
                    self.upserts += 1;
                    self.users.entry(own_id(&body)).or_default().extend(written);
                    (200, json!({"created": false, "id": 1}))
                }
                Err(refused) => (400, refused),
            },
            (Method::Put, "companies-by-id/:id/") => {
                let id = request.path.split('/').nth(1).unwrap().to_owned();
                if !self.companies.contains_key(&id) {
                    return (404, json!({"detail": "Not found."}));
                }
                match self.read("company", &body) {
                    Ok(written) => {
                        self.companies.entry(id).or_default().extend(written);
                        (200, json!({"id": 1}))
                    }
                    Err(refused) => (400, refused),
                }
            }
            (Method::Post, "companies/") => match self.read("company", &body) {
                Ok(written) => {
                    self.companies.entry(own_id(&body)).or_default().extend(written);
                    (201, json!({"id": 1}))
                }
                Err(refused) => (400, refused),
            },
            (method, route) => panic!("unexpected {method:?} {route}"),
        }
    }
}

fn fits(kind: &str, value: &Value) -> bool {
    let text = value.as_str();
    let dated = |length: usize| {
        text.is_some_and(|text| text.len() >= length && text[..4].parse::<u16>().is_ok())
    };
    match kind {
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "float" => value.is_number(),
        "date" => dated(10) && text.is_some_and(|text| text.len() == 10),
        "datetime" => dated(19),
        "fixed" => matches!(text, Some("red" | "blue")),
        "string" => value.is_string(),
        _ => true,
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
        let (status, body) = self.0.lock().unwrap().answer(request);
        Ok(ApiReply { status, body: body.to_string().into() })
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const KINDS: [&str; 8] =
    ["boolean", "date", "datetime", "fixed", "float", "integer", "json", "string"];
const VALUES: [&str; 14] = [
    "\"123\"",
    "7",
    "\"not a number\"",
    "true",
    "\"yes\"",
    "1.5",
    "\"1.5\"",
    "\"2024-05-21\"",
    "\"2024-05-21T10:11:12Z\"",
    "\"red\"",
    "\"RED\"",
    "[1,2]",
    "{\"k\":1}",
    "{\"k\":\"x\",\"l\":{\"m\":true}}",
];

#[derive(Debug, Clone)]
enum Step {
    /// To user 0 or 1, or to the company.
    Write { whom: u8, fields: Vec<(u8, u8)> },
    /// A standard field, refused by User.com or not.
    Standard { whom: u8, value: u8 },
    /// The account changes an attribute, of which the sink hears at its next reading.
    Retype { company: bool, name: u8, kind: Option<u8>, heard: bool },
    /// What waits is sent.
    Send,
}

fn steps(heard: BoxedStrategy<bool>) -> impl Strategy<Value = Vec<Step>> {
    let field = (0..3u8, 0..14u8);
    let step = prop_oneof![
        6 => (0..3u8, prop::collection::vec(field, 1..3))
            .prop_map(|(whom, fields)| Step::Write { whom, fields }),
        1 => (0..3u8, 0..4u8).prop_map(|(whom, value)| Step::Standard { whom, value }),
        3 => (any::<bool>(), 0..3u8, prop::option::weighted(0.9, 0..8u8), heard)
            .prop_map(|(company, name, kind, heard)| Step::Retype { company, name, kind, heard }),
        1 => Just(Step::Send),
    ];
    prop::collection::vec(step, 1..40)
}

/// The fields a profile's planner makes of values, objects opened up with `_`.
fn set(fields: &[(u8, u8)]) -> PackedFields {
    fn open(set: &mut PackedFields, within: Option<usize>, name: &str, value: &Value) {
        let json = value.to_string();
        if let Some(object) = value.as_object() {
            let whole = ParentObject { name: name.into(), json: json.into(), within };
            let at = set.add_object(whole);
            for (key, inner) in object {
                open(set, Some(at), &format!("{name}_{key}"), inner);
            }
        } else if set.position(name).is_none() {
            set.push_within(within, Field { name, class: FieldClass::Custom, json: &json });
        }
    }
    let mut set = PackedFields::default();
    for (at, (name, value)) in fields.iter().enumerate() {
        if fields[..at].iter().any(|(known, _)| known == name) {
            continue;
        }
        let value: Value = serde_json::from_str(VALUES[usize::from(*value)]).unwrap();
        open(&mut set, None, NAMES[usize::from(*name)], &value);
    }
    set
}

fn op(whom: u8, fields: PackedFields) -> Op {
    match whom {
        2 => Op::Company { company: "g".into(), fields },
        user => {
            let keys = UserKeys::default();
            Op::Identify { user: format!("u{user}").as_str().into(), fields, keys }
        }
    }
}

fn op_of(step: &Step) -> Option<Op> {
    match step {
        Step::Write { whom, fields } => Some(op(*whom, set(fields))),
        Step::Standard { whom, value } => {
            let json = ["\"x\"", "\"y\"", "\"refused\"", "\"z\""][usize::from(*value)];
            let name = if *whom == 2 { "city" } else { "email" };
            let field = Field { name, class: FieldClass::Standard, json };
            Some(op(*whom, [field].into_iter().collect()))
        }
        Step::Retype { .. } | Step::Send => None,
    }
}

/// A sink with an account of its own.
struct Sink {
    account: Arc<Account>,
    usercom: OpExecutor,
}

impl Sink {
    async fn new(unknown: UnknownAttributes, types: &AttributeTypes) -> Self {
        let account = Arc::<Account>::default();
        let users = UsersConfig { unknown_attributes: unknown, ..UsersConfig::default() };
        let transport = Arc::<Account>::clone(&account);
        let delivery = DeliveryConfig::default();
        let usercom = OpExecutor::new(transport, users, delivery, Arc::new(NoopExecutorObserver))
            .with_types(types, types);
        usercom.open().await.unwrap();
        Self { account, usercom }
    }

    async fn retype(&self, step: &Step) {
        if let Step::Retype { company, name, kind, heard } = step {
            let content = if *company { "company" } else { "clientuser" };
            let kind = kind.map(|kind| KINDS[usize::from(kind)]);
            let name = NAMES[usize::from(*name)];
            self.account.0.lock().unwrap().retype(content, name, kind);
            if *heard {
                // A reading is not made twice in one moment.
                tokio::time::advance(std::time::Duration::from_millis(1)).await;
                self.usercom.open().await.unwrap();
            }
        }
    }

    async fn send(&self, op: &Op) {
        self.usercom.execute(op, PriorSend::None, &mut Attempts::default()).await.unwrap();
    }

    fn profiles(&self) -> (Profiles, Profiles) {
        let state = self.account.0.lock().unwrap();
        (state.users.clone(), state.companies.clone())
    }
}

/// Sends what waits, folded; what would change nothing is not sent.
async fn flush(sink: &Sink, scheduler: &mut KeyedScheduler<()>) {
    while let Some(task) = scheduler.pop_ready() {
        if !sink.usercom.unchanged(task.op(), clock::now()) {
            sink.send(task.op()).await;
        }
        scheduler.finish(task, OpOutcome::Completed);
    }
}

async fn folded_and_not(
    steps: &[Step],
    unknown: UnknownAttributes,
    types: &AttributeTypes,
) -> [(Profiles, Profiles); 2] {
    let (folded, naive) = (Sink::new(unknown, types).await, Sink::new(unknown, types).await);
    let (mut scheduler, mut waiting) = (KeyedScheduler::new(Coalescing::On, 10), Vec::new());
    for step in steps.iter().chain([&Step::Send]) {
        folded.retype(step).await;
        naive.retype(step).await;
        if let Some(op) = op_of(step) {
            scheduler.push(op.clone(), None, ());
            waiting.push(op);
        }
        if matches!(step, Step::Send) {
            flush(&folded, &mut scheduler).await;
            for op in waiting.drain(..) {
                naive.send(&op).await;
            }
        }
    }
    [folded.profiles(), naive.profiles()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn merged_writes_equal_single_writes(
        steps in steps(Just(true).boxed()),
        unknown in prop::sample::select(vec![UnknownAttributes::Create, UnknownAttributes::Drop]),
        declared in prop::sample::select(vec![
            AttributeType::String, AttributeType::Integer, AttributeType::Json, AttributeType::Date,
        ]),
    ) {
        // Whatever is folded, whatever types attributes have, get or lose while writes wait: users
        // and companies end as if each write had been sent by itself, and none is held for
        // unchanged that would have changed something.
        let types: AttributeTypes = [("a".to_owned(), declared)].into_iter().collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let [folded, naive] = runtime.block_on(folded_and_not(&steps, unknown, &types));
        prop_assert_eq!(folded, naive);
    }

    #[test]
    fn changed_attribute_type_loses_no_record(steps in steps(any::<bool>().boxed())) {
        // Where the sink learns of a change only by being refused, every write is taken all the
        // same, and what is stored fits the types the account has.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let sink = Sink::new(UnknownAttributes::Create, &AttributeTypes::default()).await;
            let mut scheduler = KeyedScheduler::new(Coalescing::On, 10);
            for step in steps.iter().chain([&Step::Send]) {
                sink.retype(step).await;
                if let Some(op) = op_of(step) {
                    scheduler.push(op, None, ());
                }
                if matches!(step, Step::Send) {
                    flush(&sink, &mut scheduler).await;
                }
            }
            let state = sink.account.0.lock().unwrap();
            for (name, value) in state.users.values().flatten() {
                let key = ("clientuser".to_owned(), name.clone());
                let attribute = state.attributes.get(&key);
                assert!(attribute.is_none_or(|(_, kind)| fits(kind, value)), "{name}: {value}");
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_later_value_keeps_the_earlier_one() {
    // `custom_integer`: '123', then 'not a number', folded into one request: it ends with 123.
    let sink = Sink::new(UnknownAttributes::Create, &AttributeTypes::default()).await;
    sink.account.0.lock().unwrap().retype("clientuser", "a", Some("integer"));
    tokio::time::advance(std::time::Duration::from_millis(1)).await;
    sink.usercom.open().await.unwrap();
    let mut scheduler = KeyedScheduler::new(Coalescing::On, 10);
    for value in [0, 2] {
        scheduler.push(op(0, set(&[(0, value)])), None, ());
    }
    flush(&sink, &mut scheduler).await;
    assert_eq!(sink.profiles().0["u0"], [("a".to_owned(), json!(123))].into());
    assert_eq!(sink.account.0.lock().unwrap().upserts, 1);
}
