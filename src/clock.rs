//! The only reader of the wall clock. Everything else takes `now` as an argument, or uses
//! `tokio::time::Instant`, so that tests can stop time.

use jiff::Timestamp;

/// The present moment, UTC.
#[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
