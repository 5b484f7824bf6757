//! Running totals of the tables that would grow without limit: dead letters and message keys.
//!
//! They are updated with every write, so that a size check does not have to read the table.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};

/// What a settlement added to the tables of a sink.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowsAdded {
    pub(super) dead_bytes: u64,
    pub(super) seen: u64,
}

/// Totals by sink. A total that is not known, or not known any more, is absent and is queried again.
#[derive(Debug, Default)]
pub(super) struct TableTotals {
    by_sink: Mutex<HashMap<String, SinkTotals>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct SinkTotals {
    dead_bytes: Option<u64>,
    seen: Option<u64>,
}

impl TableTotals {
    fn by_sink(&self) -> MutexGuard<'_, HashMap<String, SinkTotals>> {
        self.by_sink.lock()
    }

    pub(super) fn add(&self, sink: &str, added: RowsAdded) {
        if let Some(known) = self.by_sink().get_mut(sink) {
            let more = |known: u64, added| known.saturating_add(added);
            known.dead_bytes = known.dead_bytes.map(|known| more(known, added.dead_bytes));
            known.seen = known.seen.map(|known| more(known, added.seen));
        }
    }

    pub(super) fn dead_bytes(&self, sink: &str) -> Option<u64> {
        self.by_sink().get(sink)?.dead_bytes
    }

    pub(super) fn set_dead_bytes(&self, sink: &str, bytes: u64) {
        let mut by_sink = self.by_sink();
        by_sink.entry(sink.to_owned()).or_default().dead_bytes.get_or_insert(bytes);
    }

    pub(super) fn clear_dead_bytes(&self) {
        self.by_sink().values_mut().for_each(|known| known.dead_bytes = None);
    }

    pub(super) fn seen(&self, sink: &str) -> Option<u64> {
        self.by_sink().get(sink)?.seen
    }

    pub(super) fn set_seen(&self, sink: &str, seen: Option<u64>) {
        self.by_sink().entry(sink.to_owned()).or_default().seen = seen;
    }
}
