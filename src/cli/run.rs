//! `run`: runs a pipeline until it is stopped, and reloads it on SIGHUP; with `--once` it stops at
//! the present end of the sources.

use std::path::Path;
#[cfg(feature = "fluvio")]
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::sync::mpsc;

use super::dry_run::{Quota, dry_run};
use super::load::ConfigFiles;
use super::output::{Exit, eprint, fail, print};
use super::progress::ProgressDisplay;
use super::{reload, state};
#[cfg(feature = "fluvio")]
use crate::buffer::StoreError;
use crate::buffer::{Access, Store};
use crate::config::Style;
use crate::pipeline::{BuiltPipeline, RunOptions, Shutdown, Summary};
use crate::sink::Destination;
use crate::source::ReadMode;
use crate::telemetry::Metrics;

/// Run a pipeline.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink run -c pipeline.toml
  usercom-sink run -c pipeline.toml --once --format json
  usercom-sink run -c pipeline.toml --dry-run --quota 600/min
  usercom-sink run -c pipeline.toml --once --fail-on-dead-letter --fail-on-unmatched

SIGTERM and SIGINT stop it: records in a memory buffer are delivered first, those in a disk
buffer wait for the next start. SIGHUP reads the pipeline files again.

--dry-run needs no key and changes nothing, also while the pipeline runs. It reads files
and standard input from where the next run would, and counts users that were never sent
as new ones.

Exit codes: 0 done, 1 failed, 65 dead letters or unmatched records (with --fail-on-...),
75 stopped with records left, 77 the API key was refused, 78 bad config.")]
pub(super) struct RunCommand {
    #[command(flatten)]
    files: ConfigFiles,
    /// Stop at the present end of the sources, once all records are settled
    #[arg(long)]
    once: bool,
    /// Output format of the summary of --once
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
    /// Send nothing: print the requests of a run with --once, and their time at the quota
    #[arg(long, conflicts_with = "require_healthy")]
    dry_run: bool,
    /// A quota for --dry-run, for example `10/s` or `600/min`; repeatable
    #[arg(long, value_name = "N[/s]", requires = "dry_run")]
    quota: Vec<Quota>,
    /// Do not start if a health check fails
    #[arg(long)]
    require_healthy: bool,
    /// Exit with 65 if a record went to the dead letters
    #[arg(long)]
    fail_on_dead_letter: bool,
    /// Exit with 65 if no rule matched a record
    #[arg(long)]
    fail_on_unmatched: bool,
}

/// Output format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    // Without doc comments the help lists both on one line.
    Text,
    Json,
}

/// Opens the store and makes the options of a run.
pub(super) fn prepare(data_dir: &Path, once: bool) -> Result<RunOptions, Exit> {
    let store = Store::open(data_dir, Access::Owner).map_err(|e| fail(&e.to_string()))?;
    name_data_dir(data_dir);
    Ok(run_options(store, once))
}

fn name_data_dir(data_dir: &Path) {
    let folder = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    tracing::info!("state directory (checkpoints, buffers, dead letters): {}", folder.display());
}

fn run_options(store: Store, once: bool) -> RunOptions {
    let mode = if once { ReadMode::Once } else { ReadMode::Follow };
    RunOptions {
        mode,
        store,
        metrics: Metrics::default(),
        stop: Shutdown::default(),
        destination: Destination::Account,
    }
}

/// As [`prepare`], but waits for an earlier process that still uses the folder: it may be settling
/// its records.
#[cfg(feature = "fluvio")]
pub(super) async fn prepare_when_free(
    data_dir: &Path,
    once: bool,
    limit: Duration,
) -> Result<RunOptions, Exit> {
    const RETRY_INTERVAL: Duration = Duration::from_millis(200);
    let begun = tokio::time::Instant::now();
    let mut told = false;
    loop {
        match Store::open(data_dir, Access::Owner) {
            Err(error @ StoreError::InUse { .. }) if begun.elapsed() < limit => {
                if !std::mem::replace(&mut told, true) {
                    let seconds = limit.as_secs();
                    tracing::warn!(%error, seconds, "waiting for the other process to end, at most this many seconds");
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Err(error) => return Err(fail(&error.to_string())),
            Ok(store) => return Ok(run_options(store, once)),
        }
    }
}

impl RunCommand {
    pub(super) async fn run(self, style: Style) -> Exit {
        if self.dry_run {
            return self.count_requests(style).await;
        }
        // Registered first: SIGHUP must not end the process while it starts.
        let hangups = if self.once { None } else { reload::listen() };
        let loaded = match self.files.load(style) {
            Ok(loaded) => loaded,
            Err(exit) => return exit,
        };
        let pipeline = loaded.pipeline;
        if let Some(warning) = state::check_former_data_dir(&pipeline.data_dir) {
            eprint(&warning.render(style));
        }
        let options = match prepare(&pipeline.data_dir, self.once) {
            Ok(options) => options,
            Err(exit) => return exit,
        };
        let (store, stop) = (options.store.clone(), options.stop.clone());
        let mut built = match BuiltPipeline::build(&pipeline, options).await {
            Ok(built) => built,
            Err(error) => return fail(&error.to_string()),
        };
        built.show_files(&loaded.warnings);
        if self.require_healthy {
            for (name, result) in built.healthchecks().await {
                if let Err(error) = result {
                    return fail(&format!("sink `{name}` is not healthy: {error}"));
                }
            }
        }
        let display = self.once.then(|| ProgressDisplay::show(built.status()));
        let (reloader, reloads) = mpsc::channel(1);
        let ended = tokio::select! {
            ended = built.run_reloading(loaded.fingerprints, reloads) => ended,
            () = reload::read_on_hangup(hangups, &self.files, style, reloader) => {
                unreachable!("it waits for signals for ever")
            }
            exit = wait_for_shutdown(stop) => return exit,
        };
        drop(display);
        store.close().await;
        match ended {
            Ok(summary) => self.report(&summary),
            Err(error) => fail(&error.to_string()),
        }
    }

    async fn count_requests(&self, style: Style) -> Exit {
        let pipeline = match self.files.load_offline(style) {
            Ok(loaded) => loaded.pipeline,
            Err(exit) => return exit,
        };
        let summary = match dry_run(pipeline, &self.quota, self.format).await {
            Ok(summary) => summary,
            Err(exit) => return exit,
        };
        let dead = all_dead_letters(&summary);
        if dead > 0 {
            let become_dead = match dead {
                1 => "record would become a dead letter",
                _ => "records would become dead letters",
            };
            eprint(&format!("{dead} {become_dead}; `explain` shows why of single records\n"));
        }
        self.checked(&summary, if summary.stopped_early { Exit::WorkLeft } else { Exit::Done })
    }

    /// The exit code, with what `--fail-on-...` asks for.
    fn checked(&self, summary: &Summary, exit: Exit) -> Exit {
        let unmatched: u64 = summary.sinks.values().map(|sink| sink.unmatched).sum();
        let dead = all_dead_letters(summary);
        let fails = self.fail_on_dead_letter && dead > 0 || self.fail_on_unmatched && unmatched > 0;
        if exit == Exit::Done && fails { Exit::DeadLetters } else { exit }
    }

    fn report(&self, summary: &Summary) -> Exit {
        if self.once {
            let printed = print_summary(summary, self.format);
            if printed != Exit::Done {
                return printed;
            }
        }
        let exit = exit_of(summary, self.mode());
        let dead = all_dead_letters(summary);
        if dead > 0 {
            let became = match dead {
                1 => "record became a dead letter",
                _ => "records became dead letters",
            };
            let files = self.files.as_arguments();
            eprint(&format!(
                "{dead} {became} in this run; to see why: usercom-sink dead-letters list {files} --summary\n"
            ));
        }
        self.checked(summary, exit)
    }

    fn mode(&self) -> ReadMode {
        if self.once { ReadMode::Once } else { ReadMode::Follow }
    }
}

/// Prints the summary.
pub(super) fn print_summary(summary: &Summary, format: OutputFormat) -> Exit {
    match format {
        OutputFormat::Text => print(&summary.to_string()),
        OutputFormat::Json => match serde_json::to_string(summary) {
            Ok(json) => print(&format!("{json}\n")),
            Err(error) => fail(&error.to_string()),
        },
    }
}

fn all_dead_letters(summary: &Summary) -> u64 {
    summary.sinks.values().map(|sink| sink.all_dead_letters()).sum()
}

/// The exit code of a summary. A service may leave records in a disk buffer: its next start
/// delivers them.
pub(super) fn exit_of(summary: &Summary, mode: ReadMode) -> Exit {
    let left = summary.left > 0 && mode == ReadMode::Once;
    if summary.key_refused.is_some() {
        Exit::KeyRefused
    } else if left || summary.stopped_early {
        Exit::WorkLeft
    } else {
        Exit::Done
    }
}

/// The first SIGTERM or SIGINT stops gracefully. Returns at the second, which ends the process at
/// once.
pub(super) async fn wait_for_shutdown(stop: Shutdown) -> Exit {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be received; the pipeline can only be killed");
        return std::future::pending().await;
    };
    for nth in 0..2 {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if nth == 0 {
            tracing::info!(
                "stopping: records that were read are settled first; a second signal ends the process at once"
            );
            stop.graceful.cancel();
        }
    }
    tracing::warn!(
        "ended at once by a second signal; records that were not settled are delivered at the next start"
    );
    Exit::WorkLeft
}

/// Ignores SIGHUP while the returned value lives.
#[cfg(feature = "fluvio")]
pub(super) fn ignore_hangups() -> Option<tokio::signal::unix::Signal> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::hangup()).ok()
}
