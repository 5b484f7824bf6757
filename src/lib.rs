//! Records from a data pipeline into User.com: in order per user, at few requests, losing nothing.
//!
//! A record walks one way through the house, and its acknowledgement walks back with it:
//!
//! ```text
//!  source -> record -> mapping -> call -> plan -> op -> usercom -> request -> deliver -> outcome -> ack
//!    ^                                    buffer keeps what is not settled                            |
//!    +------------------------------------------------------------------------------------------------+
//! ```
//!
//! The modules stand in the order of that way. [`pipeline`] wires them, and is the only one that
//! sees them all.

pub mod ack;
pub mod clock;
pub mod coerce;
pub mod record;
mod suggest;

pub mod config;
pub mod source;

pub mod mapping;

pub mod call;

pub mod schedule;

pub mod usercom;

pub mod deliver;

pub mod buffer;

pub mod sink;

pub mod pipeline;
pub mod telemetry;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "emulator")]
pub mod emulator;

pub use pipeline::{Sink, SinkBuilder};
