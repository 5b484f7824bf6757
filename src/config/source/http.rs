//! The settings of the `http` source.

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Decoding, TlsServer};

/// Receives records over HTTP: from pipelines on `path`, and from Segment's and RudderStack's SDKs
/// on the paths of Segment's HTTP tracking API (`/v1/identify`, `/v1/track`, `/v1/batch` …, their
/// short forms, and both without `/v1`). A request is answered once every record of it is
/// delivered, in the dead letters or in the durable buffer.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSourceConfig {
    /// The IP address and port to listen on. Default: `127.0.0.1:8080`.
    #[serde(default = "HttpSourceConfig::default_address")]
    pub address: String,
    /// The path to which pipelines and webhooks send records: lines, or with the codec `json` also
    /// one array, one object or one form (`application/x-www-form-urlencoded`). A trailing slash
    /// makes no difference. `HEAD` on it is answered with 200. Default: `/v1/records`.
    #[serde(default = "HttpSourceConfig::default_path")]
    pub path: String,
    /// The write key that SDKs must send, as the user name of basic authentication or as `writeKey`
    /// in the body. It protects only the paths of Segment's API, because a browser's key is public.
    /// Default: any key is accepted; but where `auth` is set, Segment's paths then require `auth`.
    #[serde(default, skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub write_key: Option<SecretString>,
    /// The credentials that a request to `path` must have. Default: none.
    #[serde(default)]
    pub auth: Option<HttpAuth>,
    /// Encryption of the connections.
    #[serde(default)]
    pub tls: TlsServer,
    /// How the lines sent to `path` become records. Segment's paths expect Segment's JSON.
    #[serde(default)]
    pub decoding: Decoding,
    /// The IANA time zone of times without a zone, such as `2024-05-21 10:11:12`: `Europe/Warsaw`.
    /// It applies to the target `timestamp` and to `as = "timestamp"`, where the field has no
    /// `timezone` of its own, and to the preset. Set it where a system writes local time. Default:
    /// UTC.
    #[serde(default)]
    pub timezone: Option<String>,
    /// The largest body, in bytes, before and after decompression; a larger one is refused with
    /// 413. Default: 10485760 (10 MiB).
    #[serde(default = "HttpSourceConfig::default_max_body_bytes")]
    #[schemars(range(min = 1))]
    pub max_body_bytes: usize,
    /// Headers of a request that become metadata, as `%header.NAME` with the name in lower case: a
    /// mapping then reads `%header.x-shopify-topic`. Headers with credentials (`authorization`,
    /// `cookie` and the like) are not allowed. Default: the topic and event headers of common
    /// webhooks (Shopify, WooCommerce, GitHub, GitLab, Bitbucket, others' `x-event-type`, `x-topic`
    /// …), `referer`, `origin`, `accept-language`, `x-request-id` and `x-forwarded-for`. Change it
    /// when a client sends information in another header.
    #[serde(default = "HttpSourceConfig::default_headers")]
    #[schemars(length(max = 32))]
    pub headers: Vec<String>,
    /// How long the body of a request may take to arrive, and a response to be read, in seconds. A
    /// TLS handshake and the head of a request may take the same time, but 10 seconds at most; idle
    /// connections are closed after this time too. Default: 30.
    #[serde(default = "HttpSourceConfig::default_read_timeout_secs")]
    #[schemars(range(min = 1))]
    pub read_timeout_secs: u64,
    /// How long a request waits until its records are settled, in seconds, before it is answered
    /// with 503 and must be sent again. Default: 30.
    #[serde(default = "HttpSourceConfig::default_response_timeout_secs")]
    #[schemars(range(min = 1))]
    pub response_timeout_secs: u64,
    /// The most connections that are served at once; more wait to be accepted. Default: 1024.
    #[serde(default = "HttpSourceConfig::default_max_connections")]
    #[schemars(range(min = 1, max = 65536))]
    pub max_connections: usize,
}

impl HttpSourceConfig {
    fn default_address() -> String {
        "127.0.0.1:8080".to_owned()
    }

    fn default_path() -> String {
        "/v1/records".to_owned()
    }

    fn default_max_body_bytes() -> usize {
        10 << 20
    }

    fn default_headers() -> Vec<String> {
        DEFAULT_HEADERS.iter().map(|name| (*name).to_owned()).collect()
    }

    fn default_read_timeout_secs() -> u64 {
        30
    }

    fn default_response_timeout_secs() -> u64 {
        30
    }

    fn default_max_connections() -> usize {
        1024
    }
}

/// The credentials of a request. The names are Vector's.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpAuth {
    /// The kind of credentials.
    pub strategy: HttpAuthStrategy,
    /// For `basic`: the user name.
    #[serde(default)]
    pub user: Option<String>,
    /// For `basic`: the password. It appears in no output.
    #[serde(default, skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub password: Option<SecretString>,
    /// For `bearer`: the token. It appears in no output.
    #[serde(default, skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub token: Option<SecretString>,
}

/// The kind of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HttpAuthStrategy {
    /// A user name and a password.
    Basic,
    /// A token.
    Bearer,
}

/// Headers that become metadata where the settings list none.
const DEFAULT_HEADERS: &[&str] = &[
    "accept-language",
    "origin",
    "referer",
    "x-event",
    "x-event-key",
    "x-event-name",
    "x-event-type",
    "x-forwarded-for",
    "x-github-delivery",
    "x-github-event",
    "x-gitlab-event",
    "x-request-id",
    "x-shopify-event-id",
    "x-shopify-shop-domain",
    "x-shopify-topic",
    "x-shopify-triggered-at",
    "x-shopify-webhook-id",
    "x-topic",
    "x-wc-webhook-event",
    "x-wc-webhook-resource",
    "x-wc-webhook-source",
    "x-wc-webhook-topic",
    "x-webhook-event",
    "x-webhook-id",
    "x-webhook-topic",
];

/// The calls of Segment's HTTP tracking API, with the last part of their paths.
const SEGMENT_CALLS: &[(&str, &str)] = &[
    ("identify", "identify"),
    ("i", "identify"),
    ("track", "track"),
    ("t", "track"),
    ("page", "page"),
    ("p", "page"),
    ("screen", "screen"),
    ("s", "screen"),
    ("group", "group"),
    ("g", "group"),
    ("alias", "alias"),
    ("a", "alias"),
    ("batch", "batch"),
    ("b", "batch"),
    ("import", "batch"),
];

/// The call of a path of Segment's API: `batch`, or the `type` of an event.
pub(crate) fn segment_call(path: &str) -> Option<&'static str> {
    let rest = path.strip_prefix('/')?;
    let rest = rest.strip_prefix("v1/").unwrap_or(rest);
    let name = rest.strip_suffix('/').unwrap_or(rest);
    SEGMENT_CALLS.iter().find(|(known, _)| *known == name).map(|(_, call)| *call)
}
