//! The destination: calls to ops to User.com's REST requests.
//!
//! Not here: how a request gets through ([`crate::deliver`]) and in which order ops come
//! ([`crate::schedule`]). Invariant: this room sees final answers only, and never the API key.

mod attributes;
mod cold;
mod confirmed;
mod encoded;
mod endpoint;
mod executor;
mod keyed;
mod memory;
mod odds;
mod outcome;
mod profile;

pub use attributes::{Choice, ConversionError, ValueType, convert};
pub use cold::{ColdAccount, dry_run, dry_run_with};
pub use encoded::encoded;
pub use executor::{Usercom, key_check};
pub use outcome::{Done, Doubt, Failure, Probe, SilentProbe, cure, excerpt};
pub use profile::{CallFault, Notes, PlannedOps, Settings, plan_call};
