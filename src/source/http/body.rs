//! A body as it comes in: inflated while it streams, within the limits of one request and of all
//! together.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyDataStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::io::StreamReader;

use super::reply::Refusal;
use crate::source::inflate::{Coding, TooLarge, inflate};
use crate::source::memory::{Budget, Share};

/// How long a refused sender may pause before it is taken to wait for its answer.
const SILENCE: Duration = Duration::from_millis(500);

/// How long a refused sender is listened to at most.
const FAREWELL: Duration = Duration::from_secs(20);

/// The most bytes of a refused body that are read to the end.
const DISCARDED: usize = 128 << 20;

/// How long a request waits for its first share of the budget.
const PATIENCE: Duration = Duration::from_secs(5);

/// Room for several of the largest bodies.
pub(super) fn budget(max_body_bytes: usize) -> Budget {
    Budget::new(max_body_bytes.saturating_mul(4).max(64 << 20))
}

/// The one coding a request names.
fn coding_of(headers: &HeaderMap) -> Result<Coding, Refusal> {
    let mut coding = Coding::Plain;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_| Refusal::Coding)?;
        for word in value.split(',').map(|word| word.trim().to_ascii_lowercase()) {
            let next = match word.as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                "zstd" => Coding::Zstd,
                _ => return Err(Refusal::Coding),
            };
            // Each layer may inflate a thousandfold; no sender needs two.
            if coding != Coding::Plain {
                return Err(Refusal::Coding);
            }
            coding = next;
        }
    }
    Ok(coding)
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
        let coding = coding_of(headers)?;
        let told = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        let told = told.and_then(|length| length.parse::<u64>().ok());
        if told.is_some_and(|length| length > self.max_bytes as u64) {
            return Err(Refusal::TooLarge);
        }
        let deadline = Instant::now() + self.timeout;
        let mut share = self.budget.enter(PATIENCE).await?;
        let limit = self.max_bytes;
        let raw = StreamReader::new(metered(body, limit));
        let read = inflate(coding, raw, limit, &mut share);
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
