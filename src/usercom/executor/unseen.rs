//! Handles a 404 about something that was just written, which may only be not visible yet.

use serde_json::Value;
use tokio::time::Instant;

use super::OpExecutor;
use crate::deliver::{ApiReply, Attempts, Denial};
use crate::usercom::endpoint;
use crate::usercom::outcome::ExecuteError;
use crate::usercom::visibility::VisibilityWait;

/// Names that a refusal may use for the unknown user.
const USER_NAMES: [&str; 7] =
    ["client_user", "user_id", "user_custom_id", "custom_id", "user", "client", "user_key"];

impl OpExecutor {
    /// When this process wrote a user for the first time.
    pub(super) fn user_written(&self, user: &str) -> Option<Instant> {
        self.memory.user(user)?.written
    }

    /// When this process created a company.
    pub(super) fn company_written(&self, group: &str) -> Option<Instant> {
        self.memory.company(group)?.written
    }

    /// Waits before something that was written at `written` is requested again. Returns `false`
    /// without a wait once it should have been visible.
    pub(super) async fn wait_until_seen(
        &self,
        written: Option<Instant>,
        wait: &mut VisibilityWait,
        attempts: &Attempts,
    ) -> bool {
        let Some(pause) = self.visibility.pause(written, wait, Instant::now()) else {
            return false;
        };
        // Other requests may be sent meanwhile.
        attempts.stalled.set();
        tokio::time::sleep(pause).await;
        true
    }

    /// The same for something that may not have been written.
    pub(super) async fn wait_if_lost(
        &self,
        sent: Instant,
        denial: Denial,
        wait: &mut VisibilityWait,
        attempts: &Attempts,
    ) -> bool {
        let now = Instant::now();
        let Some(pause) = self.visibility.pause_if_lost(sent, denial, wait, now) else {
            return false;
        };
        attempts.stalled.set();
        tokio::time::sleep(pause).await;
        true
    }

    /// Records that something that was written at `written` is visible.
    pub(super) fn is_seen(&self, written: Option<Instant>, wait: &VisibilityWait) {
        self.visibility.seen_at(written, wait, Instant::now());
    }
}

/// Whether a response says that there is no such user: a 404, or a 400 that names the user.
pub(super) fn knows_no_user(reply: &ApiReply) -> bool {
    match reply.status {
        404 => true,
        400 => match endpoint::json(reply) {
            Value::Object(body) => USER_NAMES.iter().any(|name| body.contains_key(*name)),
            _ => false,
        },
        _ => false,
    }
}

/// The error of a user or company that was written and does not become visible.
pub(super) fn unseen(what: &str, reply: &ApiReply) -> ExecuteError {
    let ExecuteError::Reject { status, body, .. } = ExecuteError::refused(what, reply) else {
        return ExecuteError::refused(what, reply);
    };
    let reason = format!(
        "User.com refused {what} with status {}: it does not show a user or company that it has \
         taken; if it shows them later, raise `account.read_after_write_secs`",
        reply.status
    );
    ExecuteError::Reject { status, reason, body }
}
