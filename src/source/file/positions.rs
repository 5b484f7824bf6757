//! The checkpoints of files for an operator: what is read, how far, and a change by hand.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::checkpoints::{FileCheckpoint, GENERATION_KEY};
use super::compression::FileCompression;
use super::identity::FileId;
use super::scanner::GlobScanner;
use crate::config::source::FileSourceConfig;
use crate::source::{Checkpoints, SourceError};

/// How far a file is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePosition {
    /// Its key among the checkpoints.
    pub key: String,
    /// Where it is now, or was when it was last read.
    pub path: String,
    /// Where it is now.
    pub found: Option<FoundPath>,
    /// Bytes before this offset are settled. Of a packed file, of what is in it.
    pub position: u64,
    /// Lines before the position, where they were counted.
    pub lines: Option<u64>,
    /// Since when no file with this content is found, in seconds of the epoch.
    pub gone_since: Option<i64>,
    /// Whether another file yields the records of its content.
    pub is_copy: bool,
    /// The size of a compressed file that was read to its end.
    packed: Option<u64>,
}

/// Where a file of a checkpoint is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPath {
    /// Its size on the disk.
    pub size: u64,
    /// Whether it is compressed; then offsets count what is in it.
    pub is_packed: bool,
}

impl FilePosition {
    /// The bytes that there are to read; `None` if they are not known without reading.
    pub fn total(&self) -> Option<u64> {
        match &self.found {
            Some(found) if !found.is_packed => Some(found.size),
            Some(found) if self.packed == Some(found.size) => Some(self.position),
            _ => None,
        }
    }

    /// Whether it is a compressed file.
    pub fn is_packed(&self) -> bool {
        self.found.as_ref().map_or(self.packed.is_some(), |found| found.is_packed)
    }

    /// Whether a path leads to this file, whatever it was called before.
    pub fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| FileId::of(&found).to_string() == self.key)
    }
}

/// Where a file is to be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewPosition {
    /// The offset of the first byte that is not read yet.
    pub position: u64,
    /// Lines before it, where they were counted.
    pub lines: Option<u64>,
}

/// The positions of all files of a source, by path. Files that were renamed are searched where the
/// source would find them.
///
/// # Errors
/// Where the store cannot be read.
pub async fn file_positions(
    checkpoints: &dyn Checkpoints,
    source: &str,
    config: &FileSourceConfig,
) -> Result<Vec<FilePosition>, SourceError> {
    let rows = checkpoints.load(source).await?;
    let scanner = GlobScanner::new(config.include.clone(), &config.exclude);
    let scanned = scanner.map(|scanner| scanner.scan().files).unwrap_or_default();
    let present: HashMap<FileId, PathBuf> =
        scanned.into_iter().map(|found| (found.id, found.path)).collect();
    let mut files: Vec<FilePosition> = rows
        .into_iter()
        .filter_map(|(key, value)| {
            let id: FileId = key.parse().ok()?;
            let row: FileCheckpoint = serde_json::from_str(&value).ok()?;
            let path = present.get(&id).cloned().unwrap_or_else(|| PathBuf::from(&row.path));
            let found = find(&path, id);
            Some(FilePosition {
                path: match found {
                    Some(_) => path.to_string_lossy().into_owned(),
                    None => row.path,
                },
                key,
                found,
                position: row.position,
                lines: row.lines,
                gone_since: row.left,
                is_copy: row.copy,
                packed: row.packed,
            })
        })
        .collect();
    files.sort_by(|a, b| (&a.path, &a.key).cmp(&(&b.path, &b.key)));
    Ok(files)
}

/// The file at this path, if it is this one.
fn find(path: &Path, id: FileId) -> Option<FoundPath> {
    let file = File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if FileId::of(&metadata) != id {
        return None;
    }
    let compression = FileCompression::of(&file, path).ok().flatten();
    let is_packed = compression.is_some_and(|compression| compression != FileCompression::Plain);
    Some(FoundPath { size: metadata.len(), is_packed })
}

/// Makes the next run read files from other positions. `None` stands for a file that is forgotten:
/// it is read as a new one.
///
/// The file gets a new generation, so that a disk buffer does not take its records for ones it has.
///
/// # Errors
/// Where the store cannot be read or written.
pub async fn set_file_positions(
    checkpoints: &dyn Checkpoints,
    source: &str,
    changes: &[(String, Option<NewPosition>)],
) -> Result<(), SourceError> {
    let rows = checkpoints.load(source).await?;
    let of = |key: &str| rows.iter().find(|(known, _)| known == key).map(|(_, value)| value);
    let mut next: u64 = of(GENERATION_KEY).and_then(|number| number.parse().ok()).unwrap_or(0);
    let mut changed = Vec::new();
    for (key, new) in changes {
        let row = of(key).and_then(|text| serde_json::from_str::<FileCheckpoint>(text).ok());
        let value = match (new, row) {
            (Some(new), Some(mut row)) => {
                row.generation = next;
                next += 1;
                row.position = new.position;
                row.lines = new.lines;
                // What was read of it under the former number says nothing about the new one.
                row.origin = None;
                row.copy = false;
                row.content = None;
                row.claims.clear();
                row.packed = None;
                serde_json::to_string(&row).ok()
            }
            _ => None,
        };
        changed.push((key.clone(), value));
    }
    changed.push((GENERATION_KEY.to_owned(), Some(next.to_string())));
    checkpoints.save(source, changed).await
}
