//! The status of a running pipeline: one type that the page, `/api/v1/status` and the command
//! `status` share. No view computes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};

use super::errors::ErrorStatus;

/// The status of a running pipeline, as `/api/v1/status` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "usercom-sink status")]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// The number of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_id: Option<u32>,
    /// When this was true.
    #[schemars(with = "String")]
    pub time: Timestamp,
    /// When the pipeline started.
    #[schemars(with = "String")]
    pub started: Timestamp,
    /// The worst state of all components.
    pub state: State,
    /// That state in words.
    pub reason: String,
    /// Whether `/ready` says 200.
    pub ready: bool,
    /// Why not, one sentence each. Empty if it does.
    pub not_ready: Vec<String>,
    /// The sources, by name.
    pub sources: Vec<SourceStatus>,
    /// The sinks, by name.
    pub sinks: Vec<SinkStatus>,
}

/// What a component does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has done its work.
    Ended,
    /// It works.
    Running,
    /// It reads its state and asks User.com for the attribute catalogue.
    Starting,
    /// It takes no more input and finishes what it has.
    Draining,
    /// User.com asked for a pause (429 or 503 with `Retry-After`).
    Paused,
    /// It waits: a sink for User.com, a source for its sinks.
    Waiting,
    /// The store cannot be written.
    StorageFailed,
    /// Nothing is sent, because User.com refuses the API key or the domain.
    Halted,
}

impl State {
    /// The state as one or two words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::StorageFailed => "storage failed",
            Self::Halted => "halted",
        }
    }
}

/// The status of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourceStatus {
    /// Its name in the pipeline file.
    pub name: String,
    /// Its type in the pipeline file.
    pub kind: String,
    /// What it does.
    pub state: State,
    /// That state in words.
    pub reason: String,
    /// Records yielded since the start.
    pub records: u64,
    /// Records yielded a second, over the last 10 seconds.
    pub records_per_sec: f64,
    /// How far it is behind.
    pub lag: SourceLagStatus,
}

/// How far a source is behind. What a type of source does not know is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourceLagStatus {
    /// `file`, `stdin`: bytes that are there and not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_behind: Option<u64>,
    /// `file`, `stdin`: bytes that are there, read or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
    /// `file`: files found since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// `kafka`, `fluvio`: records that are there and not settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_behind: Option<u64>,
    /// `kafka`, `fluvio`: the same, by partition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<PartitionLag>,
    /// `http`, `vector`: requests that are not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_in_flight: Option<u64>,
}

/// How far one partition is behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartitionLag {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: String,
    /// Records that are there and not settled.
    pub records_behind: u64,
}

/// The status of a sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SinkStatus {
    /// Its name in the pipeline file.
    pub name: String,
    /// The sources that it reads.
    pub inputs: Vec<String>,
    /// What it does.
    pub state: State,
    /// That state in words.
    pub reason: String,
    /// Records since the start.
    pub records: RecordCounts,
    /// Records taken a second, over the last 10 seconds.
    pub records_in_per_sec: f64,
    /// Records settled a second, over the last 10 seconds.
    pub records_out_per_sec: f64,
    /// Requests a second, over the last 10 seconds.
    pub requests_per_sec: f64,
    /// Requests by method and route.
    pub requests: Vec<RouteStatus>,
    /// Requests that were not needed since the start, by reason.
    pub requests_saved: BTreeMap<String, u64>,
    /// Records that are not settled.
    pub waiting: u64,
    /// Bytes in the buffer.
    pub waiting_bytes: u64,
    /// The age of the oldest record that is not settled, in seconds.
    pub oldest_secs: Option<f64>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests allowed in flight.
    pub concurrency_limit: u64,
    /// The quota learned from refusals, in requests a second. Absent as long as none was needed.
    pub quota_per_sec: Option<f64>,
    /// Until when all requests wait, because User.com asked for it.
    #[schemars(with = "Option<String>")]
    pub paused_until: Option<Timestamp>,
    /// Response times of the last 10 seconds.
    pub latency: Option<LatencyStatus>,
    /// Dead letters.
    pub dead_letters: DeadLettersStatus,
    /// Records that no rule matched.
    pub unmatched: UnmatchedStatus,
    /// The last error of each kind, the latest first.
    pub errors: Vec<ErrorStatus>,
    /// What is still to be delivered.
    pub backlog: BacklogStatus,
}

/// Records since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordCounts {
    /// Taken from the sources or from a disk buffer.
    pub received: u64,
    /// Delivered completely.
    pub delivered: u64,
    /// Matched by no rule.
    pub unmatched: u64,
    /// Put into the dead letters.
    pub dead_letters: u64,
    /// With a final status: the sum of the three above, and those that needed no request.
    pub settled: u64,
}

/// Requests of one method and route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteStatus {
    /// `POST users/update_or_create/`.
    pub route: String,
    /// Requests since the start, repeats included.
    pub total: u64,
    /// Requests a second, over the last 10 seconds.
    pub per_sec: f64,
}

/// Response times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LatencyStatus {
    /// Half of the responses took at most this many milliseconds.
    pub p50_ms: f64,
    /// 95 of 100 responses took at most this many milliseconds.
    pub p95_ms: f64,
}

/// Dead letters of a sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLettersStatus {
    /// Written since the start.
    pub since_start: u64,
    /// In the store now. Absent until it was counted.
    pub stored: Option<u64>,
    /// Those in the store by reason and rule, most first; those since the start until the store was
    /// counted.
    pub by_reason: Vec<DeadLetterCount>,
}

/// Dead letters of one reason and rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetterCount {
    /// Why, as a stable word.
    pub reason: String,
    /// The rule of the mapping, where one was applied.
    pub rule: Option<String>,
    /// How many.
    pub count: u64,
}

/// Records that no rule matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnmatchedStatus {
    /// Since the start.
    pub total: u64,
    /// How many of them were compared with the rules: at most 50 a second.
    pub examined: u64,
    /// Those by the rule of which the most conditions held, most first.
    pub by_nearest_rule: Vec<NearestRuleCount>,
}

/// Unmatched records to which one rule came nearest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NearestRuleCount {
    /// Its name.
    pub rule: String,
    /// How many records.
    pub count: u64,
}

/// What is still to be delivered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BacklogStatus {
    /// Records that wait here, and those that its sources have not read, estimated from their
    /// bytes where only these are known.
    pub records: u64,
    /// Whether a part of that number is an estimate.
    pub estimated: bool,
    /// How many fewer there are each second. Negative while the backlog grows.
    pub shrinks_per_sec: f64,
    /// Seconds until the backlog ends at this pace. Absent while it does not shrink.
    pub ends_in_secs: Option<f64>,
    /// When that is.
    #[schemars(with = "Option<String>")]
    pub ends_at: Option<Timestamp>,
}

/// The JSON Schema of [`Status`] as text, as it is committed.
pub fn status_schema_text() -> String {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let schema = generator.into_root_schema_for::<Status>();
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema always becomes text");
    text.push('\n');
    text
}
