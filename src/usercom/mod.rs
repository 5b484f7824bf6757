//! The destination: turns calls into ops, and ops into requests of User.com's REST API.
//!
//! [`crate::deliver`] sends the requests, and [`crate::schedule`] decides the order of ops.
//!
//! # Invariants
//!
//! This module sees final responses only, and never the API key.

mod account_probe;
mod attributes;
mod confirmed_fields;
mod empty_account;
mod encoded;
mod endpoint;
mod executor;
mod identity;
mod keyed_mutex;
mod new_users;
mod outcome;
mod profile;
mod profile_cache;
mod visibility;

pub use account_probe::{
    Finding, FindingOutcome, FoundSetting, MAX_REQUESTS, PREFIX, ProbeEnd, ProbeOptions,
    ProbeReport, probe_account,
};
pub use attributes::{Cardinality, ConversionError, ValueType, convert};
pub use empty_account::{EmptyAccountStub, dry_run, dry_run_with};
pub use encoded::encoded;
pub use executor::{OpExecutor, key_check};
pub use identity::WantedKeys;
pub use outcome::{
    ExecuteError, ExecutorObserver, NoopExecutorObserver, OpSuccess, PriorSend, excerpt,
    remediation,
};
pub use profile::{PlanError, PlanWarnings, PlannedOps, Settings, plan_call};
