//! The bytes of an answer as UTF-8: some servers write a byte order mark or UTF-16, or compress
//! without saying so.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::GzDecoder;

/// The longest body that is decompressed here, in bytes.
const MAX_DECOMPRESSED: u64 = 16 << 20;

/// A body as UTF-8 without a byte order mark. What cannot be decoded is left as it is.
pub(super) fn plain_body(body: &[u8]) -> Cow<'_, [u8]> {
    match body {
        [0xef, 0xbb, 0xbf, text @ ..] => Cow::Borrowed(text),
        [0xff, 0xfe, text @ ..] => utf16(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => utf16(text, u16::from_be_bytes),
        // JSON begins with a character of ASCII, so that one byte of the first two is zero.
        [0, first, ..] if *first != 0 => utf16(body, u16::from_be_bytes),
        [first, 0, ..] if *first != 0 => utf16(body, u16::from_le_bytes),
        [0x1f, 0x8b, ..] => {
            let mut text = Vec::new();
            let mut decoder = GzDecoder::new(body).take(MAX_DECOMPRESSED);
            match decoder.read_to_end(&mut text) {
                Ok(_) => Cow::Owned(text),
                Err(_) => Cow::Borrowed(body),
            }
        }
        _ => Cow::Borrowed(body),
    }
}

fn utf16(text: &[u8], unit: fn([u8; 2]) -> u16) -> Cow<'_, [u8]> {
    let units = text.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    let text: String =
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Cow::Owned(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn body_in_other_encodings_is_decoded() {
        // Guarantees that marks, UTF-16 in both orders and gzip that is not declared are read, and
        // that a body that is none of them stays as it is.
        let text = "{\"name\":\"\u{17c}\u{f3}\u{142}w\"}";
        let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(text.as_bytes()).unwrap();
        let bodies = [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            [b"\xff\xfe", &le[..]].concat(),
            [b"\xfe\xff", &be[..]].concat(),
            le,
            be,
            gzip.finish().unwrap(),
        ];
        for body in bodies {
            assert_eq!(plain_body(&body), text.as_bytes());
        }
        for body in [&b""[..], b"\x1f\x8bnot gzip", b"OK", b"\0\0"] {
            assert_eq!(plain_body(body), body);
        }
    }
}
