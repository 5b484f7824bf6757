//! The components that belong to the pipeline at present, for the page and the log. Clones share the
//! list.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{SinkMetrics, SourceMetrics};
use parking_lot::RwLock;

/// What the pipeline does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PipelinePhase {
    /// Its parts are being started.
    #[default]
    Starting,
    /// It runs.
    Running,
    /// It was asked to stop and settles what it has.
    Draining,
    /// It has ended.
    Ended,
}

/// How far a source has read, for sources that know how much there is.
pub trait ReadPosition: std::fmt::Debug + Send + Sync {
    /// Bytes that were read.
    fn bytes_read(&self) -> u64;
    /// Bytes that are there, read or not.
    fn bytes_total(&self) -> u64;
    /// Files found since the start; `None` for sources that do not read files.
    fn files(&self) -> Option<u64>;
}

/// A source that belongs to the pipeline.
#[derive(Debug, Clone)]
pub struct SourceEntry {
    /// Its type in the pipeline file.
    pub kind: String,
    /// Its metrics.
    pub metrics: SourceMetrics,
    /// How far it has read, if it knows how much there is.
    pub position: Option<Arc<dyn ReadPosition>>,
    /// Whether it still reads.
    pub reading: bool,
}

/// A sink that belongs to the pipeline.
#[derive(Debug, Clone)]
pub struct SinkEntry {
    /// The sources that it reads.
    pub inputs: Vec<String>,
    /// Its metrics.
    pub metrics: SinkMetrics,
}

/// All components at one moment.
#[derive(Debug, Clone, Default)]
pub struct ComponentSet {
    /// What the pipeline does.
    pub phase: PipelinePhase,
    /// The sources, by name.
    pub sources: BTreeMap<String, SourceEntry>,
    /// The sinks, by name.
    pub sinks: BTreeMap<String, SinkEntry>,
}

/// The components of a running pipeline.
#[derive(Debug, Clone, Default)]
pub struct Components(Arc<RwLock<ComponentSet>>);

impl Components {
    /// A copy of the present components.
    pub fn present(&self) -> ComponentSet {
        self.0.read().clone()
    }

    /// Changes the components.
    pub fn update(&self, change: impl FnOnce(&mut ComponentSet)) {
        change(&mut self.0.write());
    }
}
