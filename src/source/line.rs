//! Splits blocks of bytes into lines.
//!
//! # Invariants
//!
//! The lines do not depend on how the bytes are cut into blocks. Besides the current block, at most
//! one line up to the limit is held. A line is a slice of its block; only a line that spans blocks
//! is copied.

use bytes::{Bytes, BytesMut};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) content: Content,
    /// Where the line starts.
    pub(super) start: u64,
    /// The position after the line and its newline.
    pub(super) end: u64,
}

/// The bytes of a line, without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Whole(Bytes),
    /// Longer than the limit: the first bytes, as many as the limit allows, and the full length.
    TooLong {
        head: Bytes,
        length: u64,
    },
}

/// What separates lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Separator {
    /// One byte, as in UTF-8 and every encoding that contains ASCII.
    #[default]
    Byte,
    /// Two bytes, in the order that the byte order mark at the start gives; little-endian without
    /// one.
    Utf16,
    Utf16Le,
    Utf16Be,
}

impl Separator {
    /// The number of its bytes.
    pub(super) fn width(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Utf16 | Self::Utf16Le | Self::Utf16Be => 2,
        }
    }

    /// The same separator, with the byte order that the first bytes of the stream give.
    pub(super) fn resolved(self, beginning: &[u8]) -> Self {
        match self {
            Self::Utf16 if beginning.starts_with(b"\xfe\xff") => Self::Utf16Be,
            Self::Utf16 => Self::Utf16Le,
            known => known,
        }
    }

    /// The position after the last separator. The bytes must begin and end with whole character
    /// units.
    pub(super) fn last_end(self, bytes: &[u8]) -> Option<usize> {
        let at = memchr::memrchr_iter(b'\n', bytes).find(|at| self.is_at(bytes, *at))?;
        Some(if matches!(self, Self::Utf16 | Self::Utf16Le) { at + 2 } else { at + 1 })
    }

    /// Whether the newline byte at this index belongs to a separator.
    fn is_at(self, bytes: &[u8], at: usize) -> bool {
        match self {
            Self::Byte => true,
            Self::Utf16 | Self::Utf16Le => at.is_multiple_of(2) && bytes.get(at + 1) == Some(&0),
            Self::Utf16Be => at % 2 == 1 && bytes[at - 1] == 0,
        }
    }

    /// Where the first separator begins. The bytes must begin with a whole character unit.
    fn find(self, bytes: &[u8]) -> Option<usize> {
        let at = memchr::memchr_iter(b'\n', bytes).find(|at| self.is_at(bytes, *at))?;
        Some(if self == Self::Utf16Be { at - 1 } else { at })
    }
}

/// Splits blocks into lines: feed a block, take lines until there are none, feed the next block.
#[derive(Debug)]
pub(super) struct LineSplitter {
    limit: usize,
    separator: Separator,
    /// With a separator of two bytes: the first half of a unit that a block ended in the middle of.
    half: Option<u8>,
    block: Bytes,
    /// The beginning of a line whose newline has not arrived; at most `limit` bytes.
    partial: BytesMut,
    /// The length of that line so far; larger than `partial` once the limit is exceeded.
    partial_length: u64,
    /// Where the next line starts.
    start: u64,
}

impl LineSplitter {
    /// Starts at position `start` of a stream; `limit` is the longest line in bytes.
    pub(super) fn new(start: u64, limit: usize) -> Self {
        Self {
            limit,
            separator: Separator::Byte,
            half: None,
            block: Bytes::new(),
            partial: BytesMut::new(),
            partial_length: 0,
            start,
        }
    }

    /// With another separator. Must be called before the first block.
    pub(super) fn separated_by(self, separator: Separator) -> Self {
        Self { separator, ..self }
    }

    /// Sets the separator once the beginning of the stream is known.
    pub(super) fn separate_by(&mut self, separator: Separator) {
        self.separator = separator;
    }

    /// The longest line in bytes.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The position after all bytes that were fed.
    pub(super) fn fed(&self) -> u64 {
        let half = u64::from(self.half.is_some());
        self.start + self.partial_length + half + self.block.len() as u64
    }

    /// Where the next line starts.
    pub(super) fn next_start(&self) -> u64 {
        self.start
    }

    /// The bytes after the last newline. `None` while whole lines are left, or where they are
    /// longer than the limit.
    pub(super) fn rest(&self) -> Option<&[u8]> {
        let whole = self.block.is_empty() && self.partial_length == self.partial.len() as u64;
        (whole && !self.partial.is_empty()).then_some(&self.partial[..])
    }

    /// Takes the next block; all lines of the one before must have been taken.
    pub(super) fn feed(&mut self, block: Bytes) {
        debug_assert!(self.block.is_empty(), "the block before is not used up");
        self.block = match self.half.take() {
            None => block,
            Some(half) => [&[half], &block[..]].concat().into(),
        };
        if self.separator == Separator::Utf16 && self.block.len() > 1 {
            let beginning = if self.start == 0 { &self.block[..] } else { b"" };
            self.separator = self.separator.resolved(beginning);
        }
    }

    /// The next line that has its newline.
    pub(super) fn next_line(&mut self) -> Option<Line> {
        let Some(at) = self.separator.find(&self.block) else {
            let mut block = std::mem::take(&mut self.block);
            if !block.len().is_multiple_of(self.separator.width()) {
                self.half = block.last().copied();
                block.truncate(block.len() - 1);
            }
            self.keep(&block);
            return None;
        };
        let width = self.separator.width();
        let tail = self.block.split_to(at + width).slice(..at);
        let content = if self.partial_length == 0 && tail.len() <= self.limit {
            Content::Whole(tail)
        } else {
            self.keep(&tail);
            self.take_partial()
        };
        let length = match &content {
            Content::Whole(bytes) => bytes.len() as u64,
            Content::TooLong { length, .. } => *length,
        };
        Some(self.line(content, length + width as u64))
    }

    /// The bytes after the last newline as a line, where the stream is known to end there.
    pub(super) fn finish(&mut self) -> Option<Line> {
        if let Some(half) = self.half.take() {
            self.keep(&[half]);
        }
        if self.partial_length == 0 {
            return None;
        }
        let length = self.partial_length;
        let content = self.take_partial();
        Some(self.line(content, length))
    }

    fn line(&mut self, content: Content, length: u64) -> Line {
        let start = self.start;
        self.start += length;
        let content = match content {
            Content::Whole(bytes)
                if start == 0 && self.separator == Separator::Byte && bytes.starts_with(BOM) =>
            {
                Content::Whole(bytes.slice(BOM.len()..))
            }
            other => other,
        };
        Line { content, start, end: self.start }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.limit - self.partial.len();
        self.partial.extend_from_slice(&bytes[..room.min(bytes.len())]);
        self.partial_length += bytes.len() as u64;
    }

    fn take_partial(&mut self) -> Content {
        let head = std::mem::take(&mut self.partial).freeze();
        let length = std::mem::take(&mut self.partial_length);
        if length == head.len() as u64 {
            Content::Whole(head)
        } else {
            Content::TooLong { head, length }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(blocks: &[&[u8]], limit: usize) -> Vec<Line> {
        let mut splitter = LineSplitter::new(0, limit);
        let mut got = Vec::new();
        for block in blocks {
            splitter.feed(Bytes::copy_from_slice(block));
            while let Some(line) = splitter.next_line() {
                got.push(line);
            }
        }
        got.extend(splitter.finish());
        got
    }

    #[test]
    fn too_long_line_yields_its_head_and_length() {
        // A line over the limit yields its head and its length, and the next line is whole.
        let got = lines(&[b"ab", b"cd", b"ef\nabc\n"], 3);
        assert_eq!(
            got[0].content,
            Content::TooLong { head: Bytes::from_static(b"abc"), length: 6 }
        );
        assert_eq!(got[1].content, Content::Whole(Bytes::from_static(b"abc")));
        assert_eq!((got[1].start, got[1].end), (7, 11));
    }

    #[test]
    fn byte_order_mark_is_dropped() {
        // A byte order mark at the very start is dropped, and positions still count it.
        let got = lines(&[b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n"], 10);
        assert_eq!(got[0].content, Content::Whole(Bytes::from_static(b"a")));
        assert_eq!(got[0].end, 5);
        assert_eq!(got[1].content, Content::Whole(Bytes::from_static(b"\xef\xbb\xbfb")));
    }

    proptest! {
        #[test]
        fn utf16_lines_equal_those_of_their_text(
            text in "[a\n\u{0a0a}\u{010a}\u{0a01}]{0,12}", cuts in proptest::collection::vec(0usize..30, 0..4)
        ) {
            // UTF-16 of either byte order is split where its text has newlines, however blocks are
            // cut.
            for (separator, mark) in [
                (Separator::Utf16, Some(true)), (Separator::Utf16, Some(false)),
                (Separator::Utf16, None), (Separator::Utf16Be, None), (Separator::Utf16Le, None),
            ] {
                let big = mark == Some(true) || separator == Separator::Utf16Be;
                let encode = |text: &str| -> Vec<u8> {
                    let units = text.encode_utf16();
                    units.flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
                };
                let text = mark.map_or(String::new(), |_| "\u{feff}".to_owned()) + &text;
                let bytes = encode(&text);
                let mut splitter = LineSplitter::new(0, 1000).separated_by(separator);
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| (*cut).min(bytes.len())).collect();
                cuts.extend([0, bytes.len()]);
                cuts.sort_unstable();
                let mut got = Vec::new();
                for pair in cuts.windows(2) {
                    splitter.feed(Bytes::copy_from_slice(&bytes[pair[0]..pair[1]]));
                    while let Some(line) = splitter.next_line() {
                        got.push(line);
                    }
                    prop_assert_eq!(splitter.fed(), pair[1] as u64);
                }
                got.extend(splitter.finish());
                let mut expected: Vec<&str> = text.split('\n').collect();
                if expected.last().is_some_and(|line| line.is_empty()) {
                    expected.pop();
                }
                let lines = got.iter().map(|line| match &line.content {
                    Content::Whole(bytes) => bytes.to_vec(),
                    Content::TooLong { .. } => Vec::new(),
                });
                prop_assert_eq!(lines.collect::<Vec<_>>(), expected.iter().map(|l| encode(l)).collect::<Vec<_>>());
                prop_assert_eq!(got.last().map_or(0, |line| line.end), bytes.len() as u64);
            }
        }

        #[test]
        fn lines_do_not_depend_on_block_boundaries(
            text in proptest::collection::vec(prop::sample::select(b"ab\n\r".to_vec()), 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..8),
            limit in 1usize..8,
        ) {
            // The lines do not depend on where the blocks are cut, and their positions cover all
            // bytes.
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.push(0);
            cuts.push(text.len());
            cuts.sort_unstable();
            let blocks: Vec<&[u8]> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            let got = lines(&blocks, limit);
            prop_assert_eq!(&got, &lines(&[&text], limit));
            let mut expected: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
            if expected.last().is_some_and(|l| l.is_empty()) {
                expected.pop();
            }
            prop_assert_eq!(got.len(), expected.len());
            let mut at = 0;
            for (line, expected) in got.iter().zip(expected) {
                prop_assert_eq!(line.start, at);
                at = line.end;
                match &line.content {
                    Content::Whole(bytes) => prop_assert_eq!(&bytes[..], expected),
                    Content::TooLong { head, length } => {
                        prop_assert!(expected.len() > limit);
                        prop_assert_eq!(*length, expected.len() as u64);
                        prop_assert_eq!(&head[..], &expected[..limit]);
                    }
                }
            }
            prop_assert_eq!(at, text.len() as u64);
        }
    }
}
