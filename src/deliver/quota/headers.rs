//! The headers in which services say what is left of a quota.
//!
//! There is no standard that all follow. Read are `RateLimit-Limit`, `-Remaining` and `-Reset` and
//! the same with `X-RateLimit-` and `X-Rate-Limit-`, and `RateLimit` with its parameters: as
//! `limit=100, remaining=7, reset=30` in older drafts, `"default";r=7;t=30` in newer ones.

use std::time::{Duration, SystemTime};

/// A reset above this is a moment in Unix seconds, one above the second in milliseconds.
const EPOCH_SECS: f64 = 1e8;
const EPOCH_MILLIS: f64 = 1e11;
/// A longer time until the reset is no reset of a quota.
const MAX_RESET_SECS: f64 = 86_400.0 * 31.0;

/// What an answer says about the quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimitHeaders {
    /// How many more attempts are allowed until the reset.
    pub remaining: Option<u64>,
    /// How long until the quota is renewed.
    pub reset: Option<Duration>,
}

impl RateLimitHeaders {
    /// Reads them. What cannot be read counts as absent.
    pub fn read<'a>(header: impl Fn(&str) -> Option<&'a str>, now: SystemTime) -> Self {
        let find = |what: &str, short: &str| {
            let prefixes = ["ratelimit", "x-ratelimit", "x-rate-limit"];
            let own = prefixes.iter().find_map(|prefix| header(&format!("{prefix}-{what}")));
            own.or_else(|| parameter(header("ratelimit")?, &[what, short]))
        };
        let remaining = find("remaining", "r").and_then(number).map(whole);
        let reset = find("reset", "t").and_then(number).and_then(|n| until(n, now));
        Self { remaining, reset }
    }
}

/// The value of one of these parameters.
fn parameter<'a>(text: &'a str, names: &[&str]) -> Option<&'a str> {
    text.split([',', ';']).find_map(|part| {
        let (name, value) = part.split_once('=')?;
        names.contains(&name.trim()).then_some(value)
    })
}

/// A number that is not negative; what follows it after a comma or a semicolon is left out.
fn number(text: &str) -> Option<f64> {
    let text = text.split([',', ';']).next()?.trim();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value: f64 = text.parse().ok().filter(|_| is_plain)?;
    value.is_finite().then_some(value)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is not negative, and a larger number saturates"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

/// A reset as time from now.
fn until(value: f64, now: SystemTime) -> Option<Duration> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
    let seconds = match value {
        n if n >= EPOCH_MILLIS => n / 1000.0 - now,
        n if n >= EPOCH_SECS => n - now,
        n => n,
    };
    (seconds > 0.0 && seconds <= MAX_RESET_SECS).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(headers: &[(&str, &str)]) -> (Option<u64>, Option<u64>) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let header = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        let read = RateLimitHeaders::read(header, now);
        (read.remaining, read.reset.map(|reset| reset.as_secs()))
    }

    #[test]
    fn rate_limit_headers_of_every_spelling_are_read() {
        // Guarantees the three families of names, both drafts of `RateLimit`, and a reset in
        // seconds, as a moment in seconds and in milliseconds.
        let known = (Some(7), Some(30));
        for (remaining, reset) in [
            ("ratelimit-remaining", "ratelimit-reset"),
            ("x-ratelimit-remaining", "x-ratelimit-reset"),
            ("x-rate-limit-remaining", "x-rate-limit-reset"),
        ] {
            for value in ["30", "30.4", "1700000030", "1700000030123", " 30 ", "30, 60;w=3600"] {
                assert_eq!(read(&[(remaining, "7"), (reset, value)]), known, "{reset}: {value}");
            }
        }
        for text in ["limit=100, remaining=7, reset=30", "\"default\";r=7;t=30"] {
            assert_eq!(read(&[("ratelimit", text)]), known, "{text}");
        }
    }

    #[test]
    fn unreadable_rate_limit_headers_count_as_absent() {
        // Guarantees that words, signs, moments in the past and far in the future are not used.
        for value in ["soon", "-3", "", "NaN", "inf", "1e9", "1600000000", "9999999999", "0"] {
            let (_, reset) = read(&[("x-ratelimit-reset", value)]);
            assert_eq!(reset, None, "{value:?}");
        }
        assert_eq!(read(&[("x-ratelimit-remaining", "many")]), (None, None));
        assert_eq!(read(&[]), (None, None));
    }

    proptest! {
        #[test]
        fn rate_limit_headers_of_any_text_are_bounded(text in ".{0,40}") {
            // Guarantees that no text panics or asks for more than a month.
            let read = RateLimitHeaders::read(|_| Some(text.as_str()), SystemTime::UNIX_EPOCH);
            prop_assert!(read.reset.is_none_or(|reset| reset.as_secs_f64() <= MAX_RESET_SECS));
        }
    }
}
