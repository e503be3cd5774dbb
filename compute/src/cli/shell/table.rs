//! A table with a frame, in bounded memory: the first rows decide the columns' widths, and the
//! rows after them are printed as they come.

use std::io::{self, Write};

use crate::cli::limits::TABLE_ROWS_BUFFERED_MAX;

#[derive(Debug, Default)]
pub struct Table {
    names: Vec<String>,
    show_names: bool,
    buffered: Vec<Vec<String>>,
    /// Known once the buffer has been printed.
    widths: Option<Vec<usize>>,
}

impl Table {
    pub fn new(names: Vec<String>, show_names: bool) -> Table {
        Table { names, show_names, ..Table::default() }
    }

    pub fn row(&mut self, out: &mut dyn Write, row: Vec<String>) -> io::Result<()> {
        match &self.widths {
            Some(widths) => print_row(out, &row, widths),
            None => {
                self.buffered.push(row);
                if self.buffered.len() < TABLE_ROWS_BUFFERED_MAX { Ok(()) } else { self.print_buffer(out) }
            }
        }
    }

    /// Prints the rest and the lower edge. A table without rows prints nothing at all.
    pub fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if !self.buffered.is_empty() {
            self.print_buffer(out)?;
        }
        self.widths.take().map_or(Ok(()), |widths| print_edge(out, &widths))
    }

    fn print_buffer(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let rows = std::mem::take(&mut self.buffered);
        let widths = self.widths_for(&rows);
        print_edge(out, &widths)?;
        if self.show_names {
            print_row(out, &self.names, &widths)?;
            print_edge(out, &widths)?;
        }
        for row in &rows {
            print_row(out, row, &widths)?;
        }
        self.widths = Some(widths);
        Ok(())
    }

    fn widths_for(&self, rows: &[Vec<String>]) -> Vec<usize> {
        let names = self.show_names.then_some(&self.names);
        let mut widths = vec![0; self.names.len()];
        for row in rows.iter().chain(names) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.lines().map(display_width).fold(*width, usize::max);
            }
        }
        widths
    }
}

fn print_edge(out: &mut dyn Write, widths: &[usize]) -> io::Result<()> {
    let dashes: Vec<_> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    writeln!(out, "+{}+", dashes.join("+"))
}

/// Prints a row, on several lines if a cell has several.
fn print_row(out: &mut dyn Write, row: &[String], widths: &[usize]) -> io::Result<()> {
    let cells: Vec<Vec<&str>> = row.iter().map(|cell| cell.split('\n').collect()).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(1);
    for line in 0..height {
        for (cell, width) in cells.iter().zip(widths) {
            let text = cell.get(line).copied().unwrap_or("");
            let padding = width.saturating_sub(display_width(text));
            write!(out, "| {text}{} ", " ".repeat(padding))?;
        }
        writeln!(out, "|")?;
    }
    Ok(())
}

/// How many places a terminal gives to `text`.
pub fn display_width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// The common cases: what combines with the character before it has no width, East Asian
/// characters and emoji have two.
fn char_width(c: char) -> usize {
    match c {
        '\u{0300}'..='\u{036f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: impl IntoIterator<Item = &'static str>) -> String {
        let mut out = Vec::new();
        let mut table = Table::new(vec!["n".into()], true);
        for row in rows {
            table.row(&mut out, vec![row.into()]).expect("row");
        }
        table.finish(&mut out).expect("end");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn columns_are_as_wide_as_what_is_seen() {
        assert_eq!(
            table(["日本", "e\u{301}", "abc"]),
            "+------+\n| n    |\n+------+\n| 日本 |\n| e\u{301}    |\n| abc  |\n+------+\n"
        );
    }

    #[test]
    fn a_cell_with_two_lines_makes_a_row_of_two() {
        assert_eq!(table(["a\nbcd"]), "+-----+\n| n   |\n+-----+\n| a   |\n| bcd |\n+-----+\n");
    }

    #[test]
    fn a_long_table_is_printed_as_it_comes() {
        let mut out = Vec::new();
        let mut table = Table::new(vec!["n".into()], true);
        for _ in 0..TABLE_ROWS_BUFFERED_MAX {
            assert!(out.is_empty());
            table.row(&mut out, vec!["ab".into()]).expect("row");
        }
        assert!(out.starts_with(b"+----+\n| n  |\n"));
        let before = out.len();
        table.row(&mut out, vec!["too wide".into()]).expect("row");
        assert_eq!(&out[before..], b"| too wide |\n");
        table.finish(&mut out).expect("end");
        assert!(out.ends_with(b"+----+\n"));
    }
}
