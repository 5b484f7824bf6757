//! Identity: whether a person with a new external id is in the account already.
//!
//! No I/O: it reads keys from calls, tracks whether searches are answered, and decides from the
//! results of look-ups. The executor sends the requests (`executor/person_search.rs`).

mod availability;
mod decide;
mod keys;

pub(super) use availability::SearchAvailability;
pub(super) use decide::{Candidate, Decision, Findings};
pub use keys::WantedKeys;
pub(super) use keys::{normalized, of_call};
