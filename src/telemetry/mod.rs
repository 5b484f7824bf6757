//! What the pipeline tells of itself: metrics under Vector's names, and logs that do not flood.

mod api;
mod metrics;

pub use api::{ApiState, SinkRegistry, serve};
pub use metrics::{Metrics, SinkMetrics, SinkSummary, SourceLag, SourceMetrics};
