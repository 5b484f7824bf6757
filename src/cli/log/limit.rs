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
const MAX_KEYS: usize = 1024;

/// Fields that make one message two: the same failure of two sinks is told twice.
const KEY_FIELDS: &[&str] = &["sink", "source", "path"];

/// Modules that log what an operator asked for.
const UNLIMITED_TARGETS: &[&str] = &["usercom_sink::cli", "usercom_sink::pipeline::run"];

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LimitDecision {
    /// Show it, after telling how many like it were left out.
    Show { left_out: u64 },
    /// Leave it out, and say that this begins.
    LeaveOutFirst,
    /// Leave it out.
    LeaveOut,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct MessageKey {
    callsite: Identifier,
    part: String,
}

struct MessageCount {
    shown: Instant,
    left_out: u64,
}

/// The decisions; takes the time.
#[derive(Default)]
struct Limiter(HashMap<MessageKey, MessageCount>);

impl Limiter {
    fn decide(&mut self, key: MessageKey, now: Instant) -> LimitDecision {
        if let Some(seen) = self.0.get_mut(&key) {
            if now.duration_since(seen.shown) < WINDOW {
                seen.left_out += 1;
                let first = seen.left_out == 1;
                return if first { LimitDecision::LeaveOutFirst } else { LimitDecision::LeaveOut };
            }
            let left_out = std::mem::take(&mut seen.left_out);
            seen.shown = now;
            return LimitDecision::Show { left_out };
        }
        if self.0.len() >= MAX_KEYS {
            self.0.retain(|_, seen| now.duration_since(seen.shown) < WINDOW);
        }
        if self.0.len() < MAX_KEYS {
            self.0.insert(key, MessageCount { shown: now, left_out: 0 });
        }
        LimitDecision::Show { left_out: 0 }
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

    fn decide(&self, event: &Event<'_>, part: String) -> LimitDecision {
        let metadata = event.metadata();
        let answer = UNLIMITED_TARGETS.iter().any(|module| metadata.target().starts_with(module));
        if answer || *metadata.level() > Level::INFO {
            return LimitDecision::Show { left_out: 0 };
        }
        let key = MessageKey { callsite: metadata.callsite(), part };
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
        let mut words = FieldTexts::default();
        event.record(&mut words);
        let FieldTexts { message, part } = words;
        let (note, shown) = match self.decide(event, part.clone()) {
            LimitDecision::LeaveOut => return Ok(()),
            LimitDecision::Show { left_out: 0 } => {
                return self.inner.format_event(cx, writer, event);
            }
            LimitDecision::LeaveOutFirst => {
                (format!("came again within 10 s: {message}{part}; left out for a while"), false)
            }
            LimitDecision::Show { left_out } => {
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
struct FieldTexts {
    message: String,
    part: String,
}

impl Visit for FieldTexts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else if KEY_FIELDS.contains(&field.name()) {
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
    struct SharedOutput(Arc<Mutex<Vec<u8>>>);

    impl io::Write for SharedOutput {
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
        let page = SharedOutput::default();
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
    fn repeated_message_is_shown_once_per_window_with_a_count() {
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
    fn other_messages_are_not_limited() {
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
    fn limiter_memory_is_bounded() {
        // Guarantees a bound on memory, and that a full memory shows rather than hides.
        let text = logged(|_| {
            for n in 0..MAX_KEYS + 10 {
                fails(&format!("s{n}"));
            }
            fails("s0");
            fails(&format!("s{MAX_KEYS}"));
        });
        assert!(text.contains("again within 10 s: it fails sink=\"s0\""), "{text}");
        let last = format!("it fails sink=\"s{MAX_KEYS}\"");
        assert_eq!(text.matches(&last).count(), 2, "{text}");
    }
}
