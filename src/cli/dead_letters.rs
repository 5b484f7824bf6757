//! `dead-letters`: lists, shows, exports, replays and deletes dead letters.

use clap::{Args, Subcommand};

use super::load::ConfigFiles;
use super::output::{Exit, eprint, fail, print};
use super::run::{OutputFormat, exit_of};
use crate::buffer::{Access, DeadLetterFilter, Store, StoreError, StoredDeadLetter, export};
use crate::config::{Pipeline, Style};
use crate::pipeline::{Replay, Shutdown, replay};

/// Dead letters read from the store at a time.
const PAGE_SIZE: usize = 500;

/// List, export, replay or delete dead letters.
#[derive(Debug, Args)]
pub(super) struct DeadLettersCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List, one line per dead letter
    List(DeadLetterSelector),
    /// Show all details
    Show(DeadLetterSelector),
    /// Print the records as received, one per line, for use elsewhere
    Export(DeadLetterSelector),
    /// Send the records through the pipeline again; delivered ones are removed
    Replay(DeadLetterSelector),
    /// Delete permanently
    Purge(DeadLetterSelector),
}

/// Selects dead letters.
#[derive(Debug, Args)]
struct DeadLetterSelector {
    #[command(flatten)]
    files: ConfigFiles,
    /// Select by id
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// Select by sink
    #[arg(long)]
    sink: Option<String>,
    /// Select by reason
    #[arg(long)]
    reason: Option<String>,
    /// Select by time: at or after this RFC 3339 time
    #[arg(long, value_name = "TIME")]
    since: Option<jiff::Timestamp>,
    /// Output format; `json` prints one object per line
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
}

impl DeadLettersCommand {
    pub(super) async fn run(self, style: Style) -> Exit {
        let (Action::List(choice)
        | Action::Show(choice)
        | Action::Export(choice)
        | Action::Replay(choice)
        | Action::Purge(choice)) = &self.action;
        let pipeline = match choice.files.load(style) {
            Ok(loaded) => loaded.pipeline,
            Err(exit) => return exit,
        };
        let sinks = match choice.sinks(&pipeline) {
            Ok(sinks) => sinks,
            Err(exit) => return exit,
        };
        let access = match self.action {
            Action::List(_) | Action::Show(_) | Action::Export(_) => Access::ReadOnly,
            Action::Replay(_) | Action::Purge(_) => Access::Owner,
        };
        let store = match Store::open(&pipeline.data_dir, access) {
            Ok(store) => store,
            Err(error) => return fail(&error.to_string()),
        };
        let done = match &self.action {
            Action::List(choice) => choice.print_each(&store, &sinks, list_line).await,
            Action::Show(choice) => choice.print_each(&store, &sinks, full_text).await,
            Action::Export(choice) => choice.export(&store, &sinks).await,
            Action::Purge(choice) => choice.purge(&store, &sinks).await,
            Action::Replay(choice) => choice.replay(&store, &pipeline, &sinks).await,
        };
        store.close().await;
        done.unwrap_or_else(|error| fail(&error.to_string()))
    }
}

impl DeadLetterSelector {
    fn sinks(&self, pipeline: &Pipeline) -> Result<Vec<String>, Exit> {
        match &self.sink {
            Some(name) if !pipeline.sinks.contains_key(name) => {
                fail(&format!("there is no sink `{name}`"));
                Err(Exit::Usage)
            }
            Some(name) => Ok(vec![name.clone()]),
            None => Ok(pipeline.sinks.keys().cloned().collect()),
        }
    }

    fn filter(&self) -> DeadLetterFilter {
        DeadLetterFilter {
            ids: (!self.ids.is_empty()).then(|| self.ids.clone()),
            reason: self.reason.clone(),
            since: self.since,
            ..DeadLetterFilter::default()
        }
    }

    /// Prints every selected dead letter, a page at a time.
    async fn print_each(
        &self,
        store: &Store,
        sinks: &[String],
        text: fn(&StoredDeadLetter) -> String,
    ) -> Result<Exit, StoreError> {
        for sink in sinks {
            let mut offset = 0;
            loop {
                let page = store.dead_letters(sink, self.filter(), PAGE_SIZE, offset).await?;
                offset += page.len();
                if page.is_empty() {
                    break;
                }
                let mut lines = String::new();
                for letter in &page {
                    lines += &match self.format {
                        OutputFormat::Text => text(letter),
                        OutputFormat::Json => json_line(letter),
                    };
                }
                let printed = print(&lines);
                if printed != Exit::Done {
                    return Ok(printed);
                }
            }
        }
        Ok(Exit::Done)
    }

    async fn export(&self, store: &Store, sinks: &[String]) -> Result<Exit, StoreError> {
        for sink in sinks {
            let mut offset = 0;
            loop {
                let page = store.dead_letters(sink, self.filter(), PAGE_SIZE, offset).await?;
                offset += page.len();
                if page.is_empty() {
                    break;
                }
                let exported = export(&page, &mut std::io::stdout().lock());
                match exported {
                    Ok(exported) if exported.left_out > 0 => eprint(&format!(
                        "{} dead letters have several lines and were skipped; see `show`\n",
                        exported.left_out
                    )),
                    Ok(_) => {}
                    Err(error) => return Ok(fail(&format!("cannot write: {error}"))),
                }
            }
        }
        Ok(Exit::Done)
    }

    async fn purge(&self, store: &Store, sinks: &[String]) -> Result<Exit, StoreError> {
        let mut purged = 0;
        for sink in sinks {
            purged += store.purge_dead_letters(sink, self.filter()).await?;
        }
        Ok(print(&match self.format {
            OutputFormat::Text => format!("{purged} purged\n"),
            OutputFormat::Json => format!("{{\"purged\":{purged}}}\n"),
        }))
    }

    async fn replay(
        &self,
        store: &Store,
        pipeline: &Pipeline,
        sinks: &[String],
    ) -> Result<Exit, StoreError> {
        let stop = Shutdown::default();
        let filter = self.filter();
        let replayed = tokio::select! {
            replayed = replay(pipeline, sinks, &filter, store, stop.clone()) => replayed,
            exit = super::run::wait_for_shutdown(stop) => return Ok(exit),
        };
        let Replay { taken, delivered, kept, summary } = match replayed {
            Ok(replayed) => replayed,
            Err(error) => return Ok(fail(&error.to_string())),
        };
        let printed = print(&match self.format {
            OutputFormat::Text => format!("{taken} replayed: {delivered} settled, {kept} kept\n"),
            OutputFormat::Json => {
                let object = serde_json::json!({
                    "replayed": taken, "delivered": delivered, "kept": kept,
                });
                format!("{object}\n")
            }
        });
        Ok(if printed == Exit::Done { exit_of(&summary, false) } else { printed })
    }
}

fn json_line(stored: &StoredDeadLetter) -> String {
    match serde_json::to_string(stored) {
        Ok(text) => format!("{text}\n"),
        Err(error) => {
            let object = serde_json::json!({ "id": stored.id, "error": error.to_string() });
            format!("{object}\n")
        }
    }
}

fn list_line(stored: &StoredDeadLetter) -> String {
    let letter = &stored.letter;
    let place = letter.place.as_deref().unwrap_or("-");
    format!(
        "{:>6}  {}  {}  {}  {}  {}\n",
        stored.id,
        letter.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        stored.sink,
        letter.reason,
        place.escape_debug(),
        letter.detail.escape_debug(),
    )
}

fn full_text(stored: &StoredDeadLetter) -> String {
    match serde_json::to_string_pretty(stored) {
        Ok(text) => format!("{text}\n"),
        Err(error) => format!("letter {}: {error}\n", stored.id),
    }
}
