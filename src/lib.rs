//! A data-pipeline sink for User.com: records become identify, page, track, group and alias calls,
//! which are delivered in order per user and without loss.
//!
//! Most people run the program `usercom-sink` with a pipeline file. This crate is for programs that
//! have their records already: [`Sink`] delivers a stream of them.
//!
//! # Example
//!
//! An event goes to the local User.com of this crate, the [`emulator`]:
//!
//! ```
//! # #[cfg(feature = "emulator")]
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use futures::stream;
//! use serde_json::json;
//! use usercom_sink::emulator::{EmulatorConfig, start};
//! use usercom_sink::{Record, Sink};
//!
//! let account = start(EmulatorConfig::local("key")).await?;
//! // The keys of `[sinks.NAME]` in a pipeline file.
//! let settings = json!({ "endpoint": account.base_url(), "api_key": "key", "preset": "segment" });
//! let sink = Sink::builder("crm", settings).build().await?;
//! let signup = r#"{ "type": "track", "userId": "u1", "event": "Signed up" }"#;
//! let summary = sink.run(stream::iter([Record::new(signup)])).await?;
//! assert_eq!(summary.delivered, 1);
//! # account.stop().await;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "emulator"))]
//! # fn main() {}
//! ```
//!
//! # How records flow
//!
//! Records flow source -> mapping -> scheduler -> delivery; acknowledgements flow back. Each step is
//! a module of this crate:
//!
//! 1. A `source` reads files, standard input, HTTP, Kafka, Fluvio or Vector and yields [`Record`]s:
//!    JSON text, transport metadata, a source position and an [`Ack`] handle. With [`Sink`], the
//!    stream is the source.
//! 2. A `buffer` holds the records of a sink, in memory or on disk. A disk buffer acknowledges a
//!    record once it is stored; without one it is acknowledged once it is delivered.
//! 3. The `mapping` turns a record into `call`s as Segment's specification defines them. Its table
//!    is compiled once, when the `config` is loaded. `coerce` reads numbers, booleans and
//!    timestamps.
//! 4. `usercom` plans each call as operations (ops) on users, companies, events and page views.
//! 5. The `schedule`r queues ops per user and per company, merges waiting writes, and releases at
//!    most one op per key at a time.
//! 6. `usercom` executes an op as requests; `deliver` sends them: rate limit, concurrency, retries,
//!    and a halt where the API key is refused.
//! 7. The result of the last op of a record settles it: it is delivered, it goes to the dead
//!    letters, or the source sends it again. The buffer drops it, and its [`Ack`] is notified.
//!
//! `pipeline` wires these modules and is the only one that knows all of them. `telemetry` holds
//! metrics and the status of a running pipeline, and `api` serves them with the page for people.
//!
//! # Public interface
//!
//! What this page lists is the interface for other programs. The modules above can be named too,
//! because the tests, benches and fuzz targets of this crate are programs of their own, but they
//! may change in any version; they are documented in the source and in `docs/architecture.md`.

#[doc(hidden)]
pub mod ack;
mod backoff;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod coerce;
mod listener;
#[doc(hidden)]
pub mod record;
mod redact;
mod suggest;

#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod source;

#[doc(hidden)]
pub mod mapping;

#[doc(hidden)]
pub mod call;

#[doc(hidden)]
pub mod schedule;

#[doc(hidden)]
pub mod usercom;

#[doc(hidden)]
pub mod deliver;

#[doc(hidden)]
pub mod buffer;

#[doc(hidden)]
pub mod sink;

#[doc(hidden)]
pub mod pipeline;

#[doc(hidden)]
pub mod api;
#[doc(hidden)]
pub mod telemetry;

#[doc(hidden)]
pub mod fuzz;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "emulator")]
pub mod emulator;

pub use ack::{Ack, Verdict};
pub use pipeline::{Sink, SinkBuilder};
pub use record::{AckOn, Record, SourcePosition};
pub use sink::{HealthcheckError, OnAuthFailure, SinkBuildError, SinkError};
pub use telemetry::{Metrics, MetricsFormat, SinkSummary};
