//! Metrics and the status page.

mod api;
mod metrics;

pub use api::{ApiState, SinkRegistry, serve};
pub use metrics::{Metrics, SinkMetrics, SinkSummary, SourceLag, SourceMetrics};
