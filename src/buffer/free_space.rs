//! Admission of new records by free disk space: a part of the disk (or of the file's size limit) is
//! reserved for delivery, which must write its results before it can free space.

use std::path::Path;

use rusqlite::Connection;

/// Bytes that new records leave free for delivery: 8 MiB. The log, marks, checkpoints, message ids
/// and dead letters are written into it.
const RESERVE: u64 = 8 << 20;

/// On a small disk the reserve is the disk's size divided by this.
const RESERVE_DIVISOR: u64 = 5;

/// The free space does not suffice for new records and the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shortage {
    /// Bytes that are free.
    free: u64,
    /// Bytes reserved for delivery.
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

/// Whether new records of `bytes` bytes fit; `dir` is `None` for a store in memory.
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
    // Pages of settled records are reused before the file grows.
    let reusable = number("freelist_count")?.saturating_mul(page);
    let growth = bytes.saturating_sub(reusable);
    let (used, limit) = (number("page_count")?, number("max_page_count")?);
    let free = limit.saturating_sub(used).saturating_mul(page).saturating_add(reusable);
    let reserve = reserve_of(limit.saturating_mul(page));
    if free < reserve.saturating_add(bytes) {
        return Ok(Some(Shortage { free, reserve }));
    }
    let Some(dir) = dir else { return Ok(None) };
    // Without this number the write itself fails when the disk is full.
    let Ok(disk) = rustix::fs::statvfs(dir) else { return Ok(None) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let reserve = reserve_of(disk.f_blocks.saturating_mul(disk.f_frsize));
    // Growth is written to the log first, and is for a while in both files.
    let needed = match growth {
        0 => reserve / 2,
        growth => reserve.saturating_add(growth.saturating_mul(2)),
    };
    Ok((free < needed).then_some(Shortage { free, reserve }))
}

fn reserve_of(total: u64) -> u64 {
    RESERVE.min(total / RESERVE_DIVISOR)
}
