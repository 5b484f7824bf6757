//! The state of each component, and its reason in words.

use jiff::{SignedDuration, Timestamp};

use super::activity::{SinkPhase, SinkPresent};
use super::components::{ComponentSet, PipelinePhase, SinkEntry, SourceEntry};
use super::status::{SinkStatus, SourceStatus, State};

/// A sink waits for User.com only once attempts have failed for this long: a single failure is
/// usually repeated with success.
const OUTAGE_SHOWN_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// An input is held back only once it has waited this long.
const BLOCKED_SHOWN_AFTER: SignedDuration = SignedDuration::from_secs(1);

/// What a sink does. The worst comes first.
pub(super) fn sink_state(
    sink: &SinkEntry,
    present: &SinkPresent,
    phase: PipelinePhase,
    now: Timestamp,
) -> (State, String) {
    if sink.metrics.is_halted() {
        let words = format!(
            "halted, User.com refuses the API key or the domain{}; nothing is lost, and it is tried again",
            halted_words(present)
        );
        return (State::Halted, words);
    }
    if let Some(trouble) = &present.storage {
        let words = format!("cannot store since {}: {}", moment(trouble.since), trouble.why);
        return (State::StorageFailed, words);
    }
    if let Some(until) = present.paused_until.filter(|until| *until > now) {
        let words = format!("paused until {}, because User.com asked for it", moment(until));
        return (State::Paused, words);
    }
    let outage = present.outage.as_ref();
    if let Some(outage) =
        outage.filter(|outage| now.duration_since(outage.since) >= OUTAGE_SHOWN_AFTER)
    {
        let words = format!(
            "waiting for User.com since {}: {}",
            moment(outage.since),
            outage_words(&outage.why)
        );
        return (State::Waiting, words);
    }
    match (present.phase, phase) {
        (SinkPhase::Ended, _) => (State::Ended, "all its records are settled".to_owned()),
        (SinkPhase::Starting, _) => {
            (State::Starting, "reading its state and the attributes of the account".to_owned())
        }
        (SinkPhase::Draining, _) | (_, PipelinePhase::Draining) => (
            State::Draining,
            "draining: no more input, what it has is delivered or stays in the buffer".to_owned(),
        ),
        (SinkPhase::Delivering, _) if present.waiting > 0 => {
            (State::Running, "delivering".to_owned())
        }
        (SinkPhase::Delivering, _) => (State::Running, "nothing waits".to_owned()),
    }
}

/// What a source does.
pub(super) fn source_state(
    name: &str,
    source: &SourceEntry,
    components: &ComponentSet,
    now: Timestamp,
) -> (State, String) {
    if !source.reading {
        return (State::Ended, "it has read everything, or was stopped".to_owned());
    }
    if components.phase == PipelinePhase::Draining {
        return (State::Draining, "stopping once its records are settled or stored".to_owned());
    }
    let held_by = components.sinks.iter().find_map(|(sink, entry)| {
        let since = entry.metrics.activity().present().input_blocked?;
        let takes = entry.inputs.iter().any(|input| input == name);
        let long = now.duration_since(since) >= BLOCKED_SHOWN_AFTER;
        (takes && long).then_some((sink, since))
    });
    match held_by {
        Some((sink, since)) => (
            State::Waiting,
            format!("waiting since {}: the buffer of sink `{sink}` is full", moment(since)),
        ),
        None => (State::Running, "reading".to_owned()),
    }
}

/// The worst state, and what it is about.
pub(super) fn overall(
    components: &ComponentSet,
    sinks: &[SinkStatus],
    sources: &[SourceStatus],
) -> (State, String) {
    match components.phase {
        PipelinePhase::Starting => return (State::Starting, "starting".to_owned()),
        PipelinePhase::Ended => return (State::Ended, "ended".to_owned()),
        PipelinePhase::Running | PipelinePhase::Draining => {}
    }
    let sinks = sinks.iter().map(|s| (s.state, format!("sink `{}`: {}", s.name, s.reason)));
    let sources = sources.iter().map(|s| (s.state, format!("source `{}`: {}", s.name, s.reason)));
    let worst = sinks.chain(sources).max_by_key(|(state, _)| *state);
    match worst {
        Some((State::Running | State::Ended, _)) | None => {
            (State::Running, "all components work".to_owned())
        }
        Some(worst) => worst,
    }
}

pub(super) fn halted_words(present: &SinkPresent) -> String {
    match present.halted {
        Some((since, 0)) => format!(" (since {})", moment(since)),
        Some((since, status)) => format!(" (status {status}, since {})", moment(since)),
        None => String::new(),
    }
}

pub(super) fn outage_words(why: &str) -> String {
    match why {
        "connect" => "no connection".to_owned(),
        "timeout" => "no answer in time".to_owned(),
        "connection_cut" => "connections are cut before the answer".to_owned(),
        "status 429" => "every request is answered \"too many requests\" (429)".to_owned(),
        other => format!("it answers with {other}"),
    }
}

/// A time for people: UTC, to the second.
pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
