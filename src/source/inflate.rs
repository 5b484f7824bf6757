//! Decompresses input within the limit of one request and the memory budget that all requests
//! share.
//!
//! # Invariants
//!
//! No more bytes are held than the budget has granted, however small the input was before it was
//! inflated.

use std::io;

use async_compression::tokio::bufread::{GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt};
use tokio::task::consume_budget;

use super::memory::{MemoryReservation, OutOfMemoryBudget, UNIT};

/// The most bytes that are read at a time.
const READ_BLOCK_BYTES: usize = 16 << 10;

/// The largest zstd window that is accepted, as a power of two: 8 MiB, which RFC 8878 requires
/// every decoder to support.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Bytes of the budget that a zstd decoder reserves for its window.
const ZSTD_WINDOW: usize = (1 << ZSTD_WINDOW_LOG) / UNIT * UNIT;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentCoding {
    Plain,
    Gzip,
    Deflate,
    Zstd,
}

/// Why input cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InflateError {
    #[error("it is larger than the limit")]
    TooLarge,
    #[error(transparent)]
    OutOfMemoryBudget(#[from] OutOfMemoryBudget),
    #[error("it ended early or cannot be decompressed")]
    Broken,
}

/// Marker inside an I/O error: the compressed input was longer than its limit.
#[derive(Debug, thiserror::Error)]
#[error("the body is too large")]
pub(super) struct BodyTooLarge;

/// Reads all of `raw`, at most `limit` bytes once inflated.
pub(super) async fn inflate<R: AsyncBufRead + Unpin>(
    coding: ContentCoding,
    raw: R,
    limit: usize,
    share: &mut MemoryReservation,
) -> Result<Bytes, InflateError> {
    match coding {
        ContentCoding::Plain => drain(raw, limit, share).await,
        ContentCoding::Gzip => {
            let mut gzip = GzipDecoder::new(raw);
            gzip.multiple_members(true);
            drain(gzip, limit, share).await
        }
        ContentCoding::Deflate => drain(ZlibDecoder::new(raw), limit, share).await,
        ContentCoding::Zstd => {
            share.grow(ZSTD_WINDOW)?;
            let params = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
            let mut zstd = ZstdDecoder::with_params(raw, &params);
            zstd.multiple_members(true);
            let read = drain(zstd, limit, share).await;
            share.shrink(ZSTD_WINDOW);
            read
        }
    }
}

async fn drain<R: AsyncRead + Unpin>(
    mut from: R,
    limit: usize,
    share: &mut MemoryReservation,
) -> Result<Bytes, InflateError> {
    let mut held = BytesMut::new();
    loop {
        // Reads one byte more than allowed, to tell a body of exactly the limit from a longer one.
        let room = (limit + 1 - held.len()).min(READ_BLOCK_BYTES);
        if held.capacity() - held.len() < room {
            let more = room.max(held.len().min(limit - held.len()));
            share.grow(more)?;
            held.reserve(more);
        }
        let read = (&mut from).take(room as u64).read_buf(&mut held).await.map_err(broken)?;
        if read == 0 {
            return Ok(held.freeze());
        }
        if held.len() > limit {
            return Err(InflateError::TooLarge);
        }
        // Input that is already in memory is always ready, so this task must yield to others
        // itself.
        consume_budget().await;
    }
}

fn broken(error: io::Error) -> InflateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(at) = cause {
        if at.is::<BodyTooLarge>() {
            return InflateError::TooLarge;
        }
        // `io::Error::source` skips the error that it wraps; `get_ref` returns it.
        cause = match at.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => at.source(),
        };
    }
    InflateError::Broken
}
