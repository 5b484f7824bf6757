//! Everything that is tested through the crate's outside, in one binary. A module per guarantee.

// A test may say `unwrap`: it says where, and the test fails.
#![allow(clippy::unwrap_used)]

mod account;
mod config;
mod crash;
mod deliver;
mod deploy;
mod embedded;
mod emulator;
mod facts;
mod faults;
mod field;
#[cfg(feature = "fluvio")]
mod fluvio;
mod fuzz;
mod http;
#[cfg(feature = "kafka")]
mod kafka;
mod layering;
mod mapping;
mod operating;
mod ordering;
mod page;
mod pipeline;
mod proto;
mod readme;
mod reload;
mod sdk;
mod source;
mod status;
mod store;
mod support;
mod usercom;
#[cfg(feature = "vector")]
mod vector;
mod verdicts;
mod vocabulary;
