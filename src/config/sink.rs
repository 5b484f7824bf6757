//! The settings of sinks: the API of User.com, requests, buffer, users, attributes, delivery.

use indexmap::IndexMap;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::account::AccountConfig;
use super::base_url::{BaseUrl, BaseUrlError};
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
    /// Processes records in a known format without a mapping: the preset is one more rule after all
    /// others, for records that no rule of `mapping` matched. Default: none.
    #[serde(default)]
    pub preset: Option<Preset>,
    /// The mapping table: rules, tried in file order.
    #[serde(default)]
    pub mapping: Vec<Rule>,
    /// What happens to a record that no rule matches. Default: `drop`. Set `dead_letter` where
    /// every record must reach User.com, to see which ones do not.
    #[serde(default)]
    pub unmatched: Unmatched,
    /// How requests are paced and retried.
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
    /// The base URL of the API. The sink of a loaded pipeline always has one.
    ///
    /// # Errors
    ///
    /// If `endpoint` is not a base URL, or neither `app` nor `endpoint` is set.
    pub fn base_url(&self) -> Result<BaseUrl, BaseUrlError> {
        let app = || self.app.as_ref().map(|app| format!("https://{app}.user.com/api/public/"));
        BaseUrl::parse(&self.endpoint.clone().or_else(app).unwrap_or_default())
    }
}

/// A record format that needs no mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Segment's and RudderStack's event JSON, one object or a `{"batch":[…]}`.
    Segment,
}

/// What happens to a record that no rule matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unmatched {
    /// It is counted and settled.
    #[default]
    Drop,
    /// It goes to the dead letters.
    DeadLetter,
}

/// How requests are paced and retried. Names and meaning are Vector's.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestConfig {
    /// How many requests are in flight at once: `"adaptive"`, `"none"` (one) or a number from 1 to
    /// 1024. Default: `"adaptive"`.
    pub concurrency: Concurrency,
    /// Requests allowed per `rate_limit_duration_secs`, retries included. Default: no limit.
    #[schemars(range(min = 1))]
    pub rate_limit_num: Option<u32>,
    /// The length of the interval of `rate_limit_num`, in seconds. Default: 1.
    #[schemars(range(min = 1))]
    pub rate_limit_duration_secs: u64,
    /// The timeout of one attempt, in seconds. Default: 30.
    #[schemars(range(min = 1))]
    pub timeout_secs: u64,
    /// How often a request is retried; 0 = no limit. A request that used up its retries is not
    /// rejected: its record is kept and sent again after `retry_max_duration_secs`. Default: 0.
    pub retry_attempts: u32,
    /// The first backoff, in seconds; it doubles with each retry, with full jitter. Default: 1.
    #[schemars(range(min = 1))]
    pub retry_initial_backoff_secs: u64,
    /// The longest backoff, and the longest `Retry-After` that is obeyed, in seconds. A longer
    /// `Retry-After` is reduced to it, a fraction of a second is rounded up. Default: 60.
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

/// The named values of `concurrency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConcurrencyMode {
    /// Finds the limit of the server: additive increase, multiplicative decrease.
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
    /// `memory`: a record is acknowledged to its source once it is delivered. Only message ids,
    /// dead letters and look-ups are written to disk. After a crash the source reads again what was
    /// not delivered; the sources `file`, `kafka` and `fluvio` know which of these records may
    /// already have been sent, for `http` and `vector` the client must send them again.
    ///
    /// `disk`: a record is acknowledged once it is durable. Records are written and synced in
    /// groups, and each event and page view is marked before it is sent: this takes about 50 % more
    /// processor time, and the disk space of the waiting records. Set it for sources that cannot be
    /// read again (`stdin`), and where clients must not wait while User.com is unreachable.
    #[serde(rename = "type")]
    pub kind: BufferKind,
    /// Size limit of a disk buffer in bytes. Default: 1073741824 (1 GiB).
    #[schemars(range(min = 1))]
    pub max_size: u64,
    /// The most records that a memory buffer holds. Default: 5000.
    #[schemars(range(min = 1))]
    pub max_events: usize,
    /// What happens when the buffer is full. Default: `block`. Set `drop_newest` where losing
    /// records is better than slowing the source.
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
    /// In memory; what is not settled is read again by the source after a restart.
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
    /// What happens to an attribute that does not exist at User.com. Default: `create`.
    pub unknown_attributes: UnknownAttributes,
    /// Whether the context of an identify (user agent, device, page …) is written to the profile.
    /// Default: true.
    pub context_fields: bool,
    /// How long, in seconds, an identify that changes nothing is not repeated; 0 = always send.
    /// Default: 3600.
    pub unchanged_ttl_secs: u64,
    /// How often, in seconds, the list of attributes is read again from User.com. Default: 300.
    #[schemars(range(min = 1))]
    pub catalogue_refresh_secs: u64,
    /// Whether an anonymous user is merged into the identified one when a call has both ids.
    /// Default: false.
    pub merge_anonymous: bool,
    /// The most look-ups of users and companies that are cached. Default: 100000.
    #[schemars(range(min = 1))]
    pub cache_size: usize,
    /// The keys by which the sink looks for a person who is in the account already without an id of
    /// yours: people whom the web widget (`user_key`), a form or an import (`email`, `phone`)
    /// created. Any of `user_key`, `email` and `phone`, in the order in which they are asked. The
    /// look-up is made once for each id that neither the sink nor User.com knows, before the first
    /// write, and takes one request for each key that the call has. The first key that finds
    /// exactly one record decides: a record without an id gets this id, and everything is written
    /// to it. E-mail addresses are compared trimmed and without case, telephone numbers by their
    /// digits and a leading plus. `[]` = no look-up. Default: `["user_key"]`. Add `"email"` if an
    /// address belongs to one person only.
    pub match_by: Vec<MatchBy>,
    /// What happens if the record that `match_by` finds has another id, or if several records are
    /// found: `create`, `dead_letter` or `use`. Each case is counted in
    /// `usercom_match_conflicts_total` and logged once for each user. Default: `create`.
    pub match_conflict: MatchConflict,
    /// The most custom attributes that are created within one hour, because an attribute at
    /// User.com is permanent and a record may contain thousands of names; 0 = no limit. At the
    /// limit, unknown attributes are dropped, counted in `usercom_attributes_refused_total`, and a
    /// warning is logged. Raise it for the first import of an account with many attributes. Only
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

/// A key by which the sink looks for a person.
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

/// What happens if a person is found who has another id, or if several records are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MatchConflict {
    /// A separate record is created for the user.
    #[default]
    Create,
    /// The record goes to the dead letters, with the reason `match_conflict`.
    DeadLetter,
    /// The call is written to the record that was found, or to the oldest of several. The id of
    /// that record stays. Later calls of this user go there too while the sink has the user in its
    /// cache (`cache_size`); after that, a call without any of the keys creates a separate record.
    Use,
}

/// What happens to an attribute that does not exist at User.com.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownAttributes {
    /// It is created, with its type in `attributes` or `company_attributes`, else with type
    /// `string`.
    Create,
    /// It is dropped and counted.
    Drop,
    /// It is sent unchanged.
    Send,
}

/// Types of attributes to create, by the attribute's name.
pub type AttributeTypes = IndexMap<String, AttributeType>;

/// The type of a custom attribute to create. A `fixed` attribute needs its choices; create it in
/// User.com's settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttributeType {
    /// A string of up to 255 characters.
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
    /// A date with a time.
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
    /// How long, in seconds, a `messageId` is stored, so that a second record with it is not sent;
    /// 0 = not at all. Default: 86400.
    pub dedupe_window_secs: u64,
    /// The most `messageId`s that are stored. Each takes about 130 bytes of the store in
    /// `data_dir`. Beyond the limit the oldest are removed before `dedupe_window_secs` is over,
    /// with a warning. Default: 5000000. Raise it where more records arrive within the window, and
    /// lower it where the disk is small.
    #[schemars(range(min = 1))]
    pub dedupe_max_entries: u64,
    /// Whether the user's history is read before an event or page view is sent again whose first
    /// request may have had an effect (timeout, cut connection, crash). Default: true.
    pub verify_ambiguous: bool,
    /// Whether waiting identifies of one user, and writes of one company, are merged into one
    /// request. Default: true.
    pub fold: bool,
    /// The most records that may be between the buffer and User.com at once. Records of a user
    /// whose requests keep failing while others succeed are not counted, up to ten times this
    /// number. Default: 2000.
    #[schemars(range(min = 1))]
    pub max_in_flight: usize,
    /// How long, in seconds, the program waits after SIGTERM for work to finish. Default: 60.
    pub shutdown_timeout_secs: u64,
    /// How often a request may fail while other requests of the same kind succeed, before its
    /// record becomes a dead letter with the reason `poison` and later records of the same user are
    /// sent; 0 = it is retried for ever. An outage, in which no request succeeds, makes no dead
    /// letters. Default: 10.
    pub poison_attempts: u32,
    /// How long, in seconds, such a request must also have been failing. `run --once` waits a
    /// minute at most. Lower it where records of one user must not wait long for one that always
    /// fails with a server error. Default: 600.
    pub poison_after_secs: u64,
    /// How long, in seconds, records wait for a request that User.com forbids (403) although the
    /// API key works, before they become dead letters with the reason `route_closed`. The request
    /// is tried again meanwhile, and all other records are sent. Counted from the time at which it
    /// was forbidden. Default: 300.
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

/// Records that could not be delivered, stored in `data_dir`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLettersConfig {
    /// Size limit of this sink's dead letters in bytes. Beyond it the oldest are deleted, with a
    /// warning, until a tenth of it is free; the limit is checked once a second. Default: 268435456
    /// (256 MiB). Raise it where dead letters are replayed rarely.
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
