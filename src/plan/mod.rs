//! Planning: what has to be done, in which order, and what need not be done at all.
//!
//! Pure: nothing here waits, reads a clock or knows HTTP.

mod aliases;
pub mod dedupe;
mod fields;
mod fold;
mod lanes;
mod op;

pub use fields::{Field, FieldClass, FieldSet, Whole, write_list};
pub use lanes::{Fate, Folding, LaneKey, Lanes, PartId, Settled, Task};
pub use op::{GroupId, Op, OwnId};
