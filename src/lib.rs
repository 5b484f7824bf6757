//! usercom-sink

pub mod ack;
pub mod buffer;
pub mod call;
pub mod clock;
pub mod config;
pub mod deliver;
pub mod emulator;
pub mod mapping;
pub mod pipeline;
pub mod plan;
pub mod record;
pub mod source;
pub mod telemetry;
pub mod usercom;
