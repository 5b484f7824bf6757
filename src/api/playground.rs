//! The playground: records and a pipeline file in, calls and requests out, without network.

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ApiState, page};

/// A pipeline file as it is shown: without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaygroundText {
    /// Its name, whose ending determines the format.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What is tried.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaygroundInput {
    /// The pipeline files.
    pub files: Vec<PlaygroundText>,
    /// Records, as the source would read them.
    pub records: String,
    /// The sink whose mapping is tried. Default: the first.
    #[serde(default)]
    pub sink: String,
}

/// What comes of it.
#[derive(Debug, Clone, Default)]
pub struct PlaygroundReport {
    /// The faults of the files, as the command line shows them.
    pub faults: Option<String>,
    /// The sinks of the files.
    pub sinks: Vec<String>,
    /// The records and what they become.
    pub records: Vec<TriedRecord>,
    /// Records that were left out because there are too many.
    pub left_out: usize,
    /// The records as `[[tests]]`.
    pub tests: String,
}

/// A record and what it becomes.
#[derive(Debug, Clone, Default)]
pub struct TriedRecord {
    /// The record, as JSON text or as it was received.
    pub record: String,
    /// Every rule, in order.
    pub rules: Vec<TriedRule>,
    /// The calls, in Segment's JSON shape.
    pub calls: Vec<Value>,
    /// The requests that a cold cache would send into an empty account.
    pub requests: Vec<TriedRequest>,
    /// Values that would be dropped or shortened.
    pub notes: Vec<String>,
    /// Why it would go to the dead letters; empty if it would not.
    pub errors: Vec<String>,
}

/// Whether a rule fired, and why.
#[derive(Debug, Clone)]
pub struct TriedRule {
    /// Its name.
    pub name: String,
    /// Whether it fired.
    pub fired: bool,
    /// Why, or why not.
    pub why: String,
}

/// A request.
#[derive(Debug, Clone)]
pub struct TriedRequest {
    /// Its method.
    pub method: String,
    /// Its path, relative to the base URL.
    pub path: String,
    /// The path without ids.
    pub route: String,
    /// Its body.
    pub body: Option<Value>,
}

/// Tries records.
#[async_trait]
pub trait Playground: Send + Sync {
    /// The files to begin with, without their secrets.
    fn files(&self) -> Vec<PlaygroundText>;

    /// Records to begin with.
    fn records(&self) -> String;

    /// What comes of an input.
    async fn try_out(&self, input: PlaygroundInput) -> PlaygroundReport;
}

/// The answer for the page.
#[derive(Serialize)]
pub(super) struct Tried {
    /// Whether the files have no faults.
    ok: bool,
    /// The result as HTML; every text in it is escaped.
    html: String,
    /// The records as `[[tests]]`.
    tests: String,
    /// The sinks of the files.
    sinks: Vec<String>,
}

pub(super) async fn try_out(
    State(state): State<ApiState>,
    Json(input): Json<PlaygroundInput>,
) -> Json<Tried> {
    let report = state.playground.try_out(input).await;
    Json(Tried {
        ok: report.faults.is_none(),
        html: page::playground_result(&report).into_string(),
        tests: report.tests,
        sinks: report.sinks,
    })
}
