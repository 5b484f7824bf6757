//! Identity: whether a person whom a call names by a new external id is in the account already.
//!
//! Pure: keys out of calls, whether searches are answered, and a decision over what they found. The
//! executor sends the searches (`executor/matching.rs`, `executor/person_search.rs`).

mod availability;
mod decide;
mod keys;

pub(super) use availability::SearchAvailability;
pub(super) use decide::{Candidate, Decision, Findings};
pub use keys::WantedKeys;
pub(super) use keys::{normalized, of_call};
