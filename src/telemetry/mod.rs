//! Metrics, and the status of a running pipeline. [`crate::api`] serves both.

mod activity;
mod component_state;
mod components;
mod errors;
mod exposition;
mod history;
mod latency;
mod metrics;
mod progress;
mod recorder;
mod status;
mod status_text;
mod summary;
mod tap;

pub use activity::{
    LabelCounts, OpenRequest, OpenRequests, Outage, SinkActivity, SinkPhase, SinkPresent,
    StorageTrouble,
};
pub use components::{
    ComponentSet, Components, PipelinePhase, ReadPosition, SinkEntry, SourceEntry,
};
pub use errors::{ErrorLog, ErrorStatus};
pub use exposition::MetricsFormat;
pub use history::{History, Point};
pub use latency::{Latency, LatencyCounts};
pub use metrics::{Metrics, SinkMetrics, SourceLag, SourceMetrics};
pub use progress::RunProgress;
pub use recorder::StatusRecorder;
pub use status::{
    BacklogStatus, DeadLetterCount, DeadLettersStatus, LatencyStatus, NearestRuleCount,
    PartitionLag, RecordCounts, RouteStatus, SinkStatus, SourceLagStatus, SourceStatus, State,
    Status, UnmatchedStatus, status_schema_text,
};
pub(crate) use status_text::{bytes as size_words, files as files_words, seconds as length_words};
pub use status_text::{log_line, status_text};
pub use summary::SinkSummary;
pub use tap::{Tap, TappedRecord};
