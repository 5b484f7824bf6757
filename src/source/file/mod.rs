//! Reads lines of files.
//!
//! A file is recognised by device and inode and by its first and last bytes that were read; where
//! device and inode are new, by all bytes that were read of it. So a copy, a restored backup, a
//! file on another mount and a compressed generation (`app.log.2.gz`) continue at their checkpoint.
//! A truncated or replaced file is a new *generation*, read from its beginning, unless its content
//! is known; a file that was replaced by a copy of itself continues in the copy (`moved`). Where
//! two files have the same whole content, one is a copy of the other and is read once. A file whose
//! old lines were changed is a new one.
//!
//! The generations of one log (`family`) are read one after the other, oldest first; a newer one
//! waits for an older one that cannot be read, at most a minute, which is logged. A rotated file
//! that no pattern finds any more is read to its end as long as the process runs.
//!
//! With `--once`, logs are read one after the other in the order of their paths. A last line
//! without a newline waits for it, unless it is a whole JSON value, or the file is compressed, was
//! rotated or deleted. What is written, rotated and deleted between two searches of a folder is
//! never seen.
//!
//! With a memory buffer, a claim is saved before records are sent (`claim`): what a killed process
//! may have sent is looked up before it is sent again.
//!
//! A record's location is `path:LINE`, or `path@BYTE` in a file that was begun at its end.
//!
//! `exclude` patterns without a `/` match the name in any folder, others match the whole path.
//! Every file that is followed is held open.
//!
//! A record whose verdict is [`Errored`](crate::ack::Verdict::Errored) holds its file's checkpoint
//! for the rest of the run; the next run begins with it.
//!
//! # Invariants
//!
//! A checkpoint never passes a record without a verdict of
//! [`Delivered`](crate::ack::Verdict::Delivered) or [`Rejected`](crate::ack::Verdict::Rejected).

mod blocks;
mod checkpoints;
mod claim;
mod compression;
mod content;
mod decide;
mod family;
mod file_set;
mod follow;
mod identify;
mod identity;
mod moved;
mod offsets;
mod once;
mod order;
mod positions;
mod read;
mod scanner;
mod state;
mod stream;
mod tailer;
mod twins;
mod watcher;

pub use positions::{FilePosition, FoundPath, NewPosition, file_positions, set_file_positions};

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::checkpoints::CheckpointStore;
use self::file_set::{FileSet, UnreadableFiles};
use self::follow::Follow;
use self::scanner::GlobScanner;
use self::stream::{RecordOutput, SourceContext};
use super::decode::Decoder;
use super::{Downstream, ReadMode, ReadProgress, SharedCheckpoints, Source, SourceError};
use crate::config::source::{FileSourceConfig as Settings, ReadFrom};
use crate::record::Record;

/// Reads the lines of the files that match some patterns.
pub struct FileSource {
    context: SourceContext,
    scanner: Arc<GlobScanner>,
    from: ReadFrom,
    mode: ReadMode,
    checkpoints: SharedCheckpoints,
}

impl FileSource {
    /// A source called `name`; the name is part of every record's position and the owner of its
    /// checkpoints.
    ///
    /// # Errors
    ///
    /// Patterns that do not parse, and settings of the decoding that cannot work.
    pub fn new(
        name: &str,
        config: Settings,
        mode: ReadMode,
        checkpoints: SharedCheckpoints,
    ) -> Result<Self, String> {
        super::check_limit(config.max_line_bytes)?;
        let context = SourceContext {
            source: name.into(),
            decoder: Decoder::bounded(
                &config.decoding,
                config.max_line_bytes,
                config.timezone.as_deref(),
            )?
            .with_multiline(config.multiline.as_ref(), config.max_line_bytes)?,
            limit: config.max_line_bytes,
            fingerprint: config.fingerprint,
            downstream: Downstream::default(),
            in_flight: Arc::default(),
            progress: ReadProgress::default(),
        };
        Ok(Self {
            context,
            scanner: Arc::new(GlobScanner::new(config.include, &config.exclude)?),
            from: config.read_from,
            mode,
            checkpoints,
        })
    }
}

impl fmt::Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource")
            .field("name", &self.context.source)
            .field("scanner", &self.scanner)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for FileSource {
    async fn run(
        self: Box<Self>,
        out: mpsc::Sender<Record>,
        stop: CancellationToken,
    ) -> Result<(), SourceError> {
        let store =
            CheckpointStore::load(Arc::clone(&self.context.source), self.checkpoints).await?;
        let output = RecordOutput { out, stop, due: Instant::now() + file_set::SAVE_INTERVAL };
        let files = FileSet::new(Arc::new(self.context), output, Arc::clone(&self.scanner), store);
        match self.mode {
            ReadMode::Follow => {
                // Unreadable files were logged; a followed source has no end at which to return
                // them as an error.
                Follow::new(files, &self.scanner).run(self.from).await?;
                Ok(())
            }
            ReadMode::Once => report_unreadable(once::run(files, self.from).await?),
        }
    }

    fn set_downstream(&mut self, downstream: Downstream) {
        self.context.downstream = downstream;
    }

    fn progress(&self) -> Option<ReadProgress> {
        Some(self.context.progress.clone())
    }
}

/// An unreadable file is an error of the run, though everything else was read.
fn report_unreadable(unreadable: UnreadableFiles) -> Result<(), SourceError> {
    let count = unreadable.len();
    match unreadable.into_iter().min() {
        None => Ok(()),
        Some((path, why)) => Err(SourceError::Io {
            context: format!("{count} of the files could not be read; the first is {path:?}"),
            source: io::Error::other(why),
        }),
    }
}
