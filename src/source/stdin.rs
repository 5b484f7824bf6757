//! Reads lines of standard input.
//!
//! A pipe cannot be read again, so records have no position, and decode errors contain the location
//! (`stdin:17`) in their text.
//!
//! tokio reads standard input on a thread that cannot be interrupted: to stop while the input is
//! silent, exit the process without waiting for the runtime.
//!
//! # Invariants
//!
//! The source ends only after every record that it sent has its verdict.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::decode::{Decoded, Decoder, Flush};
use super::in_flight::InFlightTracker;
use super::line::LineSplitter;
use super::{ReadProgress, Source, SourceError};
use crate::config::source::StdinSourceConfig as Settings;
use crate::record::Record;

/// The most bytes read at a time.
const READ_BLOCK_BYTES: usize = 64 << 10;

/// Reads the lines of an input once, to its end.
pub struct StdinSource<R = tokio::io::Stdin> {
    input: R,
    lines: StdinLines,
    in_flight: Arc<InFlightTracker>,
    progress: ReadProgress,
}

struct StdinLines {
    splitter: LineSplitter,
    decoder: Decoder,
    /// Records of the last line that were read and not sent yet.
    ready: VecDeque<Record>,
    /// Reused buffer.
    decoded: Vec<Decoded>,
}

impl StdinSource {
    /// Reads the standard input of the process.
    ///
    /// # Errors
    ///
    /// Settings of the decoding that cannot work.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        Self::of(tokio::io::stdin(), settings)
    }
}

impl<R> StdinSource<R> {
    /// Reads `input` as if it were standard input.
    ///
    /// # Errors
    ///
    /// Settings of the decoding that cannot work.
    pub fn of(input: R, settings: &Settings) -> Result<Self, String> {
        let limit = settings.max_line_bytes;
        super::check_limit(limit)?;
        let decoder = Decoder::bounded(&settings.decoding, limit, settings.timezone.as_deref())?
            .with_multiline(settings.multiline.as_ref(), limit)?;
        Ok(Self {
            input,
            lines: StdinLines {
                splitter: LineSplitter::new(0, limit).separated_by(decoder.separator()),
                decoder,
                ready: VecDeque::new(),
                decoded: Vec::new(),
            },
            in_flight: Arc::default(),
            progress: ReadProgress::default(),
        })
    }
}

impl<R> fmt::Debug for StdinSource<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdinSource")
            .field("line", &self.lines.decoder.fed())
            .finish_non_exhaustive()
    }
}

impl StdinLines {
    fn next_record(&mut self) -> Option<Record> {
        while self.ready.is_empty() {
            let line = self.splitter.next_line()?;
            self.decoder.feed(line, &mut self.decoded);
            self.make_ready();
        }
        self.ready.pop_front()
    }

    /// At the end of the input the last line counts without a newline, and all pending lines are
    /// completed.
    fn end(&mut self) {
        if let Some(line) = self.splitter.finish() {
            self.decoder.feed(line, &mut self.decoded);
        }
        self.flush(Flush::NewGeneration);
    }

    fn flush(&mut self, why: Flush) {
        self.decoder.flush(why, &mut self.decoded);
        self.make_ready();
    }

    fn make_ready(&mut self) {
        self.ready.extend(self.decoded.drain(..).map(|decoded| {
            let mut record = Record::new(decoded.body);
            record.meta = decoded.meta;
            let number = decoded.line + 1;
            record.decode_error = decoded.fault.map(|why| format!("stdin:{number}: {why}").into());
            record
        }));
    }
}

impl<R: AsyncRead + Unpin + Send> StdinSource<R> {
    /// Reads to the end of the input. Also `Ok` where the receiver is dropped or `stop` is
    /// cancelled.
    async fn read(
        &mut self,
        out: &mpsc::Sender<Record>,
        stop: &CancellationToken,
    ) -> std::io::Result<()> {
        loop {
            let mut block = BytesMut::with_capacity(READ_BLOCK_BYTES);
            let reading = self.input.read_buf(&mut block);
            let patience = self.lines.decoder.flush_after().unwrap_or(Duration::MAX);
            let read = match stop.run_until_cancelled(timeout(patience, reading)).await {
                None => return Ok(()),
                Some(Ok(read)) => Some(read?),
                Some(Err(_)) => {
                    self.lines.flush(Flush::Timeout);
                    None
                }
            };
            let ended = read == Some(0);
            self.progress.found(block.len() as u64);
            self.progress.read(block.len() as u64);
            self.lines.splitter.feed(block.freeze());
            while let Some(record) = self.lines.next_record() {
                if !send(&self.in_flight, record, out, stop).await {
                    return Ok(());
                }
            }
            if ended {
                self.lines.end();
                while let Some(record) = self.lines.ready.pop_front() {
                    if !send(&self.in_flight, record, out, stop).await {
                        break;
                    }
                }
                return Ok(());
            }
        }
    }
}

/// Whether more records may be sent.
async fn send(
    in_flight: &Arc<InFlightTracker>,
    record: Record,
    out: &mpsc::Sender<Record>,
    stop: &CancellationToken,
) -> bool {
    let Some(permit) = super::permit(out, stop).await else {
        return false;
    };
    permit.send(record.with_ack(in_flight.ack(|_| {})));
    true
}

#[async_trait]
impl<R: AsyncRead + Unpin + Send> Source for StdinSource<R> {
    async fn run(
        mut self: Box<Self>,
        out: mpsc::Sender<Record>,
        stop: CancellationToken,
    ) -> Result<(), SourceError> {
        let read = self.read(&out, &stop).await;
        // The receiver must see the end of the channel; otherwise both sides would wait for each
        // other.
        drop(out);
        self.in_flight.wait_until_idle().await;
        read.map_err(|source| SourceError::Io { context: "reading standard input".into(), source })
    }

    fn progress(&self) -> Option<ReadProgress> {
        Some(self.progress.clone())
    }
}
