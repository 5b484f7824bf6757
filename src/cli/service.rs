//! The running process of a pipeline, reached by its HTTP API.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::output::printable;
use crate::config::ApiConfig;

/// How long an answer may take. A replay is answered within 20 seconds, done or not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// The most characters of an answer's text that an error shows.
const MAX_SHOWN: usize = 500;

/// Asks the running process.
pub(super) struct ServiceClient {
    client: Client,
    base: String,
    token: Option<SecretString>,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServiceError {
    /// There is no answer at all.
    #[error("{url}: {why}")]
    Unreachable { url: String, why: String },
    /// The process refuses the token.
    #[error(
        "{url} refuses `api.token`: it must be the token that the running process was started with"
    )]
    Token { url: String },
    /// The process says what is wrong.
    #[error("{text}")]
    Refused { status: StatusCode, text: String },
    /// The answer is not one of this program.
    #[error("{url} is not the HTTP API of this program: {why}")]
    Foreign { url: String, why: String },
}

impl ServiceClient {
    /// A client of the address that is configured; `None` if none is.
    pub(super) fn new(api: &ApiConfig) -> Result<Option<Self>, String> {
        let Some(listen) = api.listen.as_deref().and_then(|listen| listen.parse().ok()) else {
            return Ok(None);
        };
        let client = Client::builder()
            .timeout(ANSWER_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| error.to_string())?;
        let base = format!("http://{}", reached_at(listen));
        Ok(Some(Self { client, base, token: api.token.clone() }))
    }

    /// Where the process is asked.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ServiceError> {
        let url = self.url(path);
        self.ask(self.client.get(&url), url).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, ServiceError> {
        let url = self.url(path);
        self.ask(self.client.post(&url).json(body), url).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        mut request: RequestBuilder,
        url: String,
    ) -> Result<T, ServiceError> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret().trim());
        }
        let unreachable = |error: reqwest::Error| {
            let why = match (error.is_connect(), error.is_timeout()) {
                (_, true) => "no answer in time",
                (true, _) => "no connection",
                _ => "the answer was cut off",
            };
            ServiceError::Unreachable { url: url.clone(), why: why.to_owned() }
        };
        let mut reply = request.send().await.map_err(unreachable)?;
        let status = reply.status();
        let mut body = Vec::new();
        while let Some(piece) = reply.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&piece);
            if body.len() > MAX_ANSWER_BYTES {
                let why = format!("it answers with more than {MAX_ANSWER_BYTES} bytes");
                return Err(ServiceError::Foreign { url, why });
            }
        }
        match status {
            StatusCode::UNAUTHORIZED => Err(ServiceError::Token { url }),
            status if status.is_success() => serde_json::from_slice(&body)
                .map_err(|error| ServiceError::Foreign { url, why: error.to_string() }),
            status => {
                let text = format!("{url} answers with status {status}: {}", error_text(&body));
                Err(ServiceError::Refused { status, text })
            }
        }
    }
}

/// What an answer that is not a success says.
fn error_text(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let said = json.as_ref().and_then(|json| json["error"].as_str()).map(str::to_owned);
    let text = said.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    printable(&text.chars().take(MAX_SHOWN).collect::<String>())
}

/// Where this machine reaches an address that is listened on.
fn reached_at(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
