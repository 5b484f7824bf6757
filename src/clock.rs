//! The only reader of the wall clock. All other code takes `now` as an argument or uses
//! `tokio::time::Instant`, so that tests can pause the clock.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// The current time, UTC.
#[expect(clippy::disallowed_methods, reason = "only this function may read it")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The current time as the standard library has it, to the millisecond.
pub fn system_time() -> SystemTime {
    let millis = u64::try_from(now().as_millisecond()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}
