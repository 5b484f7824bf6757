//! Lines of standard input.
//!
//! Not here: positions; what came down a pipe cannot be read again, so records have no origin, and
//! faults carry their place (`stdin:17`) in their text. One invariant: the source ends only after
//! every record it sent has its verdict. (The thread that waits for the terminal is tokio's and
//! cannot be woken: who stops amid a silent input must not wait for the runtime to wind down.)

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::decode::Decoder;
use super::flight::Flight;
use super::line::{Line, LineSplitter};
use super::{ReadProgress, Source, SourceError};
use crate::config::source::StdinSource as Settings;
use crate::record::Record;

/// The most bytes read at a time.
const BLOCK: usize = 64 << 10;

/// Lines of an input that is read once, to its end.
pub struct StdinSource<R = tokio::io::Stdin> {
    input: R,
    lines: Lines,
    flight: Arc<Flight>,
    progress: ReadProgress,
}

struct Lines {
    splitter: LineSplitter,
    decoder: Decoder,
    /// The number of the last line.
    number: u64,
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
        super::check_limit(settings.max_line_bytes)?;
        Ok(Self {
            input,
            lines: Lines {
                splitter: LineSplitter::new(0, settings.max_line_bytes),
                decoder: Decoder::new(&settings.decoding)?,
                number: 0,
            },
            flight: Arc::default(),
            progress: ReadProgress::default(),
        })
    }
}

impl<R> fmt::Debug for StdinSource<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdinSource").field("line", &self.lines.number).finish_non_exhaustive()
    }
}

impl Lines {
    fn next_record(&mut self) -> Option<Record> {
        while let Some(line) = self.splitter.next_line() {
            let record = self.record(line);
            if record.is_some() {
                return record;
            }
        }
        None
    }

    fn last_record(&mut self) -> Option<Record> {
        let line = self.splitter.finish()?;
        self.record(line)
    }

    fn record(&mut self, line: Line) -> Option<Record> {
        self.number += 1;
        let mut record = self.decoder.record(line)?;
        if let Some(why) = &record.fault {
            record.fault = Some(format!("stdin:{}: {why}", self.number).into());
        }
        Some(record)
    }
}

impl<R: AsyncRead + Unpin + Send> StdinSource<R> {
    /// Reads to the end of the input. `Ok` also where the receiver is gone or `stop` is cancelled.
    async fn read(
        &mut self,
        out: &mpsc::Sender<Record>,
        stop: &CancellationToken,
    ) -> std::io::Result<()> {
        loop {
            let mut block = BytesMut::with_capacity(BLOCK);
            let Some(read) = stop.run_until_cancelled(self.input.read_buf(&mut block)).await else {
                return Ok(());
            };
            let ended = read? == 0;
            self.progress.found(block.len() as u64);
            self.progress.read(block.len() as u64);
            self.lines.splitter.feed(block.freeze());
            while let Some(record) = self.lines.next_record() {
                if !send(&self.flight, record, out, stop).await {
                    return Ok(());
                }
            }
            if ended {
                if let Some(record) = self.lines.last_record() {
                    send(&self.flight, record, out, stop).await;
                }
                return Ok(());
            }
        }
    }
}

/// Whether more may be sent.
async fn send(
    flight: &Arc<Flight>,
    record: Record,
    out: &mpsc::Sender<Record>,
    stop: &CancellationToken,
) -> bool {
    let Some(permit) = super::permit(out, stop).await else {
        return false;
    };
    permit.send(record.with_ack(flight.ack(|_| {})));
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
        // The receiver must see the end, or it would wait for more while we wait for it.
        drop(out);
        self.flight.landed().await;
        read.map_err(|source| SourceError::Io { context: "reading standard input".into(), source })
    }

    fn progress(&self) -> Option<ReadProgress> {
        Some(self.progress.clone())
    }
}
