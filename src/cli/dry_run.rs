//! `run --dry-run`: how many requests a run would send, and how long they would take.
//!
//! # Invariants
//! Nothing is sent, and no file is written: the sources that can be read without a trace are read
//! from their checkpoints, with a store in memory.

use std::fmt::Write as _;
use std::str::FromStr;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::output::{Exit, eprint, fail, print, printable};
use super::progress::ProgressDisplay;
use super::run::{OutputFormat, wait_for_shutdown};
use crate::buffer::{Store, StoreError};
use crate::config::sink::{BufferKind, UsercomSink};
use crate::config::{ApiConfig, Pipeline, SinkConfig, SourceConfig};
use crate::deliver::LearnedQuota;
use crate::pipeline::{BuiltPipeline, RunOptions, Shutdown, Summary};
use crate::sink::Destination;
use crate::source::ReadMode;
use crate::telemetry::Metrics;

/// Bytes that a disk buffer takes in memory beyond what it holds.
const BUFFER_BYTES: u64 = 64 << 20;

/// The quota of an account of which nothing is known.
const ASSUMED_PER_SEC: f64 = 10.0;

/// A learned quota counts for this long.
const LEARNED_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A quota: `10`, `10/s`, `600/min`, `36000/h`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Quota {
    per_sec: f64,
}

impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let seconds = match unit.trim() {
            "s" | "sec" | "second" => 1.0,
            "m" | "min" | "minute" => 60.0,
            "h" | "hour" => 3600.0,
            "d" | "day" => 86_400.0,
            _ => return Err("the unit is /s, /min, /h or /day, as in 600/min".to_owned()),
        };
        match number.trim().parse::<f64>() {
            Ok(number) if number.is_finite() && number > 0.0 => {
                Ok(Self { per_sec: number / seconds })
            }
            _ => Err("expected a number of requests, as in 10/s or 600/min".to_owned()),
        }
    }
}

/// The time of a sink's requests at one quota.
struct TimeAtQuota {
    per_sec: f64,
    /// Where the quota comes from.
    origin: &'static str,
}

/// Reads what a run would read, without sending anything, and prints what it would send.
pub(super) async fn dry_run(
    mut pipeline: Pipeline,
    quotas: &[Quota],
    format: OutputFormat,
) -> Result<Summary, Exit> {
    leave_out_sources(&mut pipeline)?;
    let in_use = |error: StoreError| fail(&error.to_string());
    let store = Store::copy_in_memory(&pipeline.data_dir).map_err(in_use)?;
    for (name, SinkConfig::Usercom(sink)) in &mut pipeline.sinks {
        hold_in_memory(sink, store.buffer_size(name).bytes);
    }
    // A pipeline that runs may listen on its address.
    pipeline.api = Some(ApiConfig { log_interval_secs: 0, ..ApiConfig::default() });
    let stop = Shutdown::default();
    let options = RunOptions {
        mode: ReadMode::Once,
        store: store.clone(),
        metrics: Metrics::default(),
        stop: stop.clone(),
        destination: Destination::Simulated,
    };
    eprint("dry run: records are read and mapped, nothing is sent, and no checkpoint moves\n");
    let built = BuiltPipeline::build(&pipeline, options).await;
    let built = built.map_err(|error| fail(&error.to_string()))?;
    let display = ProgressDisplay::show(built.status());
    let ended = tokio::select! {
        ended = built.run() => ended,
        exit = wait_for_shutdown(stop) => return Err(exit),
    };
    drop(display);
    let mut summary = ended.map_err(|error| fail(&error.to_string()))?;
    // It would be taken for the time of a run.
    summary.seconds = 0.0;
    let mut times = Vec::new();
    for (name, SinkConfig::Usercom(sink)) in &pipeline.sinks {
        let at = quotas_of(name, sink, quotas, &store).await;
        times.push((name.as_str(), at.map_err(|error| fail(&error.to_string()))?));
    }
    store.close().await;
    let printed = match format {
        OutputFormat::Text => print(&text(&summary, &times)),
        OutputFormat::Json => print(&format!("{}\n", json(&summary, &times))),
    };
    if printed == Exit::Done { Ok(summary) } else { Err(printed) }
}

/// Leaves out the sources that cannot be read without a trace.
fn leave_out_sources(pipeline: &mut Pipeline) -> Result<(), Exit> {
    pipeline.sources.retain(|name, source| {
        let is_read = matches!(source, SourceConfig::File(_) | SourceConfig::Stdin(_));
        if !is_read {
            eprint(&format!(
                "source `{}` ({}) is left out: a dry run reads files and standard input only\n",
                printable(name),
                source.kind()
            ));
        }
        is_read
    });
    let sources = &pipeline.sources;
    pipeline.sinks.retain(|_, SinkConfig::Usercom(sink)| {
        sink.inputs.iter().any(|input| sources.contains_key(input))
    });
    if pipeline.sinks.is_empty() {
        fail("no sink reads files or standard input, so there is nothing to count");
        return Err(Exit::Usage);
    }
    Ok(())
}

/// Keeps the buffer small, since it is in memory.
fn hold_in_memory(sink: &mut UsercomSink, held: u64) {
    let buffer = &mut sink.buffer;
    if buffer.kind == BufferKind::Disk && held == 0 {
        buffer.kind = BufferKind::Memory;
    }
    buffer.max_size = buffer.max_size.min(held.saturating_add(BUFFER_BYTES));
}

/// The quotas that are asked for, or known of the account.
async fn quotas_of(
    name: &str,
    sink: &UsercomSink,
    asked: &[Quota],
    store: &Store,
) -> Result<Vec<TimeAtQuota>, StoreError> {
    let asked = asked.iter();
    let mut quotas: Vec<_> =
        asked.map(|quota| TimeAtQuota { per_sec: quota.per_sec, origin: "--quota" }).collect();
    if let Some(number) = sink.request.rate_limit_num {
        let seconds = sink.request.rate_limit_duration_secs.max(1);
        #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
        let per_sec = f64::from(number) / seconds as f64;
        quotas.push(TimeAtQuota { per_sec, origin: "request.rate_limit_num" });
    }
    let since = crate::clock::now().checked_sub(LEARNED_FOR).unwrap_or(jiff::Timestamp::MIN);
    let learned = match sink.base_url() {
        Ok(account) => store.load_quota(name, account.as_str(), since).await?,
        // The sink cannot be built either; its error is reported then.
        Err(_) => None,
    };
    let learned = learned.and_then(|(text, _)| serde_json::from_str::<LearnedQuota>(&text).ok());
    if let Some(per_sec) = learned.and_then(|learned| learned.per_sec()) {
        quotas.push(TimeAtQuota { per_sec, origin: "learned from User.com" });
    }
    if quotas.is_empty() {
        quotas.push(TimeAtQuota { per_sec: ASSUMED_PER_SEC, origin: "assumed; set --quota" });
    }
    Ok(quotas)
}

fn requests_of(summary: &Summary, sink: &str) -> u64 {
    summary.sinks.get(sink).map_or(0, |sink| sink.requests)
}

#[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
fn seconds(requests: u64, quota: &TimeAtQuota) -> f64 {
    requests as f64 / quota.per_sec
}

fn text(summary: &Summary, times: &[(&str, Vec<TimeAtQuota>)]) -> String {
    let mut text = format!(
        "What a run would do. Nothing was sent. Users, companies and attributes that this program\n\
         has not sent before are counted as new: they need more requests than known ones.\n\n{summary}"
    );
    for (sink, quotas) in times {
        let requests = requests_of(summary, sink);
        for quota in quotas {
            let rate = per_sec_words(quota.per_sec);
            let time = words(seconds(requests, quota));
            let line = format!("{requests} requests of sink {sink} at {rate}: {time}");
            writeln!(text, "{line} ({})", quota.origin).expect("a string takes all");
        }
    }
    text
}

fn json(summary: &Summary, times: &[(&str, Vec<TimeAtQuota>)]) -> Value {
    let mut object = serde_json::to_value(summary).expect("a summary is plain data");
    let at = |sink: &str, quota: &TimeAtQuota| {
        let seconds = seconds(requests_of(summary, sink), quota);
        json!({ "quota_per_sec": quota.per_sec, "origin": quota.origin, "seconds": seconds })
    };
    let sinks = times.iter().map(|(sink, quotas)| {
        let times: Vec<_> = quotas.iter().map(|quota| at(sink, quota)).collect();
        let estimate = json!({ "requests": requests_of(summary, sink), "times": times });
        ((*sink).to_owned(), estimate)
    });
    object["dry_run"] = Value::Object(sinks.collect());
    object
}

/// A rate with the unit that makes it a number of at least one.
fn per_sec_words(per_sec: f64) -> String {
    let (number, unit) = match per_sec {
        rate if rate >= 1.0 => (rate, "s"),
        rate if rate * 60.0 >= 1.0 => (rate * 60.0, "min"),
        rate => (rate * 3600.0, "h"),
    };
    format!("{}/{unit}", (number * 10.0).round() / 10.0)
}

/// A time in its two largest units.
fn words(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is not negative, and larger ones are cut"
    )]
    let whole = seconds.round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    match () {
        () if days >= 2 => format!("{days} d {} h", hours % 24),
        () if hours >= 1 => format!("{hours} h {} min", minutes % 60),
        () if minutes >= 1 => format!("{minutes} min {} s", whole % 60),
        () => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_and_times_read_as_people_write_them() {
        // Guarantees the units of a quota, that nonsense is refused, and the words for times.
        let rate = |text: &str| text.parse::<Quota>().map(|quota| quota.per_sec);
        assert_eq!(rate("10"), Ok(10.0));
        assert_eq!(rate("600/min"), Ok(10.0));
        assert_eq!(rate("36000/h"), Ok(10.0));
        for wrong in ["", "0", "-1/s", "ten", "10/week", "NaN", "inf/s", "/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        for (seconds, text) in [
            (0.04, "0.0 s"),
            (12.34, "12.3 s"),
            (373.0, "6 min 13 s"),
            (7_500.0, "2 h 5 min"),
            (200_000.0, "2 d 7 h"),
        ] {
            assert_eq!(words(seconds), text);
        }
        assert_eq!(per_sec_words(10.0), "10/s");
        assert_eq!(per_sec_words(0.5), "30/min");
        assert_eq!(per_sec_words(1.0 / 360.0), "10/h");
    }
}
