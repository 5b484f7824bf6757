//! Everything that is tested through the crate's outside, in one binary. A module per guarantee.

mod config;
mod crash;
mod deliver;
mod emulator;
mod mapping;
mod ordering;
mod pipeline;
mod source;
mod store;
mod support;
mod usercom;
