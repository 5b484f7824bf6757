//! Decodes character encodings: from the bytes of a line to UTF-8.
//!
//! # Invariants
//!
//! A byte sequence that is invalid in the encoding is a decode error, never a guess.

use bytes::Bytes;
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use crate::source::line::Separator;

/// How the lines of a stream are encoded.
#[derive(Debug, Clone, Copy)]
pub(super) enum Charset {
    /// Unchanged; codecs check it.
    Utf8,
    /// UTF-16 whose byte order the start of the stream gives.
    Utf16,
    Known(&'static Encoding),
}

impl Charset {
    /// By its name.
    pub(super) fn named(name: Option<&str>) -> Result<Self, String> {
        let Some(name) = name else {
            return Ok(Self::Utf8);
        };
        if ["utf-16", "utf16"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return Ok(Self::Utf16);
        }
        match Encoding::for_label_no_replacement(name.as_bytes()) {
            Some(encoding) if encoding == UTF_8 => Ok(Self::Utf8),
            Some(encoding) => Ok(Self::Known(encoding)),
            None => Err(format!(
                "{name:?} is not a known charset; write `utf-8`, `utf-16`, `latin1`, \
                 `windows-1250` …"
            )),
        }
    }

    /// Whether the first bytes of the stream are needed to decode it.
    pub(super) fn awaits_mark(self) -> bool {
        matches!(self, Self::Utf16)
    }

    /// Takes the byte order from the first bytes of the stream.
    pub(super) fn learn(&mut self, beginning: &[u8]) {
        if self.awaits_mark() {
            let big = beginning.starts_with(b"\xfe\xff");
            *self = Self::Known(if big { UTF_16BE } else { UTF_16LE });
        }
    }

    /// The separator of its lines.
    pub(super) fn separator(self) -> Separator {
        match self {
            Self::Utf16 => Separator::Utf16,
            Self::Known(encoding) if encoding == UTF_16LE => Separator::Utf16Le,
            Self::Known(encoding) if encoding == UTF_16BE => Separator::Utf16Be,
            Self::Utf8 | Self::Known(_) => Separator::Byte,
        }
    }

    /// The text of a line, without the byte order mark at the start of the stream. UTF-8 is not
    /// checked here.
    pub(super) fn decode(&mut self, line: &Bytes, is_first: IsFirst) -> Result<Bytes, String> {
        if is_first == IsFirst::Yes {
            self.learn(line);
        }
        let encoding = match *self {
            Self::Utf8 | Self::Utf16 => return Ok(line.clone()),
            Self::Known(encoding) => encoding,
        };
        let mark: &[u8] = match is_first {
            IsFirst::Yes if encoding == UTF_16BE => b"\xfe\xff",
            IsFirst::Yes if encoding == UTF_16LE => b"\xff\xfe",
            _ => b"",
        };
        let bare = line.strip_prefix(mark).unwrap_or(line);
        match encoding.decode_without_bom_handling_and_without_replacement(bare) {
            Some(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            None => Err(format!("not valid {}", encoding.name())),
        }
    }
}

/// Whether a line is the first of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IsFirst {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(charset: &str, line: &[u8]) -> Result<String, String> {
        let mut charset = Charset::named(Some(charset))?;
        let text = charset.decode(&Bytes::copy_from_slice(line), IsFirst::Yes)?;
        Ok(String::from_utf8(text.to_vec()).unwrap())
    }

    #[test]
    fn bytes_are_decoded_by_their_charset() {
        // The encoding names of browsers are known; the byte order mark selects the UTF-16 byte
        // order and is dropped.
        assert_eq!(decode("latin1", b"caf\xe9").unwrap(), "café");
        assert_eq!(decode("windows-1250", b"\xbf\xf3\xb3w").unwrap(), "żółw");
        assert_eq!(decode("ISO-8859-2", b"\xbf").unwrap(), "ż");
        for (charset, bytes) in [
            ("utf-16", &b"\xff\xfea\0|\x01"[..]),
            ("UTF-16", b"\xfe\xff\0a\x01|"),
            ("utf-16", b"a\0|\x01"),
            ("utf-16be", b"\0a\x01|"),
            ("utf-16le", b"\xff\xfea\0|\x01"),
        ] {
            assert_eq!(decode(charset, bytes).unwrap(), "aż", "{charset} {bytes:?}");
        }
    }

    #[test]
    fn undecodable_bytes_are_a_fault() {
        // Half a unit, half a surrogate pair and unknown names are rejected.
        assert!(decode("utf-16le", b"a").unwrap_err().contains("UTF-16LE"));
        assert!(decode("utf-16le", b"\x00\xd8").is_err());
        assert!(decode("klingon", b"a").unwrap_err().contains("klingon"));
    }
}
