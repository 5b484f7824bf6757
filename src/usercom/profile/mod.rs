//! Plans calls: which ops a call becomes, and which fields they write. No clock, no I/O.
//!
//! `attributes` converts values to the types of custom attributes, and `endpoint` builds the
//! requests.
//!
//! # Invariants
//!
//! The ops depend on the call, the settings and `now` alone.

mod aliases;
mod browser;
mod company;
mod context;
mod events_and_views;
mod flattened;
pub(crate) mod limits;
mod person;

pub(in crate::usercom) use flattened::text;

use jiff::Timestamp;
use smallvec::{SmallVec, smallvec};

use std::borrow::Cow;

use self::limits::MAX_TEXT_LEN;
use super::ExecutorObserver;
use super::identity::{self, WantedKeys};
use crate::call::{Call, CallKind};
use crate::config::account::{AccountConfig, IdCase};
use crate::config::sink::UsersConfig;
use crate::schedule::{ExternalUserId, Op, PackedFields};

/// The ops of one call, in the order in which they are executed.
pub type PlannedOps = SmallVec<[Op; 2]>;

/// The settings that the planning of calls depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether an identify's context is written to the profile.
    pub context_fields: bool,
    /// Whether a call that carries both ids merges the anonymous record into the identified one.
    pub merge_anonymous: bool,
    /// The keys by which a person is looked for.
    pub match_by: WantedKeys,
    /// What is known of the account.
    pub account: AccountConfig,
}

impl From<&UsersConfig> for Settings {
    fn from(users: &UsersConfig) -> Self {
        Self {
            context_fields: users.context_fields,
            merge_anonymous: users.merge_anonymous,
            match_by: users.match_by.as_slice().into(),
            account: AccountConfig::default(),
        }
    }
}

impl Settings {
    /// The same with facts of the account.
    #[must_use]
    pub fn with_account(mut self, account: &AccountConfig) -> Self {
        self.account = *account;
        self
    }

    /// An id of a user or company as the account distinguishes it.
    pub fn own_id<'i>(&self, id: &'i str) -> Cow<'i, str> {
        match self.account.id_case {
            IdCase::Distinguished => Cow::Borrowed(id),
            IdCase::Ignored => Cow::Owned(id.to_lowercase()),
        }
    }

    /// The most characters of an id.
    fn max_id_length(&self) -> usize {
        MAX_TEXT_LEN.min(usize::from(self.account.id_max_length))
    }
}

/// Why a call cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct PlanError {
    /// A stable code: `no_identity`, `no_group_id`, `no_event`, `no_page`,
    /// `no_previous_id`, `id_too_long`, `id_not_text`, `timestamp_before_1970`.
    pub code: &'static str,
    /// What is missing, as a sentence.
    pub reason: String,
}

impl PlanError {
    fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// What was dropped or truncated between a call and its ops.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanWarnings {
    /// Fields whose value or name was truncated to User.com's limit.
    pub cropped: Vec<Box<str>>,
    /// Dropped fields, and why.
    pub dropped: Vec<(Box<str>, &'static str)>,
}

impl PlanWarnings {
    fn cropped(&mut self, field: &str) {
        self.cropped.push(field.into());
    }

    fn dropped(&mut self, field: &str, why: &'static str) {
        self.dropped.push((field.into(), why));
    }

    /// Passes the warnings on to the observer that counts and logs them.
    pub fn report_to(&self, probe: &dyn ExecutorObserver) {
        for field in &self.cropped {
            probe.cropped(field);
        }
        for (field, why) in &self.dropped {
            probe.field_dropped(field, why);
        }
    }
}

/// Plans one call. A timestamp in the future is replaced by `now`, unless the account keeps it; a
/// track or page call without one
/// gets `now`, so that it can be found again in the user's history.
///
/// # Errors
/// When the call names no user, a group no company, a track no event, a page neither URL nor path,
/// an alias two ids, an id is longer than 255 characters or has a NUL in it, or a track or page
/// happened before 1970.
pub fn plan_call(
    call: &Call<'_>,
    settings: &Settings,
    now: Timestamp,
    notes: &mut PlanWarnings,
) -> Result<PlannedOps, PlanError> {
    let user = person::own_id(call, settings)?;
    let merge = merge(call, settings, &user)?;
    let keys = |fields: Option<&PackedFields>| identity::of_call(call, fields, settings.match_by);
    let mut ops: PlannedOps = match call.kind {
        CallKind::Identify => {
            let mut fields = person::fields(call, settings, notes);
            fields.set_timezone(call.timezone.clone());
            let keys = keys(Some(&fields));
            smallvec![Op::Identify { fields, user, keys }]
        }
        CallKind::Track => {
            smallvec![events_and_views::track(call, user, keys(None), settings, now, notes)?]
        }
        CallKind::Page => {
            smallvec![events_and_views::page(call, user, keys(None), settings, now, notes)?]
        }
        CallKind::Group => {
            let company = company::group_id(call, settings)?;
            let mut fields: PackedFields = company::fields(call, notes);
            fields.set_timezone(call.timezone.clone());
            let fields_of_user = PackedFields::default();
            let join = Op::Join {
                user,
                company: company.clone(),
                fields: fields_of_user,
                keys: keys(None),
            };
            smallvec![Op::Company { company, fields }, join]
        }
        CallKind::Alias => return alias(call, settings),
    };
    ops.extend(merge);
    Ok(ops)
}

/// An alias merges its previous id into its user id, whatever the settings say about anonymous
/// records. Two equal ids are one user already.
fn alias(call: &Call<'_>, settings: &Settings) -> Result<PlannedOps, PlanError> {
    let given = |id: &Option<Cow<'_, str>>| {
        let id = id.as_deref().map(str::trim).unwrap_or_default();
        (!id.is_empty()).then(|| id.to_owned())
    };
    let Some(user) = given(&call.user_id) else {
        return Err(PlanError::new("no_identity", "the alias call has no `userId`"));
    };
    let Some(previous) = given(&call.previous_id) else {
        return Err(PlanError::new("no_previous_id", "the alias call has no `previousId`"));
    };
    let into = person::checked(&user, "userId", settings)?;
    let from = person::checked(&previous, "previousId", settings)?;
    if from == into {
        return Ok(PlannedOps::new());
    }
    Ok(smallvec![Op::Merge { from, into }])
}

/// The merge for a call with two identities. It comes last, when the record that remains exists.
fn merge(
    call: &Call<'_>,
    settings: &Settings,
    user: &ExternalUserId,
) -> Result<Option<Op>, PlanError> {
    let anonymous = match call.anonymous_id.as_deref().map(str::trim) {
        Some(id) if settings.merge_anonymous && !id.is_empty() && id != user.as_str() => id,
        _ => return Ok(None),
    };
    let from = person::checked(anonymous, "anonymousId", settings)?;
    Ok((from != *user).then(|| Op::Merge { from, into: user.clone() }))
}
