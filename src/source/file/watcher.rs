//! Wakes the reader when something happens to a folder.
//!
//! # Invariants
//!
//! Without a working watcher the source is slower, never wrong.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::ModifyKind;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// The most folders watched; more are left to the clock.
const MOST: usize = 512;

#[derive(Default)]
struct Bell {
    rung: Notify,
    /// Whether a name came, went or changed since it was last asked.
    names: AtomicBool,
}

/// A watcher of folders, where the system has one.
pub(super) struct DirWatcher {
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
    bell: Arc<Bell>,
}

impl DirWatcher {
    pub(super) fn new() -> Self {
        let bell = Arc::new(Bell::default());
        let ringer = Arc::clone(&bell);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            ring(&ringer, event.ok().map(|event| event.kind));
        });
        if let Err(error) = &watcher {
            tracing::debug!(%error, "folders cannot be watched; files are looked at by the clock");
        }
        Self { watcher: watcher.ok(), watched: HashSet::new(), bell }
    }

    /// Watches these folders too.
    pub(super) fn watch(&mut self, folders: impl Iterator<Item = PathBuf>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for folder in folders {
            if self.watched.len() >= MOST || self.watched.contains(&folder) {
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder);
                }
                // A folder that is not there yet is tried again at the next search.
                Err(error) => tracing::debug!(?folder, %error, "a folder cannot be watched"),
            }
        }
    }

    /// Returns when something happened since the last call.
    pub(super) async fn rung(&self) {
        self.bell.rung.notified().await;
    }

    /// Whether a new search is worth while.
    pub(super) fn names_changed(&self) -> bool {
        self.bell.names.swap(false, Ordering::AcqRel)
    }
}

fn ring(bell: &Bell, kind: Option<EventKind>) {
    match kind {
        // Reading is an access: it must not wake the reader.
        Some(EventKind::Access(_)) => return,
        Some(EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_))) => {}
        _ => bell.names.store(true, Ordering::Release),
    }
    bell.rung.notify_one();
}
