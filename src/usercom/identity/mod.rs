//! Identity: whether a person with a new external id is in the account already.
//!
//! No I/O: it reads keys from calls, and decides from the results of look-ups. The executor looks
//! them up (`executor/matching.rs`).

mod decide;
mod keys;

pub(super) use decide::{Candidate, Decision, Findings};
pub use keys::WantedKeys;
pub(super) use keys::{normalized, of_call};
