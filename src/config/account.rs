//! Facts of an account: what User.com does where its documentation does not say.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Facts of the account at User.com.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccountConfig {
    /// How long, in seconds, User.com may take to show a user or a company that the sink has just
    /// written. A request that is answered 404 within this time is sent again, with growing pauses;
    /// after it, the user or company counts as deleted and is written again. What waits is records
    /// of this user or company only. 0 = a 404 is believed at once. Default: 30. Raise it where
    /// dead letters say that User.com does not show a user it has taken.
    pub read_after_write_secs: u64,
}

impl Default for AccountConfig {
    fn default() -> Self {
        Self { read_after_write_secs: 30 }
    }
}
