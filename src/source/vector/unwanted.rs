//! Handles events that are not user events, mainly metrics: one dead letter per minute and kind
//! reports them with a count; the others are counted and dropped, so that they fill neither the
//! dead letters nor the disk.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::event::{DecodedEvent, EventKind};
use crate::telemetry::SourceMetrics;

/// The interval between two dead letters of one kind.
const DEAD_LETTER_INTERVAL: Duration = Duration::from_secs(60);

/// The count of one kind.
struct UnwantedCount {
    since: Instant,
    dropped: u64,
}

/// The unwanted events of one source.
pub(super) struct UnwantedEvents {
    source: String,
    metrics: Option<SourceMetrics>,
    seen: Mutex<BTreeMap<EventKind, UnwantedCount>>,
}

impl UnwantedEvents {
    pub(super) fn new(source: &str, metrics: Option<SourceMetrics>) -> Self {
        Self { source: source.to_owned(), metrics, seen: Mutex::default() }
    }

    /// Whether an unwanted event becomes a dead letter. That one's error contains how many were
    /// dropped since the last one.
    pub(super) fn admit(&self, event: &mut DecodedEvent) -> bool {
        let word = word(event.kind);
        if let Some(metrics) = &self.metrics {
            metrics.unwanted(word);
        }
        let now = Instant::now();
        let mut all = self.seen.lock();
        let dropped = match all.entry(event.kind) {
            Entry::Vacant(entry) => {
                entry.insert(UnwantedCount { since: now, dropped: 0 });
                0
            }
            Entry::Occupied(mut entry) => {
                let seen = entry.get_mut();
                if now.duration_since(seen.since) < DEAD_LETTER_INTERVAL {
                    seen.dropped += 1;
                    return false;
                }
                seen.since = now;
                std::mem::take(&mut seen.dropped)
            }
        };
        drop(all);
        if let Some(fault) = event.fault.as_mut().filter(|_| dropped > 0) {
            fault.push_str(&format!(
                "; {dropped} more arrived since the last dead letter of this kind and were dropped"
            ));
        }
        tracing::warn!(
            source = self.source,
            kind = word,
            dropped,
            "events that are not user events arrive: one per minute becomes a dead letter, the \
             others are dropped and counted; remove them from the `inputs` of Vector's sink"
        );
        true
    }

    /// Logs at the end the drops that no dead letter has reported.
    pub(super) fn finish(&self) {
        let all = self.seen.lock();
        for (kind, seen) in all.iter().filter(|(_, seen)| seen.dropped > 0) {
            let (kind, dropped) = (word(*kind), seen.dropped);
            tracing::warn!(
                source = self.source,
                kind,
                dropped,
                "events that are not user events were dropped since the last dead letter of this \
                 kind"
            );
        }
    }
}

fn word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Event => "event",
        EventKind::Metric => "metric",
        EventKind::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn metric() -> DecodedEvent {
        // EventWrapper { metric { name: "cpu" } }
        crate::source::vector::decode(b"\x12\x05\x0a\x03cpu")
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_unwanted_events_make_one_dead_letter_per_minute() {
        // Guarantees one admitted event per minute and kind, that it contains the number of dropped
        // ones, and that all are counted.
        let metrics = Metrics::default();
        let unwanted = UnwantedEvents::new("in", Some(metrics.source("in", "vector")));
        assert!(unwanted.admit(&mut metric()));
        assert!((0..4_927).all(|_| !unwanted.admit(&mut metric())));
        let mut unknown = crate::source::vector::decode(b"");
        assert_eq!(unknown.kind, EventKind::Unknown);
        assert!(unwanted.admit(&mut unknown));
        tokio::time::advance(DEAD_LETTER_INTERVAL).await;
        let mut next = metric();
        assert!(unwanted.admit(&mut next));
        let fault = next.fault.unwrap();
        assert!(fault.contains("4927 more"), "{fault}");
        let text = metrics.render();
        let counted = text.lines().find(|line| line.contains("reason=\"metric\"")).unwrap();
        assert!(counted.ends_with(" 4929"), "{counted}");
    }
}
