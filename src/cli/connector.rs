//! `connector`: runs as Fluvio's deployer runs its connectors, until it is told to stop.
//!
//! The deployer names no verb: it calls `usercom-sink --config PATH [--secrets PATH]`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::load::compile;
use super::output::{Exit, eprint, fail};
use super::run::OutputFormat;
use crate::config::connector::{Connector as Loaded, Secrets, load_connector};
use crate::config::{ProcessEnvironment, Report, SourceText, Style};

/// Run as a connector of Fluvio's.
#[derive(Debug, Args)]
pub(super) struct ConnectorCommand {
    /// The connector's config, YAML
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Secrets, a line `NAME=value` each; without it they are environment variables
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,
    /// Where dead letters and state live; without it in `./NAME-data`
    #[arg(long, value_name = "DIR", env = "USERCOM_SINK_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Only look for faults in the config
    #[arg(long)]
    check: bool,
    /// Shutdown at the present end of the topic, once everything is settled
    #[arg(long)]
    once: bool,
    /// How the summary of --once is printed
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
}

/// The command line with its verb: the deployer leaves it out.
pub(super) fn as_command(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let first = arguments.get(1).map(|first| first.to_string_lossy().into_owned());
    let deployed = first.is_some_and(|first| {
        let name = first.split_once('=').map_or(first.as_str(), |(name, _)| name);
        matches!(name, "--config" | "--secrets")
    });
    if deployed {
        arguments.insert(1, "connector".into());
    }
    arguments
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
        self.launch(&loaded).await
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

    #[cfg(not(feature = "fluvio"))]
    async fn launch(&self, _: &Loaded) -> Exit {
        fail("this build has no connector: build with the cargo feature `fluvio`")
    }

    #[cfg(feature = "fluvio")]
    async fn launch(&self, connector: &Loaded) -> Exit {
        use std::time::Duration;

        use super::run::{
            exit_of, ignore_hangups, prepare_when_free, print_summary, wait_for_shutdown,
        };
        use crate::config::SinkConfig;
        use crate::pipeline::{BuiltPipeline, connector_cluster};

        // A terminal that closes does not end what was started from it.
        let _hangups = ignore_hangups();
        let pipeline = &connector.loaded.pipeline;
        // So long a predecessor may take to finish what it has taken, and a little to end.
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
                exit_of(&summary, false)
            }
            Err(error) => fail(&error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployer_arguments_select_connector_command() {
        // Only a call that begins with the deployer's options has no verb of its own.
        let verb = |arguments: &[&str]| {
            let arguments = ["usercom-sink"].iter().chain(arguments);
            let made = as_command(arguments.map(OsString::from));
            made.get(1).map(|verb| verb.to_string_lossy().into_owned())
        };
        for deployed in [&["--config", "a.yaml"][..], &["--config=a.yaml"], &["--secrets", "s"]] {
            assert_eq!(verb(deployed).as_deref(), Some("connector"));
        }
        assert_eq!(verb(&["run", "--config", "a"]).as_deref(), Some("run"));
        assert_eq!(verb(&["--configure"]).as_deref(), Some("--configure"));
        assert_eq!(verb(&[]), None);
    }
}
