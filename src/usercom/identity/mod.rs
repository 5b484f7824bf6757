//! Identity: whether a person whom a call names by a new external id is in the account already.
//!
//! Pure: keys out of calls, and a decision over what look-ups found. The executor asks
//! (`executor/matching.rs`).

mod decide;
mod keys;

pub(super) use decide::{Candidate, Decision, Findings};
pub use keys::WantedKeys;
pub(super) use keys::{normalized, of_call};
