//! The zone of times in histories that name none.

use parking_lot::Mutex;

/// By how many seconds the times of histories without a zone differ from UTC, once that is known.
#[derive(Debug, Default)]
pub(super) struct HistoryZone(Mutex<Option<i64>>);

impl HistoryZone {
    /// Whether times without a zone may differ by this offset. Once one was recognised, all others
    /// must have the same offset, give or take summer time.
    pub(super) fn allows(&self, offset: i64) -> bool {
        let known = *self.0.lock();
        offset == 0 || known.is_none_or(|known| matches!((known - offset).abs(), 0 | 3600))
    }

    /// Records that an event was recognised under this offset.
    pub(super) fn learn(&self, offset: i64) {
        if offset != 0 {
            let mut known = self.0.lock();
            known.get_or_insert(offset);
        }
    }
}
