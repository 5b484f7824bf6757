//! The summary of a run, with its text form.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::telemetry::SinkSummary;

/// The summary of a run.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// By sink.
    pub sinks: BTreeMap<String, SinkSummary>,
    /// Records left in durable buffers.
    pub left: u64,
    /// Whether a sink was stopped with records left.
    pub stopped_early: bool,
    /// The status with which User.com refused the API key, if it did.
    pub key_refused: Option<u16>,
    /// Duration in seconds; 0 of a run that only counts.
    pub seconds: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, sink) in &self.sinks {
            match self.seconds {
                0.0 => writeln!(f, "sink {name}")?,
                seconds => writeln!(f, "sink {name}, {}", duration(seconds))?,
            }
            write_sink(f, sink)?;
        }
        if self.left > 0 {
            writeln!(f, "{:<22}{:>8}", "left in the buffer", self.left)?;
        }
        Ok(())
    }
}

/// A short duration in milliseconds, a longer one in seconds.
fn duration(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.1} s") }
}

fn write_sink(f: &mut fmt::Formatter<'_>, sink: &SinkSummary) -> fmt::Result {
    let mut line = |name: &str, n: u64, rest: &str| {
        writeln!(f, "{}", format!("  {name:<20}{n:>8}  {rest}").trim_end())
    };
    line("records", sink.records, "")?;
    line("  delivered", sink.delivered, "")?;
    line("  unmatched", sink.unmatched, "")?;
    line("  dead letters", sink.all_dead_letters(), &listed(&sink.dead_letters))?;
    line("calls", sink.all_calls(), &listed(&sink.calls))?;
    line("requests", sink.requests, "")?;
    for (route, n) in &sink.requests_by_route {
        line(&format!("  {}", ""), *n, route)?;
    }
    line("requests saved", sink.requests_saved.values().sum(), &listed(&sink.requests_saved))?;
    line("attributes created", sink.attributes_created, "")?;
    if sink.conversions_failed > 0 {
        line("values left out", sink.conversions_failed, "they do not fit their attribute's type")?;
    }
    let calls = sink.all_calls();
    if calls > 0 {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = sink.requests as f64 / calls as f64;
        writeln!(f, "  {:<20}{ratio:>8.2}", "requests per call")?;
    }
    Ok(())
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
}
