//! `dead-letters`: lists, shows, exports, replays and deletes dead letters.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};

use super::load::ConfigFiles;
use super::output::{Exit, eprint, fail, print, printable};
use super::paint::Paint;
use super::run::{OutputFormat, exit_of};
use super::table::table;
use crate::buffer::{Access, DeadLetterFilter, Store, StoreError, StoredDeadLetter, export};
use crate::config::{Pipeline, Style};
use crate::pipeline::{Replay, Shutdown, replay};
use crate::source::ReadMode;
use crate::suggest::nearest;

/// Dead letters read from the store at a time.
const PAGE_SIZE: usize = 500;

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
  usercom-sink dead-letters replay -c pipeline.toml --since 2026-01-01T00:00:00Z")]
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
  usercom-sink dead-letters purge -c pipeline.toml --all")]
struct PurgeCommand {
    #[command(flatten)]
    choice: DeadLetterSelector,
    /// Delete every dead letter; needed if nothing else selects
    #[arg(long, conflicts_with_all = ["ids", "reason", "since"])]
    all: bool,
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
    /// Select by reason, as `list --summary` shows it
    #[arg(long)]
    reason: Option<String>,
    /// Select by time: at or after this RFC 3339 time
    #[arg(long, value_name = "TIME")]
    since: Option<jiff::Timestamp>,
    /// Output format; `json` prints one object per line
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
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

impl DeadLettersCommand {
    pub(super) async fn run(self, style: Style, paint: Paint) -> Exit {
        let choice = self.action.choice();
        // Only a replay sends anything.
        let loaded = match self.action {
            Action::Replay(_) => choice.files.load(style),
            _ => choice.files.load_offline(style),
        };
        let pipeline = match loaded {
            Ok(loaded) => loaded.pipeline,
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
        let store = match Store::open(&pipeline.data_dir, self.action.access()) {
            Ok(store) => store,
            Err(error) => return fail(&error.to_string()),
        };
        let done = self.act(&store, &pipeline, &sinks, paint).await;
        store.close().await;
        done.unwrap_or_else(|error| fail(&error.to_string()))
    }

    async fn act(
        &self,
        store: &Store,
        pipeline: &Pipeline,
        sinks: &[String],
        paint: Paint,
    ) -> Result<Exit, StoreError> {
        let choice = self.action.choice();
        if let Some(exit) = choice.check_reason(store, sinks).await? {
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
}

impl DeadLetterSelector {
    fn sinks(&self, pipeline: &Pipeline) -> Result<Vec<String>, Exit> {
        match &self.sink {
            Some(name) if !pipeline.sinks.contains_key(name) => {
                fail(&format!("there is no sink `{}`", printable(&name)));
                Err(Exit::Usage)
            }
            Some(name) => Ok(vec![name.clone()]),
            None => Ok(pipeline.sinks.keys().cloned().collect()),
        }
    }

    /// Whether anything selects.
    fn selects(&self) -> bool {
        !self.ids.is_empty() || self.sink.is_some() || self.reason.is_some() || self.since.is_some()
    }

    fn filter(&self) -> DeadLetterFilter {
        DeadLetterFilter {
            ids: (!self.ids.is_empty()).then(|| self.ids.clone()),
            reason: self.reason.clone(),
            since: self.since,
        }
    }

    /// Refuses a reason that no dead letter has and the program does not know: it is misspelt.
    async fn check_reason(
        &self,
        store: &Store,
        sinks: &[String],
    ) -> Result<Option<Exit>, StoreError> {
        let Some(reason) = &self.reason else {
            return Ok(None);
        };
        let mut present: BTreeMap<String, u64> = BTreeMap::new();
        for sink in sinks {
            for (reason, count) in store.count_dead_letters(sink).await? {
                *present.entry(reason).or_default() += count;
            }
        }
        if present.contains_key(reason) || crate::pipeline::is_dead_letter_reason(reason) {
            return Ok(None);
        }
        let known: Vec<&str> = present.keys().map(String::as_str).collect();
        let all = crate::pipeline::DEAD_LETTER_REASONS;
        let near = nearest(reason, known.iter().copied().chain(all.iter().copied()));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let listed = match known.is_empty() {
            true => format!("the known reasons are {}", all.join(", ")),
            false => format!("the dead letters have {}", known.join(", ")),
        };
        fail(&format!("unknown reason `{}`{near} {listed}", printable(&reason)));
        Ok(Some(Exit::Usage))
    }

    async fn summarize(
        &self,
        store: &Store,
        sinks: &[String],
        paint: Paint,
    ) -> Result<Exit, StoreError> {
        let mut causes = Vec::new();
        for sink in sinks {
            causes.extend(store.dead_letter_causes(sink, self.filter()).await?);
        }
        if self.format == OutputFormat::Json {
            let lines = causes.iter().filter_map(|cause| serde_json::to_string(cause).ok());
            return Ok(print(&lines.map(|line| line + "\n").collect::<String>()));
        }
        if causes.is_empty() {
            eprint("no dead letters\n");
            return Ok(Exit::Done);
        }
        let rows: Vec<Vec<String>> = causes
            .iter()
            .map(|cause| {
                vec![
                    cause.count.to_string(),
                    cause.sink.clone(),
                    printable(&cause.reason),
                    shown(cause.rule.as_deref()),
                    shown(cause.field.as_deref()),
                    time(cause.oldest),
                    time(cause.newest),
                    cause.last_id.to_string(),
                    printable(&cause.detail),
                ]
            })
            .collect();
        let header = [
            "COUNT",
            "SINK",
            "REASON",
            "RULE",
            "FIELD",
            "OLDEST",
            "NEWEST",
            "LAST ID",
            "DETAIL OF THE LAST",
        ];
        Ok(print(&table(&header, &rows, paint)))
    }

    /// Prints every selected dead letter, a page at a time.
    async fn print_each(
        &self,
        store: &Store,
        sinks: &[String],
        text: impl Fn(&[StoredDeadLetter]) -> String,
    ) -> Result<Exit, StoreError> {
        let mut any = false;
        for sink in sinks {
            let mut offset = 0;
            loop {
                let page = store.dead_letters(sink, self.filter(), PAGE_SIZE, offset).await?;
                offset += page.len();
                if page.is_empty() {
                    break;
                }
                any = true;
                let printed = print(&match self.format {
                    OutputFormat::Text => text(&page),
                    OutputFormat::Json => page.iter().map(json_line).collect(),
                });
                if printed != Exit::Done {
                    return Ok(printed);
                }
            }
        }
        if !any && self.format == OutputFormat::Text {
            eprint("no dead letters\n");
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
        Ok(if printed == Exit::Done { exit_of(&summary, ReadMode::Once) } else { printed })
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

/// The rows of a page under a header.
fn list_lines(page: &[StoredDeadLetter], paint: Paint) -> String {
    let rows: Vec<Vec<String>> = page
        .iter()
        .map(|stored| {
            let letter = &stored.letter;
            vec![
                stored.id.to_string(),
                time(letter.at),
                stored.sink.clone(),
                printable(&letter.reason),
                shown(letter.rule.as_deref()),
                shown(letter.place.as_deref()),
                printable(&letter.detail),
            ]
        })
        .collect();
    table(&["ID", "TIME", "SINK", "REASON", "RULE", "FROM", "DETAIL"], &rows, paint)
}

fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn shown(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| printable(text))
}

fn full_text(stored: &StoredDeadLetter) -> String {
    match serde_json::to_string_pretty(stored) {
        Ok(text) => format!("{text}\n"),
        Err(error) => format!("letter {}: {error}\n", stored.id),
    }
}
