//! `status`: shows what a running pipeline does, as its status page tells it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::load::ConfigFiles;
use super::output::{Exit, fail, print};
use super::run::OutputFormat;
use crate::config::Style;
use crate::telemetry::{Status, status_text};

/// How often `--watch` asks.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// Show the status of the running pipeline.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  usercom-sink status -c pipeline.toml\n  \
                        usercom-sink status -c pipeline.toml --watch\n  \
                        usercom-sink status -c pipeline.toml --format json | jq '.sinks[].waiting'")]
pub(super) struct StatusCommand {
    #[command(flatten)]
    files: ConfigFiles,
    /// Output format; `json` prints one object, or one per line with --watch
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
    /// Show it again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

impl StatusCommand {
    pub(super) async fn run(self, style: Style) -> Exit {
        let api = match self.files.load(style) {
            Ok(loaded) => loaded.pipeline.api.unwrap_or_default(),
            Err(exit) => return exit,
        };
        let Some(listen) = api.listen.as_deref().and_then(|listen| listen.parse().ok()) else {
            return fail(
                "the pipeline has no status page: set `listen` in `[api]`, as in `listen = \"127.0.0.1:8686\"`, and restart it",
            );
        };
        let url = format!("http://{}/api/v1/status", reached_at(listen));
        let client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build();
        let client = match client {
            Ok(client) => client,
            Err(error) => return fail(&error.to_string()),
        };
        loop {
            let status = match ask(&client, &url, api.token.as_ref()).await {
                Ok(status) => status,
                Err(why) if self.watch => {
                    fail(&why);
                    tokio::time::sleep(WATCH_INTERVAL).await;
                    continue;
                }
                Err(why) => return fail(&why),
            };
            let exit = self.show(&status, style);
            if !self.watch || exit != Exit::Done {
                return exit;
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }

    fn show(&self, status: &Status, style: Style) -> Exit {
        match self.format {
            OutputFormat::Json if self.watch => match serde_json::to_string(status) {
                Ok(text) => print(&format!("{text}\n")),
                Err(error) => fail(&error.to_string()),
            },
            OutputFormat::Json => match serde_json::to_string_pretty(status) {
                Ok(text) => print(&format!("{text}\n")),
                Err(error) => fail(&error.to_string()),
            },
            OutputFormat::Text => {
                // A coloured terminal is one that takes control sequences.
                let clear = self.watch && style == Style::Coloured;
                let clear = if clear { "\u{1b}[H\u{1b}[2J" } else { "" };
                let gap = if self.watch && clear.is_empty() { "\n" } else { "" };
                print(&format!("{clear}{}{gap}", status_text(status)))
            }
        }
    }
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

async fn ask(
    client: &reqwest::Client,
    url: &str,
    token: Option<&SecretString>,
) -> Result<Status, String> {
    let mut request = client.get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token.expose_secret());
    }
    let mut reply = request.send().await.map_err(|error| {
        let why = if error.is_timeout() { "no answer in time" } else { "no connection" };
        format!("nothing runs at {url} ({why}): is the pipeline started?")
    })?;
    if !reply.status().is_success() {
        return Err(format!("{url} answers with status {}", reply.status()));
    }
    let mut body = Vec::new();
    while let Some(piece) = reply.chunk().await.map_err(|error| error.to_string())? {
        body.extend_from_slice(&piece);
        if body.len() > MAX_ANSWER_BYTES {
            return Err(format!("{url} answers with more than {MAX_ANSWER_BYTES} bytes"));
        }
    }
    serde_json::from_slice(&body)
        .map_err(|error| format!("{url} is not the status page of this program: {error}"))
}
