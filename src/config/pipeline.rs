//! The settings of a whole pipeline: where state is stored, sources, sinks, tests.
//!
//! Relative paths (`data_dir`, `include`) are relative to the working directory.

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sink::UsercomSink;
use super::source::SourceConfig;
use crate::call::CallKind;

/// A pipeline.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "usercom-sink pipeline")]
pub struct Pipeline {
    /// The JSON Schema for editors. The program ignores it.
    #[serde(default, rename = "$schema")]
    pub schema: Option<String>,
    /// The folder for checkpoints, disk buffers and dead letters, relative to the working
    /// directory. It is created if it is missing; only one process may use it at a time. Default:
    /// `./data`.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// The program's own HTTP address, and what it logs of itself. Default: no port is opened.
    #[serde(default)]
    pub api: Option<ApiConfig>,
    /// Where records come from, by name. At least one. A name consists of letters, digits, `_`, `-`
    /// and `.`, and begins with a letter or digit.
    #[schemars(extend("minProperties" = 1, "propertyNames" = { "pattern": NAME_PATTERN }))]
    pub sources: IndexMap<String, SourceConfig>,
    /// Where records go, by name. At least one. Names have the same form as those of sources.
    #[schemars(extend("minProperties" = 1, "propertyNames" = { "pattern": NAME_PATTERN }))]
    pub sinks: IndexMap<String, SinkConfig>,
    /// Records with the calls that they should make, checked by `test`. Default: none.
    #[serde(default)]
    pub tests: Vec<TestCase>,
}

impl Pipeline {
    /// The time zone of the first source that a sink reads.
    pub fn timezone_of(&self, inputs: &[String]) -> Option<&str> {
        inputs.iter().find_map(|name| self.sources.get(name))?.timezone()
    }
}

/// The form of source and sink names. They become file names and metric labels.
pub(crate) const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$";

fn default_data_dir() -> PathBuf {
    PathBuf::from("./data")
}

/// The program's own HTTP address, and what it logs of itself.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// IP address and port of the status page, of `/api/v1/status`, `/metrics`, `/health` and
    /// `/ready`: `127.0.0.1:8686`. An address that other machines reach needs `token`. Default: no
    /// port is opened.
    #[serde(default)]
    pub listen: Option<String>,
    /// The secret that opens what shows records or changes something: dead letters, tap, playground,
    /// replay, purge. Sent as `Authorization: Bearer TOKEN`, or typed into the login form of the
    /// page. At least 12 characters. Default: none, which only a loopback `listen` allows.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub token: Option<SecretString>,
    /// Further names under which the page is reached, without port: `["status.example.com"]`.
    /// Requests for another name are refused, so that a foreign site cannot pass itself off as this
    /// one (DNS rebinding). IP addresses and `localhost` are always taken. Default: none.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// `/ready` fails when nothing could be delivered for this many seconds. Default: 60.
    #[serde(default = "default_unready_after_secs")]
    #[schemars(range(max = 86400))]
    pub unready_after_secs: u64,
    /// `run` logs one line with rates, waiting records and the last error at this interval, in
    /// seconds; 0 logs none. Default: 60.
    #[serde(default = "default_log_interval_secs")]
    #[schemars(range(max = 86400))]
    pub log_interval_secs: u64,
    /// Whether the tap shows the values of records; else it shows only their names and types. Dead
    /// letters are always shown whole. Default: false.
    #[serde(default)]
    pub show_values: bool,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: None,
            token: None,
            hosts: Vec::new(),
            unready_after_secs: default_unready_after_secs(),
            log_interval_secs: default_log_interval_secs(),
            show_values: false,
        }
    }
}

impl ApiConfig {
    /// Whether a change needs a restart.
    pub fn differs(&self, other: &Self) -> bool {
        let key = |config: &Self| {
            let token = config.token.as_ref().map(|token| token.expose_secret().to_owned());
            let times = (config.unready_after_secs, config.log_interval_secs);
            (config.listen.clone(), token, config.hosts.clone(), config.show_values, times)
        };
        key(self) != key(other)
    }
}

fn default_unready_after_secs() -> u64 {
    60
}

fn default_log_interval_secs() -> u64 {
    60
}

/// A sink, by `type`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SinkConfig {
    /// Delivers to User.com.
    Usercom(Box<UsercomSink>),
}

/// One test: a record, and its expected result.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "if" = { "not": { "required": ["line"] } },
    "then" = { "required": ["record"] }
))]
pub struct TestCase {
    /// The name that `test` prints.
    pub name: String,
    /// The sink whose mapping is tested.
    pub sink: String,
    /// The record: any value. TOML's dates and times become RFC 3339 strings. Either this or
    /// `line`.
    #[serde(default)]
    pub record: Option<Value>,
    /// The text that a source would read: one line or several, with their header where the source
    /// needs one. It is decoded as by the source, and all its records are tested together. Either
    /// this or `record`.
    #[serde(default)]
    pub line: Option<String>,
    /// With `line`: the source whose decoding is used. Default: the first of the sink's `inputs`.
    #[serde(default)]
    pub source: Option<String>,
    /// The calls the record makes, in order. Default: they are not compared.
    #[serde(default)]
    pub calls: Vec<ExpectedCall>,
    /// The requests that would be sent with an empty cache, in order. Default: they are not
    /// compared.
    #[serde(default)]
    pub requests: Vec<ExpectedRequest>,
    /// Whether calls are compared completely, and not only in the given keys. Default: false.
    #[serde(default)]
    pub exact: bool,
    /// The outcome of a record that makes no call. Default: it makes some.
    #[serde(default)]
    pub outcome: Option<ExpectedOutcome>,
}

/// A call that a test expects. Only the given keys are compared, unless `exact` is set; likewise
/// inside `traits`, `properties` and `context`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExpectedCall {
    /// The call.
    #[serde(rename = "type")]
    pub kind: CallKind,
    /// Segment's `userId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Segment's `anonymousId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous_id: Option<String>,
    /// Segment's `messageId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// When it happened, in RFC 3339; compared as an instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// `event` of a track.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// `name` of a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `category` of a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// `groupId` of a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// `previousId` of an alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_id: Option<String>,
    /// Traits of an identify or group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traits: Option<IndexMap<String, Value>>,
    /// Properties of a track or page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<IndexMap<String, Value>>,
    /// Context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<IndexMap<String, Value>>,
    /// Whether this call is compared completely. Default: the `exact` of the test.
    #[serde(default, skip_serializing)]
    pub exact: Option<bool>,
}

/// A request that a test expects. Only the given keys are compared.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedRequest {
    /// The method: `POST`.
    #[serde(default)]
    pub method: Option<String>,
    /// The path, relative to the base URL: `users/update_or_create/`.
    #[serde(default)]
    pub path: Option<String>,
    /// The body. Of a table, only the given keys are compared.
    #[serde(default)]
    pub body: Option<Value>,
}

/// The outcome of a record that makes no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExpectedOutcome {
    /// No rule matches it.
    Unmatched,
    /// It goes to the dead letters.
    DeadLetter,
}
