//! `status`: shows what a running pipeline does, as its status page does.

use std::time::Duration;

use clap::Args;

use super::load::ConfigFiles;
use super::output::{Exit, fail, print};
use super::run::OutputFormat;
use super::service::{ServiceClient, ServiceError};
use crate::config::Style;
use crate::telemetry::{Status, status_text};

/// How often `--watch` asks.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

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
        let api = match self.files.load_offline(style) {
            Ok(loaded) => loaded.pipeline.api.unwrap_or_default(),
            Err(exit) => return exit,
        };
        let service = match ServiceClient::new(&api) {
            Ok(Some(service)) => service,
            Ok(None) => {
                return fail(
                    "the pipeline has no status page: set `listen` in `[api]`, as in `listen = \"127.0.0.1:8686\"`, and restart it",
                );
            }
            Err(why) => return fail(&why),
        };
        loop {
            let status = match ask(&service).await {
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

async fn ask(service: &ServiceClient) -> Result<Status, String> {
    service.get("/api/v1/status").await.map_err(|error| match error {
        ServiceError::Unreachable { url, why } => {
            format!("nothing runs at {url} ({why}): is the pipeline started?")
        }
        error => error.to_string(),
    })
}
