//! Logs that do not flood: a message that comes again within ten seconds is left out, and a line
//! says how often. Debug and trace lines, which somebody asked for, and lines that answer an
//! operator (starting, reloading, stopping) are never left out.
//!
//! Invariant: what is remembered is bounded, whatever is logged.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How long a message is not repeated.
const WINDOW: Duration = Duration::from_secs(10);

/// Messages remembered at most; what comes beyond is shown.
const REMEMBERED: usize = 1024;

/// Fields that make one message two: the same failure of two sinks is told twice.
const PARTS: &[&str] = &["sink", "source", "path"];

/// Modules that log what an operator asked for.
const ANSWERS: &[&str] = &["usercom_sink::cli", "usercom_sink::pipeline::run"];

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Show it, after telling how many like it were left out.
    Show { left_out: u64 },
    /// Leave it out, and say that this begins.
    LeaveOutFirst,
    /// Leave it out.
    LeaveOut,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    callsite: Identifier,
    part: String,
}

struct Seen {
    shown: Instant,
    left_out: u64,
}

/// The decisions; takes the time.
#[derive(Default)]
struct Limiter(HashMap<Key, Seen>);

impl Limiter {
    fn decide(&mut self, key: Key, now: Instant) -> Verdict {
        if let Some(seen) = self.0.get_mut(&key) {
            if now.duration_since(seen.shown) < WINDOW {
                seen.left_out += 1;
                let first = seen.left_out == 1;
                return if first { Verdict::LeaveOutFirst } else { Verdict::LeaveOut };
            }
            let left_out = std::mem::take(&mut seen.left_out);
            seen.shown = now;
            return Verdict::Show { left_out };
        }
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, seen| now.duration_since(seen.shown) < WINDOW);
        }
        if self.0.len() < REMEMBERED {
            self.0.insert(key, Seen { shown: now, left_out: 0 });
        }
        Verdict::Show { left_out: 0 }
    }
}

/// A format that leaves out what comes too often.
pub(super) struct Limited<F, C> {
    inner: F,
    clock: C,
    limiter: Mutex<Limiter>,
}

impl<F, C: Fn() -> Instant> Limited<F, C> {
    /// `clock` tells the time at every event.
    pub(super) fn new(inner: F, clock: C) -> Self {
        Self { inner, clock, limiter: Mutex::default() }
    }

    fn decide(&self, event: &Event<'_>, part: String) -> Verdict {
        let metadata = event.metadata();
        let answer = ANSWERS.iter().any(|module| metadata.target().starts_with(module));
        if answer || *metadata.level() > Level::INFO {
            return Verdict::Show { left_out: 0 };
        }
        let key = Key { callsite: metadata.callsite(), part };
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.decide(key, (self.clock)())
    }
}

impl<S, N, F, C> FormatEvent<S, N> for Limited<F, C>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
    C: Fn() -> Instant,
{
    fn format_event(
        &self,
        cx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut words = Words::default();
        event.record(&mut words);
        let Words { message, part } = words;
        let (note, shown) = match self.decide(event, part.clone()) {
            Verdict::LeaveOut => return Ok(()),
            Verdict::Show { left_out: 0 } => return self.inner.format_event(cx, writer, event),
            Verdict::LeaveOutFirst => {
                (format!("came again within 10 s: {message}{part}; left out for a while"), false)
            }
            Verdict::Show { left_out } => {
                (format!("left out {left_out} times: {message}{part}"), true)
            }
        };
        let fields = event.metadata().fields();
        if let Some(field) = fields.field("message") {
            let values = [(&field, Some(&note as &dyn tracing::Value))];
            let values = fields.value_set(&values);
            self.inner.format_event(cx, writer.by_ref(), &Event::new(event.metadata(), &values))?;
        }
        if shown { self.inner.format_event(cx, writer, event) } else { Ok(()) }
    }
}

/// What tells one message from another. Values are quoted as `Debug` does, so that nothing in
/// them breaks a line.
#[derive(Default)]
struct Words {
    message: String,
    part: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else if PARTS.contains(&field.name()) {
            self.part += &format!(" {}={value:?}", field.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;
    use tracing_subscriber::fmt::format::Format;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged by `work`, which moves the time by milliseconds.
    fn logged(work: impl FnOnce(&dyn Fn(u64))) -> String {
        let page = Page::default();
        let now = Arc::new(Mutex::new(Instant::now()));
        let clock = Arc::clone(&now);
        let format = Format::default().without_time().with_target(false).with_ansi(false);
        let out = page.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .with_writer(move || out.clone())
            .event_format(Limited::new(format, move || *clock.lock().unwrap()))
            .finish();
        let pass = move |millis| *now.lock().unwrap() += Duration::from_millis(millis);
        tracing::subscriber::with_default(subscriber, || work(&pass));
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn fails(sink: &str) {
        tracing::warn!(target: "usercom_sink::deliver", sink, "it fails");
    }

    #[test]
    fn a_message_is_shown_once_in_ten_seconds_and_the_rest_is_counted() {
        // Guarantees what is shown, when, and the count of what was not.
        let text = logged(|pass| {
            for _ in 0..5 {
                fails("crm");
                pass(1000);
            }
            pass(5000);
            fails("crm");
        });
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "WARN it fails sink=\"crm\"",
                "WARN came again within 10 s: it fails sink=\"crm\"; left out for a while",
                "WARN left out 4 times: it fails sink=\"crm\"",
                "WARN it fails sink=\"crm\"",
            ]
        );
    }

    #[test]
    fn others_are_not_left_out_for_it() {
        // Guarantees that sinks, debug lines and answers to an operator do not wait for each other.
        let text = logged(|_| {
            for _ in 0..3 {
                fails("a");
                fails("b");
                tracing::debug!(target: "usercom_sink::deliver", "asked for");
                tracing::info!(target: "usercom_sink::pipeline::run::exchange", "reloaded");
            }
        });
        let count = |word| text.lines().filter(|line| line.contains(word)).count();
        assert_eq!((count("sink=\"a\""), count("sink=\"b\"")), (2, 2), "{text}");
        assert_eq!((count("asked for"), count("reloaded")), (3, 3), "{text}");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        // Guarantees a bound on memory, and that a full memory shows rather than hides.
        let text = logged(|_| {
            for n in 0..REMEMBERED + 10 {
                fails(&format!("s{n}"));
            }
            fails("s0");
            fails(&format!("s{REMEMBERED}"));
        });
        assert!(text.contains("again within 10 s: it fails sink=\"s0\""), "{text}");
        let last = format!("it fails sink=\"s{REMEMBERED}\"");
        assert_eq!(text.matches(&last).count(), 2, "{text}");
    }
}
