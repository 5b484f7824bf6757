//! Classifies the result of one attempt: what was received, or why nothing was.
//!
//! It decides no wait and does no I/O.
//!
//! # Invariants
//!
//! A request that [counts](Idempotency::NonIdempotent) is never classified as safe to repeat after
//! it may have taken effect.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::quota::RateLimitHeaders;
use super::request::Idempotency;

/// The result of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// No connection: the request was not sent.
    NotSent {
        /// The error, escaped for logs.
        detail: String,
    },
    /// The request may have been sent, and no response arrived in time.
    TimedOut,
    /// The request may have been sent, and the connection ended or the response was not HTTP.
    ConnectionLost {
        /// The error, escaped for logs.
        detail: String,
    },
    /// The request was written to a reused connection that ended before the first byte of a
    /// response: most likely the server had closed it already.
    Stale {
        /// The error, escaped for logs.
        detail: String,
    },
    /// A status line was received.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The `Retry-After` header as text.
        retry_after: Option<String>,
        /// What other headers say about a quota.
        limits: RateLimitHeaders,
        /// The media type of `Content-Type`.
        media: Media,
        /// The complete body, or why it is incomplete.
        body: Result<Bytes, BrokenBody>,
    },
}

/// The media type of a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Media {
    /// A web page: `text/html` or `application/xhtml+xml`.
    Html,
    /// Any other type, or none.
    #[default]
    Other,
}

/// Why a body is incomplete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokenBody {
    /// It ended before its announced end, took longer than the timeout, or cannot be decoded.
    Cut,
    /// It is longer than the limit. Reading stopped there.
    TooLarge {
        /// The bytes before the limit.
        begin: Bytes,
    },
}

/// The classification of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptDisposition {
    /// A success.
    Delivered,
    /// Not now; another attempt may succeed.
    Retry {
        /// The reason.
        why: RetryReason,
        /// The wait that the server asked for, clamped.
        after: Option<Duration>,
        /// Whether the request may have taken effect.
        side_effect: SideEffect,
    },
    /// A final response that is not a success; a retry would not change the status.
    Reject {
        /// The HTTP status.
        status: u16,
    },
    /// The account refuses all requests: no other request needs to be tried until that is solved.
    Halt {
        /// 401 (the key), 402 (the account is not paid) or 403 (the key or the domain).
        status: u16,
    },
}

/// The effect of a request that has to be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SideEffect {
    /// It did not take effect, or may be repeated without harm.
    None,
    /// It counts, and may have taken effect.
    Possible,
}

/// Why an attempt has to be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryReason {
    /// No connection.
    Connect(String),
    /// No answer within the timeout.
    Timeout,
    /// The connection ended early, or the answer was not HTTP.
    Cut(String),
    /// A reused connection ended before a response.
    Stale(String),
    /// A success whose body was lost.
    BrokenBody,
    /// A body that is longer than the limit.
    TooLarge,
    /// The response is not from the API: a web page or a redirect, with this status.
    NotTheApi(u16),
    /// The API key works, but the server refuses this route with this status.
    Forbidden(u16),
    /// A status that may change by a retry.
    Status(u16),
}

impl RetryReason {
    /// A short fixed word, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout | Self::Status(408) => "timeout",
            Self::Cut(_) | Self::Stale(_) => "connection_cut",
            Self::BrokenBody | Self::TooLarge => "broken_body",
            Self::NotTheApi(_) => "not_json",
            Self::Forbidden(_) => "forbidden",
            Self::Status(429) => "too_many_requests",
            Self::Status(_) => "server_error",
        }
    }

    /// Whether it says something about this request: the server processed it. A throttle or a
    /// failed connection says nothing.
    pub fn concerns_request(&self) -> bool {
        !matches!(self, Self::Connect(_) | Self::Stale(_) | Self::Status(429))
    }

    /// The text for error messages.
    pub fn text(&self) -> Cow<'static, str> {
        match self {
            Self::Timeout => Cow::Borrowed(TIMEOUT),
            Self::BrokenBody => Cow::Borrowed(BROKEN),
            Self::TooLarge => Cow::Borrowed(TOO_LARGE),
            other => Cow::Owned(other.to_string()),
        }
    }
}

const TIMEOUT: &str = "no answer within the timeout";
const BROKEN: &str = "the answer's body was cut";
const TOO_LARGE: &str = "the answer's body is longer than the limit of 1 MiB (4 MiB for lists); reading it \
     was stopped: check whether `endpoint` names the API, and what a proxy in between sends";

impl fmt::Display for RetryReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(detail) => {
                write!(f, "no connection: {detail}")?;
                match () {
                    () if detail.contains("certificate") => f.write_str(CERTIFICATE),
                    () if NO_TLS_DETAILS.iter().any(|text| detail.contains(text)) => {
                        f.write_str(NO_TLS)
                    }
                    () => Ok(()),
                }
            }
            Self::Cut(detail) => {
                write!(f, "connection cut: {detail}")?;
                match detail.contains("head is too large") {
                    true => f.write_str(TOO_MANY_HEADERS),
                    false => Ok(()),
                }
            }
            Self::Stale(detail) => {
                write!(f, "the server closed a connection that was kept: {detail}")
            }
            Self::Status(status) => write!(f, "status {status}"),
            Self::Timeout => f.write_str(TIMEOUT),
            Self::BrokenBody => f.write_str(BROKEN),
            Self::TooLarge => f.write_str(TOO_LARGE),
            Self::NotTheApi(status @ 300..=399) => {
                write!(f, "status {status}: a redirect is not an answer of the API")
            }
            Self::NotTheApi(status) => {
                write!(f, "status {status}: {A_PAGE}")
            }
            Self::Forbidden(status) => {
                write!(f, "status {status}, although the API key works: this request is forbidden")
            }
        }
    }
}

const A_PAGE: &str = "the answer is a web page, not an answer of the API: check whether a proxy, a \
     firewall or a login page stands in between";
const NO_TLS_DETAILS: [&str; 2] = ["InvalidContentType", "tls handshake eof"];
const NO_TLS: &str = "; it seems that the server does not speak TLS: check `https` and the port in \
     `endpoint`";
const TOO_MANY_HEADERS: &str = "; the answer has more than 100 headers, or very long ones: check what \
     a proxy in between adds";
const CERTIFICATE: &str = "; the server's TLS certificate is not trusted here: check the host in \
     `endpoint`, or add the certificate's authority to the trusted ones of this system";

/// Classifies one attempt.
///
/// * No connection: always repeatable, nothing was sent.
/// * Timeout, cut connection, a response that is not HTTP: the request may have arrived. A reused
///   connection that the server closed just then cannot be distinguished and is treated the same.
/// * 408, 429 and any 5xx except 501 may come after the effect: a 500 from code that runs after the
///   insert, a 502 or 504 from a gateway that stopped waiting, a 429 or 503 from a proxy that
///   counts a request after it was carried out. The effect of a request that counts is then
///   unknown.
/// * 401, 402 and 403: [`AttemptDisposition::Halt`]. After a 403 the caller may find out that only
///   one route is refused.
/// * A redirect, a web page with 2xx or 4xx, 407 (from a proxy) and statuses that HTTP does not
///   define are not from the API: a login page of the network, a firewall, a gateway in
///   maintenance. They prove nothing about the request nor about the key; the request is treated as
///   after a cut connection.
/// * Any other 2xx is a success, also one without a body and one whose body is not JSON. If the
///   body is incomplete, a safe request is repeated, because its caller may need the body; one that
///   counts is delivered with an empty body, because the status line proves the effect and a
///   repetition would double it.
/// * Everything else is final.
///
/// `longest` clamps `Retry-After`; `now` converts a date to a duration.
pub fn classify(
    attempt: &Attempt,
    idempotency: Idempotency,
    longest: Duration,
    now: SystemTime,
) -> AttemptDisposition {
    let unknown_if_counts = match idempotency {
        Idempotency::Idempotent => SideEffect::None,
        Idempotency::NonIdempotent => SideEffect::Possible,
    };
    let retry = |why, side_effect| AttemptDisposition::Retry { why, after: None, side_effect };
    let (status, retry_after, media, body) = match attempt {
        Attempt::NotSent { detail } => {
            return retry(RetryReason::Connect(detail.clone()), SideEffect::None);
        }
        Attempt::TimedOut => return retry(RetryReason::Timeout, unknown_if_counts),
        Attempt::ConnectionLost { detail } => {
            return retry(RetryReason::Cut(detail.clone()), unknown_if_counts);
        }
        Attempt::Stale { detail } => {
            return retry(RetryReason::Stale(detail.clone()), unknown_if_counts);
        }
        Attempt::Answer { status, retry_after, media, body, .. } => {
            (*status, retry_after.as_deref(), *media, body)
        }
    };
    let begin: &[u8] = match body {
        Ok(body) | Err(BrokenBody::TooLarge { begin: body }) => body,
        Err(BrokenBody::Cut) => b"",
    };
    match status {
        200..=299 | 400..=499 if is_page(media, begin) && !matches!(status, 408 | 429) => {
            retry(RetryReason::NotTheApi(status), unknown_if_counts)
        }
        401..=403 => AttemptDisposition::Halt { status },
        200..=299 => match (idempotency, body) {
            (Idempotency::Idempotent, Err(BrokenBody::Cut)) => {
                retry(RetryReason::BrokenBody, SideEffect::None)
            }
            (Idempotency::Idempotent, Err(BrokenBody::TooLarge { .. })) => {
                retry(RetryReason::TooLarge, SideEffect::None)
            }
            _ => AttemptDisposition::Delivered,
        },
        501 => AttemptDisposition::Reject { status },
        408 | 429 | 500..=599 => AttemptDisposition::Retry {
            why: RetryReason::Status(status),
            after: retry_after.and_then(|text| parse_retry_after(text, longest, now)),
            side_effect: unknown_if_counts,
        },
        400..=499 if status != 407 => AttemptDisposition::Reject { status },
        _ => retry(RetryReason::NotTheApi(status), unknown_if_counts),
    }
}

/// Whether a body is a web page: it begins with `<`, or is called HTML and is neither empty nor
/// JSON. Django calls everything HTML that does not say what it is.
fn is_page(media: Media, body: &[u8]) -> bool {
    let marks: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"];
    let body = marks.iter().find_map(|mark| body.strip_prefix(*mark)).unwrap_or(body);
    // In UTF-16 every other byte of a page's beginning is zero.
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace() && **byte != 0);
    match first {
        None => false,
        Some(b'<') => true,
        Some(b'{' | b'[') => false,
        Some(_) => {
            media == Media::Html && serde_json::from_slice::<serde_json::Value>(body).is_err()
        }
    }
}

/// Reads `Retry-After`: seconds, whole or with a fraction, which is rounded up; or a date, as HTTP
/// writes it or in RFC 3339 or RFC 2822. What is not positive or not readable is as good as absent;
/// what is too long is cut to `longest`.
pub fn parse_retry_after(text: &str, longest: Duration, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = seconds(text).or_else(|| date(text)?.duration_since(now).ok())?;
    (!wait.is_zero()).then(|| wait.min(longest))
}

/// `7`, `3.7` and `3,7` as whole seconds, rounded up.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once(['.', ',']).unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    // More digits than a u64 holds is still a number, and certainly too long.
    let whole: u64 = whole.parse().unwrap_or(u64::MAX);
    let more = fraction.bytes().any(|digit| digit != b'0');
    Some(Duration::from_secs(whole.saturating_add(u64::from(more))))
}

fn date(text: &str) -> Option<SystemTime> {
    let other = || {
        let rfc3339 = || text.parse::<jiff::Timestamp>().ok();
        let rfc2822 = || jiff::fmt::rfc2822::parse(text).ok().map(|at| at.timestamp());
        let at = rfc3339().or_else(rfc2822)?;
        let seconds = u64::try_from(at.as_second()).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    };
    httpdate::parse_http_date(text).ok().or_else(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONGEST: Duration = Duration::from_secs(60);

    fn answer(status: u16) -> Attempt {
        Attempt::Answer {
            status,
            retry_after: None,
            limits: RateLimitHeaders::default(),
            media: Media::Other,
            body: Ok(Bytes::new()),
        }
    }

    fn judge(attempt: &Attempt, idempotency: Idempotency) -> AttemptDisposition {
        classify(attempt, idempotency, LONGEST, SystemTime::UNIX_EPOCH)
    }

    fn side_effect(attempt: &Attempt, idempotency: Idempotency) -> Option<SideEffect> {
        match judge(attempt, idempotency) {
            AttemptDisposition::Retry { side_effect, .. } => Some(side_effect),
            _ => None,
        }
    }

    #[test]
    fn every_status_has_its_disposition() {
        // Guarantees the table of statuses: which are final, which halt, which are repeated.
        for status in 100..=999_u16 {
            let outcome = judge(&answer(status), Idempotency::Idempotent);
            match status {
                200..=299 => assert_eq!(outcome, AttemptDisposition::Delivered),
                401..=403 => assert_eq!(outcome, AttemptDisposition::Halt { status }),
                501 | 400..=406 | 409..=428 | 430..=499 => {
                    assert_eq!(outcome, AttemptDisposition::Reject { status });
                }
                _ => assert!(
                    matches!(
                        outcome,
                        AttemptDisposition::Retry { side_effect: SideEffect::None, .. }
                    ),
                    "{status}"
                ),
            }
        }
    }

    #[test]
    fn request_with_possible_effect_is_not_repeated_unless_idempotent() {
        // Guarantees which outcomes leave the side_effect of an event open.
        let unknown = [
            Attempt::TimedOut,
            Attempt::ConnectionLost { detail: "reset".into() },
            answer(408),
            answer(429),
            answer(500),
            answer(502),
            answer(503),
            answer(504),
            answer(520),
        ];
        for attempt in &unknown {
            assert_eq!(
                side_effect(attempt, Idempotency::NonIdempotent),
                Some(SideEffect::Possible),
                "{attempt:?}"
            );
            assert_eq!(
                side_effect(attempt, Idempotency::Idempotent),
                Some(SideEffect::None),
                "{attempt:?}"
            );
        }
        let undone = Attempt::NotSent { detail: "refused".into() };
        assert_eq!(side_effect(&undone, Idempotency::NonIdempotent), Some(SideEffect::None));
    }

    fn page(status: u16, media: Media, body: &'static [u8]) -> Attempt {
        Attempt::Answer {
            status,
            retry_after: None,
            limits: RateLimitHeaders::default(),
            media,
            body: Ok(Bytes::from_static(body)),
        }
    }

    #[test]
    fn success_with_broken_body_is_repeated_only_if_idempotent() {
        // Guarantees that a 2xx whose body is cut or endless neither loses a look-up's answer nor
        // doubles an event.
        let large = BrokenBody::TooLarge { begin: Bytes::from_static(b"{\"id\":1,\"x\":\"aaa") };
        for broken in [BrokenBody::Cut, large] {
            let answer = |status| Attempt::Answer {
                status,
                retry_after: None,
                limits: RateLimitHeaders::default(),
                media: Media::Other,
                body: Err(broken.clone()),
            };
            assert_eq!(
                judge(&answer(200), Idempotency::NonIdempotent),
                AttemptDisposition::Delivered
            );
            assert_eq!(side_effect(&answer(200), Idempotency::Idempotent), Some(SideEffect::None));
            assert_eq!(
                judge(&answer(400), Idempotency::Idempotent),
                AttemptDisposition::Reject { status: 400 }
            );
        }
    }

    #[test]
    fn captive_portal_page_is_not_success() {
        // Guarantees that a page or a redirect, whatever its status, loses nothing and doubles
        // nothing.
        let pages = [&b"<!DOCTYPE html><p>Log in"[..], b" \r\n<html>", b"\xef\xbb\xbf<html>"];
        for status in [200, 201, 400, 401, 402, 403, 404, 405, 410, 422, 451] {
            for body in pages {
                for media in [Media::Html, Media::Other] {
                    let page = page(status, media, body);
                    assert_eq!(
                        side_effect(&page, Idempotency::NonIdempotent),
                        Some(SideEffect::Possible),
                        "{status}"
                    );
                    assert_eq!(
                        side_effect(&page, Idempotency::Idempotent),
                        Some(SideEffect::None),
                        "{status}"
                    );
                }
            }
            let words = page(status, Media::Html, b"Please log in");
            assert_eq!(
                side_effect(&words, Idempotency::Idempotent),
                Some(SideEffect::None),
                "{status}"
            );
        }
        assert_eq!(
            side_effect(&page(200, Media::Other, b"\xff\xfe<\0h\0"), Idempotency::Idempotent),
            Some(SideEffect::None)
        );
        for status in [301, 302, 303, 304, 307, 308, 407, 999] {
            assert_eq!(
                side_effect(&answer(status), Idempotency::NonIdempotent),
                Some(SideEffect::Possible),
                "{status}"
            );
        }
    }

    #[test]
    fn success_with_unreadable_body_stays_success() {
        // Guarantees that a 2xx with a short word, another encoding or JSON called HTML is a
        // success, so that no event is sent twice for it.
        for body in [
            &b""[..],
            b" \n",
            b"OK",
            b"ok\r\n",
            b"Welcome!",
            b"\xff\xfeO\0K\0",
            b"\xef\xbb\xbf{\"id\":1}",
            b"[1]",
            b"null",
            b"7",
            b"7.0",
        ] {
            let answer = page(200, Media::Other, body);
            assert_eq!(
                judge(&answer, Idempotency::NonIdempotent),
                AttemptDisposition::Delivered,
                "{body:?}"
            );
        }
        for body in [&b""[..], b"{\"id\":1}", b"[]", b"\"ok\"", b"true"] {
            let answer = page(200, Media::Html, body);
            assert_eq!(
                judge(&answer, Idempotency::NonIdempotent),
                AttemptDisposition::Delivered,
                "{body:?}"
            );
        }
    }

    #[test]
    fn retry_after_is_parsed_in_both_formats() {
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
        for (text, wait) in
            [("3.7", 4), ("4,5", 5), ("0.2", 1), ("5.", 5), ("6.000", 6), (" 1.5 ", 2)]
        {
            assert_eq!(read(text), Some(Duration::from_secs(wait)), "{text:?}");
        }
        for date in ["1970-01-12T13:46:49Z", "Mon, 12 Jan 1970 13:46:49 +0000"] {
            assert_eq!(read(date), Some(Duration::from_secs(9)), "{date:?}");
        }
        for nothing in [
            "0",
            "0.0",
            "-1",
            "-0.5",
            "",
            "soon",
            "+3",
            "1e3",
            ".",
            "NaN",
            "inf",
            "3 s",
            "1.2.3",
            "3, 5",
            past.as_str(),
        ] {
            assert_eq!(read(nothing), None, "{nothing:?}");
        }
    }

    proptest! {
        #[test]
        fn retry_after_is_limited(text in ".{0,40}", longest in 1_u64..100) {
            // Guarantees that no header text panics or asks for more than the longest wait.
            let longest = Duration::from_secs(longest);
            if let Some(wait) = parse_retry_after(&text, longest, SystemTime::UNIX_EPOCH) {
                prop_assert!(wait > Duration::ZERO && wait <= longest);
            }
        }
    }
}
