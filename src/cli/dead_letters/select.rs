//! Which dead letters a command is about, and faults in how they were selected.

use std::collections::BTreeMap;

use clap::Args;

use crate::buffer::{DeadLetterFilter, Store, StoreError};
use crate::cli::load::{ConfigFiles, unknown_sink};
use crate::cli::output::{Exit, fail, printable};
use crate::cli::run::OutputFormat;
use crate::config::Pipeline;
use crate::suggest::nearest;

/// Selects dead letters.
#[derive(Debug, Args)]
pub(super) struct DeadLetterSelector {
    #[command(flatten)]
    pub(super) files: ConfigFiles,
    /// Select by id
    #[arg(value_name = "ID")]
    pub(super) ids: Vec<i64>,
    /// Select by sink
    #[arg(long)]
    pub(super) sink: Option<String>,
    /// Select by reason, as `list --summary` shows it
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// Select by time: at or after this RFC 3339 time; without a zone it is UTC
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<jiff::Timestamp>,
    /// Output format; `json` prints one object per line
    #[arg(long, value_enum, default_value = "text")]
    pub(super) format: OutputFormat,
}

/// A time of RFC 3339; a date alone is its first moment, and without a zone it is UTC.
fn time(text: &str) -> Result<jiff::Timestamp, String> {
    let with_zone = || format!("{text}Z").parse();
    let with_time = || format!("{text}T00:00:00Z").parse();
    let parsed: Result<jiff::Timestamp, jiff::Error> =
        text.parse().or_else(|_: jiff::Error| with_zone()).or_else(|_: jiff::Error| with_time());
    parsed.map_err(|_| "write a time as in 2026-01-01T00:00:00Z, or a date".to_owned())
}

impl DeadLetterSelector {
    pub(super) fn sinks(&self, pipeline: &Pipeline) -> Result<Vec<String>, Exit> {
        match &self.sink {
            Some(name) if !pipeline.sinks.contains_key(name) => Err(unknown_sink(pipeline, name)),
            Some(name) => Ok(vec![name.clone()]),
            None => Ok(pipeline.sinks.keys().cloned().collect()),
        }
    }

    /// Whether anything selects.
    pub(super) fn selects(&self) -> bool {
        !self.ids.is_empty() || self.sink.is_some() || self.reason.is_some() || self.since.is_some()
    }

    pub(super) fn filter(&self) -> DeadLetterFilter {
        DeadLetterFilter {
            ids: (!self.ids.is_empty()).then(|| self.ids.clone()),
            reason: self.reason.clone(),
            since: self.since,
            ..DeadLetterFilter::default()
        }
    }

    /// Refuses what can select nothing, and says what is right.
    pub(super) async fn check(
        &self,
        store: &Store,
        sinks: &[String],
    ) -> Result<Option<Exit>, StoreError> {
        match self.check_reason(store, sinks).await? {
            Some(exit) => Ok(Some(exit)),
            None => self.check_ids(store, sinks).await,
        }
    }

    /// Refuses ids that no dead letter of these sinks has.
    async fn check_ids(&self, store: &Store, sinks: &[String]) -> Result<Option<Exit>, StoreError> {
        let mut missing = Vec::new();
        for id in &self.ids {
            let found = store.dead_letter(*id).await?;
            if !found.is_some_and(|found| sinks.contains(&found.sink)) {
                missing.push(id.to_string());
            }
        }
        if missing.is_empty() {
            return Ok(None);
        }
        let of_sink = self.sink.as_ref().map(|sink| format!(" of sink `{}`", printable(sink)));
        let of_sink = of_sink.unwrap_or_default();
        let missing = missing.join(", ");
        Ok(Some(fail(&format!(
            "there is no dead letter {missing}{of_sink}; nothing was done: `list` shows the ids"
        ))))
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
        let listed = match known.is_empty() {
            true => format!("the known reasons are {}", all.join(", ")),
            false => format!("the dead letters have {}", known.join(", ")),
        };
        let reason = printable(reason);
        fail(&match near {
            Some(near) => format!("unknown reason `{reason}`; did you mean `{near}`? {listed}"),
            None => format!("unknown reason `{reason}`; {listed}"),
        });
        Ok(Some(Exit::Usage))
    }
}
