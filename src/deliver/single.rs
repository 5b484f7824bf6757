//! Sends requests once. The caller receives every response, also a refusal: nothing is retried, and
//! no quota is estimated from it.

use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::dispatcher::{AttemptTransport, ConnectionChoice};
use super::http::{HttpAttemptTransport, TransportError};
use super::outcome::{Attempt, BrokenBody, Media, parse_retry_after};
use super::rate::GcraLimiter;
use super::request::Request;
use crate::config::BaseUrl;
use crate::config::sink::RequestConfig;

/// Sends requests one after the other, each once, within the configured rate limit.
pub struct SingleAttemptClient {
    transport: HttpAttemptTransport,
    limiter: Option<Mutex<GcraLimiter>>,
    longest_pause: Duration,
}

/// A response as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SingleReply {
    /// The HTTP status.
    pub status: u16,
    /// The body, as far as it was received and read.
    pub body: Bytes,
    /// Whether it is a web page.
    pub is_page: bool,
    /// The value of `Retry-After`, at most `request.retry_max_duration_secs`.
    pub retry_after: Option<Duration>,
}

impl SingleAttemptClient {
    /// Creates the client. Nothing is sent.
    ///
    /// # Errors
    ///
    /// When the key contains characters that are not allowed in a header.
    pub fn new(
        base_url: &BaseUrl,
        api_key: &SecretString,
        request: &RequestConfig,
    ) -> Result<Self, TransportError> {
        let window = Duration::from_secs(request.rate_limit_duration_secs);
        let limiter = request.rate_limit_num.map(|num| GcraLimiter::per_window(num, window));
        Ok(Self {
            transport: HttpAttemptTransport::to(base_url, api_key, request)?,
            limiter: limiter.map(Mutex::new),
            longest_pause: Duration::from_secs(request.retry_max_duration_secs),
        })
    }

    /// Sends a request once.
    ///
    /// # Errors
    ///
    /// Why there is no response, as a sentence.
    pub async fn send(&self, request: &Request) -> Result<SingleReply, String> {
        if let Some(limiter) = &self.limiter {
            let mut limiter = limiter.lock().await;
            sleep_until(limiter.ready_at(Instant::now())).await;
            limiter.take(Instant::now());
        }
        // A reused connection may be closed already, and then it is not known what was carried out.
        match self.transport.attempt(request, ConnectionChoice::Fresh).await {
            Attempt::Answer { status, retry_after, media, body, .. } => {
                let body = match body {
                    Ok(body) | Err(BrokenBody::TooLarge { begin: body }) => body,
                    Err(BrokenBody::Cut) => return Err("the answer was cut off".to_owned()),
                };
                let now = crate::clock::system_time();
                let pause = |text: String| parse_retry_after(&text, self.longest_pause, now);
                Ok(SingleReply {
                    status,
                    is_page: media == Media::Html || body.trim_ascii_start().starts_with(b"<"),
                    body,
                    retry_after: retry_after.and_then(pause),
                })
            }
            Attempt::NotSent { detail } => Err(format!("no connection: {detail}")),
            Attempt::TimedOut => Err("no answer within `request.timeout_secs`".to_owned()),
            Attempt::ConnectionLost { detail } | Attempt::Stale { detail } => {
                Err(format!("the connection was lost: {detail}"))
            }
        }
    }
}
