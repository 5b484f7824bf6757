//! How much may still be taken in: part of a disk, or of a file with a limit, is left to delivery,
//! which has to write down what it did before it can make room.

use std::path::Path;

use rusqlite::Connection;

/// Free bytes that records taken in leave to delivery, where the disk is not small: 8 MiB. The log
/// of the store, marks, checkpoints, message ids and dead letters are written into it.
const RESERVE: u64 = 8 << 20;

/// Of a small disk this part is left.
const RESERVE_DIVISOR: u64 = 5;

/// There is less room than records need beside what is left to delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shortage {
    /// Bytes that are free.
    free: u64,
    /// Bytes that stay free for delivery.
    reserve: u64,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} KiB are free, and {} KiB stay free for what delivery has to write down; no more \
             records are taken in until delivery has made room, or you have: free some of the disk, \
             or set a smaller `buffer.max_size`",
            self.free >> 10,
            self.reserve >> 10,
        )
    }
}

/// Whether records of so many bytes find room in the store; `dir` is `None` where it lives in
/// memory.
pub(super) fn shortage(
    conn: &Connection,
    dir: Option<&Path>,
    bytes: u64,
) -> rusqlite::Result<Option<Shortage>> {
    let number = |name: &str| -> rusqlite::Result<u64> {
        conn.prepare_cached(&format!("PRAGMA {name}"))?
            .query_row([], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
    };
    let page = number("page_size")?;
    // Pages of settled records are used again before the file grows.
    let again = number("freelist_count")?.saturating_mul(page);
    let growth = bytes.saturating_sub(again);
    let (used, limit) = (number("page_count")?, number("max_page_count")?);
    let free = limit.saturating_sub(used).saturating_mul(page).saturating_add(again);
    let reserve = reserve_of(limit.saturating_mul(page));
    if free < reserve.saturating_add(bytes) {
        return Ok(Some(Shortage { free, reserve }));
    }
    let Some(dir) = dir else { return Ok(None) };
    // A system that does not tell its free space fails when there is none.
    let Ok(disk) = rustix::fs::statvfs(dir) else { return Ok(None) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let reserve = reserve_of(disk.f_blocks.saturating_mul(disk.f_frsize));
    // What makes the file grow is in the log first, and for a while in both.
    let needed = match growth {
        0 => reserve / 2,
        growth => reserve.saturating_add(growth.saturating_mul(2)),
    };
    Ok((free < needed).then_some(Shortage { free, reserve }))
}

fn reserve_of(total: u64) -> u64 {
    RESERVE.min(total / RESERVE_DIVISOR)
}
