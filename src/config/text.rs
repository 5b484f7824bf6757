//! A string value in its three forms: as it stands in the file (with quotes and escapes), as it is
//! written (escapes resolved), and as it is used (`${}` resolved), and the way back from a byte of
//! the last to a byte of the first.
//!
//! Invariant: `pieces` cover `value` and `written` from beginning to end, in order.

use std::ops::Range;

/// A string value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InterpolatedString {
    /// The text as it is used.
    pub(crate) value: String,
    /// The text as it is written in the file, escapes resolved.
    pub(crate) written: String,
    /// Which bytes of `written` became which bytes of `value`.
    pub(crate) pieces: Vec<TextSegment>,
}

/// A stretch of a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TextSegment {
    /// Bytes of the used text.
    pub(crate) value: Range<usize>,
    /// Bytes of the written text.
    pub(crate) written: Range<usize>,
    /// Whether the piece came from an interpolation, so that its bytes do not correspond.
    pub(crate) inserted: bool,
}

impl InterpolatedString {
    /// A text without interpolation.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        let written = text.into();
        Self {
            value: written.clone(),
            pieces: vec![TextSegment {
                value: 0..written.len(),
                written: 0..written.len(),
                inserted: false,
            }],
            written,
        }
    }

    /// Whether some of the text came from outside the file.
    pub(crate) fn is_interpolated(&self) -> bool {
        self.pieces.iter().any(|piece| piece.inserted)
    }

    /// The bytes of the raw text (the value as it stands in the file, which the map is of) that a part
    /// of the used text came from, or `None` where the way back is not certain.
    pub(crate) fn locate(&self, map: &SourceMap, part: &Range<usize>) -> Option<Range<usize>> {
        let written = self.to_written(part.start)?.start..self.to_written_end(part)?;
        Some(map.raw(written.start)?..map.raw(written.end)?)
    }

    fn to_written(&self, at: usize) -> Option<Range<usize>> {
        // Pieces are in order: the first that ends behind the byte has it.
        let found = self.pieces.partition_point(|piece| piece.value.end <= at);
        let piece = self.pieces.get(found).or(self.pieces.last())?;
        if piece.inserted {
            return Some(piece.written.clone());
        }
        let offset = at.checked_sub(piece.value.start)?;
        let at = piece.written.start.checked_add(offset)?;
        (at <= piece.written.end).then_some(at..at)
    }

    fn to_written_end(&self, part: &Range<usize>) -> Option<usize> {
        match part.end.checked_sub(1) {
            Some(last) if last >= part.start => {
                let place = self.to_written(last)?;
                Some(if place.is_empty() { place.end + 1 } else { place.end })
            }
            _ => Some(self.to_written(part.end)?.start),
        }
    }
}

/// For each byte of a written text, where it stands in the raw one.
#[derive(Debug)]
pub(crate) struct SourceMap {
    /// `offsets[i]` is the raw place of written byte `i`; one more entry for the end.
    offsets: Vec<usize>,
}

impl SourceMap {
    /// `None` if the raw text cannot be followed with certainty.
    pub(crate) fn new(raw: &str, written: &str) -> Option<Self> {
        if raw == written {
            return Some(Self { offsets: (0..=raw.len()).collect() });
        }
        let quote = ["\"\"\"", "'''", "\"", "'"]
            .into_iter()
            .find(|quote| raw.starts_with(quote) && raw.ends_with(quote))?;
        let mut start = quote.len();
        let end = raw.len().checked_sub(quote.len())?;
        // TOML drops a line break right behind the opening quotes of a multi-line string.
        if quote.len() == 3 {
            for eol in ["\r\n", "\n"] {
                if raw.get(start..end)?.starts_with(eol) {
                    start += eol.len();
                    break;
                }
            }
        }
        let inner = raw.get(start..end)?;
        let escapes = quote.starts_with('"');
        let mut offsets = Vec::with_capacity(written.len() + 1);
        let mut decoded = 0;
        let mut at = 0;
        while at < inner.len() {
            let rest = inner.get(at..)?;
            let (used, made) = if escapes && rest.starts_with('\\') {
                escape(rest)?
            } else if quote == "'" && rest.starts_with("''") {
                (2, 1)
            } else {
                let length = rest.chars().next()?.len_utf8();
                (length, length)
            };
            for byte in 0..made {
                // Bytes of a literal character correspond one to one; all bytes of an escape
                // point at its backslash.
                let within = if used == made { byte } else { 0 };
                offsets.push(start + at + within);
            }
            decoded += made;
            at += used;
        }
        offsets.push(end);
        (decoded == written.len()).then_some(Self { offsets })
    }

    fn raw(&self, written: usize) -> Option<usize> {
        self.offsets.get(written).copied()
    }
}

/// How many raw bytes an escape takes and how many bytes it stands for.
fn escape(rest: &str) -> Option<(usize, usize)> {
    let digits = match rest.as_bytes().get(1)? {
        b'x' => 2,
        b'u' => 4,
        b'U' => 8,
        b'\n' | b'\r' | b' ' | b'\t' => {
            let tail = rest.get(1..)?;
            return Some((1 + tail.len() - tail.trim_start().len(), 0));
        }
        _ => return Some((2, 1)),
    };
    let code = u32::from_str_radix(rest.get(2..2 + digits)?, 16).ok()?;
    if digits == 4 && (0xD800..0xDC00).contains(&code) {
        // JSON's surrogate pair: two escapes, one character of four bytes.
        return (rest.get(6..8)? == "\\u").then_some((12, 4));
    }
    Some((2 + digits, char::from_u32(code)?.len_utf8()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(raw: &str, written: &str, part: Range<usize>) -> Option<String> {
        let range =
            InterpolatedString::plain(written).locate(&SourceMap::new(raw, written)?, &part)?;
        raw.get(range).map(str::to_owned)
    }

    #[test]
    fn segments_after_quotes_and_escapes_have_right_positions() {
        // A part of a value points at the same characters of the file, in every kind of quotes.
        for (raw, written, part, expected) in [
            (".a.b", ".a.b", 1..2, "a"),
            ("\".a.b\"", ".a.b", 3..4, "b"),
            ("'.a.b'", ".a.b", 3..4, "b"),
            (r#""\t.a""#, "\t.a", 2..3, "a"),
            (r#""\u00e9.a""#, "é.a", 3..4, "a"),
            (r#""\ud83d\ude00a""#, "😀a", 4..5, "a"),
            ("\"\"\"\nab\"\"\"", "ab", 1..2, "b"),
            ("'it''s x'", "it's x", 5..6, "x"),
            ("\"ab\"", "ab", 2..2, ""),
        ] {
            assert_eq!(located(raw, written, part).as_deref(), Some(expected), "{raw}");
        }
        // Where the raw text does not decode to the written one, nothing is claimed.
        assert_eq!(located(">\n  folded\n  text", "folded text", 0..1), None);
    }

    #[test]
    fn segments_around_an_interpolation_have_right_positions() {
        // Behind an inserted value offsets are shifted back; inside it, the whole `${}` is shown.
        let text = InterpolatedString {
            value: "https://host.example/x".into(),
            written: "https://${H}/x".into(),
            pieces: vec![
                TextSegment { value: 0..8, written: 0..8, inserted: false },
                TextSegment { value: 8..20, written: 8..12, inserted: true },
                TextSegment { value: 20..22, written: 12..14, inserted: false },
            ],
        };
        let raw = "\"https://${H}/x\"";
        let map = SourceMap::new(raw, &text.written).expect("a map");
        let find = |part| raw.get(text.locate(&map, &part).expect("found"));
        assert_eq!(find(21..22), Some("x"));
        assert_eq!(find(9..12), Some("${H}"));
        assert!(text.is_interpolated());
    }
}
