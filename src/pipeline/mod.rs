//! The pipeline: wires sources, mapping, delivery and buffers together, runs and stops them. It is
//! the only module that knows all others.

mod advice;
#[cfg(feature = "fluvio")]
mod connector;
mod dry_run;
mod embedded;
mod engine;
mod live_replay;
mod playground;
mod probe;
mod quota_store;
mod reasons;
mod replay;
mod run;
mod simulated;
mod sink;
mod status_service;
mod summary;
mod test_text;

#[cfg(feature = "fluvio")]
pub use connector::connector_cluster;
pub use dry_run::{DroppedField, DryRun, DryRunReport};
pub use embedded::{Sink, SinkBuilder};
pub use playground::DryPlayground;
pub use reasons::{DEAD_LETTER_REASONS, is_dead_letter_reason};
pub use replay::{Replay, replay};
pub use run::{BuiltPipeline, RunError, RunOptions, Shutdown};
pub use summary::Summary;
