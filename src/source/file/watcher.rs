//! Wakes the reader when something changes in a folder.
//!
//! # Invariants
//!
//! Without a working watcher the source is slower, but complete.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::ModifyKind;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// The most folders that are watched; others are searched at intervals only.
const MAX_WATCHED_FOLDERS: usize = 512;

#[derive(Default)]
struct WakeSignal {
    changed: Notify,
    /// Whether a name was added, removed or changed since the last call.
    names: AtomicBool,
}

/// Watches folders, where the system supports it.
pub(super) struct DirWatcher {
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
    signal: Arc<WakeSignal>,
}

impl DirWatcher {
    pub(super) fn new() -> Self {
        let signal = Arc::new(WakeSignal::default());
        let sender = Arc::clone(&signal);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            on_event(&sender, event.ok().map(|event| event.kind));
        });
        if let Err(error) = &watcher {
            tracing::debug!(%error, "folders cannot be watched; files are checked at intervals instead");
        }
        Self { watcher: watcher.ok(), watched: HashSet::new(), signal }
    }

    /// Watches these folders too.
    pub(super) fn watch(&mut self, folders: impl Iterator<Item = PathBuf>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for folder in folders {
            if self.watched.len() >= MAX_WATCHED_FOLDERS || self.watched.contains(&folder) {
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder);
                }
                // A folder that does not exist yet is tried again at the next search.
                Err(error) => tracing::debug!(?folder, %error, "a folder cannot be watched"),
            }
        }
    }

    /// Returns when something changed since the last call.
    pub(super) async fn changed(&self) {
        self.signal.changed.notified().await;
    }

    /// Whether a new search is useful.
    pub(super) fn names_changed(&self) -> bool {
        self.signal.names.swap(false, Ordering::AcqRel)
    }
}

fn on_event(signal: &WakeSignal, kind: Option<EventKind>) {
    match kind {
        // Our own reading is an access and must not wake the reader.
        Some(EventKind::Access(_)) => return,
        Some(EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_))) => {}
        _ => signal.names.store(true, Ordering::Release),
    }
    signal.changed.notify_one();
}
