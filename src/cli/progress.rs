//! Shows how far a run is: a bar on a terminal, else a line in the log at an interval.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::telemetry::{RunProgress, StatusRecorder};

/// How often the bar is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);

/// How often a line is logged where there is no terminal.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// The bar that is on the terminal now: lines of the log go above it.
static SHOWN_BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// The progress of a run, shown until it is dropped.
pub(super) struct ProgressDisplay {
    bar: ProgressBar,
    /// Stops the updates on drop.
    _updates: JoinSet<()>,
}

impl ProgressDisplay {
    /// Shows the progress that a status recorder knows.
    pub(super) fn show(recorder: StatusRecorder) -> Self {
        // indicatif draws to stderr, and hides itself if that is not a terminal.
        let bar = ProgressBar::new(1);
        let mut updates = JoinSet::new();
        if bar.is_hidden() {
            updates.spawn(log_regularly(recorder));
        } else {
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {wide_msg}") {
                bar.set_style(style);
            }
            *SHOWN_BAR.lock() = Some(bar.clone());
            updates.spawn(draw_regularly(recorder, bar.clone()));
        }
        Self { bar, _updates: updates }
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        *SHOWN_BAR.lock() = None;
        self.bar.finish_and_clear();
    }
}

async fn draw_regularly(recorder: StatusRecorder, bar: ProgressBar) {
    loop {
        let progress = RunProgress::of(&recorder.status());
        match progress.total {
            Some(total) => {
                bar.set_length(total.max(1));
                bar.set_position(progress.settled);
            }
            None => bar.set_position(0),
        }
        bar.set_message(progress.line());
        sleep(DRAW_INTERVAL).await;
    }
}

async fn log_regularly(recorder: StatusRecorder) {
    loop {
        sleep(LOG_INTERVAL).await;
        tracing::info!("{}", RunProgress::of(&recorder.status()).line());
    }
}

/// Writes to stderr, above the bar if one is shown.
pub(super) struct AboveBar;

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let bar = SHOWN_BAR.lock().clone();
        let write = || std::io::stderr().write(bytes);
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
