//! The `logfmt` codec: `at=info msg="two words" ok`. Every value is a string.
//!
//! # Invariants
//!
//! Each pair is read completely or the line is a decode error; nothing is guessed after an unclosed
//! quote.

use std::borrow::Cow;
use std::str::CharIndices as Chars;

use bytes::Bytes;
use indexmap::IndexMap;

/// The pairs of a line as an object, or `None` for a blank line.
pub(super) fn decode(line: &str) -> Result<Option<Bytes>, String> {
    let mut pairs: IndexMap<&str, Cow<'_, str>> = IndexMap::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let column = line.len() - rest.len() + 1;
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        if key.is_empty() {
            return Err(format!("no key before `=` at column {column}"));
        }
        let (value, behind) = match behind.strip_prefix('=') {
            None => (Cow::Borrowed("true"), behind),
            Some(behind) => value(behind, column + key.len() + 1)?,
        };
        pairs.insert(key, value);
        rest = behind.trim_start();
    }
    if pairs.is_empty() {
        return Ok(None);
    }
    let fields = pairs.iter().map(|(key, value)| (*key, value.as_ref()));
    Ok(Some(super::object(fields)))
}

/// The value at the start of `text`, and the rest after it. `column` is where `text` starts.
fn value(text: &str, column: usize) -> Result<(Cow<'_, str>, &str), String> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (value, behind) = text.split_at(end);
        return Ok((Cow::Borrowed(value), behind));
    };
    let (value, length) =
        unquote(quoted).ok_or_else(|| format!("the quote at column {column} is not closed"))?;
    let behind = &quoted[length..];
    if behind.starts_with(|c: char| !c.is_whitespace()) {
        let column = column + 1 + length;
        return Err(format!("no space after the quoted value at column {column}"));
    }
    Ok((value, behind))
}

/// The string up to the closing quote, and its length in bytes including the quote.
fn unquote(quoted: &str) -> Option<(Cow<'_, str>, usize)> {
    let plain = quoted.find(['"', '\\'])?;
    if quoted[plain..].starts_with('"') {
        return Some((Cow::Borrowed(&quoted[..plain]), plain + 1));
    }
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Cow::Owned(value), at + 1)),
            '\\' => escape(&mut chars, &mut value),
            c => value.push(c),
        }
    }
    None
}

/// Decodes what follows a backslash: the escapes of JSON, of Go's `strconv.Quote` and of C. An
/// unknown escape is kept unchanged; half a surrogate pair becomes U+FFFD.
fn escape(chars: &mut Chars<'_>, value: &mut String) {
    let Some((_, c)) = chars.next() else {
        value.push('\\');
        return;
    };
    match c {
        'n' => value.push('\n'),
        'r' => value.push('\r'),
        't' => value.push('\t'),
        'a' => value.push('\u{7}'),
        'b' => value.push('\u{8}'),
        'f' => value.push('\u{c}'),
        'v' => value.push('\u{b}'),
        '"' | '\\' | '/' | '\'' => value.push(c),
        'x' | '0'..='7' => bytes(c, chars, value),
        'u' | 'U' => character(c, chars, value),
        c => value.extend(['\\', c]),
    }
}

/// `\xc3\xa9` or `\303\251`: a run of bytes, which is UTF-8, or else each byte is a character.
fn bytes(first: char, chars: &mut Chars<'_>, value: &mut String) {
    let mut run = Vec::new();
    let mut kind = first;
    loop {
        let digits = chars.clone();
        let read = match kind {
            'x' => number(chars, 2, 16),
            octal => {
                let rest = number(chars, 2, 8);
                rest.zip(octal.to_digit(8)).map(|(rest, high)| high * 64 + rest)
            }
        };
        let Some(byte) = read.and_then(|byte| u8::try_from(byte).ok()) else {
            *chars = digits;
            text_of(&run, value);
            value.extend(['\\', kind]);
            return;
        };
        run.push(byte);
        let mut ahead = chars.clone();
        match (ahead.next(), ahead.next()) {
            (Some((_, '\\')), Some((_, next @ ('x' | '0'..='7')))) => {
                *chars = ahead;
                kind = next;
            }
            _ => break,
        }
    }
    text_of(&run, value);
}

fn text_of(bytes: &[u8], value: &mut String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => value.push_str(text),
        Err(_) => value.extend(bytes.iter().map(|byte| char::from(*byte))),
    }
}

/// `\u00e9`, `\ud83d\ude00`, `\U0001f600`.
fn character(kind: char, chars: &mut Chars<'_>, value: &mut String) {
    let digits = chars.clone();
    let length = if kind == 'u' { 4 } else { 8 };
    let Some(unit) = number(chars, length, 16) else {
        *chars = digits;
        value.extend(['\\', kind]);
        return;
    };
    if !(0xd800..0xdc00).contains(&unit) {
        value.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
        return;
    }
    let mut ahead = chars.clone();
    let escaped = (ahead.next().map(|(_, c)| c), ahead.next().map(|(_, c)| c));
    let low = match escaped {
        (Some('\\'), Some('u')) => number(&mut ahead, 4, 16),
        _ => None,
    };
    match low {
        Some(low @ 0xdc00..0xe000) => {
            *chars = ahead;
            let both = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            value.push(char::from_u32(both).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        _ => value.push(char::REPLACEMENT_CHARACTER),
    }
}

/// A number of exactly this many digits.
fn number(chars: &mut Chars<'_>, length: u32, radix: u32) -> Option<u32> {
    (0..length).try_fold(0_u32, |number, _| {
        let digit = chars.next().and_then(|(_, c)| c.to_digit(radix))?;
        number.checked_mul(radix)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str) -> Result<Option<serde_json::Value>, String> {
        Ok(decode(line)?.map(|b| serde_json::from_slice(&b).unwrap()))
    }

    #[test]
    fn pairs_in_every_notation_are_parsed() {
        // Plain, quoted, escaped, empty and bare values are read; of equal keys the last wins.
        let got = read(r#"  at=info msg="say \"hi\"\n" p="C:\x" empty= ok url=a=b at=warn "#);
        assert_eq!(
            got.unwrap().unwrap(),
            serde_json::json!({
                "at": "warn", "msg": "say \"hi\"\n", "p": "C:\\x", "empty": "", "ok": "true",
                "url": "a=b"
            })
        );
        assert_eq!(read(" \t"), Ok(None));
    }

    #[test]
    fn faults_name_the_column() {
        // An unclosed quote, a value without key and text directly after a quote are decode errors
        // with a column.
        assert_eq!(read("a=\"b").unwrap_err(), "the quote at column 3 is not closed");
        assert_eq!(read("a=1 =b").unwrap_err(), "no key before `=` at column 5");
        assert_eq!(read("a=\"b\"c").unwrap_err(), "no space after the quoted value at column 6");
    }

    #[test]
    fn escapes_of_common_writers_are_decoded() {
        // The escapes of JSON, Go and C are decoded; half a surrogate pair is one U+FFFD; other
        // escapes are unchanged.
        for (escaped, text) in [
            (r"caf\u00e9 \u20ac 5", "café € 5"),
            (r"\ud83d\ude00 \U0001f600", "😀 😀"),
            (r"\x41 \033[31mred", "A \u{1b}[31mred"),
            (r"\xc3\xa9 \303\251 \xe9", "é é é"),
            (r"\ud83d! \ude00 \ud83d\u0041", "\u{fffd}! \u{fffd} \u{fffd}A"),
            (r"\a\b\f\v\r\t\n\/\'", "\u{7}\u{8}\u{c}\u{b}\r\t\n/'"),
            (r"\uzzzz \x4 \q \09 \x41\xz \U1 \777", r"\uzzzz \x4 \q \09 A\xz \U1 \777"),
        ] {
            let got = read(&format!("m=\"{escaped}\"")).unwrap().unwrap();
            assert_eq!(got["m"], text, "{escaped}");
        }
    }

    proptest! {
        #[test]
        fn quoted_values_round_trip(pairs in proptest::collection::btree_map("[a-z]{1,5}", any::<String>(), 1..5)) {
            // A string written in quotes with `"` and `\` escaped is read back unchanged.
            let line: Vec<String> = pairs
                .iter()
                .map(|(k, v)| format!("{k}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")))
                .collect();
            let got = read(&line.join(" ")).unwrap().unwrap();
            prop_assert_eq!(got, serde_json::json!(pairs));
        }
    }
}
