//! Planning: what has to be done, in which order, and what need not be done at all.

mod op;

pub use op::{Field, FieldClass, FieldSet, GroupId, Op, OwnId};
