//! The pipeline: wires sources, mapping, delivery and buffers together, runs and stops them. It is
//! the only module that knows all others.

#[cfg(feature = "fluvio")]
mod connector;
mod dry_run;
mod embedded;
mod engine;
mod probe;
mod reasons;
mod replay;
mod run;
mod sink;
mod summary;

#[cfg(feature = "fluvio")]
pub use connector::connector_cluster;
pub use dry_run::{DroppedField, DryRun, DryRunReport};
pub use embedded::{Sink, SinkBuilder};
pub use reasons::{DEAD_LETTER_REASONS, is_dead_letter_reason};
pub use replay::{Replay, replay};
pub use run::{BuiltPipeline, RunError, RunOptions, Shutdown};
pub use summary::Summary;
