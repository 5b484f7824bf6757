//! The `csv` codec: one line, one row, one object of texts.
//!
//! Not here: rows that span lines; a quote left open at the end of a line is a fault. One
//! invariant: a row becomes a record only if it has exactly as many values as there are columns.

use bytes::Bytes;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};

#[derive(Debug)]
pub(super) struct CsvDecoder {
    reader: Reader,
    delimiter: u8,
    columns: Columns,
    /// Scratch space, kept so that a row allocates nothing but its record.
    input: Vec<u8>,
    output: Vec<u8>,
    ends: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Columns {
    /// The next line names them.
    Awaited,
    Known(Vec<String>),
    /// The line that should have named them did not, for this reason.
    Unusable(String),
}

impl CsvDecoder {
    pub(super) fn new(columns: Option<&[String]>, delimiter: Option<&str>) -> Result<Self, String> {
        let delimiter = match delimiter.map(str::as_bytes) {
            None => b',',
            Some([one]) if one.is_ascii() && !b"\"\r\n".contains(one) => *one,
            Some(_) => {
                return Err(format!(
                    "`decoding.delimiter` must be one ASCII character other than a quote or a newline, not {:?}",
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
        Ok(Self::with(columns, delimiter))
    }

    fn with(columns: Columns, delimiter: u8) -> Self {
        let reader = ReaderBuilder::new()
            .delimiter(delimiter)
            // Lines are found already; a carriage return inside one is part of a value.
            .terminator(Terminator::Any(b'\n'))
            .build();
        Self { reader, delimiter, columns, input: Vec::new(), output: Vec::new(), ends: Vec::new() }
    }

    pub(super) fn awaits_header(&self) -> bool {
        matches!(self.columns, Columns::Awaited)
    }

    pub(super) fn forgo_header(&mut self, why: &str) {
        self.columns = Columns::Unusable(why.to_owned());
    }

    pub(super) fn decode(&mut self, line: &[u8]) -> Result<Option<Bytes>, String> {
        if line.is_empty() {
            return Ok(None);
        }
        if self.awaits_header() {
            return self.learn(line).map(|()| None);
        }
        let values = match &self.columns {
            Columns::Unusable(why) => {
                return Err(format!("the line that names the columns cannot be used: {why}"));
            }
            _ => self.split(line)?,
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
        // A boundary inside a character cannot be: separators are ASCII.
        let fields = columns
            .iter()
            .zip(spans(&values))
            .map(|(name, (from, to))| (name.as_str(), output.get(from..to).unwrap_or_default()));
        Ok(Some(super::object(fields)))
    }

    /// Takes the columns from the first line.
    fn learn(&mut self, line: &[u8]) -> Result<(), String> {
        let learnt = self.split(line).and_then(|ends| {
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

    /// Splits a line into `self.output`; returns where each value ends there.
    fn split(&mut self, line: &[u8]) -> Result<Vec<usize>, String> {
        self.input.clear();
        self.input.extend_from_slice(line);
        self.input.push(b'\n');
        self.output.resize(self.input.len(), 0);
        // One value more than there are bytes to separate them is the most there can be.
        self.ends.resize(self.input.len() + 1, 0);
        self.reader.reset();
        let (result, _, written, count) =
            self.reader.read_record(&self.input, &mut self.output, &mut self.ends);
        match result {
            ReadRecordResult::Record => {
                self.output.truncate(written);
                Ok(self.ends[..count].to_vec())
            }
            _ => Err("a quoted value is not closed on its line".into()),
        }
    }
}

/// By hand, because a clone of csv-core's reader forgets its separators (its tables are copied in
/// part, as of 0.1.13).
impl Clone for CsvDecoder {
    fn clone(&self) -> Self {
        Self::with(self.columns.clone(), self.delimiter)
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
    use super::*;

    fn columns(names: &[&str]) -> CsvDecoder {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        CsvDecoder::new(Some(&names), None).unwrap()
    }

    fn row(csv: &mut CsvDecoder, line: &str) -> Result<Option<String>, String> {
        let body = csv.decode(line.as_bytes())?;
        Ok(body.map(|b| String::from_utf8(b.to_vec()).unwrap()))
    }

    #[test]
    fn the_first_line_names_the_columns() {
        // Without `columns` the first line is no record but names the values of all that follow.
        let mut csv = CsvDecoder::new(None, Some(";")).unwrap().clone();
        assert_eq!(row(&mut csv, "id;näme"), Ok(None));
        assert_eq!(
            row(&mut csv, r#"1;"a ""b""; c""#).unwrap().unwrap(),
            r#"{"id":"1","näme":"a \"b\"; c"}"#
        );
        assert_eq!(row(&mut csv, ";ż").unwrap().unwrap(), r#"{"id":"","näme":"ż"}"#);
        assert_eq!(row(&mut csv, ""), Ok(None));
    }

    #[test]
    fn rows_of_another_width_are_faults() {
        // A row with too many or too few values is a fault that names both numbers.
        let mut csv = columns(&["a", "b"]);
        let why = row(&mut csv, "1").unwrap_err();
        assert_eq!(why, "the line has 1 values, there are 2 columns");
        let why = row(&mut csv, "1,2,3").unwrap_err();
        assert_eq!(why, "the line has 3 values, there are 2 columns");
        assert!(row(&mut csv, "1,2").unwrap().is_some());
    }

    #[test]
    fn open_quotes_are_faults_and_leave_no_trace() {
        // A quote open at the end of the line is a fault, and the next line is read afresh.
        let mut csv = columns(&["a", "b"]);
        assert!(row(&mut csv, "1,\"two").unwrap_err().contains("not closed"));
        assert_eq!(row(&mut csv, "1,2").unwrap().unwrap(), r#"{"a":"1","b":"2"}"#);
    }

    #[test]
    fn an_unusable_header_faults_every_row() {
        // Where the first line names a column twice, it and each row after it are faults.
        let mut csv = CsvDecoder::new(None, None).unwrap();
        assert!(row(&mut csv, "a,a").is_err());
        assert!(row(&mut csv, "1,2").unwrap_err().contains("named twice"));
    }

    #[test]
    fn bad_settings_are_refused() {
        // Separators of several characters and repeated or missing columns are errors.
        assert!(CsvDecoder::new(None, Some("||")).is_err());
        assert!(CsvDecoder::new(None, Some("\"")).is_err());
        assert!(CsvDecoder::new(Some(&[]), None).is_err());
        assert!(CsvDecoder::new(Some(&["a".into(), "a".into()]), None).is_err());
    }
}
