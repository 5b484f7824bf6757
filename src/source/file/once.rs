//! Reads every file to its present end, one log after the other.
//!
//! # Invariants
//!
//! Logs are read in the order of their paths, the files of each oldest first, each completely
//! before the next.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::family::{self, Family};
use super::file_set::{CloseReason, FileSet, Tailers, UnreadableFiles};
use super::identify::IdentifyMode;
use super::scanner::FoundFile;
use super::state::IdentifyOutcome;
use super::state::TailState;
use super::stream::RestOfLine;
use super::tailer::{FileTailer, ReadLimit, ReadStatus};
use crate::config::source::ReadFrom;
use crate::source::SourceError;
use crate::source::decode::Flush;

/// A rotated file that was not changed for this long is complete, also where its last line has no
/// newline.
const FINAL_AFTER_SECS: i64 = 5;

pub(super) async fn run(
    mut files: FileSet,
    from: ReadFrom,
) -> Result<UnreadableFiles, SourceError> {
    let scan = files.first_scan().await;
    let mut failed = UnreadableFiles::new();
    files.context.progress.found(scan.files.iter().map(|found| found.size).sum());
    'all: for log in logs(scan.files) {
        let last = log.len().saturating_sub(1);
        for (index, found) in log.into_iter().enumerate() {
            let tailers = files.open(vec![found], from, &Tailers::new()).await;
            for mut tailer in tailers {
                if !identified(&mut files, &mut tailer, &mut failed).await {
                    continue;
                }
                let read = read_out(&mut files, &mut tailer, index < last, &mut failed).await;
                tailer.count_rest();
                files.close(tailer, CloseReason::Read);
                if read == ReadStatus::Stopped {
                    break 'all;
                }
                files.save_if_due([]).await;
            }
        }
    }
    failed.extend(files.finish(Vec::new()).await?);
    Ok(failed)
}

/// The files by log, logs by their first path, files oldest first.
fn logs(files: Vec<FoundFile>) -> Vec<Vec<FoundFile>> {
    let mut logs: BTreeMap<Arc<str>, Vec<(Family, FoundFile)>> = BTreeMap::new();
    let mut first: BTreeMap<PathBuf, Arc<str>> = BTreeMap::new();
    for found in files {
        let family = Family::of(&found.path);
        let log = logs.entry(Arc::clone(&family.key)).or_default();
        if log.is_empty() {
            first.insert(found.path.clone(), Arc::clone(&family.key));
        }
        log.push((family, found));
    }
    let in_order = first.into_values().filter_map(|key| {
        let mut log = logs.remove(&key)?;
        family::sort(&mut log, |(family, found)| family.age(family.is_live, found.changed));
        Some(log.into_iter().map(|(_, found)| found).collect())
    });
    in_order.collect()
}

/// Identifies the file. `false` where that is not possible.
async fn identified(
    files: &mut FileSet,
    tailer: &mut FileTailer,
    failed: &mut UnreadableFiles,
) -> bool {
    if !matches!(tailer.state, TailState::Unknown(_)) {
        return true;
    }
    match files.identify(tailer, &mut Tailers::new(), IdentifyMode::DecideNow).await {
        Ok(IdentifyOutcome::Yes(rows)) => files.save_with_retry(rows).await,
        Ok(IdentifyOutcome::NotYet) => false,
        Err(error) => {
            tracing::warn!(source = %files.context.source, path = ?tailer.path(), %error, "the file cannot be read; the run ends with an error");
            failed.insert(tailer.path().to_owned(), error.to_string());
            false
        }
    }
}

/// Reads one file to the end that it had when it was found, or to the end of the line that spans
/// it.
async fn read_out(
    files: &mut FileSet,
    tailer: &mut FileTailer,
    is_rotated: bool,
    failed: &mut UnreadableFiles,
) -> ReadStatus {
    let size = tailer.size();
    let unchanged_for = crate::clock::now().as_second() - tailer.changed_at();
    let rest = match is_rotated && !tailer.family.is_live && unchanged_for >= FINAL_AFTER_SECS {
        true => RestOfLine::IsLine,
        // The next run reads the rest of the line.
        false => RestOfLine::IfComplete,
    };
    let unsettled: Vec<_> = files.unsettled(&tailer.family.key).collect();
    if let Some(stream) = tailer.stream_mut() {
        stream.begin(|| unsettled);
    }
    loop {
        let turn = match tailer.read_turn(&files.output, ReadLimit::Position(size)).await {
            Ok(ReadStatus::AtEnd) => {
                let (rest, flush) = match (tailer.reaches(size), rest) {
                    (true, _) => (RestOfLine::IsLater, Flush::EndOfStream),
                    (false, _) if tailer.is_finished() => {
                        (RestOfLine::IsLine, Flush::NewGeneration)
                    }
                    (false, RestOfLine::IsLine) => (rest, Flush::NewGeneration),
                    (false, _) => (rest, Flush::EndOfStream),
                };
                tailer.send_rest(&files.output, rest, flush, Some(size)).await
            }
            Ok(turn) => turn,
            Err(error) => {
                tracing::warn!(source = %files.context.source, path = ?tailer.path(), %error, "the file cannot be read to its end; the run ends with an error, and the next run continues there");
                failed.insert(tailer.path().to_owned(), error.to_string());
                return ReadStatus::AtEnd;
            }
        };
        match turn {
            ReadStatus::AtEnd | ReadStatus::Stopped => {
                if tailer.is_cut() {
                    tracing::warn!(source = %files.context.source, path = ?tailer.path(), "the compressed file is incomplete: its stream has no end; what is there was read, and the next run reads what was appended");
                }
                return turn;
            }
            ReadStatus::Replaced => {
                if let Some(gone) = tailer.split_off() {
                    files.close(gone, CloseReason::Left);
                }
                if !identified(files, tailer, failed).await {
                    return ReadStatus::AtEnd;
                }
            }
            ReadStatus::AwaitingClaim => files.save_claim(tailer).await,
            ReadStatus::More => {}
        }
        files.save_if_due([&mut *tailer]).await;
    }
}
