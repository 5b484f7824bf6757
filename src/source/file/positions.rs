//! The checkpoints of files for an operator: what is read, how far, and a change by hand.

use crate::source::{Checkpoints, SourceError};

use super::checkpoints::{FileCheckpoint, GENERATION_KEY};
use super::identity::FileId;

/// How far a file is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePosition {
    /// Its key among the checkpoints.
    pub key: String,
    /// Its path when it was last read.
    pub path: String,
    /// Bytes before this offset are settled. Of a packed file, of what is in it.
    pub position: u64,
    /// Lines before the position, where they were counted.
    pub lines: Option<u64>,
    /// Since when no file with this content is found, in seconds of the epoch.
    pub gone_since: Option<i64>,
    /// Whether another file yields the records of its content.
    pub is_copy: bool,
    /// Whether it is a packed file.
    pub is_packed: bool,
}

/// Where a file is to be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewPosition {
    /// The offset of the first byte that is not read yet.
    pub position: u64,
    /// Lines before it, where they were counted.
    pub lines: Option<u64>,
}

/// The positions of all files of a source, by path.
///
/// # Errors
/// Where the store cannot be read.
pub async fn file_positions(
    checkpoints: &dyn Checkpoints,
    source: &str,
) -> Result<Vec<FilePosition>, SourceError> {
    let rows = checkpoints.load(source).await?;
    let mut files: Vec<FilePosition> = rows
        .into_iter()
        .filter_map(|(key, value)| {
            key.parse::<FileId>().ok()?;
            let row: FileCheckpoint = serde_json::from_str(&value).ok()?;
            Some(FilePosition {
                key,
                path: row.path,
                position: row.position,
                lines: row.lines,
                gone_since: row.left,
                is_copy: row.copy,
                is_packed: row.packed.is_some(),
            })
        })
        .collect();
    files.sort_by(|a, b| (&a.path, &a.key).cmp(&(&b.path, &b.key)));
    Ok(files)
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
