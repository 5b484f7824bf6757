//! SIGHUP: the pipeline files are read again, and handed to the pipeline that runs.
//!
//! Not here: what is exchanged. One invariant: files with faults never reach the pipeline.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::load::ConfigFiles;
use crate::config::{Loaded, Style};

/// Begins to listen to SIGHUP, which would end the process otherwise.
pub(super) fn listen() -> Option<Signal> {
    match signal(SignalKind::hangup()) {
        Ok(hangups) => Some(hangups),
        Err(error) => {
            tracing::warn!(%error, "SIGHUP cannot be received; new settings need a restart");
            None
        }
    }
}

/// Reads the files anew on every SIGHUP; never returns. Signals that come while an exchange is
/// under way are answered after it, with the files as they are then.
pub(super) async fn read_on_hangup(
    hangups: Option<Signal>,
    files: &ConfigFiles,
    style: Style,
    out: mpsc::Sender<Loaded>,
) {
    if let Some(mut hangups) = hangups {
        while hangups.recv().await.is_some() {
            let Ok(place) = out.reserve().await else {
                break;
            };
            tracing::info!("SIGHUP: reading the pipeline file again");
            match tokio::task::block_in_place(|| files.load(style)) {
                Ok(loaded) => place.send(loaded),
                Err(_) => {
                    tracing::error!("the new pipeline file is refused, the old one goes on");
                }
            }
        }
    }
    std::future::pending().await
}
