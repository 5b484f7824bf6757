//! How the execution of an op ends, and the observer of what happens during it.

use crate::deliver::{ApiReply, SendError};

/// The longest excerpt of a response's body, in bytes.
const EXCERPT: usize = 1_024;

/// Whether an op may have been carried out before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriorSend {
    /// It was never sent.
    None,
    /// An earlier process may have sent it: the user's history is read before the first send, if
    /// `delivery.verify_ambiguous` is on.
    Possible,
}

/// How an op was completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpSuccess {
    /// User.com accepted it.
    Sent,
    /// No request was needed: the values are confirmed already.
    Unchanged,
    /// The history shows that it had arrived before.
    AlreadyThere,
}

/// Why an op was not completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// User.com will never accept it: the record goes to the dead letters.
    #[error("{reason}")]
    Reject {
        /// The HTTP status, if the refusal came from User.com.
        status: Option<u16>,
        /// What was refused.
        reason: String,
        /// The beginning of the response's body, at most 1 KiB.
        body: String,
    },
    /// The person was found in the account under another external id, or more than once, and
    /// `users.match_conflict` is `dead_letter`.
    #[error("{reason}")]
    MatchConflict {
        /// The conflict.
        reason: String,
    },
    /// There is no final response.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl ExecuteError {
    /// A final response that refuses `what`.
    pub(super) fn refused(what: &str, reply: &ApiReply) -> Self {
        Self::Reject {
            status: Some(reply.status),
            reason: format!("User.com refused {what} with status {}", reply.status),
            body: excerpt(reply),
        }
    }

    /// Whether a web page or a redirect was received in place of a response of the API.
    pub fn is_page(&self) -> bool {
        match self {
            Self::Reject { status: Some(300..=399), .. } => true,
            Self::Reject { status: Some(_), body, .. } => {
                body.trim_start_matches('\u{feff}').trim_start().starts_with('<')
            }
            _ => false,
        }
    }

    /// What to do about it, in words.
    pub fn remediation(&self) -> &'static str {
        match self {
            Self::Reject { status: Some(status @ (300..=399 | 404)), .. } => remediation(*status),
            _ if self.is_page() => {
                "this address answers with a web page, so it is not the API itself: check `app` or \
                 `endpoint` (https, path ending in /api/public/) and whether a login page, a \
                 firewall or a proxy stands in between"
            }
            Self::Reject { status: Some(status), .. } => remediation(*status),
            _ => "",
        }
    }

    /// A refusal without a request.
    pub(super) fn own(reason: impl Into<String>) -> Self {
        Self::Reject { status: None, reason: reason.into(), body: String::new() }
    }
}

/// The beginning of a response's body, at most 1 KiB.
pub fn excerpt(reply: &ApiReply) -> String {
    let text = String::from_utf8_lossy(&reply.body);
    let end =
        (0..=text.len().min(EXCERPT)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

/// Counts and logs. Every method does nothing unless it is overridden.
pub trait ExecutorObserver: Send + Sync {
    /// A custom attribute was created, with a type.
    fn attribute_created(&self, _name: &str, _value_type: &str) {}
    /// A custom attribute was not created, because `limit` of them were within the last hour.
    fn attribute_refused(&self, _name: &str, _limit: usize) {}
    /// A value did not fit its attribute's type and was dropped.
    fn conversion_failed(&self, _name: &str, _reason: &str) {}
    /// A value was truncated to User.com's limit.
    fn cropped(&self, _field: &str) {}
    /// A field was dropped.
    fn field_dropped(&self, _field: &str, _why: &str) {}
    /// A request was not needed.
    fn saved(&self, _by: &'static str) {}
    /// A record without an external id got the id of a user.
    fn user_adopted(&self, _user: &str) {}
    /// A person was found in the account under another external id, or more than once; called once
    /// per user.
    fn match_conflict(&self, _user: &str, _why: &str, _then: &'static str) {}
    /// A search for a person got no answer about the key. `why` is what was received instead.
    fn search_unanswered(&self, _key: &'static str, _why: &str) {}
    /// A record was found for a user, and User.com did not let it have the user's id.
    fn adoption_refused(&self, _user: &str, _status: u16) {}
    /// A possibly sent event or page view was found in the history and not sent again.
    fn duplicate_avoided(&self) {}
}

/// An observer that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoopExecutorObserver;

impl ExecutorObserver for NoopExecutorObserver {}

/// What to do about a refusal, in words.
pub fn remediation(status: u16) -> &'static str {
    match status {
        401 => {
            "User.com does not know the API key: check that it is the public REST API key and has \
             not been revoked (App settings > Advanced)"
        }
        402 => {
            "User.com asks for a payment: check the plan and the invoices of the account (App \
             settings > Billing); sending goes on by itself once it is paid"
        }
        300..=399 => {
            "this address redirects, so it is not the API itself: check `app` or `endpoint` (https, \
             path ending in /api/public/) and whether a login page or proxy stands in between"
        }
        403 => {
            "User.com does not allow this: check that the API key has not been revoked (App \
             settings > Advanced) and that the domain the requests come from is trusted (App \
             settings > Advanced > Domains)"
        }
        404 => {
            "there is no User.com API at this address: check `app` or `endpoint` (its path ends \
             in /api/public/)"
        }
        _ => "look at the reply's body for what User.com objects to",
    }
}
