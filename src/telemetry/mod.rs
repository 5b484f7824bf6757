//! Metrics and the status page.

mod api;
mod exposition;
mod metrics;

pub use api::{ApiState, SinkRegistry, serve};
pub use exposition::MetricsFormat;
pub use metrics::{Metrics, SinkMetrics, SinkSummary, SourceLag, SourceMetrics};
