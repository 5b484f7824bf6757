//! Reload: replaces the parts that changed; the others are not touched.
//!
//! Sources end first (they wait for the status of their records), then sinks (they settle their
//! records). The new parts are built when all old ones have ended.
//!
//! # Invariants
//! While a sink is replaced, the records for it wait; none goes only to the other sinks.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::changes::{Changes, PartNames, RunSettings};
use super::parts::{build_sinks, build_sources, shutdown_deadline};
use super::route::SourceRoute;
use super::supervisor::{LiveSink, PartStatus, Senders, Supervisor, reset};
use super::{RunError, RunOptions};
use crate::config::SourceConfig;

/// How often leaving parts are checked.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long leaving sources wait for a halted sink, and how long a halted sink may take to store
/// its input in a disk buffer.
const HALTED_SINK_TIMEOUT: Duration = Duration::from_secs(2);

const RELOAD_REJECTED: &str = "the new pipeline file is rejected, the old one stays in use";

impl Supervisor {
    /// Changes to new settings, or logs why not and keeps the old ones.
    pub(super) async fn reload(&mut self, new: RunSettings) {
        if let Some(why) = Changes::rejection(&self.settings, &new) {
            tracing::error!("{RELOAD_REJECTED}: {why}");
            return;
        }
        let mut changes = Changes::between(&self.settings, &new);
        let accepts_input = |name: &str| {
            let sink = self.sinks.get(name);
            sink.is_some_and(|sink| sink.sender.strong_count() > 0)
        };
        changes.restart_ended(&new.pipeline, accepts_input);
        if changes.is_empty() {
            tracing::info!("reloaded: nothing changed");
            self.settings = new;
            return;
        }
        let wanted = |name: &str| changes.added.sources.contains(name);
        if let Err(error) = build_sources(&new.pipeline, wanted, &self.options) {
            tracing::error!("{RELOAD_REJECTED}: {error}");
            return;
        }
        tracing::info!("reloading: {changes}");
        let mut senders = self.senders_of_others(&changes.removed);
        let ended_before = self.missing(&changes.removed);
        self.end_sources(&changes.removed).await;
        self.end_sinks(&changes.removed).await;
        let again = self.end_unpersisted(&changes.removed).await;
        if self.is_stopping() {
            self.close_paused();
            return;
        }
        self.report_removed(&changes);
        let added = with(&changes.added, &again);
        // A part that had ended by itself is not restarted with the old settings.
        let back = without(&with(&changes.removed, &again), &ended_before);
        match self.begin(&new, &added, &mut senders).await {
            Ok(()) => {
                tracing::info!("reloaded: {changes}");
                self.deadline.send_replace(shutdown_deadline(&new.pipeline));
                self.settings = new;
            }
            Err(error) => {
                tracing::error!("{RELOAD_REJECTED}: {error}");
                let old = std::mem::replace(&mut self.settings, new);
                let begun = self.begin(&old, &back, &mut senders).await;
                self.settings = old;
                if let Err(error) = begun {
                    self.close_paused();
                    self.fail(error);
                    return;
                }
            }
        }
        self.reroute(&changes, &senders);
    }

    /// Senders of the sinks that stay: while they exist, the input of these sinks does not end.
    fn senders_of_others(&self, removed: &PartNames) -> Senders {
        let stay = self.sinks.iter().filter(|(name, _)| !removed.sinks.contains(*name));
        stay.filter_map(|(name, sink)| Some((name.clone(), sink.sender.upgrade()?))).collect()
    }

    fn missing(&self, names: &PartNames) -> PartNames {
        let sources = names.sources.iter().filter(|name| !self.sources.contains_key(*name));
        let sinks = names.sinks.iter().filter(|name| {
            let sink = self.sinks.get(*name);
            sink.is_none_or(|sink| sink.sender.strong_count() == 0)
        });
        PartNames { sources: sources.cloned().collect(), sinks: sinks.cloned().collect() }
    }

    /// Stops sources as SIGTERM does, while the old sinks settle their records. Sources that wait
    /// for a halted sink are handled later.
    async fn end_sources(&mut self, removed: &PartNames) {
        for (_, source) in
            self.sources.iter_mut().filter(|(name, _)| removed.sources.contains(*name))
        {
            source.leave();
        }
        let deadline = *self.deadline.borrow();
        self.wait(|this, waited| {
            let waiting = |name: &String| {
                let halted = this
                    .sinks
                    .values()
                    .any(|sink| sink.inputs.contains(name) && sink.metrics.is_halted());
                this.sources.contains_key(name) && (!halted || waited < HALTED_SINK_TIMEOUT)
            };
            waited >= deadline || !removed.sources.iter().any(waiting)
        })
        .await;
    }

    /// Lets sinks settle their records; sinks that cannot are aborted.
    async fn end_sinks(&mut self, removed: &PartNames) {
        for (_, sink) in self.sinks.iter_mut().filter(|(name, _)| removed.sinks.contains(*name)) {
            sink.status = PartStatus::Leaving;
            // Its successor delivers what is left in a disk buffer.
            sink.leave.cancel();
        }
        let leaving = |sink: &&LiveSink| sink.status == PartStatus::Leaving;
        let inputs: BTreeSet<&String> =
            self.sinks.values().filter(leaving).flat_map(|sink| &sink.inputs).collect();
        for (_, source) in self.sources.iter().filter(|(name, _)| inputs.contains(name)) {
            source.route.send_replace(match source.status {
                PartStatus::Active => SourceRoute::Paused,
                PartStatus::Leaving => SourceRoute::Closed,
            });
        }
        let deadline = *self.deadline.borrow();
        self.wait(|this, waited| {
            for sink in this.sinks.values().filter(leaving) {
                if is_stuck(sink, waited, deadline) {
                    sink.stop.cancel();
                }
            }
            !this.sinks.values().any(|sink| sink.status == PartStatus::Leaving)
        })
        .await;
    }

    /// Ends the sources of sinks that returned records, so that these are read again, and every
    /// source that should have ended and has not. Returns the sources to restart.
    async fn end_unpersisted(&mut self, removed: &PartNames) -> BTreeSet<String> {
        let inputs: BTreeSet<String> =
            self.unpersisted.drain(..).flat_map(|sink| sink.inputs).collect();
        let settings = &self.settings.pipeline.sources;
        let mut again = BTreeSet::new();
        for (name, source) in self.sources.iter_mut().filter(|(name, _)| inputs.contains(*name)) {
            // Custom sources are not in the file and cannot be built again.
            let known = settings.get(name);
            let read_again = known.is_some_and(SourceConfig::is_read_again);
            if source.status == PartStatus::Active && read_again {
                source.leave();
                source.route.send_replace(SourceRoute::Closed);
                again.insert(name.clone());
            }
        }
        let gone = |this: &Self| {
            let mut names = again.iter().chain(&removed.sources);
            !names.any(|name| this.sources.contains_key(name))
        };
        // Leaving sources may wait for sinks that stay, and have already been waited for.
        let timeout = if again.is_empty() { HALTED_SINK_TIMEOUT } else { *self.deadline.borrow() };
        self.wait(|this, waited| gone(this) || waited >= timeout).await;
        if !self.is_stopping() {
            for source in
                self.sources.values().filter(|source| source.status == PartStatus::Leaving)
            {
                source.abandon();
            }
            self.wait(|this, _| gone(this)).await;
        }
        again
    }

    /// Waits until `done`, handling parts that end meanwhile, or until the pipeline stops.
    async fn wait(&mut self, done: impl Fn(&Self, Duration) -> bool) {
        let began = Instant::now();
        while !self.is_stopping() && !done(self, began.elapsed()) {
            tokio::select! {
                () = self.next_end() => {}
                () = sleep(POLL_INTERVAL) => {}
            }
        }
    }

    /// Builds and starts all parts, or none.
    async fn begin(
        &mut self,
        settings: &RunSettings,
        names: &PartNames,
        senders: &mut Senders,
    ) -> Result<(), RunError> {
        let options: &RunOptions = &self.options;
        let wanted = |name: &str| names.sinks.contains(name);
        let sinks = build_sinks(&settings.pipeline, wanted, options).await?;
        let wanted = |name: &str| names.sources.contains(name);
        let sources = build_sources(&settings.pipeline, wanted, options)?;
        self.start(sinks, sources, senders);
        Ok(())
    }

    /// Connects the sources that stayed to the new sinks.
    fn reroute(&self, changes: &Changes, senders: &Senders) {
        for (name, source) in &self.sources {
            let held = matches!(*source.route.borrow(), SourceRoute::Paused);
            let more =
                changes.added.sinks.iter().any(|sink| {
                    self.sinks.get(sink).is_some_and(|sink| sink.inputs.contains(name))
                });
            if held || more {
                source.route.send_replace(self.route_of(name, senders));
            }
        }
    }

    /// The pipeline stops during a reload: records that wait for a sink go back to their source.
    fn close_paused(&self) {
        for source in self.sources.values() {
            source.route.send_if_modified(|route| {
                let held = matches!(route, SourceRoute::Paused);
                if held {
                    *route = SourceRoute::Closed;
                }
                held
            });
        }
    }

    fn report_removed(&self, changes: &Changes) {
        for name in changes.removed.sinks.difference(&changes.added.sinks) {
            let left = self.options.store.buffer_size(name);
            reset(&self.options.metrics.sink(name), left);
            if left.events > 0 {
                tracing::warn!(
                    sink = name,
                    records = left.events,
                    "the removed sink leaves records in its disk buffer; they are delivered if a sink of that name is added again"
                );
            }
        }
    }
}

/// Whether to abort a leaving sink with records left.
fn is_stuck(sink: &LiveSink, waited: Duration, deadline: Duration) -> bool {
    let kept = sink.durable && sink.fed.is_cancelled();
    let halted =
        sink.metrics.is_halted() && (!sink.durable || kept || waited >= HALTED_SINK_TIMEOUT);
    halted || waited >= deadline
}

fn with(names: &PartNames, sources: &BTreeSet<String>) -> PartNames {
    PartNames {
        sources: names.sources.union(sources).cloned().collect(),
        sinks: names.sinks.clone(),
    }
}

fn without(names: &PartNames, others: &PartNames) -> PartNames {
    PartNames {
        sources: names.sources.difference(&others.sources).cloned().collect(),
        sinks: names.sinks.difference(&others.sinks).cloned().collect(),
    }
}
