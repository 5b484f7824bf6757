//! `validate`: reports every fault of a pipeline file, then runs the health checks.

use clap::Args;

use super::load::ConfigFiles;
use super::output::{Exit, eprint, fail, print};
use super::run::OutputFormat;
use crate::buffer::Store;
use crate::config::{OnMissing, Report, Style, ValidationEnvironment};
use crate::pipeline::{BuiltPipeline, RunOptions, Shutdown};
use crate::sink::Destination;
use crate::source::ReadMode;
use crate::telemetry::Metrics;

/// Check a pipeline file and report every fault.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink validate -c pipeline.toml
  usercom-sink validate -c pipeline.toml --no-environment
  usercom-sink validate -c base.toml -c secrets.yaml --format json")]
pub(super) struct ValidateCommand {
    #[command(flatten)]
    files: ConfigFiles,
    /// Check only the file, without health checks; `${VAR}` may be unset
    #[arg(long)]
    no_environment: bool,
    /// Output format of faults; `json` goes to stdout
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
}

impl ValidateCommand {
    pub(super) async fn run(self, style: Style) -> Exit {
        let texts = match self.files.read() {
            Ok(texts) => texts,
            Err(report) => return self.refuse(&report, style),
        };
        let on_missing = if self.no_environment { OnMissing::Warn } else { OnMissing::Fault };
        let environment = ValidationEnvironment(on_missing);
        let loaded = match super::load::load_texts(&texts, &environment) {
            Ok(loaded) => loaded,
            Err(report) => return self.refuse(&report, style),
        };
        if !loaded.warnings.is_empty() {
            self.show(&loaded.warnings, style);
        }
        eprint("ok: the file has no faults\n");
        if self.no_environment {
            return Exit::Done;
        }
        // Nothing runs, so nothing is written: the store lives in memory.
        let store = match Store::in_memory() {
            Ok(store) => store,
            Err(error) => return fail(&error.to_string()),
        };
        let options = RunOptions {
            mode: ReadMode::Once,
            store,
            metrics: Metrics::default(),
            stop: Shutdown::default(),
            destination: Destination::Account,
        };
        let mut built = match BuiltPipeline::build(&loaded.pipeline, options).await {
            Ok(built) => built,
            Err(error) => return fail(&error.to_string()),
        };
        let mut exit = Exit::Done;
        for (name, result) in built.healthchecks().await {
            match result {
                Ok(()) => eprint(&format!("ok: sink `{name}` is healthy\n")),
                Err(error) => {
                    fail(&format!("sink `{name}`: {error}"));
                    let refused = error.refused && exit == Exit::Done;
                    exit = if refused { Exit::KeyRefused } else { Exit::Failed };
                }
            }
        }
        exit
    }

    fn refuse(&self, report: &Report, style: Style) -> Exit {
        self.show(report, style);
        Exit::BadConfig
    }

    fn show(&self, report: &Report, style: Style) {
        match self.format {
            OutputFormat::Text => eprint(&report.render(style)),
            OutputFormat::Json => {
                print(&format!("{}\n", report.to_json()));
            }
        }
    }
}
