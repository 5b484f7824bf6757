//! The `logfmt` codec: `at=info msg="two words" ok`.
//!
//! Not here: types; every value is text. One invariant: each pair is read whole or the line is a
//! fault; nothing is guessed behind a quote that never closes.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::CharIndices;

use bytes::Bytes;
use indexmap::IndexMap;

/// The pairs of a line as an object, or `None` for a line of white space.
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

/// The value at the start of `text`, and what is behind it. `column` is where `text` starts.
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
        return Err(format!("no space behind the quoted value at column {column}"));
    }
    Ok((value, behind))
}

/// The text up to the closing quote, and how many bytes it takes with the quote.
fn unquote(quoted: &str) -> Option<(Cow<'_, str>, usize)> {
    let plain = quoted.find(['"', '\\'])?;
    if quoted[plain..].starts_with('"') {
        return Some((Cow::Borrowed(&quoted[..plain]), plain + 1));
    }
    let mut value = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Cow::Owned(value), at + 1)),
            '\\' => escape(&mut chars, &mut value),
            c => value.push(c),
        }
    }
    None
}

/// What follows a backslash. An escape that means nothing stands for itself.
fn escape(chars: &mut Peekable<CharIndices<'_>>, value: &mut String) {
    match chars.next().map(|(_, c)| c) {
        Some('n') => value.push('\n'),
        Some('r') => value.push('\r'),
        Some('t') => value.push('\t'),
        Some(c @ ('"' | '\\')) => value.push(c),
        Some(c) => value.extend(['\\', c]),
        None => value.push('\\'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str) -> Result<Option<serde_json::Value>, String> {
        Ok(decode(line)?.map(|b| serde_json::from_slice(&b).unwrap()))
    }

    #[test]
    fn pairs_in_every_spelling() {
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
        // A quote left open, a value without key and text glued to a quote are faults with a place.
        assert_eq!(read("a=\"b").unwrap_err(), "the quote at column 3 is not closed");
        assert_eq!(read("a=1 =b").unwrap_err(), "no key before `=` at column 5");
        assert_eq!(read("a=\"b\"c").unwrap_err(), "no space behind the quoted value at column 6");
    }

    proptest! {
        #[test]
        fn quoted_values_come_back(pairs in proptest::collection::btree_map("[a-z]{1,5}", any::<String>(), 1..5)) {
            // Whatever text is written in quotes with `"` and `\` escaped is read back unchanged.
            let line: Vec<String> = pairs
                .iter()
                .map(|(k, v)| format!("{k}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")))
                .collect();
            let got = read(&line.join(" ")).unwrap().unwrap();
            prop_assert_eq!(got, serde_json::json!(pairs));
        }
    }
}
