//! How many bytes a source has read, for display.
//!
//! # Invariants
//!
//! Both numbers only grow. `bytes_read` exceeds `bytes_total` only by what a file grew in the
//! meantime. A byte that was read may still be in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A shared handle; clones see the same numbers.
#[derive(Debug, Clone, Default)]
pub struct ReadProgress {
    counts: Arc<ByteCounts>,
}

#[derive(Debug, Default)]
struct ByteCounts {
    read: AtomicU64,
    total: AtomicU64,
}

impl ReadProgress {
    /// Bytes read so far, including those that an earlier run read.
    pub fn bytes_read(&self) -> u64 {
        self.counts.read.load(Ordering::Relaxed)
    }

    /// Bytes known to exist, read or not. 0 until something is found.
    pub fn bytes_total(&self) -> u64 {
        self.counts.total.load(Ordering::Relaxed)
    }

    /// Counts bytes as read.
    pub fn read(&self, bytes: u64) {
        self.counts.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that are known to exist.
    pub fn found(&self, bytes: u64) {
        self.counts.total.fetch_add(bytes, Ordering::Relaxed);
    }
}
