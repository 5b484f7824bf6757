//! What one attempt means: a pure verdict on what came back, or did not.
//!
//! It decides nothing about waiting and knows no socket. The invariant: a request that
//! [counts](Repeat::Counts) is never called safe to repeat after it may have taken effect.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::wire::Repeat;

/// What one attempt brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// No connection: the request never left.
    NotSent {
        /// What the connector said, escaped for logs.
        detail: String,
    },
    /// The request may have left, and no answer came in time.
    TimedOut,
    /// The request may have left, and the connection ended or spoke something else than HTTP.
    Cut {
        /// What the connection said, escaped for logs.
        detail: String,
    },
    /// A status line came.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The `Retry-After` header as text.
        retry_after: Option<String>,
        /// The body up to the size limit, or [`BrokenBody`] when it was cut in transit.
        body: Result<Bytes, BrokenBody>,
    },
}

/// The body ended before its announced end, took longer than the timeout, or cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenBody;

/// The verdict on one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A 2xx that stands.
    Delivered,
    /// Not now; another attempt may do better.
    Retry {
        /// What happened.
        why: Why,
        /// How long the server asked to be left alone, clamped.
        after: Option<Duration>,
        /// Whether the request may have taken effect.
        fate: Fate,
    },
    /// A final answer that is no success; the status will not change by asking again.
    Reject {
        /// The HTTP status.
        status: u16,
    },
    /// The credentials are refused: nothing else needs to be tried until that is cured.
    Halt {
        /// 401 or 403.
        status: u16,
    },
}

/// What became of a request that has to be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It did not take effect, or repeating it does no harm.
    Repeatable,
    /// It counts, and may have taken effect.
    Unknown,
}

/// Why an attempt has to be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// No connection.
    Connect(String),
    /// No answer within the timeout.
    Timeout,
    /// The connection ended early, or the answer was not HTTP.
    Cut(String),
    /// A success whose body was lost on the way.
    BrokenBody,
    /// A success whose body is none of the API's: a web page of somebody in between.
    NotTheApi,
    /// A status that asks for another try.
    Status(u16),
}

impl Why {
    /// A short fixed word, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout | Self::Status(408) => "timeout",
            Self::Cut(_) => "connection_cut",
            Self::BrokenBody => "broken_body",
            Self::NotTheApi => "not_json",
            Self::Status(429) => "too_many_requests",
            Self::Status(_) => "server_error",
        }
    }

    /// The text for error messages.
    pub fn text(&self) -> Cow<'static, str> {
        match self {
            Self::Timeout => Cow::Borrowed("no answer within the timeout"),
            Self::BrokenBody => Cow::Borrowed("the answer's body was cut"),
            Self::NotTheApi => Cow::Borrowed(NOT_THE_API),
            other => Cow::Owned(other.to_string()),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(detail) => write!(f, "no connection: {detail}"),
            Self::Cut(detail) => write!(f, "connection cut: {detail}"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Timeout => f.write_str("no answer within the timeout"),
            Self::BrokenBody => f.write_str("the answer's body was cut"),
            Self::NotTheApi => f.write_str(NOT_THE_API),
        }
    }
}

const NOT_THE_API: &str = "the answer is a success, but no JSON: something in between gave it";

/// Judges one attempt.
///
/// * No connection: always repeatable, nothing left this machine.
/// * Timeout, cut connection, garbage instead of HTTP: the request may have arrived. An idle pooled
///   connection that the server closes just as it is used looks the same and is treated the same.
/// * 408, 429 and 503 are said before the work is done (slow upload, throttle, overload), so even a
///   request that counts is repeatable. Any other 5xx except 501 may come after the effect: a 500
///   from the code that runs behind the insert, a 502 or 504 from a gateway that lost patience with
///   a server that had not. Those leave the fate of a request that counts unknown.
/// * 401 and 403: [`Outcome::Halt`]. Everything else is final; redirects too, since a redirected
///   POST loses its body.
/// * A 2xx whose body is something else than JSON is not User.com's: a login page of the network, a
///   proxy's greeting. It says nothing of the request, which is as after a cut connection.
/// * Any other 2xx stands, one without a body too. If the body is cut in transit, a safe request is
///   repeated, for its sender may need the body; one that counts is delivered with an empty body,
///   because the status line proves the effect and asking again would double it.
///
/// `longest` clamps `Retry-After`; `now` turns a date into a span.
pub fn classify(attempt: &Attempt, repeat: Repeat, longest: Duration, now: SystemTime) -> Outcome {
    let unknown_if_counts = match repeat {
        Repeat::Safe => Fate::Repeatable,
        Repeat::Counts => Fate::Unknown,
    };
    let retry = |why, fate| Outcome::Retry { why, after: None, fate };
    match attempt {
        Attempt::NotSent { detail } => retry(Why::Connect(detail.clone()), Fate::Repeatable),
        Attempt::TimedOut => retry(Why::Timeout, unknown_if_counts),
        Attempt::Cut { detail } => retry(Why::Cut(detail.clone()), unknown_if_counts),
        Attempt::Answer { status, retry_after, body } => match *status {
            200..=299 if body.is_err() && repeat == Repeat::Safe => {
                retry(Why::BrokenBody, Fate::Repeatable)
            }
            200..=299 if body.as_ref().is_ok_and(|body| !may_be_json(body)) => {
                retry(Why::NotTheApi, unknown_if_counts)
            }
            200..=299 => Outcome::Delivered,
            401 | 403 => Outcome::Halt { status: *status },
            501 => Outcome::Reject { status: 501 },
            408 | 429 | 500..=599 => Outcome::Retry {
                why: Why::Status(*status),
                after: retry_after
                    .as_deref()
                    .and_then(|text| parse_retry_after(text, longest, now)),
                fate: match status {
                    408 | 429 | 503 => Fate::Repeatable,
                    _ => unknown_if_counts,
                },
            },
            _ => Outcome::Reject { status: *status },
        },
    }
}

/// Whether a body is empty or begins as JSON does. The beginning is enough: a body may have been cut
/// at the size limit, and what is not from the API begins otherwise.
fn may_be_json(body: &[u8]) -> bool {
    match body.trim_ascii_start().first() {
        None => true,
        Some(b'{' | b'[' | b'"' | b'-' | b't' | b'f' | b'n') => true,
        Some(byte) => byte.is_ascii_digit(),
    }
}

/// Reads `Retry-After`: whole seconds or an HTTP date. What is not positive or not readable is as
/// good as absent; what is too long is cut to `longest`.
pub fn parse_retry_after(text: &str, longest: Duration, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a u64 holds is still a number, and certainly too long.
        text.parse().map_or(longest, Duration::from_secs)
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?
    };
    (!wait.is_zero()).then(|| wait.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONGEST: Duration = Duration::from_secs(60);

    fn answer(status: u16) -> Attempt {
        Attempt::Answer { status, retry_after: None, body: Ok(Bytes::new()) }
    }

    fn judge(attempt: &Attempt, repeat: Repeat) -> Outcome {
        classify(attempt, repeat, LONGEST, SystemTime::UNIX_EPOCH)
    }

    fn fate(attempt: &Attempt, repeat: Repeat) -> Option<Fate> {
        match judge(attempt, repeat) {
            Outcome::Retry { fate, .. } => Some(fate),
            _ => None,
        }
    }

    #[test]
    fn every_status_has_its_class() {
        // Guarantees the table of statuses: which are final, which halt, which are repeated.
        for status in 100..=999_u16 {
            let outcome = judge(&answer(status), Repeat::Safe);
            match status {
                200..=299 => assert_eq!(outcome, Outcome::Delivered),
                401 | 403 => assert_eq!(outcome, Outcome::Halt { status }),
                408 | 429 | 500 | 502..=599 => assert!(
                    matches!(outcome, Outcome::Retry { fate: Fate::Repeatable, .. }),
                    "{status}"
                ),
                _ => assert_eq!(outcome, Outcome::Reject { status }),
            }
        }
    }

    #[test]
    fn what_may_have_happened_is_not_repeated_when_it_counts() {
        // Guarantees which outcomes leave the fate of an event open.
        let unknown = [
            Attempt::TimedOut,
            Attempt::Cut { detail: "reset".into() },
            answer(500),
            answer(502),
            answer(504),
            answer(520),
        ];
        for attempt in &unknown {
            assert_eq!(fate(attempt, Repeat::Counts), Some(Fate::Unknown), "{attempt:?}");
            assert_eq!(fate(attempt, Repeat::Safe), Some(Fate::Repeatable), "{attempt:?}");
        }
        let undone =
            [Attempt::NotSent { detail: "refused".into() }, answer(408), answer(429), answer(503)];
        for attempt in &undone {
            assert_eq!(fate(attempt, Repeat::Counts), Some(Fate::Repeatable), "{attempt:?}");
        }
    }

    #[test]
    fn a_broken_body_behind_a_success_is_repeated_only_if_that_is_safe() {
        // Guarantees that a cut 2xx neither loses a look-up's answer nor doubles an event.
        let broken = Attempt::Answer { status: 200, retry_after: None, body: Err(BrokenBody) };
        assert_eq!(judge(&broken, Repeat::Counts), Outcome::Delivered);
        assert_eq!(fate(&broken, Repeat::Safe), Some(Fate::Repeatable));
        let broken = Attempt::Answer { status: 400, retry_after: None, body: Err(BrokenBody) };
        assert_eq!(judge(&broken, Repeat::Safe), Outcome::Reject { status: 400 });
    }

    #[test]
    fn a_page_of_somebody_in_between_is_no_success() {
        // Guarantees that a 2xx that is not the API's loses nothing and doubles nothing.
        let success = |body: &'static [u8]| Attempt::Answer {
            status: 200,
            retry_after: None,
            body: Ok(Bytes::from_static(body)),
        };
        for body in [&b"<!DOCTYPE html><p>Log in"[..], b" \r\n<html>", b"Welcome!", b"\xff\xfe"] {
            assert_eq!(fate(&success(body), Repeat::Counts), Some(Fate::Unknown), "{body:?}");
            assert_eq!(fate(&success(body), Repeat::Safe), Some(Fate::Repeatable), "{body:?}");
        }
        for body in [&b""[..], b" \n", b"{\"id\":1}", b" [1]", b"null", b"\"ok\"", b"-1", b"7"] {
            assert_eq!(judge(&success(body), Repeat::Counts), Outcome::Delivered, "{body:?}");
        }
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        // Guarantees seconds, dates, the clamp, and that nonsense counts as absent.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let read = |text: &str| parse_retry_after(text, LONGEST, now);
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(read("3600"), Some(LONGEST));
        assert_eq!(read("99999999999999999999999999"), Some(LONGEST));
        let date = httpdate::fmt_http_date(now + Duration::from_secs(9));
        assert_eq!(read(&date), Some(Duration::from_secs(9)));
        let past = httpdate::fmt_http_date(now - Duration::from_secs(9));
        for nothing in ["0", "-1", "", "soon", "1.5", "+3", past.as_str()] {
            assert_eq!(read(nothing), None, "{nothing:?}");
        }
    }

    proptest! {
        #[test]
        fn retry_after_never_exceeds_the_clamp(text in ".{0,40}", longest in 1_u64..100) {
            // Guarantees that no header text panics or asks for more than the longest wait.
            let longest = Duration::from_secs(longest);
            if let Some(wait) = parse_retry_after(&text, longest, SystemTime::UNIX_EPOCH) {
                prop_assert!(wait > Duration::ZERO && wait <= longest);
            }
        }
    }
}
