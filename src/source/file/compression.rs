//! Detects and decompresses files that gzip or zstd compressed.
//!
//! Positions are those of the decompressed text. A compressed file is read as a stream, so that it
//! takes no more memory than one block and the window of its format.
//!
//! # Invariants
//!
//! Where compressed bytes end inside their stream, nothing is lost: reading continues once more
//! bytes are there.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::GzDecoder;

/// Compressed bytes that are read at a time.
const READ_BLOCK_BYTES: usize = 32 << 10;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileCompression {
    Plain,
    Gzip,
    Zstd,
}

impl FileCompression {
    /// From the first bytes; the name counts only where there are too few of them. `None`: it
    /// cannot be decided yet.
    pub(super) fn of(file: &File, path: &Path) -> io::Result<Option<Self>> {
        let first = first_bytes(file, 0)?;
        let packed = path.extension().is_some_and(|ending| ending == "gz" || ending == "zst");
        Ok(match Self::from_magic(&first) {
            Some(compression) => Some(compression),
            None if packed && first.len() < 4 => None,
            None => Some(Self::Plain),
        })
    }

    /// The compression of a stream that begins with these bytes.
    fn from_magic(first: &[u8]) -> Option<Self> {
        match first {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd] => Some(Self::Zstd),
            // A skippable frame.
            [first, 0x2a, 0x4d, 0x18] if first & 0xf0 == 0x50 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The result of a read.
#[derive(Debug)]
pub(super) enum Unpacked {
    Bytes(usize),
    /// The end of the compressed streams.
    End,
    /// The compressed bytes end inside their stream.
    Incomplete,
}

/// A compressed file, read from its first byte.
#[derive(Debug)]
pub(super) struct Unpacker {
    at: UnpackStage,
    position: u64,
    /// Whether bytes follow the compressed streams that are not compressed.
    pub(super) garbage: bool,
}

enum UnpackStage {
    /// Before a compressed stream, which begins at this byte of the file.
    Between(Arc<File>, u64),
    Gzip(Box<GzDecoder<BufReader<Packed>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Packed>>>),
    Over,
}

impl std::fmt::Debug for UnpackStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Between(..) => "Between",
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
            Self::Over => "Over",
        })
    }
}

/// The bytes of a file. At its end more may be appended: `WouldBlock`, after which decoders can
/// continue.
struct Packed {
    file: Arc<File>,
    at: u64,
}

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read_at(buffer, self.at)? {
            0 if !buffer.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            read => {
                self.at += read as u64;
                Ok(read)
            }
        }
    }
}

impl Unpacker {
    pub(super) fn new(file: Arc<File>) -> Self {
        Self { at: UnpackStage::Between(file, 0), position: 0, garbage: false }
    }

    /// The position after the decompressed text.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Fills the buffer as far as there is text.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Unpacked> {
        let mut length = 0;
        while length < buffer.len() {
            match self.step(&mut buffer[length..])? {
                Unpacked::Bytes(read) => length += read,
                end if length == 0 => return Ok(end),
                _ => break,
            }
        }
        self.position += length as u64;
        Ok(Unpacked::Bytes(length))
    }

    fn step(&mut self, buffer: &mut [u8]) -> io::Result<Unpacked> {
        loop {
            let read = match &mut self.at {
                UnpackStage::Over => return Ok(Unpacked::End),
                UnpackStage::Between(file, at) => {
                    let (file, at) = (Arc::clone(file), *at);
                    if let Some(end) = self.begin(&file, at)? {
                        return Ok(end);
                    }
                    continue;
                }
                UnpackStage::Gzip(decoder) => decoder.read(buffer),
                UnpackStage::Zstd(decoder) => decoder.read(buffer),
            };
            match read {
                Ok(0) => self.end_of_stream(),
                Ok(read) => return Ok(Unpacked::Bytes(read)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Unpacked::Incomplete),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Starts the compressed stream at `at`, if there is one.
    fn begin(&mut self, file: &Arc<File>, at: u64) -> io::Result<Option<Unpacked>> {
        let first = first_bytes(file, at)?;
        if first.is_empty() && at > 0 {
            return Ok(Some(Unpacked::End));
        }
        let packed = Packed { file: Arc::clone(file), at };
        let packed = BufReader::with_capacity(READ_BLOCK_BYTES, packed);
        self.at = match FileCompression::from_magic(&first) {
            Some(FileCompression::Gzip) => UnpackStage::Gzip(Box::new(GzDecoder::new(packed))),
            Some(FileCompression::Zstd) => {
                let decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
                UnpackStage::Zstd(Box::new(decoder.single_frame()))
            }
            _ if first.len() < 4 && at == 0 => return Ok(Some(Unpacked::Incomplete)),
            // Zero padding is common in files that were stored on tape.
            _ => {
                self.garbage = first.iter().any(|byte| *byte != 0);
                UnpackStage::Over
            }
        };
        Ok(None)
    }

    fn end_of_stream(&mut self) {
        let packed = match std::mem::replace(&mut self.at, UnpackStage::Over) {
            UnpackStage::Gzip(decoder) => decoder.into_inner(),
            UnpackStage::Zstd(decoder) => decoder.finish(),
            UnpackStage::Between(..) | UnpackStage::Over => return,
        };
        let next = packed.get_ref().at - packed.buffer().len() as u64;
        self.at = UnpackStage::Between(packed.into_inner().file, next);
    }
}

/// A file and its compression: enough to read its text from the beginning.
#[derive(Debug, Clone)]
pub(super) struct TextSource {
    pub(super) file: Arc<File>,
    pub(super) compression: FileCompression,
}

impl TextSource {
    pub(super) fn reader(&self) -> TextReader {
        match self.compression {
            FileCompression::Plain => TextReader::Plain(Arc::clone(&self.file), 0),
            FileCompression::Gzip | FileCompression::Zstd => {
                TextReader::Packed(Unpacker::new(Arc::clone(&self.file)))
            }
        }
    }
}

/// Reads the text of a file to its present end.
#[derive(Debug)]
pub(super) enum TextReader {
    Plain(Arc<File>, u64),
    Packed(Unpacker),
}

impl Read for TextReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file, at) => {
                let read = file.read_at(buffer, *at)?;
                *at += read as u64;
                Ok(read)
            }
            Self::Packed(unpacker) => match unpacker.read(buffer)? {
                Unpacked::Bytes(read) => Ok(read),
                Unpacked::End | Unpacked::Incomplete => Ok(0),
            },
        }
    }
}

fn first_bytes(file: &File, at: u64) -> io::Result<Vec<u8>> {
    super::blocks::read(file, at, 4)
}
