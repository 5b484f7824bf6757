//! Reading every file to its present end, one log after the other.
//!
//! # Invariants
//!
//! Logs are read in the order of their paths, the files of each oldest first, each whole before the
//! next is begun.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::family::{self, Family};
use super::file_set::{CloseReason, FileSet, Tails, UnreadableFiles};
use super::identify::{Identified, Patience};
use super::scanner::Found;
use super::state::State;
use super::stream::RestOfLine;
use super::tailer::{FileTailer, ReadStatus, Until};
use crate::config::source::ReadFrom;
use crate::source::SourceError;
use crate::source::decode::Flush;

/// A rotated file that was not changed for so long has its last line, with a newline or without.
const FINAL_AFTER_SECS: i64 = 5;

pub(super) async fn run(mut desk: FileSet, from: ReadFrom) -> Result<UnreadableFiles, SourceError> {
    let findings = desk.first_find().await;
    let mut failed = UnreadableFiles::new();
    desk.common.progress.found(findings.files.iter().map(|found| found.size).sum());
    desk.common.progress.found_files(findings.files.len());
    'all: for log in logs(findings.files) {
        let last = log.len().saturating_sub(1);
        for (index, found) in log.into_iter().enumerate() {
            let tails = desk.open(vec![found], from, &Tails::new()).await;
            for mut tail in tails {
                if !identified(&mut desk, &mut tail, &mut failed).await {
                    continue;
                }
                let read = read_out(&mut desk, &mut tail, index < last, &mut failed).await;
                tail.count_rest();
                desk.close(tail, CloseReason::Read);
                if read == ReadStatus::Stopped {
                    break 'all;
                }
                desk.save_if_due([]).await;
            }
        }
    }
    failed.extend(desk.finish(Vec::new()).await?);
    Ok(failed)
}

/// The files by log, logs by their first path, files oldest first.
fn logs(files: Vec<Found>) -> Vec<Vec<Found>> {
    let mut logs: BTreeMap<Arc<str>, Vec<(Family, Found)>> = BTreeMap::new();
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

/// Finds out what the file is. `false` where that is not possible.
async fn identified(
    desk: &mut FileSet,
    tail: &mut FileTailer,
    failed: &mut UnreadableFiles,
) -> bool {
    if !matches!(tail.state, State::Unknown(_)) {
        return true;
    }
    match desk.identify(tail, &mut Tails::new(), Patience::DecideNow).await {
        Ok(Identified::Yes(rows)) => desk.save_surely(rows).await,
        Ok(Identified::NotYet) => false,
        Err(error) => {
            tracing::warn!(path = ?tail.path(), %error, "the file cannot be read");
            failed.insert(tail.path().to_owned(), error.to_string());
            false
        }
    }
}

/// Reads one file to the end it had when it was found, or to the end of the line that spans it.
async fn read_out(
    desk: &mut FileSet,
    tail: &mut FileTailer,
    is_rotated: bool,
    failed: &mut UnreadableFiles,
) -> ReadStatus {
    let size = tail.size();
    let unchanged_for = crate::clock::now().as_second() - tail.changed_at();
    let rest = match is_rotated && !tail.family.is_live && unchanged_for >= FINAL_AFTER_SECS {
        true => RestOfLine::IsLine,
        // The next run has more of it.
        false => RestOfLine::IfComplete,
    };
    let unsettled: Vec<_> = desk.unsettled(&tail.family.key).collect();
    if let Some(stream) = tail.stream_mut() {
        stream.begin(|| unsettled);
    }
    loop {
        let turn = match tail.turn(&desk.outlet, Until::Position(size)).await {
            Ok(ReadStatus::Quiet) => {
                let (rest, flush) = match (tail.reaches(size), rest) {
                    (true, _) => (RestOfLine::IsLater, Flush::EndOfStream),
                    (false, _) if tail.is_finished() => (RestOfLine::IsLine, Flush::NewGeneration),
                    (false, RestOfLine::IsLine) => (rest, Flush::NewGeneration),
                    (false, _) => (rest, Flush::EndOfStream),
                };
                tail.send_rest(&desk.outlet, rest, flush, Some(size)).await
            }
            Ok(turn) => turn,
            Err(error) => {
                tracing::warn!(path = ?tail.path(), %error, "the file cannot be read to its end");
                failed.insert(tail.path().to_owned(), error.to_string());
                return ReadStatus::Quiet;
            }
        };
        match turn {
            ReadStatus::Quiet | ReadStatus::Stopped => {
                if tail.is_cut() {
                    tracing::warn!(path = ?tail.path(), "the packed file ends amid its stream: it is not whole; what is there was read, and the next run goes on where more is there");
                }
                return turn;
            }
            ReadStatus::Replaced => {
                if let Some(gone) = tail.split_off() {
                    desk.close(gone, CloseReason::Left);
                }
                if !identified(desk, tail, failed).await {
                    return ReadStatus::Quiet;
                }
            }
            ReadStatus::Unclaimed => desk.save_claim(tail).await,
            ReadStatus::More => {}
        }
        desk.save_if_due([&mut *tail]).await;
    }
}
