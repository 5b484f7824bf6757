//! The only reader of the wall clock. All other code takes `now` as an argument or uses
//! `tokio::time::Instant`, so that tests can pause the clock.

use jiff::Timestamp;

/// The current time, UTC.
#[expect(clippy::disallowed_methods, reason = "only this function may read it")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
