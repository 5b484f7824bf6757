//! `connector`: runs as a Fluvio connector until it is stopped.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::load::compile;
use super::output::{Exit, eprint, fail};
use super::run::{
    OutputFormat, exit_of, ignore_hangups, prepare_when_free, print_summary, wait_for_shutdown,
};
use crate::config::connector::{Connector as Loaded, Secrets, load_connector};
use crate::config::{ProcessEnvironment, Report, SinkConfig, SourceText, Style};
use crate::pipeline::{BuiltPipeline, connector_cluster};
use crate::source::ReadMode;

/// Run as a Fluvio connector.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink connector --config connector.yaml --check
  usercom-sink connector --config connector.yaml --secrets secrets.txt")]
pub(super) struct ConnectorCommand {
    /// Config of the connector (YAML)
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// File of secrets, one `NAME=value` per line; without it they are environment variables
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,
    /// Directory for dead letters and state; default `./NAME-data`
    #[arg(long, value_name = "DIR", env = "USERCOM_SINK_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Only check the config
    #[arg(long)]
    check: bool,
    /// Stop at the present end of the topic, once all records are settled
    #[arg(long)]
    once: bool,
    /// Output format of the summary of --once
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
}

impl ConnectorCommand {
    pub(super) async fn run(self, style: Style) -> Exit {
        let loaded = match self.load() {
            Ok(loaded) => loaded,
            Err(report) => {
                eprint(&report.render(style));
                return Exit::BadConfig;
            }
        };
        if !loaded.loaded.warnings.is_empty() {
            eprint(&loaded.loaded.warnings.render(style));
        }
        if self.check {
            eprint("ok: the file has no faults\n");
            return Exit::Done;
        }
        self.deliver(&loaded).await
    }

    fn load(&self) -> Result<Loaded, Report> {
        let text = SourceText::read(&self.config)?;
        let secrets = match &self.secrets {
            Some(path) => Secrets::read(path)?,
            None => Secrets::Environment,
        };
        let data_dir = self.data_dir.clone();
        load_connector(&text, &secrets, data_dir, &ProcessEnvironment, &compile)
    }

    async fn deliver(&self, connector: &Loaded) -> Exit {
        // The connector survives the end of the terminal that started it.
        let _hangups = ignore_hangups();
        let pipeline = &connector.loaded.pipeline;
        // How long an earlier process may take to settle its records and end.
        let sinks = pipeline.sinks.values();
        let limits = sinks.map(|SinkConfig::Usercom(sink)| sink.delivery.shutdown_timeout_secs);
        let limit = Duration::from_secs(limits.max().unwrap_or(0).saturating_add(5));
        let options = match prepare_when_free(&pipeline.data_dir, self.once, limit).await {
            Ok(options) => options,
            Err(exit) => return exit,
        };
        let (store, stop) = (options.store.clone(), options.stop.clone());
        let cluster = connector_cluster(connector);
        let built = match BuiltPipeline::build_connector(connector, options, cluster).await {
            Ok(built) => built,
            Err(error) => return fail(&error.to_string()),
        };
        let ended = tokio::select! {
            ended = built.run() => ended,
            exit = wait_for_shutdown(stop) => return exit,
        };
        store.close().await;
        match ended {
            Ok(summary) => {
                if self.once {
                    let printed = print_summary(&summary, self.format);
                    if printed != Exit::Done {
                        return printed;
                    }
                }
                exit_of(&summary, if self.once { ReadMode::Once } else { ReadMode::Follow })
            }
            Err(error) => fail(&error.to_string()),
        }
    }
}
