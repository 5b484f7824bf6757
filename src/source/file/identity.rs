//! The identity of a file, independent of its name.
//!
//! # Invariants
//!
//! The identity alone never makes two files the same; all known first bytes must be equal too.

use std::fmt;
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::content::ContentMark;

/// A file by device and inode; a rename does not change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// Stands for a generation that no file holds any more. No file has device 0.
    pub(super) fn of_lost(generation: u64) -> Self {
        Self { device: 0, inode: generation }
    }
}

impl Serialize for FileId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

impl FromStr for FileId {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parsed = s.split_once(':').and_then(|(device, inode)| {
            Some(Self { device: device.parse().ok()?, inode: inode.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("{s:?} is not `DEVICE:INODE`"))
    }
}

/// The first bytes of a file, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FileHead {
    bytes: Vec<u8>,
}

impl FileHead {
    const MAX_HEAD_BYTES: u64 = 256;

    /// Reads the present head.
    pub(super) fn read(content: &mut impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        content.take(Self::MAX_HEAD_BYTES).read_to_end(&mut bytes)?;
        Ok(Self { bytes })
    }

    /// Whether `earlier` can have grown to this head.
    pub(super) fn continues(&self, earlier: &Self) -> bool {
        self.bytes.starts_with(&earlier.bytes)
    }

    /// Whether a head with that fingerprint can have grown to this one.
    pub(super) fn has(&self, fingerprint: &HeadFingerprint) -> bool {
        self.bytes
            .get(..fingerprint.length)
            .is_some_and(|bytes| digest(bytes) == fingerprint.sha256)
    }

    pub(super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether it may still grow.
    pub(super) fn is_short(&self) -> bool {
        (self.bytes.len() as u64) < Self::MAX_HEAD_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The fingerprint of the first `length` bytes, if there are so many.
    pub(super) fn fingerprint_of(&self, length: u64) -> Option<HeadFingerprint> {
        let length = usize::try_from(length).ok()?;
        self.bytes.get(..length).map(|bytes| HeadFingerprint { length, sha256: digest(bytes) })
    }

    pub(super) fn fingerprint(&self) -> HeadFingerprint {
        HeadFingerprint { length: self.bytes.len(), sha256: digest(&self.bytes) }
    }
}

/// The head in a checkpoint: hashed so that file content never reaches the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct HeadFingerprint {
    length: usize,
    sha256: String,
}

impl HeadFingerprint {
    pub(super) fn length(&self) -> u64 {
        self.length as u64
    }

    /// As the digest of a content that is not longer than this.
    pub(super) fn content(&self) -> ContentMark {
        let length = self.length();
        ContentMark { length, chain: String::new(), sha256: self.sha256.clone() }
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grown_file_head_is_recognised() {
        // A head is recognised by the fingerprint of any of its prefixes and by no other.
        let head = |text: &str| FileHead { bytes: text.as_bytes().to_vec() };
        assert!(head("abcd").has(&head("ab").fingerprint()));
        assert!(head("abcd").has(&head("").fingerprint()));
        assert!(!head("abcd").has(&head("ax").fingerprint()));
        assert!(!head("a").has(&head("ab").fingerprint()));
        assert!(head("abcd").continues(&head("abc")));
        assert!(!head("ab").continues(&head("abc")));
    }

    #[test]
    fn file_id_round_trips() {
        // An identity is parsed from its own text, and nothing else parses as one.
        let id: FileId = "12:34".parse().unwrap();
        assert_eq!(id.to_string(), "12:34");
        assert!("12".parse::<FileId>().is_err());
        assert!("a:1".parse::<FileId>().is_err());
    }
}
