//! Suppresses repeated log messages: a message that repeats within ten seconds is not shown, and a
//! line says how often. Debug and trace lines and the answers to an operator (start, reload, stop)
//! are always shown.
//!
//! # Invariants
//! The memory of the limiter is bounded, whatever is logged.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How long repetitions of a message are suppressed.
const WINDOW: Duration = Duration::from_secs(10);

/// Messages that are tracked at most; further ones are shown.
const MAX_KEYS: usize = 1024;

/// Fields that are part of a message's identity: the same failure of two sinks, of two attributes
/// or of two routes is shown twice.
const KEY_FIELDS: &[&str] = &[
    "sink",
    "source",
    "path",
    "file",
    "attribute",
    "field",
    "method",
    "route",
    "status",
    "topic",
    "partition",
    "pattern",
    "reason",
    "rule",
    "nearest_rule",
    "op",
    "user",
    "company",
];

/// Beginnings of messages that are never suppressed: a lasting change at User.com, the begin and the
/// end of an outage, and counts that are limited where they are made.
const UNLIMITED_MESSAGES: &[&str] = &[
    "attribute created",
    "attribute would be created",
    "User.com answers again",
    "User.com cannot be reached",
    "more records became dead letters",
    "more records matched no rule",
];

/// Modules whose messages answer an operator, or come at an interval that the operator chose.
const UNLIMITED_TARGETS: &[&str] =
    &["usercom_sink::cli", "usercom_sink::pipeline::run", "usercom_sink::pipeline::status_service"];

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LimitDecision {
    /// Show it, after a line with the number of suppressed ones.
    Show { suppressed: u64 },
    /// Suppress it, and say that suppression starts.
    SuppressFirst,
    /// Suppress it.
    Suppress,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct MessageKey {
    callsite: Identifier,
    part: String,
}

struct MessageCount {
    shown: Instant,
    suppressed: u64,
}

/// Decides per message; takes the time as an argument.
#[derive(Default)]
struct Limiter(HashMap<MessageKey, MessageCount>);

impl Limiter {
    fn decide(&mut self, key: MessageKey, now: Instant) -> LimitDecision {
        if let Some(seen) = self.0.get_mut(&key) {
            if now.duration_since(seen.shown) < WINDOW {
                seen.suppressed += 1;
                let first = seen.suppressed == 1;
                return if first { LimitDecision::SuppressFirst } else { LimitDecision::Suppress };
            }
            let suppressed = std::mem::take(&mut seen.suppressed);
            seen.shown = now;
            return LimitDecision::Show { suppressed };
        }
        if self.0.len() >= MAX_KEYS {
            self.0.retain(|_, seen| now.duration_since(seen.shown) < WINDOW);
        }
        if self.0.len() < MAX_KEYS {
            self.0.insert(key, MessageCount { shown: now, suppressed: 0 });
        }
        LimitDecision::Show { suppressed: 0 }
    }
}

/// A log format that suppresses repeated messages.
pub(super) struct Limited<F, C> {
    inner: F,
    clock: C,
    limiter: Mutex<Limiter>,
}

impl<F, C: Fn() -> Instant> Limited<F, C> {
    /// `clock` returns the current time.
    pub(super) fn new(inner: F, clock: C) -> Self {
        Self { inner, clock, limiter: Mutex::default() }
    }

    fn decide(&self, event: &Event<'_>, message: &str, part: String) -> LimitDecision {
        let metadata = event.metadata();
        let answer = UNLIMITED_TARGETS.iter().any(|module| metadata.target().starts_with(module));
        let unlimited = answer || UNLIMITED_MESSAGES.iter().any(|begin| message.starts_with(begin));
        if unlimited || *metadata.level() > Level::INFO {
            return LimitDecision::Show { suppressed: 0 };
        }
        let key = MessageKey { callsite: metadata.callsite(), part };
        let mut limiter = self.limiter.lock();
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
        let (note, shown) = match self.decide(event, &message, part.clone()) {
            LimitDecision::Suppress => return Ok(()),
            LimitDecision::Show { suppressed: 0 } => {
                return self.inner.format_event(cx, writer, event);
            }
            LimitDecision::SuppressFirst => {
                (format!("repeated within 10 s, suppressed for now: {message}{part}"), false)
            }
            LimitDecision::Show { suppressed } => {
                (format!("suppressed {suppressed} times: {message}{part}"), true)
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

/// The identity of a message. Values are quoted with `Debug`, so that they cannot break a line.
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
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The log of `work`, which advances the clock by milliseconds.
    fn logged(work: impl FnOnce(&dyn Fn(u64))) -> String {
        let page = SharedOutput::default();
        let now = Arc::new(Mutex::new(Instant::now()));
        let clock = Arc::clone(&now);
        let format = Format::default().without_time().with_target(false).with_ansi(false);
        let out = page.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .with_writer(move || out.clone())
            .event_format(Limited::new(format, move || *clock.lock()))
            .finish();
        let pass = move |millis| *now.lock() += Duration::from_millis(millis);
        tracing::subscriber::with_default(subscriber, || work(&pass));
        let bytes = page.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn fails(sink: &str) {
        tracing::warn!(target: "usercom_sink::deliver", sink, "it fails");
    }

    #[test]
    fn repeated_message_is_shown_once_per_window_with_a_count() {
        // Guarantees which messages are shown, when, and the count of suppressed ones.
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
                "WARN repeated within 10 s, suppressed for now: it fails sink=\"crm\"",
                "WARN suppressed 4 times: it fails sink=\"crm\"",
                "WARN it fails sink=\"crm\"",
            ]
        );
    }

    #[test]
    fn other_messages_are_not_limited() {
        // Guarantees that other sinks, debug lines, answers to an operator and new attributes are not
        // suppressed.
        let text = logged(|_| {
            for _ in 0..3 {
                fails("a");
                fails("b");
                tracing::debug!(target: "usercom_sink::deliver", "asked for");
                tracing::info!(target: "usercom_sink::pipeline::run::reload", "reloaded");
                tracing::info!(target: "usercom_sink::pipeline::probe", "attribute created");
            }
        });
        let count = |word| text.lines().filter(|line| line.contains(word)).count();
        assert_eq!((count("sink=\"a\""), count("sink=\"b\"")), (2, 2), "{text}");
        assert_eq!((count("asked for"), count("reloaded")), (3, 3), "{text}");
    }

    #[test]
    fn limiter_memory_is_bounded() {
        // Guarantees a bound on memory, and that messages are shown when it is full.
        let text = logged(|_| {
            for n in 0..MAX_KEYS + 10 {
                fails(&format!("s{n}"));
            }
            fails("s0");
            fails(&format!("s{MAX_KEYS}"));
        });
        assert!(text.contains("suppressed for now: it fails sink=\"s0\""), "{text}");
        let last = format!("it fails sink=\"s{MAX_KEYS}\"");
        assert_eq!(text.matches(&last).count(), 2, "{text}");
    }
}
