//! An op: one operation at the destination, independent of its requests.
//!
//! Ops own their data, because they wait in queues after the record's bytes are freed.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::packed_fields::PackedFields;
use super::user_keys::UserKeys;

/// The customer's id of a user: `userId`, else `anonymousId`. Untrusted text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExternalUserId(pub Arc<str>);

/// The customer's id of a company: `groupId`. Untrusted text.
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

/// One operation at the destination.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Create or update a user.
    Identify {
        /// The user.
        user: ExternalUserId,
        /// What to write.
        fields: PackedFields,
        /// What else may name the user.
        keys: UserKeys,
    },
    /// Record an event occurrence.
    Track {
        /// The user.
        user: ExternalUserId,
        /// The event's name.
        name: Box<str>,
        /// When it happened; `None` lets the server decide.
        at: Option<Timestamp>,
        /// The event's properties: flat, no nulls.
        data: PackedFields,
        /// What else may name the user.
        keys: UserKeys,
    },
    /// Record a page view.
    Page {
        /// The user.
        user: ExternalUserId,
        /// The host of the page's URL.
        domain: Box<str>,
        /// The path, starting with `/`.
        path: Box<str>,
        /// When it happened; with `None` the time of sending is used.
        at: Option<Timestamp>,
        /// What else may name the user.
        keys: UserKeys,
    },
    /// Create or update a company.
    Company {
        /// The company.
        company: ExternalCompanyId,
        /// What to write.
        fields: PackedFields,
    },
    /// Make a user a member of a company.
    Join {
        /// The user.
        user: ExternalUserId,
        /// The company.
        company: ExternalCompanyId,
        /// What is written to the user in the same request; empty unless identifies were merged
        /// into the membership.
        fields: PackedFields,
        /// What else may name the user.
        keys: UserKeys,
    },
    /// Merge one user into another.
    Merge {
        /// The user that is removed.
        from: ExternalUserId,
        /// The user that remains.
        into: ExternalUserId,
    },
}

impl Op {
    /// What names its user other than the id; `None` for ops that need no user to be looked up.
    pub fn keys(&self) -> Option<&UserKeys> {
        match self {
            Self::Identify { keys, .. }
            | Self::Track { keys, .. }
            | Self::Page { keys, .. }
            | Self::Join { keys, .. } => Some(keys),
            Self::Company { .. } | Self::Merge { .. } => None,
        }
    }

    pub(super) fn keys_mut(&mut self) -> Option<&mut UserKeys> {
        match self {
            Self::Identify { keys, .. }
            | Self::Track { keys, .. }
            | Self::Page { keys, .. }
            | Self::Join { keys, .. } => Some(keys),
            Self::Company { .. } | Self::Merge { .. } => None,
        }
    }
}
