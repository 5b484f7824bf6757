//! The whole pipeline as it is written: where state lives, sources, sinks, tests.
//!
//! Relative paths (`data_dir`, `include`) are relative to the working directory.

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
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
    /// The JSON Schema the file is edited with. Means nothing to the program.
    #[serde(default, rename = "$schema")]
    pub schema: Option<String>,
    /// The folder for checkpoints, disk buffers and dead letters, relative to the working
    /// directory. It is made if it is missing; one program owns it at a time. Default: `./data`.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// The program's own HTTP address. Default: none is opened.
    #[serde(default)]
    pub api: Option<ApiConfig>,
    /// Where records come from, by name. At least one. A name is made of letters, digits, `_`, `-`
    /// and `.`, and begins with a letter or digit.
    #[schemars(extend("minProperties" = 1, "propertyNames" = { "pattern": NAME_PATTERN }))]
    pub sources: IndexMap<String, SourceConfig>,
    /// Where records go, by name. At least one. Names are made like those of sources.
    #[schemars(extend("minProperties" = 1, "propertyNames" = { "pattern": NAME_PATTERN }))]
    pub sinks: IndexMap<String, SinkConfig>,
    /// Records with the calls they are to make, run by `test`. Default: none.
    #[serde(default)]
    pub tests: Vec<TestCase>,
}

impl Pipeline {
    /// The zone of the times of the first source that a sink reads.
    pub fn timezone_of(&self, inputs: &[String]) -> Option<&str> {
        inputs.iter().find_map(|name| self.sources.get(name))?.timezone()
    }
}

/// What names of sources and sinks look like. They become names of files and of metric labels.
pub(crate) const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$";

fn default_data_dir() -> PathBuf {
    PathBuf::from("./data")
}

/// The program's own HTTP address.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// IP address and port for `/metrics`, `/health` and `/ready`: `127.0.0.1:8686`.
    pub listen: String,
}

/// A sink, by `type`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SinkConfig {
    /// Delivers to User.com.
    Usercom(Box<UsercomSink>),
}

/// One test: a record, and what is to become of it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "if" = { "not": { "required": ["line"] } },
    "then" = { "required": ["record"] }
))]
pub struct TestCase {
    /// What the test shows, as `test` prints it.
    pub name: String,
    /// The sink whose mapping is tested.
    pub sink: String,
    /// The record: any value. TOML's dates and times are text in RFC 3339's form. Either this or
    /// `line`.
    #[serde(default)]
    pub record: Option<Value>,
    /// The text a source would read: one line or several, with their header where the source needs
    /// one. It goes through the source's decoding first, and all records it holds are tested
    /// together. Either this or `record`.
    #[serde(default)]
    pub line: Option<String>,
    /// With `line`: the source whose decoding is used. Default: the first of the sink's `inputs`.
    #[serde(default)]
    pub source: Option<String>,
    /// The calls the record makes, in order. Default: they are not compared.
    #[serde(default)]
    pub calls: Vec<ExpectedCall>,
    /// The requests a cold cache would send, in order. Default: they are not compared.
    #[serde(default)]
    pub requests: Vec<ExpectedRequest>,
    /// Whether calls are compared whole, rather than by the keys that are named. Default: false.
    #[serde(default)]
    pub exact: bool,
    /// What becomes of a record that makes no call. Default: it makes some.
    #[serde(default)]
    pub outcome: Option<ExpectedOutcome>,
}

/// A call a test expects. Only the keys named are compared, unless `exact` says otherwise; inside
/// `traits`, `properties` and `context` likewise.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExpectedCall {
    /// Which call.
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
    /// When it happened, in RFC 3339's form; compared as a moment.
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
    /// Whether this call is compared whole. Default: what the test says.
    #[serde(default, skip_serializing)]
    pub exact: Option<bool>,
}

/// A request a test expects. Only the keys named are compared.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedRequest {
    /// The method: `POST`.
    #[serde(default)]
    pub method: Option<String>,
    /// The path, relative to the base URL: `users/update_or_create/`.
    #[serde(default)]
    pub path: Option<String>,
    /// The body. Of a table, only the keys named are compared.
    #[serde(default)]
    pub body: Option<Value>,
}

/// What becomes of a record that makes no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExpectedOutcome {
    /// No rule wants it.
    Unmatched,
    /// It goes to the dead letters.
    DeadLetter,
}
