//! The pipeline: sources, sinks and what lies between, wired, run and stopped. The only module that
//! sees all rooms.

#[cfg(feature = "fluvio")]
mod connector;
mod engine;
mod probe;
mod rehearsal;
mod replay;
mod run;
mod sink;
mod summary;

#[cfg(feature = "fluvio")]
pub use connector::connector_cluster;
pub use rehearsal::{LeftOut, Rehearsal, Rehearsed};
pub use replay::{Replay, replay};
pub use run::{Launch, Launched, RunError, Stop};
pub use summary::Summary;
