//! SIGHUP: reads the pipeline files again and sends them to the running pipeline. Files with faults
//! are rejected here.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::load::ConfigFiles;
use crate::config::{Loaded, Style};

/// Starts to listen for SIGHUP, which would end the process otherwise.
pub(super) fn listen() -> Option<Signal> {
    match signal(SignalKind::hangup()) {
        Ok(hangups) => Some(hangups),
        Err(error) => {
            tracing::warn!(%error, "SIGHUP cannot be received; restart the program to apply new settings");
            None
        }
    }
}

/// Reads the files at every SIGHUP; never returns. Signals that arrive during a reload are handled
/// after it, with the files as they are then.
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
                    tracing::error!("the new pipeline file is rejected, the old one stays in use");
                }
            }
        }
    }
    std::future::pending().await
}
