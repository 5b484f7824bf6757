//! Times of events and page views, which may be assumed to be refused or changed.

use crate::emulator::assume::{AssumedFutureTimes, AssumedPastTimes};
use crate::emulator::context::RouteContext;
use crate::emulator::reply::{FieldErrors, RouteError};

/// How far clocks may differ before a time is in the future or in the past: one minute, in
/// microseconds.
const TOLERANCE: i64 = 60_000_000;

/// The time as it is stored.
pub(super) fn assumed(cx: &RouteContext<'_>, at: i64) -> Result<i64, RouteError> {
    if at > cx.now + TOLERANCE {
        return match cx.assume.future_times {
            AssumedFutureTimes::Refused => {
                Err(FieldErrors::one("timestamp", "The time is in the future."))
            }
            AssumedFutureTimes::Clamped => Ok(cx.now),
            AssumedFutureTimes::Kept => Ok(at),
        };
    }
    let is_past = at < cx.now - TOLERANCE;
    Ok(if is_past && cx.assume.past_times == AssumedPastTimes::Clamped { cx.now } else { at })
}
