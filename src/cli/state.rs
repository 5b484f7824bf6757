//! Warns of a state directory in the place where earlier versions put it.
//!
//! Relative paths once started in the working directory. The checkpoints of such a run are still
//! there; without them everything is read and sent again.

use std::path::{Path, PathBuf};

use crate::buffer::{Access, Store, StoreError};
use crate::config::Report;

/// The store's file name.
const STORE_FILE: &str = "usercom-sink.db";

/// Opens a store that exists: a command that shows or changes state does not make it.
pub(super) fn open_existing(data_dir: &Path, access: Access) -> Result<Store, StoreError> {
    if !data_dir.join(STORE_FILE).exists() {
        return Err(StoreError::Missing { dir: data_dir.to_owned() });
    }
    Store::open(data_dir, access)
}

/// A warning if `data_dir` has no state yet, but the same path relative to the working directory
/// has.
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

/// The state directory below the working directory with the longest common path suffix.
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
