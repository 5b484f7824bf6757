//! Looking up whether something of unknown fate has arrived.

use serde_json::Value;

use super::Usercom;
use crate::deliver::{Attempts, Request};
use crate::usercom::endpoint;
use crate::usercom::outcome::Failure;

/// Pages read of a history that begins with the newest entry, or says nothing of its order.
const NEWEST_FIRST: usize = 2;
/// Pages read of a history that begins with the oldest: what we look for stands at its end.
const OLDEST_FIRST: usize = 100;

impl Usercom {
    /// Whether a user's history holds more such entries than we `know` of. `false` where histories are not read, or cannot be:
    /// then it is sent again, since once too often is better than never.
    pub(super) async fn in_history(
        &self,
        mut request: Request,
        attempts: &mut Attempts,
        known: u32,
        is_same: impl Fn(&Value) -> bool + Send,
    ) -> Result<bool, Failure> {
        if !self.delivery.verify_ambiguous {
            return Ok(false);
        }
        // A look at the history is no success of the request that is in doubt.
        let failed = attempts.failed;
        let (mut pages, mut seen) = (0, 0);
        let found = loop {
            let reply = self.send(&request, attempts).await?;
            if !reply.is_success() {
                if reply.status != 404 {
                    tracing::warn!(status = reply.status, route = request.route, "history unread");
                }
                break false;
            }
            let page = endpoint::page(&reply, &request.path);
            seen += page.results.iter().filter(|entry| is_same(entry)).count();
            if seen > usize::try_from(known).unwrap_or(usize::MAX) {
                break true;
            }
            pages += 1;
            let most = if begins_with_oldest(&page.results) { OLDEST_FIRST } else { NEWEST_FIRST };
            match page.next {
                Some(next) if pages < most => request.path = next,
                _ => break false,
            }
        };
        attempts.failed = failed;
        Ok(found)
    }
}

/// Ids are given in order of arrival.
fn begins_with_oldest(entries: &[Value]) -> bool {
    let id = |entry: Option<&Value>| entry.and_then(|entry| entry["id"].as_u64());
    matches!((id(entries.first()), id(entries.last())), (Some(a), Some(b)) if a < b)
}
