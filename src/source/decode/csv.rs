//! The `csv` codec: one row (RFC 4180) becomes one object of strings. A quoted value may contain
//! newlines, so a row may take several lines.
//!
//! A quoted value that is never closed contains everything after it. None of that becomes a record,
//! because a line such as `7,hacked` inside a value would look like a row. It becomes decode
//! errors, in pieces of at most the limit, until the value is closed.
//!
//! # Invariants
//!
//! A row becomes a record only if it has exactly as many values as there are columns.

use bytes::Bytes;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};

use super::unit::{DecodeResult, Flush, Joined, Unit, Unreadable};

#[derive(Debug)]
pub(super) struct CsvDecoder {
    reader: Reader,
    delimiter: u8,
    columns: Columns,
    row: CsvRow,
    /// The longest row, in bytes.
    limit: usize,
    /// Reused, so that a row allocates nothing but its record.
    input: Vec<u8>,
    output: Vec<u8>,
    ends: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Columns {
    /// The next row contains the names.
    Awaited,
    Known(Vec<String>),
    /// The row with the names could not be used, for this reason.
    Unusable(String),
}

/// An incomplete row.
#[derive(Debug, Clone)]
enum CsvRow {
    None,
    /// A quoted value is open at its end.
    Open(Joined),
    /// The same, but a part of the row is a decode error already, so all of it must be.
    Lost {
        /// Where the row starts.
        from: u64,
        rest: Option<Joined>,
    },
}

impl CsvDecoder {
    pub(super) fn new(
        columns: Option<&[String]>,
        delimiter: Option<&str>,
        limit: usize,
    ) -> Result<Self, String> {
        let delimiter = match delimiter.map(str::as_bytes) {
            None => b',',
            Some([one]) if one.is_ascii() && !b"\"\r\n".contains(one) => *one,
            Some(_) => {
                return Err(format!(
                    "`decoding.delimiter` must be one ASCII character other than a quote or a \
                     newline, not {:?}",
                    delimiter.unwrap_or_default()
                ));
            }
        };
        let columns = match columns {
            None => Columns::Awaited,
            Some([]) => {
                return Err("`decoding.columns` is empty; name the columns or remove it".into());
            }
            Some(names) => {
                distinct(names).map_err(|why| format!("`decoding.columns`: {why}"))?;
                Columns::Known(names.to_vec())
            }
        };
        Ok(Self::with(columns, delimiter, limit))
    }

    fn with(columns: Columns, delimiter: u8, limit: usize) -> Self {
        let reader = ReaderBuilder::new()
            .delimiter(delimiter)
            // Rows are already split; a carriage return inside one is part of a value.
            .terminator(Terminator::Any(b'\n'))
            .build();
        Self {
            reader,
            delimiter,
            columns,
            row: CsvRow::None,
            limit,
            input: Vec::new(),
            output: Vec::new(),
            ends: Vec::new(),
        }
    }

    pub(super) fn awaits_header(&self) -> bool {
        matches!(self.columns, Columns::Awaited)
    }

    pub(super) fn forgo_header(&mut self, why: &str) {
        self.columns = Columns::Unusable(why.to_owned());
    }

    /// Copies the columns that another decoder has read.
    pub(super) fn adopt_header(&mut self, other: &Self) {
        self.columns = other.columns.clone();
    }

    /// Where an incomplete row starts.
    pub(super) fn waiting_from(&self) -> Option<u64> {
        match &self.row {
            CsvRow::None => None,
            CsvRow::Open(lines) => Some(lines.span().start),
            CsvRow::Lost { from, .. } => Some(*from),
        }
    }

    /// Whether lines are held that a time limit would turn into decode errors.
    pub(super) fn holds_lines(&self) -> bool {
        matches!(&self.row, CsvRow::Open(_) | CsvRow::Lost { rest: Some(_), .. })
    }

    /// Takes a line.
    pub(super) fn feed(&mut self, unit: Unit, out: &mut Vec<DecodeResult>) {
        match std::mem::replace(&mut self.row, CsvRow::None) {
            CsvRow::None if self.leaves_open(&unit.text, Quote::Outside) => {
                self.row = CsvRow::Open(Joined::of(unit));
            }
            CsvRow::None => out.extend(self.row(unit)),
            CsvRow::Open(mut lines) if lines.fits(&unit, self.limit) => {
                lines.push(&unit, b"\n");
                match self.leaves_open(&unit.text, Quote::Inside) {
                    true => self.row = CsvRow::Open(lines),
                    false => out.extend(self.row(lines.finish())),
                }
            }
            CsvRow::Open(lines) => {
                let from = lines.span().start;
                out.push(Err(self.too_long(lines)));
                self.lose(from, None, unit, out);
            }
            CsvRow::Lost { from, rest } => self.lose(from, rest, unit, out),
        }
    }

    /// Takes a line that could not be read, of which only the first bytes are known.
    pub(super) fn pass(&mut self, broken: &Unreadable, out: &mut Vec<DecodeResult>) {
        match std::mem::replace(&mut self.row, CsvRow::None) {
            CsvRow::None => {
                if self.awaits_header() {
                    self.forgo_header(&broken.why);
                }
                if self.leaves_open(&broken.raw, Quote::Outside) {
                    self.row = CsvRow::Lost { from: broken.span.start, rest: None };
                }
            }
            // Its effect on the quote is unknown; a record must not begin inside a quoted value.
            CsvRow::Open(lines) => {
                self.row = CsvRow::Lost { from: lines.span().start, rest: None };
                out.push(Err(self.too_long(lines)));
            }
            CsvRow::Lost { from, rest } => {
                out.extend(rest.map(|lines| Err(inside(lines))));
                self.row = CsvRow::Lost { from, rest: None };
            }
        }
    }

    pub(super) fn flush(&mut self, why: Flush, out: &mut Vec<DecodeResult>) {
        let lost = match std::mem::replace(&mut self.row, CsvRow::None) {
            CsvRow::None => return,
            CsvRow::Open(lines) => {
                let from = lines.span().start;
                out.push(Err(self.never_closed(lines)));
                from
            }
            CsvRow::Lost { from, rest } => {
                out.extend(rest.map(|lines| Err(inside(lines))));
                from
            }
        };
        if why != Flush::NewGeneration {
            self.row = CsvRow::Lost { from: lost, rest: None };
        }
    }

    /// Another line of a row that is a decode error.
    fn lose(&mut self, from: u64, rest: Option<Joined>, unit: Unit, out: &mut Vec<DecodeResult>) {
        let open = self.leaves_open(&unit.text, Quote::Inside);
        let from = from.min(unit.span.start);
        let lines = match rest {
            None => Joined::of(unit),
            Some(mut lines) if lines.fits(&unit, self.limit) => {
                lines.push(&unit, b"\n");
                lines
            }
            Some(lines) => {
                out.push(Err(inside(lines)));
                Joined::of(unit)
            }
        };
        match open {
            true => self.row = CsvRow::Lost { from, rest: Some(lines) },
            false => out.push(Err(inside(lines))),
        }
    }

    fn too_long(&mut self, lines: Joined) -> Unreadable {
        let why = format!(
            "the row is longer than `max_line_bytes`, {}, or one of its quoted values is never \
             closed",
            self.limit
        );
        self.lost_header(&why);
        lines.finish().unreadable(why)
    }

    fn never_closed(&mut self, lines: Joined) -> Unreadable {
        let why = match lines.span().lines {
            1 => "a quoted value of the row is not closed".to_owned(),
            n => format!(
                "a quoted value of the row is not closed: it holds the {n} lines read since"
            ),
        };
        self.lost_header(&why);
        lines.finish().unreadable(why)
    }

    fn lost_header(&mut self, why: &str) {
        if self.awaits_header() {
            self.forgo_header(why);
        }
    }

    /// Whether a quoted value is open after a line.
    fn leaves_open(&self, line: &[u8], before: Quote) -> bool {
        if memchr::memchr(b'"', line).is_none() {
            return before == Quote::Inside;
        }
        let after = line.iter().fold(before, |state, &byte| match (state, byte) {
            (Quote::Outside | Quote::Closed, b'"') => Quote::Inside,
            (Quote::Inside, b'"') => Quote::Closed,
            (Quote::Inside, _) => Quote::Inside,
            (_, byte) if byte == self.delimiter => Quote::Outside,
            _ => Quote::Unquoted,
        });
        after == Quote::Inside
    }

    /// The record of a complete row; `None` for an empty line and for the row that names the
    /// columns.
    fn row(&mut self, unit: Unit) -> Option<DecodeResult> {
        match self.decode(&unit.text) {
            Ok(None) => None,
            Ok(Some(body)) => Some(Ok(unit.with_text(body))),
            Err(why) => Some(Err(unit.unreadable(why))),
        }
    }

    fn decode(&mut self, row: &[u8]) -> Result<Option<Bytes>, String> {
        let row = row.strip_suffix(b"\r").unwrap_or(row);
        if row.is_empty() {
            return Ok(None);
        }
        if self.awaits_header() {
            return self.learn(row).map(|()| None);
        }
        let values = match &self.columns {
            Columns::Unusable(why) => {
                return Err(format!("the line that names the columns cannot be used: {why}"));
            }
            _ => self.split(row)?,
        };
        let Columns::Known(columns) = &self.columns else {
            return Ok(None);
        };
        let output = super::utf8(&self.output[..values.last().copied().unwrap_or(0)])?;
        if values.len() != columns.len() {
            return Err(format!(
                "the line has {} values, there are {} columns",
                values.len(),
                columns.len()
            ));
        }
        // Separators are ASCII, so no boundary is inside a character.
        let fields = columns
            .iter()
            .zip(spans(&values))
            .map(|(name, (from, to))| (name.as_str(), output.get(from..to).unwrap_or_default()));
        Ok(Some(super::object(fields)))
    }

    /// Reads the columns from the first row.
    fn learn(&mut self, row: &[u8]) -> Result<(), String> {
        let learnt = self.split(row).and_then(|ends| {
            let output = super::utf8(&self.output)?;
            let names: Vec<String> = spans(&ends)
                .map(|(from, to)| output.get(from..to).unwrap_or_default().to_owned())
                .collect();
            distinct(&names)?;
            Ok(names)
        });
        match learnt {
            Ok(names) => {
                self.columns = Columns::Known(names);
                Ok(())
            }
            Err(why) => {
                self.forgo_header(&why);
                Err(why)
            }
        }
    }

    /// Splits a row into `self.output`; returns where each value ends there.
    fn split(&mut self, row: &[u8]) -> Result<Vec<usize>, String> {
        self.input.clear();
        self.input.extend_from_slice(row);
        self.input.push(b'\n');
        self.output.resize(self.input.len(), 0);
        // There is at most one value more than bytes that can separate them.
        self.ends.resize(self.input.len() + 1, 0);
        self.reader.reset();
        let (result, _, written, count) =
            self.reader.read_record(&self.input, &mut self.output, &mut self.ends);
        match result {
            ReadRecordResult::Record => {
                self.output.truncate(written);
                Ok(self.ends[..count].to_vec())
            }
            _ => Err("a quoted value is not closed".into()),
        }
    }
}

/// The position in a row as csv-core sees it: a quote is special only at the beginning of a value,
/// and inside a value that began with a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    /// At the beginning of a value.
    Outside,
    /// Inside a value without quotes.
    Unquoted,
    /// Inside a quoted value.
    Inside,
    /// After a quote that may be the closing one.
    Closed,
}

fn inside(lines: Joined) -> Unreadable {
    lines.finish().unreadable(
        "this line is inside a quoted value of an earlier row, which could not be read as a whole",
    )
}

/// Implemented by hand because a clone of csv-core's reader loses its separators (as of 0.1.13 it
/// copies only a part of its tables).
impl Clone for CsvDecoder {
    fn clone(&self) -> Self {
        Self {
            row: self.row.clone(),
            ..Self::with(self.columns.clone(), self.delimiter, self.limit)
        }
    }
}

/// The spans between ends.
fn spans(ends: &[usize]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends.iter().copied())
}

fn distinct(names: &[String]) -> Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        None => Ok(()),
        Some(twice) => Err(format!("the column {twice:?} is named twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::unit::Span;
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 40;

    fn columns(names: &[&str]) -> CsvDecoder {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        CsvDecoder::new(Some(&names), None, LIMIT).unwrap()
    }

    fn shown(outcome: &DecodeResult) -> Result<String, String> {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        outcome.as_ref().map(|unit| text(&unit.text)).map_err(|broken| broken.why.clone())
    }

    fn row(csv: &mut CsvDecoder, line: &str) -> Result<Option<String>, String> {
        let mut out = Vec::new();
        csv.feed(Unit::of(line.to_owned().into(), at(0, line)), &mut out);
        assert!(out.len() < 2);
        out.first().map(shown).transpose()
    }

    fn at(start: usize, line: &str) -> Span {
        let (start, end) = (start as u64, (start + line.len() + 1) as u64);
        Span { start, end, line: start, lines: 1 }
    }

    /// All results of these lines, including the end of the stream.
    fn all(csv: &mut CsvDecoder, lines: &str) -> Vec<Result<String, String>> {
        let mut out = Vec::new();
        let mut start = 0;
        for (n, line) in (0..).zip(lines.split('\n')) {
            let span = Span { line: n, ..at(start, line) };
            csv.feed(Unit::of(line.to_owned().into(), span), &mut out);
            start += line.len() + 1;
        }
        csv.flush(Flush::EndOfStream, &mut out);
        out.iter().map(shown).collect()
    }

    #[test]
    fn first_line_names_the_columns() {
        // Without `columns` the first line is not a record but names the values of all later lines.
        let mut csv = CsvDecoder::new(None, Some(";"), LIMIT).unwrap().clone();
        assert_eq!(row(&mut csv, "id;näme"), Ok(None));
        assert_eq!(
            row(&mut csv, r#"1;"a ""b""; c""#).unwrap().unwrap(),
            r#"{"id":"1","näme":"a \"b\"; c"}"#
        );
        assert_eq!(row(&mut csv, ";ż").unwrap().unwrap(), r#"{"id":"","näme":"ż"}"#);
        assert_eq!(row(&mut csv, ""), Ok(None));
    }

    #[test]
    fn row_with_other_number_of_cells_is_a_fault() {
        // A row with too many or too few values is a decode error that names both numbers.
        let mut csv = columns(&["a", "b"]);
        let why = row(&mut csv, "1").unwrap_err();
        assert_eq!(why, "the line has 1 values, there are 2 columns");
        let why = row(&mut csv, "1,2,3").unwrap_err();
        assert_eq!(why, "the line has 3 values, there are 2 columns");
        assert!(row(&mut csv, "1,2").unwrap().is_some());
    }

    #[test]
    fn newline_in_quotes_is_part_of_the_value() {
        // A row ends where its quotes are closed, also in the header; its span covers all its
        // lines.
        let mut csv = CsvDecoder::new(None, None, 80).unwrap();
        let got = all(&mut csv, "id,\"the\nnote\"\r\n1,\"see:\r\n\n7,\"\"hacked\"\r\n8,ok");
        assert_eq!(
            got,
            [
                Ok(r#"{"id":"1","the\nnote":"see:\r\n\n7,\"hacked"}"#.to_owned()),
                Ok(r#"{"id":"8","the\nnote":"ok"}"#.to_owned())
            ]
        );
        assert_eq!(csv.waiting_from(), None);
    }

    #[test]
    fn quote_inside_a_value_opens_no_quoted_cell() {
        // A quote that does not begin a value is part of it.
        let mut csv = columns(&["a", "b"]);
        assert_eq!(row(&mut csv, "5\" x,b\"").unwrap().unwrap(), r#"{"a":"5\" x","b":"b\""}"#);
        assert_eq!(row(&mut csv, "\"5\"x,\"\"").unwrap().unwrap(), r#"{"a":"5x","b":""}"#);
    }

    #[test]
    fn unclosed_quote_yields_faults_and_no_record() {
        // Lines inside a value that is never closed are decode errors, and the next run reads them
        // again.
        let mut csv = columns(&["a", "b"]);
        let got = all(&mut csv, "1,2\n3,\"four\n7,hacked\n8,ok");
        assert!(got[0].is_ok());
        assert!(got[1].as_ref().unwrap_err().contains("not closed"), "{got:?}");
        assert_eq!(got.len(), 2);
        assert_eq!(csv.waiting_from(), Some(4));
    }

    #[test]
    fn row_over_the_limit_is_faults_until_it_ends() {
        // A row that is too long yields no record, whatever its lines contain; the next row does.
        let mut csv = columns(&["a", "b"]);
        let inner = "7,hacked\n".repeat(20);
        let got = all(&mut csv, &format!("1,\"x\n{inner}\"\n8,ok"));
        let (last, faults) = got.split_last().unwrap();
        assert_eq!(last.as_ref().unwrap(), r#"{"a":"8","b":"ok"}"#);
        assert!(faults.len() > 1 && faults.iter().all(Result::is_err), "{faults:?}");
        assert_eq!(csv.waiting_from(), None);
    }

    #[test]
    fn unusable_header_makes_every_row_a_fault() {
        // Where the first line names a column twice, it and every later row are decode errors.
        let mut csv = CsvDecoder::new(None, None, LIMIT).unwrap();
        assert!(row(&mut csv, "a,a").is_err());
        assert!(row(&mut csv, "1,2").unwrap_err().contains("named twice"));
    }

    #[test]
    fn invalid_settings_are_rejected() {
        // Separators of several characters and repeated or missing columns are errors.
        assert!(CsvDecoder::new(None, Some("||"), LIMIT).is_err());
        assert!(CsvDecoder::new(None, Some("\""), LIMIT).is_err());
        assert!(CsvDecoder::new(Some(&[]), None, LIMIT).is_err());
        assert!(CsvDecoder::new(Some(&["a".into(), "a".into()]), None, LIMIT).is_err());
    }

    proptest! {
        #[test]
        fn rows_equal_those_of_a_reader_of_the_whole_text(text in "[a\",\n]{0,60}") {
            // Fed line by line, the decoder yields the same rows as csv-core on the whole text, as
            // long as every quote is closed.
            let mut csv = CsvDecoder::new(Some(&["a".into(), "b".into()]), None, 1000).unwrap();
            let got = all(&mut csv, &text);
            let mut reader = ReaderBuilder::new().terminator(Terminator::Any(b'\n')).build();
            let (mut input, mut rows) = (text.clone().into_bytes(), Vec::new());
            input.push(b'\n');
            let (mut output, mut ends) = (vec![0; 200], vec![0; 200]);
            let mut rest = &input[..];
            while let (ReadRecordResult::Record, read, _, count) =
                reader.read_record(rest, &mut output, &mut ends)
            {
                rows.push((count == 2).then(|| {
                    let text = |from, to| std::str::from_utf8(&output[from..to]).unwrap().to_owned();
                    serde_json::json!({"a": text(0, ends[0]), "b": text(ends[0], ends[1])}).to_string()
                }));
                rest = &rest[read..];
            }
            let open = csv.waiting_from().is_some();
            let got: Vec<_> = got.into_iter().map(Result::ok).collect();
            prop_assert_eq!(&got[..got.len() - usize::from(open)], &rows[..]);
        }
    }
}
