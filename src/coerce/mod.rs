//! Coercions: what a value means as a boolean, a number, a moment, an id.
//!
//! One home for all of them, so that a value means the same in the mapping (`as`), in the preset,
//! and where it meets the type of an attribute. Knows no other module of the crate.
//!
//! Nothing here guesses: a value that can be read in two ways is not read.

pub mod boolean;
pub mod number;
mod offset;
pub mod timestamp;
pub mod zone;
