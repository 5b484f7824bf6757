//! One question about the account and its answer.

use serde::Serialize;
use serde_json::Value;

use crate::config::account::AccountConfig;

/// One question, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The question, in a few words.
    pub question: &'static str,
    /// The request that asked, as method, path and body.
    pub sent: String,
    /// The answer, in words.
    pub answered: String,
    /// The setting that follows, where there is one.
    pub setting: Option<FoundSetting>,
    /// What follows for requests and data.
    pub effect: &'static str,
    /// Whether the sink can work with the answer.
    pub outcome: FindingOutcome,
}

/// Whether the sink can work with an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingOutcome {
    /// It can.
    Answered,
    /// The question was not asked, for this reason.
    NotAsked(&'static str),
    /// It cannot, for this reason.
    Unworkable(String),
}

/// A key of `[sinks.NAME.account]` and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundSetting {
    /// The key.
    pub key: &'static str,
    /// The value.
    pub value: Value,
    /// Whether it is the default.
    pub is_default: bool,
}

impl FoundSetting {
    pub(super) fn new(key: &'static str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or_default();
        let defaults = serde_json::to_value(AccountConfig::default()).unwrap_or_default();
        Self { is_default: defaults[key] == value, key, value }
    }
}
