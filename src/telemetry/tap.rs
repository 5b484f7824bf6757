//! A live sample of the records of a sink, for its viewers.
//!
//! # Invariants
//! Off while there is no viewer: one atomic load a record. At most [`RECORDS_PER_SEC`] records a second;
//! a viewer that is slow misses some. Larger records than [`MAX_BYTES`] are left out.

use bytes::Bytes;
use tokio::sync::broadcast;

use super::activity::SecondLimit;

/// Records a second at most.
const RECORDS_PER_SEC: u32 = 4;

/// Records that wait for a viewer at most.
const QUEUE: usize = 16;

/// Bytes of a record that is shown, at most.
const MAX_BYTES: usize = 64 << 10;

/// Viewers at once.
const MAX_VIEWERS: usize = 16;

/// A record as its sink got it.
#[derive(Debug, Clone)]
pub struct TappedRecord {
    /// Its JSON text.
    pub body: Bytes,
    /// Its metadata.
    pub meta: Option<Bytes>,
    /// Where it came from, for people.
    pub location: Option<String>,
}

/// The tap of a sink.
#[derive(Debug)]
pub struct Tap {
    sender: broadcast::Sender<TappedRecord>,
    limit: SecondLimit,
}

impl Default for Tap {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(QUEUE), limit: SecondLimit::new(RECORDS_PER_SEC) }
    }
}

impl Tap {
    /// Whether a record of this many bytes is to be shown now.
    pub fn wants(&self, bytes: usize) -> bool {
        self.sender.receiver_count() > 0 && bytes <= MAX_BYTES && self.limit.allows()
    }

    /// Shows a record.
    pub fn show(&self, record: TappedRecord) {
        // An error says that the last viewer is gone.
        self.sender.send(record).ok();
    }

    /// Begins to look. `None` if too many look already.
    pub fn open(&self) -> Option<broadcast::Receiver<TappedRecord>> {
        (self.sender.receiver_count() < MAX_VIEWERS).then(|| self.sender.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tap_is_off_until_opened_and_then_limited() {
        // Guarantees that nothing is copied without a viewer, and the rate with one.
        let tap = Tap::default();
        assert!(!tap.wants(10));
        let viewer = tap.open().unwrap();
        let mut shown = 0;
        for _ in 0..10 {
            for _ in 0..100 {
                shown += u32::from(tap.wants(10));
            }
            tokio::time::advance(std::time::Duration::from_millis(500)).await;
        }
        assert!((16..=24).contains(&shown), "{shown} in five seconds");
        assert!(!tap.wants(MAX_BYTES + 1));
        drop(viewer);
        assert!(!tap.wants(10));
        let viewers: Vec<_> = (0..MAX_VIEWERS).map(|_| tap.open().unwrap()).collect();
        assert!(tap.open().is_none());
        drop(viewers);
    }
}
