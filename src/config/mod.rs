//! The pipeline file: from text to typed settings, and every fault with its position.
//!
//! ```text
//! text -> syntax -> document -> interpolate -> check -> semantic -> Pipeline
//!                                   |            |         |
//!                                   +------- Fault --------+-> Report
//! ```
//!
//! Codes: `E00` for the text itself (files, format, `${}`), `E01` for the shape that the JSON
//! Schema defines, `E03` for contradictions between parts; the mapping table has its own. `W` is a
//! warning.

pub mod account;
mod base_url;
mod check;
#[cfg(feature = "fluvio")]
pub mod connector;
mod de;
mod diagnostic;
mod document;
mod editor_schema;
pub mod fault;
mod fingerprint;
mod foreign_keys;
mod interpolate;
mod load;
mod locate;
pub mod mapping;
pub mod pipeline;
mod quantity;
mod recover;
mod schema;
mod secret;
mod semantic;
pub mod sink;
pub mod source;
mod suggest;
mod syntax;
mod text;
mod units;

pub use base_url::{BaseUrl, BaseUrlError};
pub use diagnostic::{Diagnostic, Report, Severity, Style};
pub use document::{Format, SourceText};
pub use fingerprint::{Fingerprint, Fingerprints};
pub use interpolate::{
    Environment, FixedEnvironment, OfflineEnvironment, OnMissing, ProcessEnvironment,
    ValidationEnvironment,
};
pub use load::{CompileMapping, Loaded, load, plain_json};
pub use pipeline::{
    ApiConfig, ExpectedCall, ExpectedOutcome, ExpectedRequest, Pipeline, SinkConfig, TestCase,
};
pub use schema::{editor_schema, pipeline_schema, pipeline_schema_text};
#[cfg(feature = "kafka")]
pub(crate) use secret::is_secret_option;
pub use source::SourceConfig;
