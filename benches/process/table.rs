//! The report: one table of what was measured, in Markdown, so that it can be pasted.

use std::fmt;

/// One line of the report.
struct Row {
    what: String,
    figure: String,
    ratio: String,
    more: String,
}

/// The report.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// Adds a line, and prints it at once.
    pub(crate) fn row(
        &mut self,
        what: impl Into<String>,
        figure: impl Into<String>,
        ratio: impl Into<String>,
        more: impl Into<String>,
    ) {
        let row = Row {
            what: what.into(),
            figure: figure.into(),
            ratio: ratio.into(),
            more: more.into(),
        };
        crate::say(&format!("  {}: {} {} {}", row.what, row.figure, row.ratio, row.more));
        self.0.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | figure | ratio | |\n|---|---|---|---|")?;
        for row in &self.0 {
            writeln!(f, "| {} | {} | {} | {} |", row.what, row.figure, row.ratio, row.more)?;
        }
        Ok(())
    }
}

/// A count with its thousands set apart.
pub(crate) fn count(n: f64) -> String {
    let digits = format!("{:.0}", n.abs());
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if n < 0.0 { format!("-{out}") } else { out }
}

/// The value in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
