//! Scheduling of ops: order per user and company, merging of waiting writes, deduplication.
//!
//! # Invariants
//! Pure: no I/O, no clock.

mod coalesce;
pub mod dedupe;
mod identity_links;
mod keyed_scheduler;
mod op;
mod packed_fields;
mod user_keys;

pub use keyed_scheduler::{
    Coalescing, KeyedScheduler, OpId, OpOutcome, OpResult, QueueKey, ScheduledOp,
};
pub use op::{ExternalCompanyId, ExternalUserId, Op};
pub use packed_fields::{Field, FieldClass, PackedFields, ParentObject, write_list};
pub use user_keys::{KeyKind, UserKeys};
