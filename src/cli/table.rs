//! Tables of text: a header and aligned columns.

use super::paint::Paint;

/// The widest a column is aligned to, in characters; a longer cell moves the rest of its row.
const MAX_WIDTH: usize = 40;

/// The rows as lines under their header. The last column is not padded. Cells must not hold control
/// characters.
pub(super) fn table(header: &[&str], rows: &[Vec<String>], paint: Paint) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(header[column].len()).min(MAX_WIDTH)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            line += &format!("{cell:<width$}  ");
        }
        line.trim_end().to_owned()
    };
    let mut text = paint.bold(line(&mut header.iter().copied()));
    text.push('\n');
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Style;

    #[test]
    fn columns_are_aligned_under_their_header() {
        // Guarantees the header, the alignment and that a long cell is shown whole.
        let rows = vec![
            vec!["7".to_owned(), "short".to_owned(), "x".to_owned()],
            vec!["11".to_owned(), "y".repeat(50), "z".to_owned()],
        ];
        let text = table(&["ID", "NAME", "WHAT"], &rows, Paint(Style::Plain));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("WHAT"), lines[1].find('x'));
        assert!(lines[2].ends_with("  z") && lines[2].contains(&"y".repeat(50)), "{text}");
    }
}
