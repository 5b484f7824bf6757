//! One HTTP exchange with User.com's API, with reqwest.
//!
//! It repeats nothing, follows no redirect and classifies no status; it only returns what was
//! received.
//!
//! # Invariants
//!
//! The API key and the URL are in no error, log line or `Debug` output.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Client, Response, redirect};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::auth::{AuthBreakerState, OnAuthFailure};
use super::connections::{KeptConnections, RecordConnects, watched};
use super::dispatcher::{
    AttemptTransport, ConnectionChoice, DispatcherSettings, RequestDispatcher,
};
use super::observer::DeliveryObserver;
use super::outcome::{Attempt, BrokenBody, Media};
use super::poison::PoisonPolicy;
use super::quota::{LearnedQuota, RateLimitHeaders};
use super::request::{ApiReply, Method, Request};
use super::transport::{Attempts, BeforeSend, SendError, Transport};
use crate::config::BaseUrl;
use crate::config::sink::RequestConfig;
use crate::redact::ResponseRedactor;

/// The most characters of an error text of another library.
const MAX_DETAIL: usize = 200;
/// How long an idle connection is kept open. It is shorter than the limit of most servers, so that
/// few requests use a connection that the server is closing.
const IDLE: Duration = Duration::from_secs(20);

/// The settings of a transport.
#[derive(Clone)]
pub struct TransportSettings {
    /// The name of the sink, for the log.
    pub sink: String,
    /// The base URL.
    pub base_url: BaseUrl,
    /// The key sent as `Authorization: Token …`.
    pub api_key: SecretString,
    /// Rate, concurrency and retries.
    pub request: RequestConfig,
    /// What to do on 401, 402 and 403.
    pub halt: OnAuthFailure,
    /// When a request that always fails is given up.
    pub poison: PoisonPolicy,
    /// A cheap request that shows after a 403 whether the key works; then only one route is
    /// forbidden. Without it every 403 halts sending.
    pub key_check: Option<Request>,
    /// How long requests wait for a route that is forbidden.
    pub route_closed: Duration,
    /// Returns what an operator can do about this status, for the log.
    pub cures: fn(u16) -> &'static str,
}

impl fmt::Debug for TransportSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportSettings")
            .field("request", &self.request)
            .field("halt", &self.halt)
            .finish_non_exhaustive()
    }
}

/// Why a transport cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The key contains characters that are not allowed in a header.
    #[error("the api key holds characters that cannot be sent")]
    ApiKey,
    /// The HTTP client cannot be created (for example, there are no TLS roots).
    #[error("the http client cannot be set up: {why}")]
    Client {
        /// The reason.
        why: String,
    },
}

/// Sends requests to User.com over HTTP.
///
/// All clones of an `Arc` of it share one connection pool, one limit, one pause and one circuit
/// breaker. Dropping the future of [`send`](Transport::send) returns everything that it held.
///
/// [`Attempts::failed`] is reset by a final response and by [`SendError::GivenUp`]. After
/// [`SendError::Ambiguous`] it is kept, so that the next call continues with the next backoff, and
/// is [given up](SendError::GivenUp) without an attempt once `retry_attempts` are used up.
pub struct HttpTransport {
    dispatcher: RequestDispatcher<HttpAttemptTransport>,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").finish_non_exhaustive()
    }
}

impl HttpTransport {
    /// Creates the client. Nothing is sent. Once `stop` is cancelled every waiting request ends
    /// with [`SendError::Stopped`]; a request in flight may finish within its timeout.
    pub fn new(
        settings: TransportSettings,
        observer: Arc<dyn DeliveryObserver>,
        stop: CancellationToken,
    ) -> Result<Self, TransportError> {
        let transport = HttpAttemptTransport::new(&settings)?;
        let dispatcher = RequestDispatcher::new(
            transport,
            DispatcherSettings {
                sink: &settings.sink,
                request: &settings.request,
                halt: settings.halt,
                poison: settings.poison,
                key_check: settings.key_check.clone(),
                route_closed: settings.route_closed,
                cures: settings.cures,
                observer,
                stop,
            },
        );
        Ok(Self { dispatcher })
    }

    /// The estimated quota of the server; `None` while it is not known.
    pub fn learned_quota(&self) -> Option<LearnedQuota> {
        self.dispatcher.learned_quota()
    }

    /// Starts with an earlier estimate of the quota. Call it only before the first request.
    pub fn restore_quota(&self, learned: LearnedQuota) {
        self.dispatcher.restore_quota(learned);
    }

    /// Whether sending is halted, and every change of that: for `/ready`.
    pub fn halted(&self) -> watch::Receiver<AuthBreakerState> {
        self.dispatcher.halted()
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn send(
        &self,
        request: &Request,
        attempts: &mut Attempts,
    ) -> Result<ApiReply, SendError> {
        self.dispatcher.send(request, attempts).await
    }

    async fn send_counted(
        &self,
        request: &Request,
        attempts: &mut Attempts,
        before: &dyn BeforeSend,
    ) -> Result<ApiReply, SendError> {
        self.dispatcher.send_counted(request, attempts, before).await
    }

    fn is_alive(&self) -> bool {
        self.dispatcher.is_alive()
    }
}

/// Two clients and the base URL.
pub(super) struct HttpAttemptTransport {
    /// Reuses connections.
    client: Client,
    /// Opens a connection for each request.
    fresh: Client,
    trust: KeptConnections,
    base: BaseUrl,
    redactor: ResponseRedactor,
}

impl HttpAttemptTransport {
    fn new(settings: &TransportSettings) -> Result<Self, TransportError> {
        Self::to(&settings.base_url, &settings.api_key, &settings.request)
    }

    /// The same, from what is needed of the settings.
    pub(super) fn to(
        base: &BaseUrl,
        api_key: &SecretString,
        request: &RequestConfig,
    ) -> Result<Self, TransportError> {
        let timeout = Duration::from_secs(request.timeout_secs.max(1));
        let headers = headers(api_key)?;
        let client = |kept| {
            Client::builder()
                .default_headers(headers.clone())
                .user_agent(concat!("usercom-sink/", env!("CARGO_PKG_VERSION")))
                .retry(reqwest::retry::never())
                .redirect(redirect::Policy::none())
                .referer(false)
                .tcp_nodelay(true)
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(kept)
                .connector_layer(RecordConnects)
                .timeout(timeout)
                // Shorter than the timeout of the request, so that it is known that a connection
                // attempt that hangs has sent nothing.
                .connect_timeout((timeout * 3 / 4).min(Duration::from_secs(10)))
                .build()
                .map_err(|error| TransportError::Client { why: root_cause(&error.without_url()) })
        };
        Ok(Self {
            client: client(usize::MAX)?,
            fresh: client(0)?,
            trust: KeptConnections::default(),
            base: base.clone(),
            redactor: ResponseRedactor::new(api_key.expose_secret()),
        })
    }

    /// The URL of a request, or `None` if parsing would change its path: WHATWG rules resolve `.`
    /// and `..` segments, also percent-encoded ones, and an id must not choose the endpoint.
    fn url(&self, path: &str) -> Option<Url> {
        let joined = format!("{}{path}", self.base);
        let url = Url::parse(&joined).ok()?;
        (url.as_str() == joined && url.fragment().is_none()).then_some(url)
    }
}

fn headers(api_key: &SecretString) -> Result<HeaderMap, TransportError> {
    let mut token = HeaderValue::try_from(format!("Token {}", api_key.expose_secret()))
        .map_err(|_| TransportError::ApiKey)?;
    token.set_sensitive(true);
    let fixed = |name: HeaderName, text: &'static str| (name, HeaderValue::from_static(text));
    Ok(HeaderMap::from_iter([
        (AUTHORIZATION, token),
        fixed(ACCEPT, "*/*; version=2"),
        fixed(CONTENT_TYPE, "application/json"),
    ]))
}

fn method(method: Method) -> reqwest::Method {
    match method {
        Method::Get => reqwest::Method::GET,
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
        Method::Delete => reqwest::Method::DELETE,
    }
}

#[async_trait]
impl AttemptTransport for HttpAttemptTransport {
    async fn attempt(&self, request: &Request, connection: ConnectionChoice) -> Attempt {
        let Some(url) = self.url(&request.path) else {
            return unsendable();
        };
        let client = match connection {
            ConnectionChoice::Any if self.trust.allows(Instant::now()) => &self.client,
            ConnectionChoice::Any | ConnectionChoice::Fresh => &self.fresh,
        };
        let mut builder = client.request(method(request.method), url);
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let (sent, opened) = watched(builder.send()).await;
        match sent {
            Ok(response) => self.covered(read(response, request.expects.max_body).await),
            Err(error) => match lost(&error.without_url()) {
                Attempt::ConnectionLost { detail } if !opened => {
                    self.trust.closed(Instant::now());
                    Attempt::Stale { detail }
                }
                attempt => attempt,
            },
        }
    }
}

impl HttpAttemptTransport {
    /// A response without the API key. The body of a success is used and not shown.
    fn covered(&self, attempt: Attempt) -> Attempt {
        let cover = |body| match body {
            Ok(body) => Ok(self.redactor.apply(body)),
            Err(BrokenBody::TooLarge { begin }) => {
                Err(BrokenBody::TooLarge { begin: self.redactor.apply(begin) })
            }
            Err(BrokenBody::Cut) => Err(BrokenBody::Cut),
        };
        match attempt {
            Attempt::Answer { status, retry_after, limits, media, body }
                if !(200..300).contains(&status) =>
            {
                Attempt::Answer { status, retry_after, limits, media, body: cover(body) }
            }
            attempt => attempt,
        }
    }
}

/// The response to a request whose path would reach another endpoint than it names: what the server
/// would answer to a malformed request, without sending it.
fn unsendable() -> Attempt {
    Attempt::Answer {
        status: 400,
        retry_after: None,
        limits: RateLimitHeaders::default(),
        media: Media::Other,
        body: Ok(Bytes::from_static(
            br#"{"detail":"not sent: the path cannot be sent as it is written"}"#,
        )),
    }
}

async fn read(mut response: Response, max_body: usize) -> Attempt {
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after = header(RETRY_AFTER.as_str()).map(str::to_owned);
    let limits = RateLimitHeaders::read(header, crate::clock::system_time());
    let media = header(CONTENT_TYPE.as_str()).map_or(Media::Other, media);
    let mut body = BytesMut::new();
    let body = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = max_body - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    break Err(BrokenBody::TooLarge { begin: body.freeze() });
                }
            }
            Ok(None) => break Ok(body.freeze()),
            Err(_) => break Err(BrokenBody::Cut),
        }
    };
    Attempt::Answer { status, retry_after, limits, media, body }
}

fn media(content_type: &str) -> Media {
    let name = content_type.split(';').next().unwrap_or_default().trim();
    let pages = ["text/html", "application/xhtml+xml"];
    match pages.iter().any(|page| name.eq_ignore_ascii_case(page)) {
        true => Media::Html,
        false => Media::Other,
    }
}

/// Classifies an error without a response. Only a failure to connect proves that nothing was sent;
/// a pooled connection that the server closed just now gives the same error as one that it closed
/// after reading.
fn lost(error: &reqwest::Error) -> Attempt {
    if error.is_connect() || error.is_builder() {
        Attempt::NotSent { detail: root_cause(error) }
    } else if error.is_timeout() {
        Attempt::TimedOut
    } else {
        Attempt::ConnectionLost { detail: root_cause(error) }
    }
}

/// The text of the innermost error, escaped and truncated. The outer ones contain the URL.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string().chars().take(MAX_DETAIL).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transport(base: &str) -> Result<HttpAttemptTransport, TransportError> {
        HttpAttemptTransport::new(&TransportSettings {
            sink: "crm".to_owned(),
            base_url: BaseUrl::parse(base).unwrap(),
            api_key: SecretString::from("k3y"),
            request: RequestConfig::default(),
            halt: OnAuthFailure::Retry,
            poison: PoisonPolicy::default(),
            key_check: None,
            route_closed: Duration::ZERO,
            cures: |_| "",
        })
    }

    #[test]
    fn path_is_sent_unchanged_or_rejected() {
        // Guarantees that no id's encoding is changed and that no id leaves its segment.
        let transport = transport("https://acme.user.com/api/public").unwrap();
        for path in ["users/", "users-by-id/a%2Fb%3F%23%25%20%C3%A9/events/", "u/?email=a%40b%2Bc"]
        {
            let url = transport.url(path).unwrap();
            assert_eq!(url.as_str(), format!("https://acme.user.com/api/public/{path}"));
        }
        for path in ["users-by-id/%2E%2E/events/", "a/../b/", "a/%2e/b/", "a b/", "a#b"] {
            assert_eq!(transport.url(path), None, "{path}");
        }
    }

    #[test]
    fn api_key_is_absent_from_debug_output_of_client() {
        // Guarantees that neither the headers' Debug nor a key that cannot be sent shows the key.
        let headers = headers(&SecretString::from("s3cret")).unwrap();
        assert!(!format!("{headers:?}").contains("s3cret"));
        let error = super::headers(&SecretString::from("s3cret\n")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }
}
