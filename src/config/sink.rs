//! Sinks as they are written: where User.com is, how to talk to it, what to keep.

use indexmap::IndexMap;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::account::AccountConfig;
use super::mapping::Rule;

/// A User.com sink.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UsercomSink {
    /// Names of the sources this sink takes records from. At least one.
    #[schemars(length(min = 1))]
    pub inputs: Vec<String>,
    /// The app's subdomain: `acme` stands for `https://acme.user.com/api/public/`. Either this or
    /// `endpoint`.
    #[serde(default)]
    pub app: Option<String>,
    /// The whole base URL of the API, for custom hosts and the emulator:
    /// `http://127.0.0.1:8765/api/public/`. It is http or https and ends in a slash; a missing one
    /// is added. Either this or `app`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The REST API key (App settings > Advanced). It appears in no output.
    #[schemars(with = "String")]
    pub api_key: SecretString,
    /// Whether records in a known shape are understood without a mapping. It is one more rule at
    /// the end, for records that no own rule took. Default: none.
    #[serde(default)]
    pub preset: Option<Preset>,
    /// The mapping table: rules, tried in file order.
    #[serde(default)]
    pub mapping: Vec<Rule>,
    /// What happens to a record no rule wants. Default: `drop`.
    #[serde(default)]
    pub unmatched: Unmatched,
    /// How requests are paced and repeated.
    #[serde(default)]
    pub request: RequestConfig,
    /// Where records wait.
    #[serde(default)]
    pub buffer: BufferConfig,
    /// Identity and attributes of users and companies.
    #[serde(default)]
    pub users: UsersConfig,
    /// Types of custom attributes of users that do not exist at User.com yet, by name:
    /// `mrr = "float"` creates the attribute `mrr` as a number when its first value is sent. Names
    /// are compared as User.com does, without case and with blanks as `_`, and have at most 32
    /// characters. An attribute that exists keeps the type it has in the account, and a warning
    /// says so where that is another one. Default: attributes are created with type `string`.
    #[serde(default)]
    pub attributes: AttributeTypes,
    /// The same for custom attributes of companies: `[sinks.NAME.company_attributes]`.
    #[serde(default)]
    pub company_attributes: AttributeTypes,
    /// Facts of the account: what User.com does where its documentation does not say.
    #[serde(default)]
    pub account: AccountConfig,
    /// Guarantees of delivery.
    #[serde(default)]
    pub delivery: DeliveryConfig,
    /// Records that could not be delivered.
    #[serde(default)]
    pub dead_letters: DeadLettersConfig,
    /// The check of the endpoint at start.
    #[serde(default)]
    pub healthcheck: HealthcheckConfig,
}

impl UsercomSink {
    /// The base URL of the API, with its trailing slash. Empty if the sink names neither `app` nor
    /// `endpoint`, which a loaded pipeline never does.
    pub fn base_url(&self) -> String {
        match (&self.endpoint, &self.app) {
            (Some(endpoint), _) if endpoint.ends_with('/') => endpoint.clone(),
            (Some(endpoint), _) => format!("{endpoint}/"),
            (None, Some(app)) => format!("https://{app}.user.com/api/public/"),
            (None, None) => String::new(),
        }
    }
}

/// A shape of records that needs no mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Segment's and RudderStack's event JSON, one object or a `{"batch":[…]}`.
    Segment,
}

/// What happens to a record no rule wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unmatched {
    /// It is counted and settled.
    #[default]
    Drop,
    /// It goes to the dead letters.
    DeadLetter,
}

/// How requests are paced and repeated. Names and meaning are Vector's.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestConfig {
    /// How many requests are in flight at once: `"adaptive"`, `"none"` (one) or a number from 1 to
    /// 1024. Default: `"adaptive"`.
    pub concurrency: Concurrency,
    /// Requests allowed per `rate_limit_duration_secs`, retries included. Default: no limit.
    #[schemars(range(min = 1))]
    pub rate_limit_num: Option<u32>,
    /// The window of `rate_limit_num`, in seconds. Default: 1.
    #[schemars(range(min = 1))]
    pub rate_limit_duration_secs: u64,
    /// How long one attempt may take, in seconds. Default: 30.
    #[schemars(range(min = 1))]
    pub timeout_secs: u64,
    /// How often a request is repeated; 0 = no limit. A request that used up its retries is not
    /// rejected: its record is kept and offered again after `retry_max_duration_secs`. Default: 0.
    pub retry_attempts: u32,
    /// The first backoff, in seconds; it doubles from there, with full jitter. Default: 1.
    #[schemars(range(min = 1))]
    pub retry_initial_backoff_secs: u64,
    /// The longest backoff, and the longest `Retry-After` obeyed, in seconds. A longer
    /// `Retry-After` is cut to it, a fraction of a second is rounded up. Default: 60.
    #[schemars(range(min = 1))]
    pub retry_max_duration_secs: u64,
}

impl Default for RequestConfig {
    fn default() -> Self {
        Self {
            concurrency: Concurrency::default(),
            rate_limit_num: None,
            rate_limit_duration_secs: 1,
            timeout_secs: 30,
            retry_attempts: 0,
            retry_initial_backoff_secs: 1,
            retry_max_duration_secs: 60,
        }
    }
}

/// How many requests are in flight at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Concurrency {
    /// `adaptive` or `none`.
    Mode(ConcurrencyMode),
    /// A fixed number.
    Fixed(#[schemars(range(min = 1, max = 1024))] u16),
}

/// The words for `concurrency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConcurrencyMode {
    /// Finds the server's limit by itself: additive increase, multiplicative decrease.
    Adaptive,
    /// One at a time.
    None,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self::Mode(ConcurrencyMode::Adaptive)
    }
}

impl Concurrency {
    /// The fixed number, or `None` for adaptive.
    pub fn fixed(self) -> Option<usize> {
        match self {
            Self::Mode(ConcurrencyMode::Adaptive) => None,
            Self::Mode(ConcurrencyMode::None) => Some(1),
            Self::Fixed(n) => Some(usize::from(n)),
        }
    }
}

/// Where records wait between their source and User.com.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BufferConfig {
    /// `memory` or `disk`. Default: `memory`.
    ///
    /// `memory`: a record is acknowledged to its source once it is delivered. Nothing but message
    /// ids, dead letters and look-ups is written. After a crash the source offers again what was not
    /// delivered; files, Kafka and Fluvio know which of it may have been sent, `http` and `vector`
    /// depend on who sends again.
    ///
    /// `disk`: a record is acknowledged once it is durable. Each record is written and synced, in
    /// groups, and each event and page view is marked before it is sent: this takes about half as
    /// much processor time again, and the disk space of what waits. Set it for sources that cannot
    /// be read again (`stdin`), and where senders must not wait while User.com is away.
    #[serde(rename = "type")]
    pub kind: BufferKind,
    /// Size limit of a disk buffer in bytes. Default: 1073741824 (1 GiB).
    #[schemars(range(min = 1))]
    pub max_size: u64,
    /// Records a memory buffer holds. Default: 5000.
    #[schemars(range(min = 1))]
    pub max_events: usize,
    /// What happens when it is full. Default: `block`.
    pub when_full: WhenFull,
}

impl Default for BufferConfig {
    fn default() -> Self {
        Self {
            kind: BufferKind::Memory,
            max_size: 1 << 30,
            max_events: 5_000,
            when_full: WhenFull::Block,
        }
    }
}

/// Kinds of buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BufferKind {
    /// In memory; what is not settled is offered again by the source after a restart.
    Memory,
    /// In SQLite under `data_dir`.
    Disk,
}

/// What happens when the buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The source waits.
    Block,
    /// The newest record is dropped and counted.
    DropNewest,
}

/// Identity and attributes.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UsersConfig {
    /// Whether a track, page or group for an unknown user creates the user. If not, the record
    /// goes to the dead letters. Default: true.
    pub create_missing: bool,
    /// What happens to an attribute User.com does not know. Default: `create`.
    pub unknown_attributes: UnknownAttributes,
    /// Whether an identify's context (user agent, device, page …) is written to the profile.
    /// Default: true.
    pub context_fields: bool,
    /// How long, in seconds, an identify that changes nothing is not sent again; 0 = always send.
    /// Default: 3600.
    pub unchanged_ttl_secs: u64,
    /// How often, in seconds, the catalogue of attributes is read anew. Default: 300.
    #[schemars(range(min = 1))]
    pub catalogue_refresh_secs: u64,
    /// Whether an anonymous record is merged into the identified one once both ids are seen in
    /// one call. Default: false.
    pub merge_anonymous: bool,
    /// How many users' and companies' look-ups are remembered. Default: 100000.
    #[schemars(range(min = 1))]
    pub cache_size: usize,
    /// By what a person is looked for who is in the account already without your own id: people
    /// whom the web widget (`user_key`), a form or an import (`email`, `phone`) brought in. Any
    /// of `user_key`, `email` and `phone`, in the order in which they are asked. It is asked once
    /// for each own id that neither the sink nor User.com knows, before the first write, and takes
    /// one request for each key that the call has. The first key that finds exactly one record
    /// decides: a record without an own id gets this one, so that everything goes to it. E-mail
    /// addresses are compared trimmed and without case, telephone numbers by their digits and a
    /// leading plus. `[]` = never ask. Default: `["user_key"]`. Add `"email"` where an address
    /// belongs to one person only.
    pub match_by: Vec<MatchBy>,
    /// What happens where the record that `match_by` finds has another own id, or several records
    /// are found: `create`, `dead_letter` or `use`. Each case is counted in
    /// `usercom_match_conflicts_total` and logged, once for each user. Default: `create`.
    pub match_conflict: MatchConflict,
    /// How many custom attributes are created within one hour at most, because an attribute at
    /// User.com is permanent and a record may bring thousands of names; 0 = no limit. At the limit
    /// unknown attributes are left out, counted in `usercom_attributes_refused_total`, and a
    /// warning says so. Raise it for the first import of an account with many attributes. Only
    /// with `unknown_attributes = "create"`. Default: 100.
    pub max_new_attributes_per_hour: u32,
}

impl Default for UsersConfig {
    fn default() -> Self {
        Self {
            create_missing: true,
            unknown_attributes: UnknownAttributes::Create,
            context_fields: true,
            unchanged_ttl_secs: 3600,
            catalogue_refresh_secs: 300,
            merge_anonymous: false,
            cache_size: 100_000,
            match_by: vec![MatchBy::UserKey],
            match_conflict: MatchConflict::Create,
            max_new_attributes_per_hour: 100,
        }
    }
}

impl UsersConfig {
    /// How many attributes are created within one hour at most.
    pub(crate) fn new_attributes_limit(&self) -> usize {
        match self.max_new_attributes_per_hour {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        }
    }
}

/// A key by which a person is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MatchBy {
    /// The key of the browser, from the mapping's target `user_key`. The preset takes it from
    /// `context.externalIds` (type `user_key`), `integrations` or `context.traits.user_key`.
    UserKey,
    /// The e-mail address of the call.
    Email,
    /// The telephone number of the call.
    Phone,
}

/// What happens where a person is found who has another own id, or several people are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MatchConflict {
    /// The user gets a record of its own.
    #[default]
    Create,
    /// The record goes to the dead letters, with the reason `match_conflict`.
    DeadLetter,
    /// The call is written to the record that was found, the oldest of several. Its own id stays.
    /// What comes later for this user goes there too, as long as the sink remembers it
    /// (`cache_size`); after that, calls that carry none of the keys make a record of its own.
    Use,
}

/// What happens to an attribute User.com does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownAttributes {
    /// It is created, with the type `attributes` or `company_attributes` names for it, else with
    /// type `string`.
    Create,
    /// It is left out and counted.
    Drop,
    /// It is sent as it is.
    Send,
}

/// Types of attributes that are to be created, by the attribute's name.
pub type AttributeTypes = IndexMap<String, AttributeType>;

/// The type of a custom attribute that is to be created. A `fixed` attribute needs its choices, and
/// is created in User.com's settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttributeType {
    /// Text of up to 255 characters.
    #[default]
    String,
    /// A whole number.
    Integer,
    /// A number.
    Float,
    /// `true` or `false`.
    Boolean,
    /// A calendar date.
    Date,
    /// A moment.
    Datetime,
    /// Any JSON; an object is kept as one value.
    Json,
}

impl AttributeType {
    /// The name User.com has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Datetime => "datetime",
            Self::Json => "json",
        }
    }
}

/// Guarantees of delivery.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryConfig {
    /// How long, in seconds, a `messageId` is remembered, so that a second one is not sent; 0 =
    /// not at all. Default: 86400.
    pub dedupe_window_secs: u64,
    /// How many `messageId`s are remembered at most. Each takes about 130 bytes of the store in
    /// `data_dir`. Beyond the limit the oldest are forgotten before `dedupe_window_secs` is over,
    /// with a warning. Default: 5000000. Set more where more records than that come in within the
    /// window, and less where the disk is small.
    #[schemars(range(min = 1))]
    pub dedupe_max_entries: u64,
    /// Whether, after an event or page view of unknown fate (timeout, cut connection, crash), the
    /// user's history is read before it is sent again. Default: true.
    pub verify_ambiguous: bool,
    /// Whether waiting identifies of one user, and writes of one company, become one request.
    /// Default: true.
    pub fold: bool,
    /// Records that may be between the buffer and User.com at once. Records of a user whose
    /// requests keep failing while others succeed are not counted, up to ten times this number.
    /// Default: 2000.
    #[schemars(range(min = 1))]
    pub max_in_flight: usize,
    /// How long, in seconds, SIGTERM waits for work to finish. Default: 60.
    pub shutdown_timeout_secs: u64,
    /// How often a request may fail while other requests of the same kind succeed, before its
    /// record becomes a dead letter with the reason `poison` and what waits behind it for the same
    /// user is sent; 0 = it is tried for ever. An outage, in which no request succeeds, makes no dead
    /// letters. Default: 10.
    pub poison_attempts: u32,
    /// For how long, in seconds, such a request must have been failing besides. `run --once` waits
    /// a minute at most. Lower it where records of one user must not wait long for one that is
    /// always refused with an error of the server. Default: 600.
    pub poison_after_secs: u64,
    /// How long, in seconds, records wait for a request that User.com forbids (403) although
    /// the API key works, before they become dead letters with the reason `route_closed`. The
    /// request is tried again meanwhile, and all other records are sent. Counted from the moment
    /// at which it was forbidden. Default: 300.
    pub route_closed_secs: u64,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            dedupe_window_secs: 86_400,
            dedupe_max_entries: 5_000_000,
            verify_ambiguous: true,
            fold: true,
            max_in_flight: 2_000,
            shutdown_timeout_secs: 60,
            poison_attempts: 10,
            poison_after_secs: 600,
            route_closed_secs: 300,
        }
    }
}

/// Records that could not be delivered, kept in `data_dir`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLettersConfig {
    /// Size limit of this sink's dead letters in bytes. Beyond it the oldest are deleted, with a
    /// warning, until a tenth of it is free; the limit is looked at once a second. Default:
    /// 268435456 (256 MiB). Set more where dead letters are replayed rarely.
    #[schemars(range(min = 1))]
    pub max_size: u64,
}

impl Default for DeadLettersConfig {
    fn default() -> Self {
        Self { max_size: 256 << 20 }
    }
}

/// The check of the endpoint at start.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthcheckConfig {
    /// Check the key and the account at start. Set `false` where User.com cannot be reached at start.
    /// Default: true.
    pub enabled: bool,
    /// How long it may take, in seconds. Default: 10.
    #[schemars(range(min = 1))]
    pub timeout_secs: u64,
}

impl Default for HealthcheckConfig {
    fn default() -> Self {
        Self { enabled: true, timeout_secs: 10 }
    }
}
