//! A body as it comes in: inflated while it streams, within the limits of one request and of all
//! together.
//!
//! Invariant: no more bytes are held than the budget has given out, however small a body was before
//! it was inflated.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyDataStream;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::io::StreamReader;

use super::reply::Refusal;

/// The unit the budget is counted in, in bytes.
const UNIT: usize = 16 << 10;

/// The most bytes read at a time.
const BLOCK: usize = 16 << 10;

/// The largest window of zstd that is taken, as a power of two: 8 MiB, what every decoder must
/// know by RFC 8878.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Budget a decoder of zstd takes for its window.
const ZSTD_UNITS: usize = (1 << ZSTD_WINDOW_LOG) / UNIT;

/// How long a refused sender may pause before it is taken to wait for its answer.
const SILENCE: Duration = Duration::from_millis(500);

/// How long a refused sender is listened to at most.
const FAREWELL: Duration = Duration::from_secs(20);

/// The most bytes of a refused body that are read to the end.
const DISCARDED: usize = 128 << 20;

/// How long a request waits for its first share of the budget.
const PATIENCE: Duration = Duration::from_secs(5);

/// The bytes all requests together may hold.
#[derive(Clone)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
}

impl Budget {
    /// Room for several of the largest bodies.
    pub(super) fn new(max_body_bytes: usize) -> Self {
        let bytes = max_body_bytes.saturating_mul(4).max(64 << 20);
        let units = (bytes / UNIT).min(Semaphore::MAX_PERMITS >> 4);
        Self { units: Arc::new(Semaphore::new(units)) }
    }

    /// A first share: waited for, as whoever asks for it holds nothing yet.
    async fn enter(&self) -> Result<Share, Refusal> {
        match timeout(PATIENCE, Arc::clone(&self.units).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Share { budget: self.clone(), permit, used: 0 }),
            _ => Err(Refusal::Busy),
        }
    }
}

/// What one request holds of the budget; given back when it is dropped.
pub(super) struct Share {
    budget: Budget,
    permit: OwnedSemaphorePermit,
    /// Bytes accounted for.
    used: usize,
}

impl Share {
    /// Takes more. Nobody waits while holding some, or all could wait for each other.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.used = self.used.saturating_add(bytes);
        let needed = self.used.div_ceil(UNIT).saturating_sub(self.permit.num_permits());
        if needed > 0 {
            let units = u32::try_from(needed).map_err(|_| Refusal::TooLarge)?;
            let more = Arc::clone(&self.budget.units).try_acquire_many_owned(units);
            self.permit.merge(more.map_err(|_| Refusal::Busy)?);
        }
        Ok(())
    }

    /// Gives back what is no longer held.
    fn shrink(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
        let keep = self.used.div_ceil(UNIT).max(1);
        drop(self.permit.split(self.permit.num_permits().saturating_sub(keep)));
    }
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Gzip,
    Deflate,
    Zstd,
}

impl Coding {
    /// The one coding a request names.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut coding = Self::Plain;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let value = value.to_str().map_err(|_| Refusal::Coding)?;
            for word in value.split(',').map(|word| word.trim().to_ascii_lowercase()) {
                let next = match word.as_str() {
                    "" | "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "deflate" => Self::Deflate,
                    "zstd" => Self::Zstd,
                    _ => return Err(Refusal::Coding),
                };
                // Each layer may inflate a thousandfold; no sender needs two.
                if coding != Self::Plain {
                    return Err(Refusal::Coding);
                }
                coding = next;
            }
        }
        Ok(coding)
    }
}

/// How a body is read.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) max_bytes: usize,
    pub(super) timeout: Duration,
    pub(super) budget: Budget,
}

impl Reading {
    /// Reads a whole body.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        body: &mut Body,
    ) -> Result<(Bytes, Share), Refusal> {
        let coding = Coding::of(headers)?;
        let told = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        let told = told.and_then(|length| length.parse::<u64>().ok());
        if told.is_some_and(|length| length > self.max_bytes as u64) {
            return Err(Refusal::TooLarge);
        }
        let deadline = Instant::now() + self.timeout;
        let mut share = self.budget.enter().await?;
        let limit = self.max_bytes;
        let raw = StreamReader::new(metered(body, limit));
        let read = async {
            match coding {
                Coding::Plain => drain(raw, limit, &mut share).await,
                Coding::Gzip => {
                    let mut gzip = GzipDecoder::new(raw);
                    gzip.multiple_members(true);
                    drain(gzip, limit, &mut share).await
                }
                Coding::Deflate => drain(ZlibDecoder::new(raw), limit, &mut share).await,
                Coding::Zstd => {
                    let window = ZSTD_UNITS * UNIT;
                    share.grow(window)?;
                    let params = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
                    let mut zstd = ZstdDecoder::with_params(raw, &params);
                    zstd.multiple_members(true);
                    let read = drain(zstd, limit, &mut share).await;
                    share.shrink(window);
                    read
                }
            }
        };
        match timeout_at(deadline, Box::pin(read)).await {
            Ok(read) => Ok((read?, share)),
            Err(_) => Err(Refusal::Slow),
        }
    }
}

/// Reads what is left of a refused body and forgets it, within limits: a sender that is cut off
/// amid its body would not see the answer.
pub(super) async fn discard(body: &mut Body) {
    let mut left = DISCARDED;
    let reading = async {
        let mut chunks = BodyDataStream::new(body);
        while let Ok(Some(Ok(chunk))) = timeout(SILENCE, chunks.next()).await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    // What comes later than that is not waited for.
    timeout(FAREWELL, reading).await.ok();
}

/// What stands in an I/O error where the body was longer than its limit.
#[derive(Debug, thiserror::Error)]
#[error("the body is too large")]
struct TooLarge;

/// The bytes of a body as they arrive, no more than a limit of them.
fn metered(
    body: &mut Body,
    limit: usize,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Unpin + Send + '_ {
    let mut length = 0_usize;
    Box::pin(BodyDataStream::new(body).map_err(io::Error::other).and_then(move |chunk| {
        length = length.saturating_add(chunk.len());
        let fits = length <= limit;
        std::future::ready(if fits { Ok(chunk) } else { Err(io::Error::other(TooLarge)) })
    }))
}

async fn drain<R: AsyncRead + Unpin>(
    mut from: R,
    limit: usize,
    share: &mut Share,
) -> Result<Bytes, Refusal> {
    let mut held = BytesMut::new();
    loop {
        // One byte more than allowed tells a body of just the limit from a longer one.
        let room = (limit + 1 - held.len()).min(BLOCK);
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
            return Err(Refusal::TooLarge);
        }
    }
}

fn broken(error: io::Error) -> Refusal {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(at) = cause {
        if at.is::<TooLarge>() {
            return Refusal::TooLarge;
        }
        // An I/O error shows what it wraps only this way.
        cause = match at.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => at.source(),
        };
    }
    Refusal::Broken
}
