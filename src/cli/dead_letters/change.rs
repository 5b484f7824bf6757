//! `replay` and `purge` while no process uses the store.

use super::DeadLetterSelector;
use crate::buffer::{Store, StoreError};
use crate::cli::output::{Exit, fail, print};
use crate::cli::run::{OutputFormat, exit_of, wait_for_shutdown};
use crate::config::Pipeline;
use crate::pipeline::{Replay, Shutdown, replay};
use crate::source::ReadMode;

impl DeadLetterSelector {
    pub(super) async fn purge(&self, store: &Store, sinks: &[String]) -> Result<Exit, StoreError> {
        let mut purged = 0;
        for sink in sinks {
            purged += store.purge_dead_letters(sink, self.filter()).await?;
        }
        Ok(self.print_purged(purged as u64))
    }

    pub(super) fn print_purged(&self, purged: u64) -> Exit {
        print(&match self.format {
            OutputFormat::Text => format!("{purged} purged\n"),
            OutputFormat::Json => format!("{{\"purged\":{purged}}}\n"),
        })
    }

    pub(super) fn print_replayed(&self, replayed: u64, delivered: u64, kept: u64) -> Exit {
        print(&match self.format {
            OutputFormat::Text => {
                format!("{replayed} replayed: {delivered} settled, {kept} kept\n")
            }
            OutputFormat::Json => {
                let object = serde_json::json!({
                    "replayed": replayed, "delivered": delivered, "kept": kept,
                });
                format!("{object}\n")
            }
        })
    }

    pub(super) async fn replay(
        &self,
        store: &Store,
        pipeline: &Pipeline,
        sinks: &[String],
    ) -> Result<Exit, StoreError> {
        let stop = Shutdown::default();
        let filter = self.filter();
        let replayed = tokio::select! {
            replayed = replay(pipeline, sinks, &filter, store, stop.clone()) => replayed,
            exit = wait_for_shutdown(stop) => return Ok(exit),
        };
        let Replay { taken, delivered, kept, summary } = match replayed {
            Ok(replayed) => replayed,
            Err(error) => return Ok(fail(&error.to_string())),
        };
        let printed = self.print_replayed(taken, delivered, kept);
        Ok(if printed == Exit::Done { exit_of(&summary, ReadMode::Once) } else { printed })
    }
}
