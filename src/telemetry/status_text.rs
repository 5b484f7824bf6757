//! The status as text: for a terminal, and as one line for the log.

use std::fmt::Write as _;

use super::status::{SinkStatus, SourceStatus, Status};

/// The status for a terminal.
pub fn status_text(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(format!("{}: {}", status.state.words(), printable(&status.reason)));
    let up = seconds(status.time.duration_since(status.started).as_secs_f64());
    let ready = if status.ready { "ready" } else { "not ready" };
    line(format!("usercom-sink {}, up {up}, {ready}", status.version));
    for reason in &status.not_ready {
        line(format!("  {}", printable(reason)));
    }
    for source in &status.sources {
        line(String::new());
        source_lines(source).into_iter().for_each(&mut line);
    }
    for sink in &status.sinks {
        line(String::new());
        sink_lines(sink).into_iter().for_each(&mut line);
    }
    text
}

fn source_lines(source: &SourceStatus) -> Vec<String> {
    let mut lines = vec![
        format!("source {} ({})", source.name, source.kind),
        row("state", format!("{}: {}", source.state.words(), printable(&source.reason))),
        row("records", format!("{}, {}/s", source.records, decimal(source.records_per_sec))),
    ];
    let lag = &source.lag;
    if let (Some(behind), Some(total)) = (lag.bytes_behind, lag.bytes_total) {
        let found = lag.files.map_or_else(String::new, |n| format!(" in {}", files(n)));
        lines.push(row("behind", format!("{} of {}{found}", bytes(behind), bytes(total))));
    }
    if let Some(behind) = lag.records_behind {
        lines.push(row("behind", format!("{behind} records")));
        for partition in lag.partitions.iter().filter(|partition| partition.records_behind > 0) {
            let name = format!("{}/{}", printable(&partition.topic), partition.partition);
            lines.push(row("", format!("{name}: {}", partition.records_behind)));
        }
    }
    if let Some(open) = lag.requests_in_flight {
        lines.push(row("requests", format!("{open} in flight")));
    }
    lines
}

fn sink_lines(sink: &SinkStatus) -> Vec<String> {
    let mut lines = vec![
        format!("sink {} <- {}", sink.name, sink.inputs.join(", ")),
        row("state", format!("{}: {}", sink.state.words(), printable(&sink.reason))),
        row(
            "records",
            format!(
                "{} in, {}/s; {} settled, {}/s",
                sink.records.received,
                decimal(sink.records_in_per_sec),
                sink.records.settled,
                decimal(sink.records_out_per_sec)
            ),
        ),
        row("waiting", waiting_words(sink)),
        row(
            "requests",
            format!(
                "{}/s, {} of {} in flight, {}",
                decimal(sink.requests_per_sec),
                sink.in_flight,
                sink.concurrency_limit,
                sink.quota_per_sec.map_or_else(
                    || "no quota learned yet".to_owned(),
                    |q| format!("quota {}/s", decimal(q))
                )
            ),
        ),
    ];
    for route in &sink.requests {
        lines.push(row(
            "",
            format!("{:<40} {:>9}  {}/s", route.route, route.total, decimal(route.per_sec)),
        ));
    }
    if let Some(latency) = &sink.latency {
        lines.push(row(
            "latency",
            format!(
                "{} ms (median), {} ms (95th percentile)",
                decimal(latency.p50_ms),
                decimal(latency.p95_ms)
            ),
        ));
    }
    let saved: Vec<_> = sink.requests_saved.iter().filter(|(_, n)| **n > 0).collect();
    if !saved.is_empty() {
        let words: Vec<_> = saved.iter().map(|(by, n)| format!("{by} {n}")).collect();
        lines.push(row("saved", words.join(", ")));
    }
    let dead = &sink.dead_letters;
    lines.push(row(
        "dead letters",
        format!(
            "{} since the start{}",
            dead.since_start,
            dead.stored.map_or_else(String::new, |n| format!(", {n} in the store"))
        ),
    ));
    for count in &dead.by_reason {
        let rule = count.rule.as_ref().map_or_else(String::new, |rule| format!(" in rule {rule}"));
        let words = format!("{} {}{}", count.count, count.reason, rule);
        lines.push(row("", printable(&words)));
    }
    if sink.unmatched.total > 0 {
        lines.push(row("unmatched", sink.unmatched.total.to_string()));
        for near in &sink.unmatched.by_nearest_rule {
            let words = format!("{} nearest to rule {}", near.count, near.rule);
            lines.push(row("", printable(&words)));
        }
    }
    for error in &sink.errors {
        let words = format!(
            "{} x {}, last {}: {}",
            error.count,
            error.kind,
            error.last.strftime("%Y-%m-%d %H:%M:%SZ"),
            error.detail
        );
        lines.push(row("error", printable(&words)));
        if !error.advice.is_empty() {
            lines.push(row("", format!("-> {}", printable(&error.advice))));
        }
    }
    lines
}

fn waiting_words(sink: &SinkStatus) -> String {
    let mut words = sink.waiting.to_string();
    if let Some(age) = sink.oldest_secs {
        write!(words, ", the oldest for {}", seconds(age)).expect("a string takes any text");
    }
    let backlog = &sink.backlog;
    if backlog.records > sink.waiting {
        let about = if backlog.estimated { "about " } else { "" };
        write!(words, "; {about}{} with what is unread", backlog.records)
            .expect("a string takes any text");
    }
    if let Some(secs) = backlog.ends_in_secs {
        write!(words, "; backlog ends in about {}", seconds(secs))
            .expect("a string takes any text");
    }
    words
}

/// The status of a sink in one line, for the log.
pub fn log_line(sink: &SinkStatus) -> String {
    let mut line = format!(
        "{}: {}/s in, {}/s settled, {} requests/s, waiting {}, dead letters {}",
        sink.state.words(),
        decimal(sink.records_in_per_sec),
        decimal(sink.records_out_per_sec),
        decimal(sink.requests_per_sec),
        waiting_words(sink),
        sink.records.dead_letters,
    );
    if sink.records.unmatched > 0 {
        write!(line, ", unmatched {}", sink.records.unmatched).expect("a string takes any text");
    }
    if let Some(error) = sink.errors.first() {
        let last = format!(
            ", last error {} at {} ({} x): {}",
            error.kind,
            error.last.strftime("%H:%M:%SZ"),
            error.count,
            error.detail
        );
        line.push_str(&printable(&last));
    }
    line
}

fn row(name: &str, value: String) -> String {
    format!("  {name:<13} {value}")
}

pub(super) fn decimal(n: f64) -> String {
    if n >= 100.0 { format!("{n:.0}") } else { format!("{n:.1}") }
}

/// A length of time for people.
pub(crate) fn seconds(secs: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and a century fits"
    )]
    let whole = secs.clamp(0.0, 3_153_600_000.0) as u64;
    match whole {
        0..=119 => format!("{whole} s"),
        120..=7_199 => format!("{} min", whole / 60),
        7_200..=172_799 => format!("{} h {} min", whole / 3_600, whole / 60 % 60),
        _ => format!("{} days", whole / 86_400),
    }
}

/// A number of bytes for people.
pub(crate) fn bytes(n: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a number for people")]
    let of = |unit: u64| n as f64 / unit as f64;
    match n {
        0..1_000 => format!("{n} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", of(1_000)),
        1_000_000..1_000_000_000 => format!("{:.1} MB", of(1_000_000)),
        _ => format!("{:.2} GB", of(1_000_000_000)),
    }
}

/// A number of files for people.
pub(crate) fn files(n: u64) -> String {
    if n == 1 { "1 file".to_owned() } else { format!("{n} files") }
}

/// A text without control characters: names of rules and topics are not ours.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_sizes_have_units_for_people() {
        // Guarantees the units, and that no number overflows.
        for (secs, words) in [
            (0.4, "0 s"),
            (119.0, "119 s"),
            (1_020.0, "17 min"),
            (9_000.0, "2 h 30 min"),
            (f64::MAX, "36500 days"),
        ] {
            assert_eq!(seconds(secs), words);
        }
        for (n, words) in [(999, "999 bytes"), (1_500, "1.5 kB"), (2_000_000_000, "2.00 GB")] {
            assert_eq!(bytes(n), words);
        }
        assert_eq!(printable("a\u{1b}[31m\nb"), "a\u{fffd}[31m\u{fffd}b");
    }
}
