//! The switches of the account: what one row of the table changes about how it answers.

use std::time::Duration;

use serde_json::Value;

use crate::support::stub::{Answer, Asked};

/// A route of the API, as its reference names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Route {
    AttributeList,
    AttributeCreate,
    Upsert,
    UserCreate,
    UserRead,
    UserUpdate,
    UserSearch,
    Event,
    EventHistory,
    View,
    ViewHistory,
    CompanyUpsert,
    CompanyCreate,
    CompanyRead,
    CompanyUpdate,
    AddMember,
    Merge,
    Unknown,
}

/// When a rule holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    Always,
    /// The first requests of its routes.
    First(usize),
    /// Each of so many requests.
    Every(usize),
    /// From and to, since the first request of all.
    Between(Duration, Duration),
    /// Requests whose path or body holds this.
    Holds(&'static str),
    /// Requests of which this is true, and the time since the first request of all.
    Of(fn(&Asked, Duration) -> bool),
}

/// What a rule does with the account before its answer leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Applied,
    NotApplied,
}

/// Makes an answer from the usual status and body.
pub(super) type MakeAnswer = Box<dyn Fn(u16, &Value) -> Answer + Send + Sync>;

/// Another answer than the usual one.
pub(super) struct Rule {
    /// Empty: every route.
    pub(super) routes: Vec<Route>,
    pub(super) when: When,
    pub(super) effect: Effect,
    /// Made from the usual status and body.
    pub(super) answer: MakeAnswer,
}

/// What the account does with a key that is no attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnknownKey {
    Ignored,
    Stored,
    Refused,
}

/// The order of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    NewestFirst,
    OldestFirst,
    ByName,
}

type Reshape = fn(Route, &mut Value);
/// Makes the bytes of an answer that was to be sent, from its status and its JSON text.
type Encode = fn(u16, &str) -> Answer;

/// All switches. [`Behaviour::default`] is the account that its reference describes.
pub(super) struct Behaviour {
    pub(super) rules: Vec<Rule>,
    /// Changes the shape of an answer that was to be sent.
    pub(super) reshape: Option<Reshape>,
    pub(super) encode: Option<Encode>,
    /// Text in front of each body.
    pub(super) prefix: &'static str,
    /// How long a user or company that was just created is not found.
    pub(super) unseen_for: Duration,
    /// How long an event or page view that was just taken is in no history.
    pub(super) hidden_for: Duration,
    /// The number before the first one that is given.
    pub(super) numbers_from: u64,
    pub(super) ids_without_case: bool,
    pub(super) unknown_key: UnknownKey,
    /// The name of an attribute whose value is refused with 400.
    pub(super) refused_value: Option<&'static str>,
    /// The status for a member that is added again.
    pub(super) member_again: u16,
    pub(super) order: Order,
    /// Hours that times of a history are off from UTC; they name no zone then.
    pub(super) local_hours: Option<i64>,
    pub(super) page_size: usize,
    /// Whether the upsert's answer holds the whole user.
    pub(super) upsert_answers_user: bool,
    /// Entries that each history holds before the run.
    pub(super) old_entries: usize,
    /// Random faults: each so many requests one that fails in some way. 0: none.
    pub(super) fault_every: usize,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            reshape: None,
            encode: None,
            prefix: "",
            unseen_for: Duration::ZERO,
            hidden_for: Duration::ZERO,
            numbers_from: 0,
            ids_without_case: false,
            unknown_key: UnknownKey::Ignored,
            refused_value: None,
            member_again: 200,
            order: Order::NewestFirst,
            local_hours: None,
            page_size: 100,
            upsert_answers_user: false,
            old_entries: 0,
            fault_every: 25,
        }
    }
}

impl Behaviour {
    /// Adds a rule.
    pub(super) fn on(
        mut self,
        routes: &[Route],
        when: When,
        effect: Effect,
        answer: impl Fn(u16, &Value) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let (routes, answer) = (routes.to_vec(), Box::new(answer));
        self.rules.push(Rule { routes, when, effect, answer });
        self
    }
}
