//! Coercions: how a value is converted to a boolean, a number, a timestamp or an id.
//!
//! The mapping (`as`), the preset and the conversion to attribute types all use these, so that a
//! value means the same everywhere.
//!
//! # Invariants
//!
//! Nothing is guessed: a value with two possible meanings is rejected.

pub mod boolean;
pub mod number;
mod offset;
pub mod timestamp;
pub mod zone;
