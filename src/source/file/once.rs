//! Reading every file to its present end, one after the other.
//!
//! Not here: waiting for more. One invariant: files are read in the order of their paths, each
//! whole before the next is begun.

use super::desk::{Desk, Farewell, Troubles};
use super::tail::{Tail, Turn, Until};
use crate::config::source::ReadFrom;
use crate::source::SourceError;

/// How many files are opened at a time; their checkpoints are saved together.
const SHELF: usize = 64;

pub(super) async fn run(mut desk: Desk, from: ReadFrom) -> Result<Troubles, SourceError> {
    let findings = desk.first_find().await?;
    let mut files = findings.files;
    desk.common.progress.found(files.iter().map(|f| f.size).sum());
    let mut failed = Troubles::new();
    'all: while !files.is_empty() {
        let rest = files.split_off(files.len().min(SHELF));
        let tails = desk.open(files, from).await?;
        files = rest;
        for mut tail in tails {
            let read = read_out(&mut desk, &mut tail, &mut failed).await?;
            desk.close(&tail, Farewell::Read);
            if read == Turn::Stopped {
                break 'all;
            }
            desk.save_if_due([]).await?;
        }
    }
    failed.extend(desk.finish(Vec::new()).await?);
    Ok(failed)
}

/// Reads one file to the end it had when it was found, or to the end of the line that spans it.
async fn read_out(
    desk: &mut Desk,
    tail: &mut Tail,
    failed: &mut Troubles,
) -> Result<Turn, SourceError> {
    let size = tail.size();
    loop {
        match tail.turn(&desk.outlet, Until::Position(size)).await {
            Ok(Turn::Replaced) => desk.restart(tail).await?,
            Ok(Turn::More) => {}
            Ok(Turn::Stopped) => return Ok(Turn::Stopped),
            Ok(Turn::Quiet) => match tail.send_rest_before(&desk.outlet, size).await {
                Turn::More => {}
                over => return Ok(over),
            },
            Err(error) => {
                failed.insert(tail.path().to_owned(), error.to_string());
                return Ok(Turn::Quiet);
            }
        }
        desk.save_if_due([&*tail]).await?;
    }
}
