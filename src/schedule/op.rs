//! An op: one thing the planner wants done at the destination. Says what, not how.
//!
//! Ops own what they carry: they wait in lanes long after the record's bytes have gone.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::packed_fields::PackedFields;

/// The customer's own id of a user: `userId`, else `anonymousId`. Untrusted text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExternalUserId(pub Arc<str>);

/// The customer's own id of a company: `groupId`. Untrusted text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExternalCompanyId(pub Arc<str>);

macro_rules! string_id {
    ($name:ident) => {
        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}
string_id!(ExternalUserId);
string_id!(ExternalCompanyId);

/// One thing to be done at the destination.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Create or update a user.
    Identify {
        /// Whom.
        user: ExternalUserId,
        /// What to write.
        fields: PackedFields,
    },
    /// Record an event occurrence.
    Track {
        /// Whose.
        user: ExternalUserId,
        /// The event's name.
        name: Box<str>,
        /// When; `None` leaves it to the server.
        at: Option<Timestamp>,
        /// The event's properties: flat, no nulls.
        data: PackedFields,
    },
    /// Record a page view.
    Page {
        /// Whose.
        user: ExternalUserId,
        /// The host of the page's URL.
        domain: Box<str>,
        /// The path, starting with `/`.
        path: Box<str>,
        /// When; `None` means the moment of planning was unknown and the time of sending is used.
        at: Option<Timestamp>,
    },
    /// Create or update a company.
    Company {
        /// Which.
        company: ExternalCompanyId,
        /// What to write.
        fields: PackedFields,
    },
    /// Make a user a member of a company.
    Join {
        /// Whom.
        user: ExternalUserId,
        /// Of which.
        company: ExternalCompanyId,
    },
    /// Merge one user into another.
    Merge {
        /// The record that goes.
        from: ExternalUserId,
        /// The record that stays.
        into: ExternalUserId,
    },
}
