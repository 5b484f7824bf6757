//! Planning: what has to be done, in which order, and what need not be done at all.
//!
//! Pure: nothing here waits, reads a clock or knows HTTP.

mod coalesce;
pub mod dedupe;
mod identity_links;
mod keyed_scheduler;
mod op;
mod packed_fields;

pub use keyed_scheduler::{
    Coalescing, KeyedScheduler, OpId, OpOutcome, OpResult, QueueKey, ScheduledOp,
};
pub use op::{ExternalCompanyId, ExternalUserId, Op};
pub use packed_fields::{Field, FieldClass, PackedFields, ParentObject, write_list};
