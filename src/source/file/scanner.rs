//! Finds the files that match the patterns.
//!
//! # Invariants
//!
//! A file is found once, however many patterns or names it has, and files are ordered by path.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::identity::FileId;

/// The `include` and `exclude` patterns.
#[derive(Debug)]
pub(super) struct GlobScanner {
    include: Vec<String>,
    exclude: Vec<ExcludePattern>,
}

#[derive(Debug)]
enum ExcludePattern {
    /// A pattern without a separator matches the name in any folder.
    Name(Pattern),
    /// Any other matches the whole path.
    Path(Pattern),
}

/// A file that was found.
#[derive(Debug)]
pub(super) struct FoundFile {
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    /// In bytes.
    pub(super) size: u64,
    /// Its modification time: seconds since 1970, and nanoseconds.
    pub(super) changed: (i64, i64),
}

/// The result of a search.
#[derive(Debug, Default)]
pub(super) struct ScanResult {
    /// Ordered by path.
    pub(super) files: Vec<FoundFile>,
    /// Patterns that match no file.
    pub(super) idle: Vec<String>,
    /// What could not be read, and why.
    pub(super) unreadable: Vec<(PathBuf, String)>,
}

impl GlobScanner {
    pub(super) fn new(include: Vec<String>, exclude: &[String]) -> Result<Self, String> {
        if include.is_empty() {
            return Err("`include` is empty; name at least one file or pattern".into());
        }
        for pattern in &include {
            Pattern::new(pattern).map_err(|e| format!("`include`: {pattern:?}: {e}"))?;
        }
        let exclude = exclude.iter().map(|pattern| {
            ExcludePattern::new(pattern).map_err(|why| format!("`exclude`: {pattern:?}: {why}"))
        });
        Ok(Self { exclude: exclude.collect::<Result<_, _>>()?, include })
    }

    /// Searches now. Blocks on the file system.
    pub(super) fn scan(&self) -> ScanResult {
        let mut scan = ScanResult::default();
        for pattern in &self.include {
            let before = scan.files.len();
            // `new` has verified the pattern, so an error cannot occur and would match nothing.
            for entry in glob::glob(pattern).into_iter().flatten() {
                match entry {
                    Ok(path) => self.check_path(path, &mut scan),
                    Err(e) => scan.unreadable.push((e.path().to_owned(), e.error().to_string())),
                }
            }
            if scan.files.len() == before {
                scan.idle.push(pattern.clone());
            }
        }
        scan.files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut seen = HashSet::new();
        scan.files.retain(|found| seen.insert(found.id));
        scan
    }

    /// The folders where new files would appear, for patterns whose folder has no wildcard.
    pub(super) fn folders(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.include.iter().filter_map(|pattern| {
            let folder = Path::new(pattern).parent()?;
            let plain = !folder.to_string_lossy().contains(['*', '?', '[']);
            plain.then(|| match folder.as_os_str().is_empty() {
                true => PathBuf::from("."),
                false => folder.to_owned(),
            })
        })
    }

    fn check_path(&self, path: PathBuf, scan: &mut ScanResult) {
        if self.exclude.iter().any(|exclude| exclude.matches(&path)) {
            return;
        }
        match fs::metadata(&path) {
            // A pipe or a device would block or never end; only regular files can be read again.
            Ok(metadata) if metadata.is_file() => {
                scan.files.push(FoundFile {
                    id: FileId::of(&metadata),
                    size: metadata.len(),
                    changed: (metadata.mtime(), metadata.mtime_nsec()),
                    path,
                });
            }
            Ok(_) => {}
            // It was removed between the listing and this call.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => scan.unreadable.push((path, e.to_string())),
        }
    }
}

impl ExcludePattern {
    fn new(pattern: &str) -> Result<Self, String> {
        if !pattern.contains('/') {
            return Pattern::new(pattern).map(Self::Name).map_err(|e| e.to_string());
        }
        // Compared as absolute paths, so that `./logs/x` and `logs/x` are the same.
        let full = std::path::absolute(pattern).map_err(|e| e.to_string())?;
        let full = full.to_str().ok_or("the working directory is not UTF-8")?;
        Pattern::new(full).map(Self::Path).map_err(|e| e.to_string())
    }

    fn matches(&self, path: &Path) -> bool {
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
        match self {
            Self::Name(pattern) => path
                .file_name()
                .is_some_and(|name| pattern.matches_path_with(Path::new(name), options)),
            Self::Path(pattern) => std::path::absolute(path)
                .is_ok_and(|path| pattern.matches_path_with(&path, options)),
        }
    }
}
