//! Digests of file content that grow with it, to recognise a copied, moved or compressed file.
//!
//! The digest of a prefix is a chain: every 64 KiB it restarts from the digest so far and the bytes
//! that follow. With the digest at the last link, the newest bytes of a file can be verified, or
//! the chain continued, without reading the file from its beginning.
//!
//! # Invariants
//!
//! Two contents count as the same only where the digest over every byte is equal.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::io::{self, Read};
use std::sync::LazyLock;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::source::line::{LineSplitter, Separator};

/// Bytes between two links of the chain.
const CHAIN_LINK_BYTES: u64 = 64 << 10;
/// The most line ends that are stored of the last lines read.
const MAX_LINE_ENDS: usize = 1024;
/// The most bytes read at a time.
const READ_BLOCK_BYTES: usize = 128 << 10;

/// Keys of the short digests, random in each process, so that a writer of log lines cannot make
/// them collide.
static SHORT_DIGEST_KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The digest of a prefix of a content, as it is stored in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ContentMark {
    /// The length of the prefix, in bytes.
    pub(super) length: u64,
    /// The digest at the last link before `length`; empty where there is none.
    pub(super) chain: String,
    /// The digest at `length`.
    pub(super) sha256: String,
}

/// An earlier length of a content, and the digest it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ContentVersion {
    pub(super) length: u64,
    pub(super) sha256: String,
}

impl ContentMark {
    /// The first byte that `chain` does not cover.
    pub(super) fn link_start(&self) -> u64 {
        match self.length {
            0 => 0,
            length => (length - 1) / CHAIN_LINK_BYTES * CHAIN_LINK_BYTES,
        }
    }

    /// The running digest, if `bytes` are those between the last link and `length`.
    pub(super) fn resume(&self, bytes: &[u8]) -> Option<RunningDigest> {
        let mut running = RunningDigest {
            chain: self.chain.clone(),
            hasher: Sha256::new_with_prefix(&self.chain),
            in_link: 0,
            length: self.link_start(),
            recent: LineEnds::new(self.length, self.sha256.clone()),
        };
        running.hash(bytes);
        (running.length == self.length && running.sha256() == self.sha256).then_some(running)
    }
}

/// A digest that grows.
#[derive(Debug, Clone)]
pub(super) struct RunningDigest {
    chain: String,
    hasher: Sha256,
    in_link: u64,
    length: u64,
    recent: LineEnds,
}

impl Default for RunningDigest {
    fn default() -> Self {
        let sha256 = short_digest(Sha256::new());
        Self {
            chain: String::new(),
            hasher: Sha256::new(),
            in_link: 0,
            length: 0,
            recent: LineEnds::new(0, sha256),
        }
    }
}

impl RunningDigest {
    /// Adds the bytes that follow.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.recent.update(self.length, bytes);
        self.hash(bytes);
    }

    fn hash(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A link is made only when the next byte arrives, so that at least one byte follows it.
            if self.in_link == CHAIN_LINK_BYTES {
                self.chain = self.sha256();
                self.hasher = Sha256::new_with_prefix(&self.chain);
                self.in_link = 0;
            }
            let room = usize::try_from(CHAIN_LINK_BYTES - self.in_link).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.hasher.update(now);
            self.in_link += now.len() as u64;
            self.length += now.len() as u64;
            bytes = later;
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    fn sha256(&self) -> String {
        short_digest(self.hasher.clone())
    }

    pub(super) fn mark(&self) -> ContentMark {
        ContentMark { length: self.length, chain: self.chain.clone(), sha256: self.sha256() }
    }

    /// Reads the first bytes of `content`, at most `length`, and returns their digest.
    pub(super) fn of(content: &mut impl Read, length: u64) -> io::Result<Self> {
        let mut running = Self::default();
        each_block(content, |block| {
            let wanted = usize::try_from(length - running.length).unwrap_or(usize::MAX);
            running.update(&block[..wanted.min(block.len())]);
            running.length < length
        })?;
        Ok(running)
    }

    /// Reads `content` and compares it with what was read so far.
    pub(super) fn compare(&self, content: &mut impl Read) -> io::Result<PrefixRelation> {
        let mut other = Self::default();
        let mut ends: Option<LineEnds> = (self.recent.base == 0).then(|| self.recent.restarted());
        let mut related = true;
        each_block(content, |block| {
            let wanted = usize::try_from(self.length - other.length).unwrap_or(usize::MAX);
            let mut block = &block[..wanted.min(block.len())];
            if ends.is_none() {
                let before = usize::try_from(self.recent.base - other.length).unwrap_or(usize::MAX);
                let (head, rest) = block.split_at(before.min(block.len()));
                other.hash(head);
                block = rest;
                if other.length == self.recent.base {
                    related = other.sha256() == self.recent.base_sha256;
                    ends = Some(self.recent.restarted());
                }
            }
            if let Some(ends) = &mut ends {
                ends.update(other.length, block);
            }
            other.hash(block);
            related && other.length < self.length
        })?;
        Ok(match (related, ends) {
            (false, _) | (true, None) => PrefixRelation::Other,
            (true, Some(_)) if other.length == self.length => {
                match other.sha256() == self.sha256() {
                    true => PrefixRelation::Contains,
                    false => PrefixRelation::Other,
                }
            }
            (true, Some(ends)) => self.shorter(&ends, &other),
        })
    }

    /// A content that ends before ours is a prefix of ours if its last line ends where one of ours
    /// ended and it is equal up to there.
    fn shorter(&self, ends: &LineEnds, other: &Self) -> PrefixRelation {
        let same = match ends.ends.back() {
            None => other.length == self.recent.base,
            Some(last) => self.recent.ends.contains(last),
        };
        match same {
            true => PrefixRelation::Part(other.mark()),
            false => PrefixRelation::Other,
        }
    }
}

/// The relation of a content to another.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PrefixRelation {
    /// It begins with all of the other.
    Contains,
    /// It is a prefix of the other; with its own digest.
    Part(ContentMark),
    Other,
}

/// Short digests at the ends of the last lines. They show how much of what was read a copy
/// contains, where the original is gone.
#[derive(Debug, Clone)]
struct LineEnds {
    /// Where the short digests begin.
    base: u64,
    base_sha256: String,
    hasher: DefaultHasher,
    /// Line ends, with the short digest from `base` to there.
    ends: VecDeque<(u64, u64)>,
}

impl LineEnds {
    fn new(base: u64, base_sha256: String) -> Self {
        let hasher = SHORT_DIGEST_KEYS.build_hasher();
        Self { base, base_sha256, hasher, ends: VecDeque::new() }
    }

    fn restarted(&self) -> Self {
        Self::new(self.base, self.base_sha256.clone())
    }

    /// Adds the bytes that follow `at`.
    fn update(&mut self, at: u64, bytes: &[u8]) {
        let mut done = 0;
        for newline in memchr::memchr_iter(b'\n', bytes) {
            self.hasher.write(&bytes[done..=newline]);
            done = newline + 1;
            if self.ends.len() == MAX_LINE_ENDS {
                self.ends.pop_front();
            }
            self.ends.push_back((at + done as u64, self.hasher.finish()));
        }
        self.hasher.write(&bytes[done..]);
    }
}

/// Digests of a content at several lengths.
#[derive(Debug, Default)]
pub(super) struct PrefixDigests {
    /// The digests at the requested lengths that the content reaches.
    pub(super) digests: BTreeMap<u64, String>,
    /// The digest of the whole content.
    pub(super) whole: ContentMark,
}

impl Default for ContentMark {
    fn default() -> Self {
        RunningDigest::default().mark()
    }
}

/// Reads a content to its end and returns its digest at each of these lengths.
pub(super) fn digest_prefixes(
    content: &mut impl Read,
    lengths: &BTreeSet<u64>,
) -> io::Result<PrefixDigests> {
    let mut digests = BTreeMap::new();
    let mut running = RunningDigest::default();
    let mut wanted = lengths.iter().copied().peekable();
    each_block(content, |mut block| {
        while let Some(length) =
            wanted.next_if(|length| *length <= running.length + block.len() as u64)
        {
            let before = usize::try_from(length - running.length).unwrap_or(usize::MAX);
            let (head, rest) = block.split_at(before);
            running.hash(head);
            digests.insert(length, running.sha256());
            block = rest;
        }
        running.hash(block);
        true
    })?;
    Ok(PrefixDigests { digests, whole: running.mark() })
}

/// The position after the last newline within the first `length` bytes of a content.
pub(super) fn last_line_end(
    content: &mut impl Read,
    length: u64,
    separator: Separator,
) -> io::Result<u64> {
    // A limit of 0: only the ends of lines are needed, not their bytes.
    let mut lines = LineSplitter::new(0, 0).separated_by(separator);
    let mut at = 0;
    each_block(content, |block| {
        let wanted = usize::try_from(length - at).unwrap_or(usize::MAX);
        let block = &block[..wanted.min(block.len())];
        lines.feed(Bytes::copy_from_slice(block));
        while lines.next_line().is_some() {}
        at += block.len() as u64;
        at < length
    })?;
    Ok(lines.next_start())
}

/// How far two contents are equal, and which of them end there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CommonPrefix {
    pub(super) length: u64,
    pub(super) first_ends: bool,
    pub(super) second_ends: bool,
}

/// Compares two contents byte by byte.
pub(super) fn common_prefix(
    first: &mut impl Read,
    second: &mut impl Read,
) -> io::Result<CommonPrefix> {
    let (mut a, mut b) = (vec![0; READ_BLOCK_BYTES], vec![0; READ_BLOCK_BYTES]);
    let mut length = 0;
    loop {
        let (read_a, read_b) = (fill(first, &mut a)?, fill(second, &mut b)?);
        let shorter = read_a.min(read_b);
        let same = a.iter().zip(&b).take(shorter).take_while(|(a, b)| a == b).count();
        length += same as u64;
        let ended = read_a < READ_BLOCK_BYTES || read_b < READ_BLOCK_BYTES;
        if same < shorter || ended {
            return Ok(CommonPrefix {
                length,
                first_ends: same == read_a,
                second_ends: same == read_b,
            });
        }
    }
}

/// Passes each block of a content to `take`, until that returns `false`.
fn each_block(content: &mut impl Read, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut block = vec![0; READ_BLOCK_BYTES];
    loop {
        let read = fill(content, &mut block)?;
        if read == 0 || !take(&block[..read]) {
            return Ok(());
        }
    }
}

/// Fills the block; less only at the end.
fn fill(content: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < block.len() {
        match content.read(&mut block[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(length)
}

/// The first 12 bytes of a digest.
fn short_digest(hasher: Sha256) -> String {
    hex::encode(&hasher.finalize()[..12])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn running(blocks: &[&[u8]]) -> RunningDigest {
        let mut running = RunningDigest::default();
        blocks.iter().for_each(|block| running.update(block));
        running
    }

    fn bytes(length: usize) -> Vec<u8> {
        let letters = b"abcdefghijklmnopqrstuvw";
        (0..length).map(|n| if n % 40 == 39 { b'\n' } else { letters[n / 40 % 23] }).collect()
    }

    #[test]
    fn digest_resumes_from_its_last_link() {
        // A digest that is resumed from a checkpoint equals one that was never interrupted, and is
        // not resumed where the bytes before it differ.
        for length in [0, 1, 40, 65_535, 65_536, 65_537, 131_072, 200_000] {
            let all = bytes(210_000);
            let (before, after) = all.split_at(length);
            let mark = running(&[before]).mark();
            let start = usize::try_from(mark.link_start()).unwrap();
            let mut resumed = mark.resume(&before[start..]).unwrap();
            resumed.update(after);
            assert_eq!(resumed.mark(), running(&[&all]).mark(), "{length}");
            if length > 0 {
                let mut others = before[start..].to_vec();
                others[0] ^= 1;
                assert!(mark.resume(&others).is_none(), "{length}");
            }
        }
    }

    #[test]
    fn short_copy_is_recognised_by_its_line_ends() {
        // A copy that ends at a line is a prefix, also one with an incomplete last line; one that
        // differs anywhere is not.
        let all = bytes(100_000);
        for base in [0, 70_000] {
            let mut read = running(&[&all[..base]]);
            if base > 0 {
                let mark = read.mark();
                let start = usize::try_from(mark.link_start()).unwrap();
                read = mark.resume(&all[start..base]).unwrap();
            }
            read.update(&all[base..]);
            for length in [80_000, 80_010, 99_999] {
                let part = read.compare(&mut &all[..length]).unwrap();
                assert_eq!(
                    part,
                    PrefixRelation::Part(running(&[&all[..length]]).mark()),
                    "{length}"
                );
            }
            assert_eq!(read.compare(&mut &all[..]).unwrap(), PrefixRelation::Contains);
            let mut other = all.clone();
            other[71_000] ^= 1;
            assert_eq!(read.compare(&mut &other[..80_000]).unwrap(), PrefixRelation::Other);
            assert_eq!(read.compare(&mut &other[..]).unwrap(), PrefixRelation::Other);
        }
    }

    proptest! {
        #[test]
        fn digest_does_not_depend_on_block_boundaries(
            length in 0usize..200_000,
            cuts in proptest::collection::vec(0usize..200_000, 0..6),
        ) {
            // The digest does not depend on block boundaries, and `digest_prefixes` finds it.
            let all = bytes(length);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(length)).collect();
            cuts.extend([0, length]);
            cuts.sort_unstable();
            let blocks: Vec<&[u8]> = cuts.windows(2).map(|w| &all[w[0]..w[1]]).collect();
            let whole = running(&[&all]).mark();
            prop_assert_eq!(running(&blocks).mark(), whole.clone());
            let lengths: BTreeSet<u64> = cuts.iter().map(|c| *c as u64).chain([300_000]).collect();
            let found = digest_prefixes(&mut &all[..], &lengths).unwrap();
            prop_assert_eq!(&found.whole, &whole);
            for cut in cuts {
                let expected = running(&[&all[..cut]]).mark().sha256;
                // Length 0 needs no reading; it is found where there is any block.
                if length > 0 {
                    prop_assert_eq!(found.digests.get(&(cut as u64)), Some(&expected));
                }
            }
        }
    }
}
