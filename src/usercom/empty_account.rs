//! A transport that stands for an empty account: shows which requests ops would take, without a
//! network.
//!
//! It is not an emulator: it only answers so that the next request is the right one.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::executor::OpExecutor;
use super::outcome::{ExecutorObserver, NoopExecutorObserver, PriorSend};
use super::profile::limits::name_std;
use super::profile_cache::{self, CompanyRow, UserRow};
use crate::config::account::{AccountConfig, UpsertAnswer};
use crate::config::sink::{AttributeTypes, DeliveryConfig, UsersConfig};
use crate::deliver::{ApiReply, Attempts, Method, Request, SendError, Transport};
use crate::schedule::Op;

/// The requests that a fresh executor sends for ops in an empty account, in order, including those
/// answered with 404. Reading the catalogue of attributes is not listed, creating attributes is. An
/// op that is rejected contributes what it sent until then.
pub async fn dry_run(ops: &[Op], users: &UsersConfig) -> Vec<Request> {
    let types = AttributeTypes::default();
    let account = AccountConfig::default();
    dry_run_with(ops, users, (&types, &types), &account, Arc::new(NoopExecutorObserver)).await
}

/// The same with the types of attributes that are created, for users and for companies, and an
/// observer that is notified of dropped fields.
pub async fn dry_run_with(
    ops: &[Op],
    users: &UsersConfig,
    types: (&AttributeTypes, &AttributeTypes),
    account: &AccountConfig,
    probe: Arc<dyn ExecutorObserver>,
) -> Vec<Request> {
    let stub = Arc::new(EmptyAccountStub::answering(account.upsert_answer));
    let transport: Arc<dyn Transport> = Arc::<EmptyAccountStub>::clone(&stub);
    let usercom = OpExecutor::new(transport, users.clone(), DeliveryConfig::default(), probe)
        .with_types(types.0, types.1)
        .with_account(account);
    for op in ops {
        let outcome = usercom.execute(op, PriorSend::None, &mut Attempts::default()).await;
        if let Err(failure) = outcome {
            tracing::debug!(%failure, "the op would be rejected");
        }
    }
    stub.take()
}

/// An empty account that accepts everything and records it.
#[derive(Default)]
pub struct EmptyAccountStub(Mutex<StubState>);

#[derive(Default)]
struct StubState {
    requests: Vec<Request>,
    /// External id of a user or company, as it is in a path or a body -> remote id.
    users: HashMap<String, u64>,
    companies: HashMap<String, u64>,
    /// What the answer to an upsert contains.
    upsert_answer: UpsertAnswer,
    last_number: u64,
}

impl EmptyAccountStub {
    /// An account whose upserts are answered like this.
    fn answering(upsert_answer: UpsertAnswer) -> Self {
        Self(Mutex::new(StubState { upsert_answer, ..StubState::default() }))
    }

    /// An account that has the users and companies of these look-ups, as a sink saves them.
    pub fn knowing(saved: &[(String, String)], upsert_answer: UpsertAnswer) -> Self {
        let stub = Self::answering(upsert_answer);
        let mut state = stub.0.lock();
        for (key, row) in saved {
            // A user that got another number would be another record, of which nothing is known.
            if let Some(user) = key.strip_prefix(profile_cache::USER) {
                let row = serde_json::from_str::<UserRow>(row).unwrap_or_default();
                let number = state.known_number(row.id);
                state.users.insert(user.to_owned(), number);
            } else if let Some(company) = key.strip_prefix(profile_cache::COMPANY) {
                let row = serde_json::from_str::<CompanyRow>(row).unwrap_or_default();
                let number = state.known_number(row.id);
                state.companies.insert(company.to_owned(), number);
            }
        }
        drop(state);
        stub
    }

    /// The answer to a request, which is not recorded.
    pub fn reply(&self, request: &Request) -> ApiReply {
        let (status, body) = self.0.lock().answer(request);
        ApiReply { status, body: Bytes::from(body.to_string()) }
    }

    /// The requests received so far.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.0.lock().requests)
    }
}

#[async_trait]
impl Transport for EmptyAccountStub {
    async fn send(
        &self,
        request: &Request,
        attempts: &mut Attempts,
    ) -> Result<ApiReply, SendError> {
        attempts.sent += 1;
        let mut state = self.0.lock();
        let is_catalogue = request.method == Method::Get && request.route == "attributes/";
        if !is_catalogue {
            state.requests.push(request.clone());
        }
        let (status, body) = state.answer(request);
        Ok(ApiReply { status, body: Bytes::from(body.to_string()) })
    }
}

impl StubState {
    /// The number of a saved look-up, or a new one.
    fn known_number(&mut self, saved: Option<u64>) -> u64 {
        let number = saved.unwrap_or(self.last_number + 1);
        self.last_number = self.last_number.max(number);
        number
    }

    fn answer(&mut self, request: &Request) -> (u16, Value) {
        let body: Value = request
            .body
            .as_deref()
            .and_then(|body| serde_json::from_slice(body).ok())
            .unwrap_or(Value::Null);
        let missing = (404, json!({"detail": "Not found."}));
        let id = own_id(&request.path);
        match (request.method, request.route) {
            (Method::Get, "attributes/" | "companies/") => {
                (200, json!({"count": 0, "next": null, "previous": null, "results": []}))
            }
            (Method::Post, "attributes/") => (201, definition(&body)),
            (Method::Post, "users/update_or_create/") => {
                let created = !self.users.contains_key(&text(&body["custom_id"]));
                let id = Self::number(&mut self.users, &mut self.last_number, &body);
                let key = match self.upsert_answer {
                    UpsertAnswer::Id => Value::Null,
                    UpsertAnswer::UserKey => format!("key-{id}").into(),
                };
                (200, json!({"created": created, "id": id, "user_key": key}))
            }
            (_, "users-by-id/:id/" | "users-by-id/:id/events/") => match self.users.get(&id) {
                Some(id) => (200, json!({"id": id, "user_key": format!("key-{id}")})),
                None => missing,
            },
            (Method::Get, "users/search/") => missing,
            (Method::Get, "users/:id/") => {
                let key = format!("key-{id}");
                (200, json!({"id": id.parse::<u64>().ok(), "user_key": key}))
            }
            (Method::Put | Method::Get, "companies-by-id/:id/") => match self.companies.get(&id) {
                Some(id) => (200, json!({"id": id, "employees": []})),
                None => missing,
            },
            (Method::Post, "companies/") => {
                let id = Self::number(&mut self.companies, &mut self.last_number, &body);
                (201, json!({"id": id, "employees": []}))
            }
            _ => (200, json!({"success": true})),
        }
    }

    fn number(known: &mut HashMap<String, u64>, last: &mut u64, body: &Value) -> u64 {
        *known.entry(text(&body["custom_id"])).or_insert_with(|| {
            *last += 1;
            *last
        })
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The id in a path: its second segment, decoded.
fn own_id(path: &str) -> String {
    let segment = path.split('/').nth(1).unwrap_or_default();
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn definition(body: &Value) -> Value {
    let mut definition = body.clone();
    definition["name_std"] = name_std(&text(&body["name"])).into();
    definition
}
