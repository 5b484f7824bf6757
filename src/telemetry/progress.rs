//! How far a run is that stops at the present end of its sources, made of the status.

use std::fmt::Write as _;

use super::status::{SinkStatus, Status};
use super::status_text::{decimal, seconds};

/// How far a run is. Counts records that are settled, not those that are only read; a record of
/// several sinks counts for each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunProgress {
    /// Records with a final status.
    pub settled: u64,
    /// These, those that wait, and those that are not read. Absent while it cannot be estimated.
    pub total: Option<u64>,
    /// Whether a part of `total` is an estimate.
    pub estimated: bool,
    /// Records settled a second, over the last 10 seconds.
    pub settled_per_sec: f64,
    /// Seconds until all are settled at the pace of the last minute. Absent while it is not known.
    pub left_secs: Option<f64>,
    /// Dead letters since the start.
    pub dead_letters: u64,
}

impl RunProgress {
    /// The progress that a status shows.
    pub fn of(status: &Status) -> Self {
        let sum = |of: fn(&SinkStatus) -> u64| status.sinks.iter().map(of).sum::<u64>();
        let settled = sum(|sink| sink.records.settled);
        let unfinished = || status.sinks.iter().filter(|sink| sink.backlog.records > 0);
        let left = unfinished()
            .map(|sink| sink.backlog.ends_in_secs)
            .try_fold(0.0, |most: f64, secs| secs.map(|secs| most.max(secs)));
        Self {
            settled,
            total: is_total_known(status).then(|| settled + sum(|sink| sink.backlog.records)),
            estimated: unfinished().any(|sink| sink.backlog.estimated),
            settled_per_sec: status.sinks.iter().map(|sink| sink.records_out_per_sec).sum(),
            left_secs: left,
            dead_letters: sum(|sink| sink.records.dead_letters),
        }
    }

    /// The progress in one line.
    pub fn line(&self) -> String {
        let mut line = self.settled.to_string();
        if let Some(total) = self.total {
            let about = if self.estimated { "about " } else { "" };
            write!(line, " of {about}{total}").expect("a string takes any text");
        }
        write!(line, " records settled, {}/s", decimal(self.settled_per_sec))
            .expect("a string takes any text");
        match self.left_secs {
            _ if self.total == Some(self.settled) => {}
            Some(secs) if self.total.is_some() => {
                write!(line, ", {} left", seconds(secs)).expect("a string takes any text");
            }
            _ => line.push_str(", time left not known yet"),
        }
        write!(line, ", dead letters {}", self.dead_letters).expect("a string takes any text");
        line
    }
}

/// Whether the number of unread records is known of every sink's sources: bytes become records only
/// after some records were read.
fn is_total_known(status: &Status) -> bool {
    status.sinks.iter().all(|sink| {
        let inputs = status.sources.iter().filter(|source| sink.inputs.contains(&source.name));
        let unread = |bytes: Option<u64>| bytes.is_some_and(|bytes| bytes > 0);
        sink.backlog.estimated || !inputs.into_iter().any(|source| unread(source.lag.bytes_behind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(settled: u64, total: Option<u64>, left_secs: Option<f64>) -> RunProgress {
        RunProgress {
            settled,
            total,
            estimated: true,
            settled_per_sec: 200.0,
            left_secs,
            dead_letters: 3,
        }
    }

    #[test]
    fn line_says_only_what_is_known() {
        // Guarantees that neither a total nor a time is invented, and the words of each case.
        for (progress, line) in [
            (
                progress(1_000, Some(25_000), Some(120.0)),
                "1000 of about 25000 records settled, 200/s, 2 min left, dead letters 3",
            ),
            (
                progress(1_000, Some(25_000), None),
                "1000 of about 25000 records settled, 200/s, time left not known yet, dead letters 3",
            ),
            (
                progress(0, None, Some(7.0)),
                "0 records settled, 200/s, time left not known yet, dead letters 3",
            ),
            (
                RunProgress { estimated: false, ..progress(25_000, Some(25_000), None) },
                "25000 of 25000 records settled, 200/s, dead letters 3",
            ),
        ] {
            assert_eq!(progress.line(), line);
        }
    }
}
