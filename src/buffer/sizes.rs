//! How many records and bytes each sink's buffer holds, counted along with every write.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

use super::error::StoreError;

/// Bytes counted per record in addition to its own: keys, numbers, page headers.
pub const RECORD_OVERHEAD: u64 = 64;

/// How much a buffer holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BufferSize {
    /// Records.
    pub events: u64,
    /// Bytes of their bodies and metadata, plus [`RECORD_OVERHEAD`] for each record.
    pub bytes: u64,
}

/// How much a command changes the size of one sink's buffer.
#[derive(Debug)]
pub(super) struct SizeDelta {
    pub(super) sink: Arc<str>,
    pub(super) events: i64,
    pub(super) bytes: i64,
}

/// Sizes of all buffers of a store. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct BufferSizes {
    by_sink: Arc<Mutex<HashMap<Arc<str>, BufferSize>>>,
}

impl BufferSizes {
    /// Reads how much the file already holds.
    pub(super) fn read(conn: &Connection, path: &Path) -> Result<Self, StoreError> {
        Self::query(conn).map_err(|e| StoreError::sqlite(path, e))
    }

    fn query(conn: &Connection) -> rusqlite::Result<Self> {
        let sizes = Self::default();
        let mut held =
            conn.prepare("SELECT sink, count(*), sum(size) FROM buffer GROUP BY sink")?;
        let deltas = held.query_map([], |row| {
            Ok(SizeDelta { sink: row.get(0)?, events: row.get(1)?, bytes: row.get(2)? })
        })?;
        sizes.apply(deltas.collect::<Result<_, _>>()?);
        Ok(sizes)
    }

    pub(super) fn of(&self, sink: &str) -> BufferSize {
        self.lock().get(sink).copied().unwrap_or_default()
    }

    pub(super) fn apply(&self, deltas: Vec<SizeDelta>) {
        if deltas.is_empty() {
            return;
        }
        let mut sizes = self.lock();
        for delta in deltas {
            let size = sizes.entry(delta.sink).or_default();
            size.events = size.events.saturating_add_signed(delta.events);
            size.bytes = size.bytes.saturating_add_signed(delta.bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, BufferSize>> {
        self.by_sink.lock()
    }
}
