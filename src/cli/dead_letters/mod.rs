//! `dead-letters`: lists, shows, exports, replays and deletes dead letters.

mod change;
mod running;
mod select;
mod show;

use clap::{Args, Subcommand};

use self::select::DeadLetterSelector;
use self::show::{full_text, list_lines};
use super::load::show_warnings;
use super::output::{Exit, eprint, fail};
use super::paint::Paint;
use super::state::open_existing;
use crate::buffer::{Access, Store, StoreError};
use crate::config::{OfflineEnvironment, Pipeline, ProcessEnvironment, Report, Style};

/// List, export, replay or delete dead letters.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink dead-letters list -c pipeline.toml --summary
  usercom-sink dead-letters show -c pipeline.toml 17
  usercom-sink dead-letters replay -c pipeline.toml --reason missing_required
  usercom-sink dead-letters purge -c pipeline.toml --all")]
pub(super) struct DeadLettersCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List, one line per dead letter
    List(ListCommand),
    /// Show all details
    #[command(after_help = "\
Examples:
  usercom-sink dead-letters show -c pipeline.toml 17
  usercom-sink dead-letters show -c pipeline.toml --reason status_400")]
    Show(DeadLetterSelector),
    /// Print the records as received, one per line, for use elsewhere
    #[command(after_help = "\
Examples:
  usercom-sink dead-letters export -c pipeline.toml > failed.ndjson")]
    Export(DeadLetterSelector),
    /// Send the records through the pipeline again; delivered ones are removed
    #[command(after_help = "\
Examples:
  usercom-sink dead-letters replay -c pipeline.toml
  usercom-sink dead-letters replay -c pipeline.toml --reason missing_required
  usercom-sink dead-letters replay -c pipeline.toml --since 2026-01-01T00:00:00Z

While the pipeline runs, it does this itself: the command reaches it at `[api] listen`,
with `[api] token`. Otherwise the command opens the store and sends the records.")]
    Replay(DeadLetterSelector),
    /// Delete permanently
    Purge(PurgeCommand),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink dead-letters list -c pipeline.toml
  usercom-sink dead-letters list -c pipeline.toml --summary
  usercom-sink dead-letters list -c pipeline.toml --reason status_400 --format json")]
struct ListCommand {
    #[command(flatten)]
    choice: DeadLetterSelector,
    /// One line per sink, reason, rule and field, with the number of dead letters
    #[arg(long)]
    summary: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink dead-letters purge -c pipeline.toml --reason unmatched
  usercom-sink dead-letters purge -c pipeline.toml 17 18
  usercom-sink dead-letters purge -c pipeline.toml --all

While the pipeline runs, it does this itself: the command reaches it at `[api] listen`,
with `[api] token`.")]
struct PurgeCommand {
    #[command(flatten)]
    choice: DeadLetterSelector,
    /// Delete every dead letter; needed if nothing else selects
    #[arg(long, conflicts_with_all = ["ids", "reason", "since"])]
    all: bool,
}

impl Action {
    fn choice(&self) -> &DeadLetterSelector {
        match self {
            Self::List(list) => &list.choice,
            Self::Purge(purge) => &purge.choice,
            Self::Show(choice) | Self::Export(choice) | Self::Replay(choice) => choice,
        }
    }

    fn access(&self) -> Access {
        match self {
            Self::List(_) | Self::Show(_) | Self::Export(_) => Access::ReadOnly,
            Self::Replay(_) | Self::Purge(_) => Access::Owner,
        }
    }
}

/// What a command found in the pipeline files.
struct Found {
    pipeline: Pipeline,
    /// Why nothing can be sent from here: a secret is missing. A running pipeline has its own.
    incomplete: Option<Report>,
}

impl DeadLettersCommand {
    pub(super) async fn run(self, style: Style, paint: Paint) -> Exit {
        let choice = self.action.choice();
        let Found { pipeline, incomplete } = match self.load(style) {
            Ok(found) => found,
            Err(exit) => return exit,
        };
        let sinks = match choice.sinks(&pipeline) {
            Ok(sinks) => sinks,
            Err(exit) => return exit,
        };
        if let Action::Purge(purge) = &self.action
            && !purge.all
            && !choice.selects()
        {
            fail(
                "this would delete every dead letter: select some by id, --sink, --reason or --since, or write --all",
            );
            return Exit::Usage;
        }
        let store = match open_existing(&pipeline.data_dir, self.action.access()) {
            Ok(store) => store,
            Err(StoreError::InUse { pid, .. }) => {
                return self.act_in_running(&pipeline, &sinks, pid).await;
            }
            Err(error) => return fail(&error.to_string()),
        };
        let done = match incomplete {
            Some(report) => {
                eprint(&report.render(style));
                Ok(Exit::BadConfig)
            }
            None => self.act(&store, &pipeline, &sinks, paint).await,
        };
        store.close().await;
        done.unwrap_or_else(|error| fail(&error.to_string()))
    }

    /// Reads the pipeline files. Only a replay sends anything, and only if no pipeline runs that
    /// can do it: the others need no secret.
    fn load(&self, style: Style) -> Result<Found, Exit> {
        let files = &self.action.choice().files;
        let Action::Replay(_) = self.action else {
            let pipeline = files.load_offline(style)?.pipeline;
            return Ok(Found { pipeline, incomplete: None });
        };
        let incomplete = match files.try_load(&ProcessEnvironment) {
            Ok(loaded) => {
                show_warnings(&loaded, style);
                return Ok(Found { pipeline: loaded.pipeline, incomplete: None });
            }
            Err(report) => report,
        };
        match files.try_load(&OfflineEnvironment) {
            Ok(loaded) if loaded.pipeline.data_dir.exists() => {
                Ok(Found { pipeline: loaded.pipeline, incomplete: Some(incomplete) })
            }
            Ok(_) | Err(_) => {
                eprint(&incomplete.render(style));
                Err(Exit::BadConfig)
            }
        }
    }

    async fn act(
        &self,
        store: &Store,
        pipeline: &Pipeline,
        sinks: &[String],
        paint: Paint,
    ) -> Result<Exit, StoreError> {
        let choice = self.action.choice();
        if let Some(exit) = choice.check(store, sinks).await? {
            return Ok(exit);
        }
        match &self.action {
            Action::List(list) if list.summary => choice.summarize(store, sinks, paint).await,
            Action::List(_) => {
                choice.print_each(store, sinks, |page| list_lines(page, paint)).await
            }
            Action::Show(_) => {
                choice.print_each(store, sinks, |page| page.iter().map(full_text).collect()).await
            }
            Action::Export(_) => choice.export(store, sinks).await,
            Action::Purge(_) => choice.purge(store, sinks).await,
            Action::Replay(_) => choice.replay(store, pipeline, sinks).await,
        }
    }

    /// Lets the process act that uses the store: only it may change its dead letters.
    async fn act_in_running(
        &self,
        pipeline: &Pipeline,
        sinks: &[String],
        owner: Option<u32>,
    ) -> Exit {
        let choice = self.action.choice();
        let checked = match Store::open(&pipeline.data_dir, Access::ReadOnly) {
            Ok(store) => {
                let checked = choice.check(&store, sinks).await;
                store.close().await;
                checked
            }
            Err(error) => Err(error),
        };
        match checked {
            Ok(None) => {}
            Ok(Some(exit)) => return exit,
            Err(error) => return fail(&error.to_string()),
        }
        let done = match &self.action {
            Action::Replay(_) => choice.replay_in_running(pipeline, owner).await,
            _ => choice.purge_in_running(pipeline, owner).await,
        };
        done.unwrap_or_else(|why| fail(&why))
    }
}
