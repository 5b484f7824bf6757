//! The folder of state of a pipeline, and one that was left behind.
//!
//! Relative paths used to start in the working directory. A program that was started elsewhere has its
//! checkpoints there, without which everything is read and sent again.

use std::path::{Path, PathBuf};

use crate::config::Report;

/// The store's file.
const STORE_FILE: &str = "usercom-sink.db";

/// A warning where there is no state in `data_dir` yet, but there is some where the same setting
/// would have led from the working directory.
pub(super) fn check_former_data_dir(data_dir: &Path) -> Option<Report> {
    let found = find_former_store(data_dir)?;
    let message = format!(
        "there is no state in {} yet, but there is in {}: everything will be read from its beginning and sent again",
        data_dir.display(),
        found.display()
    );
    let help = format!(
        "relative paths start in the folder of the pipeline file; stop, and move {} to {}, or write its absolute path as `data_dir`",
        found.display(),
        data_dir.display()
    );
    Some(Report::unplaced("W0305", message, Some(help)))
}

/// The folder of state in the working directory with the longest common ending.
fn find_former_store(data_dir: &Path) -> Option<PathBuf> {
    if data_dir.join(STORE_FILE).exists() {
        return None;
    }
    let mine = std::path::absolute(data_dir).ok()?;
    let parts: Vec<_> = data_dir.components().collect();
    let endings = (1..parts.len()).map(|from| parts[from..].iter().collect::<PathBuf>());
    endings.map(|ending| Path::new(".").join(ending)).find(|folder| {
        folder.join(STORE_FILE).is_file() && std::path::absolute(folder).is_ok_and(|it| it != mine)
    })
}
