//! The `http` source as it is written.

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Decoding, TlsServer};

/// Records that are posted to it: by pipelines to `path`, and by Segment's and RudderStack's SDKs
/// to the paths of Segment's HTTP tracking API (`/v1/identify`, `/v1/track`, `/v1/batch` …, their
/// short forms, and both without `/v1`). A request is answered once every record of it is delivered,
/// in the dead letters or in the durable buffer.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSourceConfig {
    /// The IP address and port to listen on. Default: `127.0.0.1:8080`.
    #[serde(default = "HttpSourceConfig::default_address")]
    pub address: String,
    /// Where pipelines and webhooks post records: lines, or with the codec `json` also one array, one
    /// object or one form (`application/x-www-form-urlencoded`). A slash at its end makes no
    /// difference. `HEAD` on it is answered with 200. Default: `/v1/records`.
    #[serde(default = "HttpSourceConfig::default_path")]
    pub path: String,
    /// The write key SDKs must show, as the user name of basic authentication or as `writeKey` in
    /// the body. It guards the paths of Segment's API alone: browsers carry it in the open, so it
    /// opens nothing else. Default: any key is accepted; but where `auth` is set, Segment's paths
    /// then ask for that.
    #[serde(default, skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub write_key: Option<SecretString>,
    /// What a request to `path` must show. Default: nothing.
    #[serde(default)]
    pub auth: Option<HttpAuth>,
    /// Encryption of the connections.
    #[serde(default)]
    pub tls: TlsServer,
    /// How the lines posted to `path` become records. Segment's paths take Segment's JSON.
    #[serde(default)]
    pub decoding: Decoding,
    /// The IANA time zone of times that name none, such as `2024-05-21 10:11:12`: `Europe/Warsaw`. It
    /// holds for the target `timestamp` and for `as = "timestamp"`, where the field has no `timezone`
    /// of its own, and in the preset. Set it where a system writes local time. Default: UTC.
    #[serde(default)]
    pub timezone: Option<String>,
    /// The largest body, in bytes, before and after it is inflated; a larger one is refused with
    /// 413. Default: 10485760 (10 MiB).
    #[serde(default = "HttpSourceConfig::default_max_body_bytes")]
    #[schemars(range(min = 1))]
    pub max_body_bytes: usize,
    /// Headers of a request that its records know, as `%header.NAME` with the name in small
    /// letters: a mapping then reads `%header.x-shopify-topic`. Headers with credentials
    /// (`authorization`, `cookie` and the like) cannot be named. Default: the topic and event
    /// headers of common webhooks (Shopify, WooCommerce, GitHub, GitLab, Bitbucket, others'
    /// `x-event-type`, `x-topic` …), `referer`, `origin`, `accept-language`, `x-request-id` and
    /// `x-forwarded-for`. Change it when a sender says something in a header of its own.
    #[serde(default = "HttpSourceConfig::default_headers")]
    #[schemars(length(max = 32))]
    pub headers: Vec<String>,
    /// How long the body of a request may take to arrive, and an answer to be read, in seconds. A
    /// TLS handshake and the head of a request may take as long, but 10 seconds at most; so long an
    /// idle connection is kept too. Default: 30.
    #[serde(default = "HttpSourceConfig::default_read_timeout_secs")]
    #[schemars(range(min = 1))]
    pub read_timeout_secs: u64,
    /// How long a request waits for its records to be settled, in seconds, before it is answered
    /// with 503 and is to be sent again. Default: 30.
    #[serde(default = "HttpSourceConfig::default_response_timeout_secs")]
    #[schemars(range(min = 1))]
    pub response_timeout_secs: u64,
    /// Connections served at once; more wait to be accepted. Default: 1024.
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

/// What a request must show. The names are Vector's.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpAuth {
    /// How it is shown.
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

/// How a request shows who sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HttpAuthStrategy {
    /// A user name and a password.
    Basic,
    /// A token.
    Bearer,
}

/// Headers that records know where the settings name none.
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

/// The call a path of Segment's API stands for: `batch`, or the `type` of an event.
pub(crate) fn segment_call(path: &str) -> Option<&'static str> {
    let rest = path.strip_prefix('/')?;
    let rest = rest.strip_prefix("v1/").unwrap_or(rest);
    let name = rest.strip_suffix('/').unwrap_or(rest);
    SEGMENT_CALLS.iter().find(|(known, _)| *known == name).map(|(_, call)| *call)
}
