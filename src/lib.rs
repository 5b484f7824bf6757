//! A data-pipeline sink for User.com: records become identify, page, track, group and alias calls,
//! which are delivered in order per user and without loss.
//!
//! Records flow source -> mapping -> scheduler -> delivery; acknowledgements flow back:
//!
//! 1. A [`source`] reads files, standard input, HTTP, Kafka, Fluvio or Vector and yields [`record`]s:
//!    JSON text, transport metadata, a source position and an [`ack`] handle.
//! 2. A [`buffer`] holds the records of a sink, in memory or on disk. A disk buffer acknowledges a
//!    record once it is stored; without one it is acknowledged once it is delivered.
//! 3. The [`mapping`] turns a record into [`call`]s as Segment's specification defines them. Its
//!    table is compiled once, when the [`config`]uration is loaded. [`coerce`] reads numbers,
//!    booleans and timestamps.
//! 4. [`usercom`] plans each call as operations (ops) on users, companies, events and page views.
//! 5. The [`schedule`]r queues ops per user and per company, merges waiting writes, and releases at
//!    most one op per key at a time.
//! 6. [`usercom`] executes an op as requests; [`deliver`] sends them: rate limit, concurrency,
//!    retries, and a halt where the API key is refused.
//! 7. The result of the last op of a record settles it: it is delivered, it goes to the dead
//!    letters, or the source sends it again. The buffer drops it, and its [`ack`] is notified.
//!
//! [`pipeline`] wires these modules and is the only one that knows all of them. [`telemetry`] holds
//! metrics and the status of a running pipeline, [`api`] serves them with the page for people.
//!
//! # Example
//!
//! Map one record to a call:
//!
//! ```
//! use usercom_sink::call::CallKind;
//! use usercom_sink::config::{fault::ConfigPath, sink::Preset};
//! use usercom_sink::mapping::{CompiledMapping, Input};
//!
//! let mapping = CompiledMapping::compile(&ConfigPath::default(), &[], Some(Preset::Segment))
//!     .expect("an empty table with a preset has no faults");
//! let body = br#"{ "type": "track", "userId": "u1", "event": "Signed up" }"#;
//! let mapped = mapping.map(Input { body, meta: None }).expect("the record is valid");
//! let call = &mapped.calls[0].call;
//! assert_eq!(call.kind, CallKind::Track);
//! assert_eq!(call.name.as_deref(), Some("Signed up"));
//! ```
//!
//! [`Sink`] embeds the whole sink in another program: it takes a stream of records.
//!
//! # Public interface
//!
//! Other programs use [`Sink`], [`record`], [`ack`], [`sink`], [`source`], [`pipeline`], [`config`],
//! [`telemetry`] and `emulator`. The other modules are public for the tests and benches of this
//! crate; they may change in any version.

pub mod ack;
mod backoff;
#[doc(hidden)]
pub mod clock;
pub mod coerce;
mod listener;
pub mod record;
mod redact;
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

#[doc(hidden)]
pub mod api;
pub mod telemetry;

#[doc(hidden)]
pub mod fuzz;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "emulator")]
pub mod emulator;

pub use pipeline::{Sink, SinkBuilder};
