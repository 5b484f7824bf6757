//! The Fluvio source and the connector. Against a cluster in memory that has the traps of the real
//! one, and, where `FLV_PROFILE_PATH` names one, against a real cluster.

pub(crate) mod cluster;
mod connector;
mod crash;
mod gaps;
mod model;
mod process;
mod reader;
mod real;
mod settings;
pub(crate) mod support;
