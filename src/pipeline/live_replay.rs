//! Replay into sinks that run: dead letters go through the running pipeline again.
//!
//! # Invariants
//! One replay at a time. A dead letter is deleted only after its record has a new status.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::replay::{PAGE_SIZE, Resent, chosen, send_again};
use crate::api::{EndedReplay, ReplayOutcome, ReplayProgress, Replayed, Replayer};
use crate::buffer::{DeadLetterFilter, Store};
use crate::record::Record;

/// The inputs of the sinks that run, by name. Weak: a sink ends when its sources do.
pub(super) type SinkInputs = Arc<RwLock<BTreeMap<String, mpsc::WeakSender<Record>>>>;

/// Replays into the sinks that run.
pub(super) struct LiveReplayer {
    pub(super) store: Store,
    pub(super) inputs: SinkInputs,
    pub(super) stop: CancellationToken,
    pub(super) replays: Mutex<Replays>,
}

/// The replays of a process.
#[derive(Default)]
pub(super) struct Replays {
    begun: u64,
    running: Option<ReplayProgress>,
    last: Option<EndedReplay>,
}

/// Ends a replay, however it ends.
struct ReplayPermit<'a> {
    replayer: &'a LiveReplayer,
    outcome: Option<ReplayOutcome>,
}

impl Drop for ReplayPermit<'_> {
    fn drop(&mut self) {
        let cut_off = || ReplayOutcome::Failed { error: "the replay was cut off".to_owned() };
        let outcome = self.outcome.take().unwrap_or_else(cut_off);
        let mut replays = self.replayer.locked();
        let ended = replays.running.take();
        replays.last = ended.map(|running| EndedReplay { id: running.id, outcome });
    }
}

impl LiveReplayer {
    fn locked(&self) -> MutexGuard<'_, Replays> {
        self.replays.lock()
    }

    fn take_permit(&self) -> Option<ReplayPermit<'_>> {
        let mut replays = self.locked();
        if replays.running.is_some() {
            return None;
        }
        replays.begun += 1;
        replays.running = Some(ReplayProgress { id: replays.begun, ..ReplayProgress::default() });
        drop(replays);
        Some(ReplayPermit { replayer: self, outcome: None })
    }

    fn input(&self, sink: &str) -> Option<mpsc::Sender<Record>> {
        let inputs = self.inputs.read();
        inputs.get(sink)?.upgrade()
    }

    fn note(&self, change: impl FnOnce(&mut ReplayProgress)) {
        if let Some(progress) = &mut self.locked().running {
            change(progress);
        }
    }

    async fn send_all(
        &self,
        sinks: Vec<String>,
        filter: DeadLetterFilter,
    ) -> Result<Replayed, String> {
        let mut taken = Vec::new();
        for sink in sinks {
            let ids = chosen(&self.store, &sink, &filter).await.map_err(|e| e.to_string())?;
            self.note(|progress| progress.total += ids.len() as u64);
            taken.push((sink, ids));
        }
        let mut done = Replayed::default();
        for (sink, ids) in taken.into_iter().filter(|(_, ids)| !ids.is_empty()) {
            for ids in ids.chunks(PAGE_SIZE) {
                if self.stop.is_cancelled() {
                    return Err("the pipeline stops; the dead letters that are left stay".into());
                }
                let input = self.input(&sink).ok_or_else(|| {
                    format!("sink `{sink}` takes no records any more; its dead letters stay")
                })?;
                let Resent { sent, settled, rejected } =
                    send_again(&self.store, &sink, ids, &input).await.map_err(|e| e.to_string())?;
                done.replayed += sent;
                done.delivered += settled.saturating_sub(rejected);
                done.kept += sent - settled.saturating_sub(rejected);
                self.note(|progress| progress.done += ids.len() as u64);
            }
        }
        tracing::info!(
            replayed = done.replayed,
            delivered = done.delivered,
            kept = done.kept,
            "dead letters were replayed"
        );
        Ok(done)
    }
}

#[async_trait]
impl Replayer for LiveReplayer {
    async fn replay(
        &self,
        sinks: Vec<String>,
        filter: DeadLetterFilter,
    ) -> Result<Replayed, String> {
        let mut permit = self.take_permit().ok_or("another replay runs; try again later")?;
        let replayed = self.send_all(sinks, filter).await;
        permit.outcome = Some(match &replayed {
            Ok(replayed) => ReplayOutcome::Done(*replayed),
            Err(error) => ReplayOutcome::Failed { error: error.clone() },
        });
        replayed
    }

    fn progress(&self) -> Option<ReplayProgress> {
        self.locked().running
    }

    fn last(&self) -> Option<EndedReplay> {
        self.locked().last.clone()
    }
}
