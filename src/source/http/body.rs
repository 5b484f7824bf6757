//! Reads a body: decompresses it as it arrives, within the limits of one request and of all
//! requests together.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyDataStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::io::StreamReader;

use super::reply::RequestError;
use crate::source::inflate::{BodyTooLarge, ContentCoding, inflate};
use crate::source::memory::{MemoryBudget, MemoryReservation};

/// How long a refused sender may pause before it is assumed to wait for its response.
const DISCARD_IDLE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the rest of a refused body is read at most.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(20);

/// The most bytes of a refused body that are read.
const MAX_DISCARD_BYTES: usize = 128 << 20;

/// How long a request waits for its first memory reservation.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(5);

/// Memory for several of the largest bodies.
pub(super) fn budget(max_body_bytes: usize) -> MemoryBudget {
    MemoryBudget::new(max_body_bytes.saturating_mul(4).max(64 << 20))
}

/// The content coding that a request names.
fn coding_of(headers: &HeaderMap) -> Result<ContentCoding, RequestError> {
    let mut coding = ContentCoding::Plain;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_| RequestError::ContentCoding)?;
        for word in value.split(',').map(|word| word.trim().to_ascii_lowercase()) {
            let next = match word.as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => ContentCoding::Gzip,
                "deflate" => ContentCoding::Deflate,
                "zstd" => ContentCoding::Zstd,
                _ => return Err(RequestError::ContentCoding),
            };
            // Each coding may expand a thousandfold, and no sender needs two.
            if coding != ContentCoding::Plain {
                return Err(RequestError::ContentCoding);
            }
            coding = next;
        }
    }
    Ok(coding)
}

/// The limits under which bodies are read.
#[derive(Clone)]
pub(super) struct BodyLimits {
    pub(super) max_bytes: usize,
    pub(super) timeout: Duration,
    pub(super) budget: MemoryBudget,
}

impl BodyLimits {
    /// Reads a whole body.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        body: &mut Body,
    ) -> Result<(Bytes, MemoryReservation), RequestError> {
        let coding = coding_of(headers)?;
        let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        let declared = declared.and_then(|length| length.parse::<u64>().ok());
        if declared.is_some_and(|length| length > self.max_bytes as u64) {
            return Err(RequestError::TooLarge);
        }
        let deadline = Instant::now() + self.timeout;
        let mut reservation = self.budget.reserve(MEMORY_TIMEOUT).await?;
        let limit = self.max_bytes;
        let raw = StreamReader::new(metered(body, limit));
        let read = inflate(coding, raw, limit, &mut reservation);
        match timeout_at(deadline, Box::pin(read)).await {
            Ok(read) => Ok((read?, reservation)),
            Err(_) => Err(RequestError::Slow),
        }
    }
}

/// Reads and discards the rest of a refused body, within limits: a sender whose connection is
/// closed in the middle of its body would not see the response.
pub(super) async fn discard(body: &mut Body) {
    let mut left = MAX_DISCARD_BYTES;
    let body_limits = async {
        let mut chunks = BodyDataStream::new(body);
        while let Ok(Some(Ok(chunk))) = timeout(DISCARD_IDLE_TIMEOUT, chunks.next()).await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    // After that the rest is not waited for.
    timeout(DISCARD_TIMEOUT, body_limits).await.ok();
}

/// The bytes of a body as they arrive, up to a limit.
fn metered(
    body: &mut Body,
    limit: usize,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Unpin + Send + '_ {
    let mut length = 0_usize;
    Box::pin(BodyDataStream::new(body).map_err(io::Error::other).and_then(move |chunk| {
        length = length.saturating_add(chunk.len());
        let fits = length <= limit;
        std::future::ready(if fits { Ok(chunk) } else { Err(io::Error::other(BodyTooLarge)) })
    }))
}
