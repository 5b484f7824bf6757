//! A reload: the parts that changed end, and new ones take their place; the others are not touched.
//!
//! Sources first (they wait for their verdicts), then sinks (they settle what they have taken), and
//! only when all the old ones have ended are the new ones built. Invariant: while a sink is
//! exchanged, the records meant for it wait; none goes to the other sinks only.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::changes::{Changes, Names, Settings};
use super::parts::{build_sinks, build_sources, shutdown_deadline};
use super::route::Way;
use super::supervisor::{LiveSink, Role, Senders, Supervisor, reset};
use super::{Launch, RunError};
use crate::config::SourceConfig;

/// How often those that leave are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long sources that leave wait for a sink that is halted, and how long a halted sink may take
/// to put what waits for it into a durable buffer.
const HALTED_GRACE: Duration = Duration::from_secs(2);

const REFUSED: &str = "the new pipeline file is refused, the old one goes on";

impl Supervisor {
    /// Goes over to new settings, or tells why not and goes on with the old ones.
    pub(super) async fn reload(&mut self, new: Settings) {
        if let Some(why) = Changes::refusal(&self.settings, &new) {
            tracing::error!("{REFUSED}: {why}");
            return;
        }
        let mut changes = Changes::between(&self.settings, &new);
        let takes_more = |name: &str| {
            let sink = self.sinks.get(name);
            sink.is_some_and(|sink| sink.sender.strong_count() > 0)
        };
        changes.renew_ended(&new.pipeline, takes_more);
        if changes.is_empty() {
            tracing::info!("reloaded: nothing changed");
            self.settings = new;
            return;
        }
        let wanted = |name: &str| changes.into.sources.contains(name);
        if let Err(error) = build_sources(&new.pipeline, wanted, &self.launch) {
            tracing::error!("{REFUSED}: {error}");
            return;
        }
        tracing::info!("reloading: {changes}");
        let mut senders = self.senders_of_others(&changes.out);
        let ended_before = self.missing(&changes.out);
        self.end_sources(&changes.out).await;
        self.end_sinks(&changes.out).await;
        let again = self.end_spilled(&changes.out).await;
        if self.is_stopping() {
            self.cut_held();
            return;
        }
        self.report_removed(&changes);
        let into = with(&changes.into, &again);
        // What had ended by itself does not come back with the old settings.
        let back = without(&with(&changes.out, &again), &ended_before);
        match self.begin(&new, &into, &mut senders).await {
            Ok(()) => {
                tracing::info!("reloaded: {changes}");
                self.deadline.send_replace(shutdown_deadline(&new.pipeline));
                self.settings = new;
            }
            Err(error) => {
                tracing::error!("{REFUSED}: {error}");
                let old = std::mem::replace(&mut self.settings, new);
                let begun = self.begin(&old, &back, &mut senders).await;
                self.settings = old;
                if let Err(error) = begun {
                    self.cut_held();
                    self.fail(error);
                    return;
                }
            }
        }
        self.lead_anew(&changes, &senders);
    }

    /// Senders of the sinks that stay: while they are held, no sink's input ends.
    fn senders_of_others(&self, out: &Names) -> Senders {
        let stay = self.sinks.iter().filter(|(name, _)| !out.sinks.contains(*name));
        stay.filter_map(|(name, sink)| Some((name.clone(), sink.sender.upgrade()?))).collect()
    }

    fn missing(&self, names: &Names) -> Names {
        let sources = names.sources.iter().filter(|name| !self.sources.contains_key(*name));
        let sinks = names.sinks.iter().filter(|name| {
            let sink = self.sinks.get(*name);
            sink.is_none_or(|sink| sink.sender.strong_count() == 0)
        });
        Names { sources: sources.cloned().collect(), sinks: sinks.cloned().collect() }
    }

    /// Ends sources as SIGTERM does, while the old sinks still settle what they yielded. Those that
    /// wait for a halted sink are left to what comes next.
    async fn end_sources(&mut self, out: &Names) {
        for (_, source) in self.sources.iter_mut().filter(|(name, _)| out.sources.contains(*name)) {
            source.leave();
        }
        let deadline = *self.deadline.borrow();
        self.wait(|this, waited| {
            let waiting = |name: &String| {
                let halted = this
                    .sinks
                    .values()
                    .any(|sink| sink.inputs.contains(name) && sink.metrics.is_halted());
                this.sources.contains_key(name) && (!halted || waited < HALTED_GRACE)
            };
            waited >= deadline || !out.sources.iter().any(waiting)
        })
        .await;
    }

    /// Lets sinks settle what they have taken; those that cannot are stopped.
    async fn end_sinks(&mut self, out: &Names) {
        for (_, sink) in self.sinks.iter_mut().filter(|(name, _)| out.sinks.contains(*name)) {
            sink.role = Role::Leaves;
        }
        let leaving = |sink: &&LiveSink| sink.role == Role::Leaves;
        let inputs: BTreeSet<&String> =
            self.sinks.values().filter(leaving).flat_map(|sink| &sink.inputs).collect();
        for (_, source) in self.sources.iter().filter(|(name, _)| inputs.contains(name)) {
            source.way.send_replace(match source.role {
                Role::Stays => Way::Held,
                Role::Leaves => Way::Cut,
            });
        }
        let deadline = *self.deadline.borrow();
        self.wait(|this, waited| {
            for sink in this.sinks.values().filter(leaving) {
                if is_stuck(sink, waited, deadline) {
                    sink.stop.cancel();
                }
            }
            !this.sinks.values().any(|sink| sink.role == Role::Leaves)
        })
        .await;
    }

    /// Ends the sources of sinks that gave records back, so that they are read again; and whatever
    /// else was asked to end and has not. Returns those that begin again.
    async fn end_spilled(&mut self, out: &Names) -> BTreeSet<String> {
        let inputs: BTreeSet<String> =
            self.spilled.drain(..).flat_map(|sink| sink.inputs).collect();
        let settings = &self.settings.pipeline.sources;
        let mut again = BTreeSet::new();
        for (name, source) in self.sources.iter_mut().filter(|(name, _)| inputs.contains(*name)) {
            // Sources of the program's own making are not in the file and cannot be built again.
            let known = settings.get(name);
            let read_again = known.is_some_and(SourceConfig::is_read_again);
            if source.role == Role::Stays && read_again {
                source.leave();
                source.way.send_replace(Way::Cut);
                again.insert(name.clone());
            }
        }
        let gone = |this: &Self| {
            let mut names = again.iter().chain(&out.sources);
            !names.any(|name| this.sources.contains_key(name))
        };
        // Sources that leave may wait for sinks that stay; they are not waited for twice as long.
        let patience = if again.is_empty() { HALTED_GRACE } else { *self.deadline.borrow() };
        self.wait(|this, waited| gone(this) || waited >= patience).await;
        if !self.is_stopping() {
            for source in self.sources.values().filter(|source| source.role == Role::Leaves) {
                source.abandon();
            }
            self.wait(|this, _| gone(this)).await;
        }
        again
    }

    /// Waits until `done`, hearing what ends meanwhile, or until the whole pipeline is to end.
    async fn wait(&mut self, done: impl Fn(&Self, Duration) -> bool) {
        let began = Instant::now();
        while !self.is_stopping() && !done(self, began.elapsed()) {
            tokio::select! {
                () = self.next_end() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Builds parts and starts them, or none of them.
    async fn begin(
        &mut self,
        settings: &Settings,
        names: &Names,
        senders: &mut Senders,
    ) -> Result<(), RunError> {
        let launch: &Launch = &self.launch;
        let wanted = |name: &str| names.sinks.contains(name);
        let sinks = build_sinks(&settings.pipeline, wanted, launch).await?;
        let wanted = |name: &str| names.sources.contains(name);
        let sources = build_sources(&settings.pipeline, wanted, launch)?;
        self.start(sinks, sources, senders);
        Ok(())
    }

    /// Leads the sources that stayed to the sinks that are new.
    fn lead_anew(&self, changes: &Changes, senders: &Senders) {
        for (name, source) in &self.sources {
            let held = matches!(*source.way.borrow(), Way::Held);
            let more =
                changes.into.sinks.iter().any(|sink| {
                    self.sinks.get(sink).is_some_and(|sink| sink.inputs.contains(name))
                });
            if held || more {
                source.way.send_replace(self.way_of(name, senders));
            }
        }
    }

    /// The pipeline ends amid an exchange: what waits for a sink goes back to its source.
    fn cut_held(&self) {
        for source in self.sources.values() {
            source.way.send_if_modified(|way| {
                let held = matches!(way, Way::Held);
                if held {
                    *way = Way::Cut;
                }
                held
            });
        }
    }

    fn report_removed(&self, changes: &Changes) {
        for name in changes.out.sinks.difference(&changes.into.sinks) {
            let left = self.launch.store.buffer_size(name);
            reset(&self.launch.metrics.sink(name), left);
            if left.events > 0 {
                tracing::warn!(
                    sink = name,
                    records = left.events,
                    "the removed sink leaves records in its buffer; a sink of that name delivers them"
                );
            }
        }
    }
}

/// Whether a sink that leaves is to be stopped with work left.
fn is_stuck(sink: &LiveSink, waited: Duration, deadline: Duration) -> bool {
    let kept = sink.durable && sink.fed.is_cancelled();
    let halted = sink.metrics.is_halted() && (!sink.durable || kept || waited >= HALTED_GRACE);
    halted || waited >= deadline
}

fn with(names: &Names, sources: &BTreeSet<String>) -> Names {
    Names { sources: names.sources.union(sources).cloned().collect(), sinks: names.sinks.clone() }
}

fn without(names: &Names, others: &Names) -> Names {
    Names {
        sources: names.sources.difference(&others.sources).cloned().collect(),
        sinks: names.sinks.difference(&others.sinks).cloned().collect(),
    }
}
