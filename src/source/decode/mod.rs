//! Line codecs: from the bytes of one line to the JSON text of one record.
//!
//! Not here: finding lines (`source::line`) and what fields mean (`mapping`). One invariant: no
//! input panics; a line becomes JSON text, nothing, or a reason.

mod csv;
mod json;
mod logfmt;
mod pattern;

use bytes::Bytes;

use self::csv::CsvDecoder;
use self::pattern::Pattern;
use super::line::{Content, Line};
use crate::config::source::{Codec, Decoding};
use crate::record::Record;

/// A codec with what it has learnt of one stream of lines (the columns of a CSV file).
///
/// Every file needs its own: clone one that has read nothing yet.
#[derive(Debug, Clone)]
pub struct Decoder {
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Json,
    Text,
    Csv(Box<CsvDecoder>),
    Logfmt,
    Pattern(Pattern),
}

impl Decoder {
    /// A decoder that has read nothing.
    ///
    /// # Errors
    ///
    /// Settings that contradict each other, a pattern that is no regular expression or has no
    /// named group, repeated columns: a text for the writer of the pipeline file.
    pub fn new(decoding: &Decoding) -> Result<Self, String> {
        let codec = decoding.codec;
        belongs("pattern", decoding.pattern.is_some(), codec, Codec::Regex)?;
        belongs("columns", decoding.columns.is_some(), codec, Codec::Csv)?;
        belongs("delimiter", decoding.delimiter.is_some(), codec, Codec::Csv)?;
        let state = match codec {
            Codec::Json => State::Json,
            Codec::Text => State::Text,
            Codec::Csv => State::Csv(Box::new(CsvDecoder::new(
                decoding.columns.as_deref(),
                decoding.delimiter.as_deref(),
            )?)),
            Codec::Logfmt => State::Logfmt,
            Codec::Regex => State::Pattern(Pattern::new(decoding.pattern.as_deref())?),
        };
        Ok(Self { state })
    }

    /// Decodes one line: its bytes without the newline; one carriage return at the end is ignored.
    ///
    /// | codec | record |
    /// |---|---|
    /// | `json` | the very bytes of the line, which must be one JSON value |
    /// | `text` | `{"message": line}`, each invalid UTF-8 sequence replaced by U+FFFD |
    /// | `csv` | an object of texts by column; a line is a whole record, so a quoted value cannot hold a newline |
    /// | `logfmt` | an object of texts; a bare key has the text `true`; of equal keys the last wins |
    /// | `regex` | an object of texts by named group; groups that took no part are left out |
    ///
    /// `None` is a line that is no record: an empty one (for `json` and `logfmt` also one of white
    /// space; `text` and `regex` have no such lines), or the one that names the columns of a CSV file.
    ///
    /// # Errors
    ///
    /// Why the line could not be decoded; the line is then a dead letter.
    pub fn decode(&mut self, line: &Bytes) -> Result<Option<Bytes>, String> {
        let line = match line.last() {
            Some(b'\r') => line.slice(..line.len() - 1),
            _ => line.clone(),
        };
        match &mut self.state {
            State::Json => json::decode(line),
            State::Text => {
                let text = String::from_utf8_lossy(&line);
                Ok(Some(object([("message", text.as_ref())])))
            }
            State::Csv(csv) => csv.decode(&line),
            State::Logfmt => logfmt::decode(utf8(&line)?),
            State::Pattern(pattern) => pattern.decode(utf8(&line)?).map(Some),
        }
    }

    /// The record of a message, which holds one.
    ///
    /// # Errors
    ///
    /// Why there is none; the message is then a dead letter.
    pub fn message(&mut self, message: &Bytes) -> Result<Bytes, String> {
        self.decode(message)?.ok_or_else(|| "the message holds no record".to_owned())
    }

    /// Whether the first line of the stream is still needed to understand the others.
    pub(super) fn awaits_header(&self) -> bool {
        matches!(&self.state, State::Csv(csv) if csv.awaits_header())
    }

    /// Says that the first line cannot be had, and why: lines that need it are faults from now on.
    pub(super) fn forgo_header(&mut self, why: &str) {
        if let State::Csv(csv) = &mut self.state {
            csv.forgo_header(why);
        }
    }

    /// The record of a line, with a fault where it cannot be decoded; `None` where it is none.
    pub(super) fn record(&mut self, line: Line) -> Option<Record> {
        let (raw, why) = match line.content {
            Content::Whole(raw) => match self.decode(&raw) {
                Ok(None) => return None,
                Ok(Some(body)) => return Some(Record::new(body)),
                Err(why) => (raw, why),
            },
            Content::TooLong { head, length } => {
                let limit = head.len();
                let why = format!("the line is {length} bytes long, `max_line_bytes` is {limit}");
                if self.awaits_header() {
                    self.forgo_header(&why);
                }
                (head, why)
            }
        };
        let mut record = Record::new(raw);
        record.fault = Some(why.into());
        Some(record)
    }
}

fn belongs(key: &str, given: bool, codec: Codec, owner: Codec) -> Result<(), String> {
    if given && codec != owner {
        let owner = format!("{owner:?}").to_lowercase();
        return Err(format!(
            "`decoding.{key}` is for the codec `{owner}` alone; set `decoding.codec = \"{owner}\"` or remove it"
        ));
    }
    Ok(())
}

/// The line as text, or where it stops being UTF-8.
fn utf8(line: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(line)
        .map_err(|e| format!("not valid UTF-8 at column {}", e.valid_up_to() + 1))
}

/// A JSON object of texts. Keys must differ.
fn object<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Bytes {
    let mut out = Vec::with_capacity(128);
    out.push(b'{');
    for (key, value) in fields {
        if out.len() > 1 {
            out.push(b',');
        }
        text(&mut out, key);
        out.push(b':');
        text(&mut out, value);
    }
    out.push(b'}');
    out.into()
}

fn text(out: &mut Vec<u8>, value: &str) {
    serde_json::to_writer(out, value).expect("a text is always JSON, and a Vec takes any bytes");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoding(codec: Codec) -> Decoding {
        Decoding { codec, ..Decoding::default() }
    }

    fn one(codec: Codec, line: &'static [u8]) -> Result<Option<String>, String> {
        let mut decoder = Decoder::new(&decoding(codec)).unwrap();
        let body = decoder.decode(&Bytes::from_static(line))?;
        Ok(body.map(|b| String::from_utf8(b.to_vec()).unwrap()))
    }

    #[test]
    fn text_replaces_what_is_not_utf8() {
        // The text codec takes any bytes, and an empty line is an empty message.
        assert_eq!(
            one(Codec::Text, b"a\"\xff\tb\r").unwrap().unwrap(),
            "{\"message\":\"a\\\"\u{fffd}\\tb\"}"
        );
        assert_eq!(one(Codec::Text, b"").unwrap().unwrap(), r#"{"message":""}"#);
    }

    #[test]
    fn settings_of_another_codec_are_refused() {
        // A setting that the chosen codec does not read is an error that names its own codec.
        let why =
            Decoder::new(&Decoding { pattern: Some("(?<a>.)".into()), ..Decoding::default() })
                .unwrap_err();
        assert!(why.contains("`decoding.pattern`") && why.contains("`regex`"), "{why}");
        let why = Decoder::new(&Decoding {
            codec: Codec::Logfmt,
            columns: Some(vec!["a".into()]),
            ..Decoding::default()
        })
        .unwrap_err();
        assert!(why.contains("`decoding.columns`") && why.contains("`csv`"), "{why}");
    }

    proptest! {
        #[test]
        fn every_codec_yields_json_or_a_reason(
            lines in proptest::collection::vec(proptest::collection::vec(
                prop_oneof![4 => prop::sample::select(b"ab=\"\\, {}[]:1\t\r".to_vec()), 1 => any::<u8>()], 0..40), 1..4)
        ) {
            // Whatever the bytes, no codec panics, and what it yields parses as JSON.
            for codec in [Codec::Json, Codec::Text, Codec::Csv, Codec::Logfmt, Codec::Regex] {
                let mut decoding = decoding(codec);
                if codec == Codec::Regex {
                    decoding.pattern = Some("^(?<first>[a-z]+)(?: (?<rest>.*))?".into());
                }
                let mut decoder = Decoder::new(&decoding).unwrap();
                for line in &lines {
                    match decoder.decode(&Bytes::from(line.clone())) {
                        Ok(Some(body)) => {
                            let value: Result<serde_json::Value, _> = serde_json::from_slice(&body);
                            prop_assert!(value.is_ok(), "{codec:?} gave {body:?}");
                        }
                        Ok(None) => {}
                        Err(why) => prop_assert!(!why.is_empty()),
                    }
                }
            }
        }
    }
}
