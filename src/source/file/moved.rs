//! Continues a content in a copy of its file, once the file itself has no name any more.
//!
//! # Invariants
//!
//! The copy continues at the byte where the file ends, with the records in flight.

use std::io;

use super::checkpoints::Rows;
use super::file_set::{FileSet, Tailers};
use super::identity::FileId;
use super::state::IdentifyOutcome;
use super::state::{TailState, Unknown, WaitReason};
use super::stream::Stream;
use super::tailer::FileTailer;

/// The file that another one is a copy of, up to a byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct CopyOrigin {
    pub(super) id: FileId,
    /// Where it ends, or where their common part ends.
    pub(super) at: u64,
}

impl FileSet {
    /// A file was replaced by a copy of itself: reading continues in the copy. `None` where it was
    /// not replaced, or was not read up to there.
    pub(super) async fn take_over(
        &mut self,
        tailer: &mut FileTailer,
        others: &mut Tailers,
        original: CopyOrigin,
    ) -> io::Result<Option<Rows>> {
        let Some(replaced) = others.get_mut(&original.id) else {
            return Ok(None);
        };
        let Some(copy) = replaced.as_copy(original.at) else {
            return Ok(None);
        };
        // Fallible steps come first: the content always belongs to one of the two.
        if let Some(stream) = replaced.stream_mut() {
            tailer.prepare(stream).await?;
        }
        let mut rows = self.preserve_old_row(tailer);
        rows.push((original.id, Some(copy.row.clone())));
        let Some(stream) = replaced.replace_state(TailState::Copy(copy)) else {
            return Ok(None);
        };
        tracing::info!(source = %self.context.source, path = ?tailer.path(), position = original.at, "the file was replaced by a copy of itself; reading continues in the copy");
        tailer.attach(stream);
        rows.push((tailer.id(), tailer.row()));
        Ok(Some(rows))
    }
}

/// Whether the rest of a copy may be read on its own: all that it shares with its original has a
/// verdict, or will have none in this run and is read again in the original.
pub(super) fn may_begin(original: &FileTailer, at: u64) -> bool {
    let is_named = original.missing.is_none();
    original.stream().is_none_or(|stream: &Stream| {
        let is_stuck = stream.is_settled() && !stream.has_rest() && original.quiet_for().is_some();
        stream.mark().position >= at || (is_named && is_stuck)
    })
}

/// The file waits for another one with the same content.
pub(super) fn wait_for(tailer: &mut FileTailer, waits: WaitReason) -> IdentifyOutcome {
    if let TailState::Unknown(Unknown { waits: now, .. }) = &mut tailer.state {
        *now = Some(waits);
    }
    IdentifyOutcome::NotYet
}
