//! Who may ask for what: names of this host, origins, the token, sessions, and the headers of every
//! answer.
//!
//! # Invariants
//! A request for an unknown host name, or from another origin, reaches no handler. Without the
//! token, where one is set, nothing that shows a record or changes something is reached. Bodies and
//! sessions are bounded.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Form};
use parking_lot::{Mutex, MutexGuard};
use rand::RngCore as _;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::{Instant, timeout};

use super::server::PeerAddress;
use super::wrong_tokens::WrongTokens;
use super::{ApiState, page};

/// The largest body of a request.
const MAX_BODY_BYTES: usize = 2 << 20;

/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Sessions at once; the oldest ends when there are more.
const MAX_SESSIONS: usize = 64;

/// How long a session lasts.
const SESSION_SECS: u64 = 12 * 60 * 60;

const COOKIE: &str = "usercom_sink_session";

/// Asked by programs under whatever name leads to this host, unless it listens for itself only.
/// They show no records and change nothing.
const PROBES: &[&str] = &["/health", "/metrics", "/ready"];

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                   connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Who may ask for what.
pub struct AccessRules {
    token: Option<[u8; 32]>,
    hosts: Vec<String>,
    is_loopback: bool,
    sessions: Mutex<VecDeque<Session>>,
    wrong_tokens: WrongTokens,
}

struct Session {
    digest: [u8; 32],
    until: Instant,
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

impl AccessRules {
    /// Rules for an address. Without a token everyone who can reach it may do everything.
    pub fn new(listen: IpAddr, token: Option<&SecretString>, hosts: &[String]) -> Self {
        Self {
            token: token.map(|token| digest(token.expose_secret().trim().as_bytes())),
            hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            is_loopback: listen.to_canonical().is_loopback(),
            sessions: Mutex::default(),
            wrong_tokens: WrongTokens::default(),
        }
    }

    /// Whether there is a token to sign in with.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    fn sessions(&self) -> MutexGuard<'_, VecDeque<Session>> {
        self.sessions.lock()
    }

    /// Whether a request of an address may see records and change something.
    fn allows(&self, headers: &HeaderMap, from: IpAddr) -> bool {
        let Some(token) = &self.token else { return true };
        bearer(headers).is_some_and(|given| self.is_token(token, given, from))
            || self.is_signed_in(headers)
    }

    /// Whether a request has the cookie of a session.
    pub(super) fn is_signed_in(&self, headers: &HeaderMap) -> bool {
        self.has_token() && cookie(headers).is_some_and(|given| self.has_session(given))
    }

    fn is_token(&self, token: &[u8; 32], given: &str, from: IpAddr) -> bool {
        if self.wrong_tokens.is_locked(from) {
            return false;
        }
        let is_right = bool::from(token.ct_eq(&digest(given.trim().as_bytes())));
        if !is_right {
            self.wrong_tokens.count(from);
        }
        is_right
    }

    fn has_session(&self, given: &str) -> bool {
        let (now, given) = (Instant::now(), digest(given.as_bytes()));
        let sessions = self.sessions();
        sessions.iter().any(|s| s.until > now && bool::from(s.digest.ct_eq(&given)))
    }

    /// Begins a session. Returns its secret.
    fn open_session(&self) -> String {
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        let secret = hex::encode(bytes);
        let until = Instant::now() + Duration::from_secs(SESSION_SECS);
        let mut sessions = self.sessions();
        if sessions.len() == MAX_SESSIONS {
            sessions.pop_front();
        }
        sessions.push_back(Session { digest: digest(secret.as_bytes()), until });
        secret
    }

    fn close_session(&self, given: &str) {
        let given = digest(given.as_bytes());
        self.sessions().retain(|session| session.digest != given);
    }

    /// Whether a `Host` leads here and not to a name of a foreign domain whose DNS points here.
    fn knows_host(&self, host: &str, path: &str) -> bool {
        let name = host_name(host);
        let Some(name) = name else { return false };
        // An address is not looked up in the DNS, so it cannot be rebound.
        name == "localhost"
            || name.parse::<IpAddr>().is_ok()
            || self.hosts.contains(&name)
            || (!self.is_loopback && PROBES.contains(&path))
    }
}

/// The name in `name:port`, `[v6]:port`, in lower case.
fn host_name(host: &str) -> Option<String> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?,
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let port = rest.strip_prefix(':');
    let fits = rest.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_ok());
    (fits && !name.is_empty()).then(|| name.to_ascii_lowercase())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = text(headers, header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| name.trim() == COOKIE).map(|(_, value)| value.trim())
}

/// Whether a browser says that a page of another origin sends the request.
fn is_foreign(headers: &HeaderMap, host: &str, method: &Method) -> bool {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let own = |origin: &str| {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
        };
        return !origin.to_str().is_ok_and(own);
    }
    let fetch = |name: &'static str| text(headers, header::HeaderName::from_static(name));
    let reads = matches!(*method, Method::GET | Method::HEAD);
    // A link on another page may be followed; it gets no cookie and changes nothing.
    let follows = reads && fetch("sec-fetch-mode") == Some("navigate");
    matches!(fetch("sec-fetch-site"), Some("cross-site" | "same-site")) && !follows
}

/// Refuses what does not belong here, reads the body within its limits, and adds the headers that
/// every answer has.
pub(super) async fn protect(
    State(state): State<ApiState>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match refusal(&state.access, &request) {
        Some(why) => (StatusCode::FORBIDDEN, format!("{why}\n")).into_response(),
        None => match read_body(request).await {
            Ok(request) => next.run(request).await,
            Err(response) => response,
        },
    };
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn refusal(access: &AccessRules, request: &Request) -> Option<&'static str> {
    let headers = request.headers();
    let host = text(headers, header::HOST).unwrap_or_default();
    if !access.knows_host(host, request.uri().path()) {
        return Some(
            "unknown Host header; add the name to `api.hosts` if this address is reached under it",
        );
    }
    is_foreign(headers, host, request.method()).then_some("a request of another origin is refused")
}

async fn read_body(request: Request) -> Result<Request, Response> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(Request::from_parts(parts, Body::from(bytes))),
        Ok(Err(_)) => {
            let text = format!("the body is larger than {MAX_BODY_BYTES} bytes, or was cut off\n");
            Err((StatusCode::PAYLOAD_TOO_LARGE, text).into_response())
        }
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took too long\n").into_response()),
    }
}

/// Lets a request through that has the token or a session; others are shown the way in.
pub(super) async fn signed_in(
    State(state): State<ApiState>,
    Extension(PeerAddress(from)): Extension<PeerAddress>,
    request: Request,
    next: Next,
) -> Response {
    if state.access.allows(request.headers(), from) {
        return next.run(request).await;
    }
    if state.access.wrong_tokens.is_locked(from) {
        return too_many();
    }
    let path = request.uri().path();
    if request.method() == Method::GET && !path.starts_with("/api/") {
        let place = percent_encoding::utf8_percent_encode(path, percent_encoding::NON_ALPHANUMERIC);
        return Redirect::to(&format!("/login?to={place}")).into_response();
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    let text = "send `api.token` as `Authorization: Bearer TOKEN`\n";
    (StatusCode::UNAUTHORIZED, challenge, text).into_response()
}

fn too_many() -> Response {
    let text = "too many wrong tokens from this address; wait a minute\n";
    (StatusCode::TOO_MANY_REQUESTS, text).into_response()
}

/// The fields of the login form.
#[derive(Deserialize)]
pub(super) struct Login {
    token: SecretString,
    #[serde(default)]
    to: String,
}

/// Where to go after signing in: a path of this page, never another site.
pub(super) fn safe_path(path: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-');
    match path.starts_with('/') && !path.starts_with("//") && path.chars().all(plain) {
        true => path,
        false => "/",
    }
}

/// Begins a session for a client that knows the token.
pub(super) async fn login(
    State(state): State<ApiState>,
    Extension(PeerAddress(from)): Extension<PeerAddress>,
    Form(login): Form<Login>,
) -> Response {
    let Some(token) = &state.access.token else {
        return Redirect::to("/").into_response();
    };
    if !state.access.is_token(token, login.token.expose_secret(), from) {
        if state.access.wrong_tokens.is_locked(from) {
            return too_many();
        }
        return page::login_again(&state, &login.to);
    }
    let secret = state.access.open_session();
    let cookie =
        format!("{COOKIE}={secret}; HttpOnly; SameSite=Strict; Path=/; Max-Age={SESSION_SECS}");
    ([(header::SET_COOKIE, cookie)], Redirect::to(safe_path(&login.to))).into_response()
}

/// Ends the session.
pub(super) async fn logout(State(state): State<ApiState>, headers: HeaderMap) -> Response {
    if let Some(given) = cookie(&headers) {
        state.access.close_session(given);
    }
    let cookie = format!("{COOKIE}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}

#[cfg(test)]
mod tests {
    use super::super::wrong_tokens::{FAILURE_WINDOW, MAX_FAILURES};
    use super::*;

    #[test]
    fn host_names_are_known_only_where_nobody_can_rebind_them() {
        // Guarantees which `Host` headers are taken, with and without a port.
        let own = AccessRules::new([127, 0, 0, 1].into(), None, &["Status.Example.com".to_owned()]);
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:8686",
            "[::1]:1",
            "10.0.0.7",
            "status.example.com",
            "status.example.com:443",
        ] {
            assert!(own.knows_host(host, "/"), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "localhost:x",
            "127.0.0.1.nip.io",
            "[::1",
            "a@localhost",
            "status.example.com.evil.example",
        ] {
            assert!(!own.knows_host(host, "/metrics"), "{host}");
        }
        let open = AccessRules::new([0, 0, 0, 0].into(), None, &[]);
        assert!(open.knows_host("usercom-sink:8686", "/metrics"));
        assert!(!open.knows_host("usercom-sink:8686", "/"));
    }

    #[test]
    fn paths_after_login_stay_on_this_page() {
        // Guarantees that the login form leads to no other site.
        for (given, path) in [
            ("/dead-letters/7", "/dead-letters/7"),
            ("//evil.example", "/"),
            ("https://evil.example", "/"),
            ("/\\evil.example", "/"),
            ("", "/"),
        ] {
            assert_eq!(safe_path(given), path);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_lock_their_address_alone_and_sessions_end() {
        // Guarantees the limit of guesses, its end, that neither another address nor an open session
        // is locked by them, and the length and the number of sessions.
        let rules =
            AccessRules::new([127, 0, 0, 1].into(), Some(&"a-long-token".to_owned().into()), &[]);
        let bearer = |token: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            headers
        };
        let (own, foreign) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        assert!(rules.allows(&bearer("a-long-token"), own));
        assert!(!rules.allows(&HeaderMap::new(), own));
        let with_cookie = |secret: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, format!("a=b; {COOKIE}={secret}").parse().unwrap());
            headers
        };
        let first = rules.open_session();
        for _ in 0..MAX_FAILURES {
            assert!(!rules.allows(&bearer("wrong"), foreign));
        }
        assert!(!rules.allows(&bearer("a-long-token"), foreign));
        assert!(rules.allows(&bearer("a-long-token"), own));
        assert!(rules.allows(&with_cookie(&first), foreign));
        tokio::time::advance(FAILURE_WINDOW).await;
        assert!(rules.allows(&bearer("a-long-token"), foreign));
        (0..MAX_SESSIONS).for_each(|_| drop(rules.open_session()));
        assert!(!rules.allows(&with_cookie(&first), own));
        let last = rules.open_session();
        tokio::time::advance(Duration::from_secs(SESSION_SECS)).await;
        assert!(!rules.allows(&with_cookie(&last), own));
    }
}
