//! Prints rows in the shell's modes.
//!
//! | mode | NULL | blobs | names of columns |
//! |---|---|---|---|
//! | `table` | `NULL` | `X'…'` | always, unless switched off |
//! | `list` | nothing | `X'…'` | on request |
//! | `csv` | nothing (an empty text is `""`) | `X'…'` | on request |
//! | `json` | `null` | base64 | always |
//! | `line` | `NULL` | `X'…'` | always |
//!
//! Floats are printed with the shortest digits that come back to the same float. An infinite float
//! has no sign here, since the protocol doesn't carry it. Where a person reads, control characters
//! are made visible: a value must not be able to command the terminal.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::dump::literal;
use super::table::Table;
use crate::cli::args::Mode;
use crate::cli::client::RowSink;
use crate::cli::wire::Cell;

/// How results look.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub mode: Mode,
    /// `None`: as the mode has it.
    pub headers: Option<bool>,
    /// Whether a person reads.
    pub for_terminal: bool,
}

impl Style {
    fn headers(self) -> bool {
        self.headers.unwrap_or(self.mode == Mode::Table)
    }

    /// `text` without what a terminal would obey. `list` and `line` keep tabs and newlines.
    fn visible<'t>(self, text: &'t str) -> Cow<'t, str> {
        match self.mode {
            Mode::List | Mode::Line if self.for_terminal => visible(text, &['\t', '\n']),
            Mode::Table => visible(text, &['\n']),
            _ => Cow::Borrowed(text),
        }
    }
}

/// Prints the result of one statement.
pub struct Printer<'w> {
    out: &'w mut dyn Write,
    style: Style,
    columns: Vec<String>,
    row_count: u64,
    table: Table,
}

impl<'w> Printer<'w> {
    pub fn new(out: &'w mut dyn Write, style: Style) -> Printer<'w> {
        Printer { out, style, columns: Vec::new(), row_count: 0, table: Table::default() }
    }

    /// Prints what comes after the last row.
    pub fn finish(mut self) -> io::Result<()> {
        match self.style.mode {
            Mode::Table => self.table.finish(self.out)?,
            Mode::Json if self.columns.is_empty() => {}
            Mode::Json if self.row_count == 0 => self.out.write_all(b"[]\n")?,
            Mode::Json => self.out.write_all(b"]\n")?,
            Mode::List | Mode::Csv | Mode::Line => {}
        }
        self.out.flush()
    }

    fn print_joined(&mut self, fields: &[Cow<'_, str>]) -> io::Result<()> {
        let separator = if self.style.mode == Mode::Csv { "," } else { "|" };
        writeln!(self.out, "{}", fields.join(separator))
    }

    fn print_list_row(&mut self, cells: &[Cell]) -> io::Result<()> {
        let style = self.style;
        let texts: Vec<_> = cells.iter().map(|cell| text_of(cell, "")).collect();
        let fields: Vec<_> = texts.iter().map(|text| style.visible(text)).collect();
        self.print_joined(&fields)
    }

    fn print_csv_row(&mut self, cells: &[Cell]) -> io::Result<()> {
        let fields: Vec<_> = cells.iter().map(csv_field).collect();
        self.print_joined(&fields)
    }

    fn print_json_row(&mut self, cells: &[Cell]) -> io::Result<()> {
        let open = if self.row_count == 0 { "[{" } else { ",\n{" };
        self.out.write_all(open.as_bytes())?;
        for (index, (name, cell)) in self.columns.iter().zip(cells).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(self.out, "{comma}{}:{}", json_string(name), json_value(cell))?;
        }
        self.out.write_all(b"}")
    }

    fn print_line_row(&mut self, cells: &[Cell]) -> io::Result<()> {
        if self.row_count > 0 {
            writeln!(self.out)?;
        }
        let width = self.columns.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        for (name, cell) in self.columns.iter().zip(cells) {
            let text = text_of(cell, "NULL");
            writeln!(self.out, "{:>width$} = {}", self.style.visible(name), self.style.visible(&text))?;
        }
        Ok(())
    }

    fn add_table_row(&mut self, cells: &[Cell]) -> io::Result<()> {
        let texts: Vec<_> = cells.iter().map(|cell| text_of(cell, "NULL")).collect();
        let row = texts.iter().map(|text| self.style.visible(text).into_owned()).collect();
        self.table.row(self.out, row)
    }
}

impl RowSink for Printer<'_> {
    fn columns(&mut self, names: Vec<String>) -> io::Result<()> {
        let style = self.style;
        let shown: Vec<_> = names.iter().map(|name| style.visible(name)).collect();
        match style.mode {
            Mode::Table => {
                let names = shown.iter().map(|name| name.clone().into_owned()).collect();
                self.table = Table::new(names, style.headers());
            }
            Mode::List | Mode::Csv if style.headers() && !names.is_empty() => {
                let fields: Vec<_> = match style.mode {
                    Mode::Csv => names.iter().map(|name| csv_text(name)).collect(),
                    _ => shown,
                };
                self.print_joined(&fields)?;
            }
            _ => {}
        }
        self.columns = names;
        Ok(())
    }

    fn row(&mut self, cells: Vec<Cell>) -> io::Result<()> {
        match self.style.mode {
            Mode::Table => self.add_table_row(&cells)?,
            Mode::List => self.print_list_row(&cells)?,
            Mode::Csv => self.print_csv_row(&cells)?,
            Mode::Json => self.print_json_row(&cells)?,
            Mode::Line => self.print_line_row(&cells)?,
        }
        self.row_count += 1;
        Ok(())
    }
}

fn text_of<'c>(cell: &'c Cell, null: &'static str) -> Cow<'c, str> {
    match cell {
        Cell::Null => Cow::Borrowed(null),
        Cell::Integer(integer) => Cow::Owned(integer.to_string()),
        Cell::Real(real) => Cow::Owned(format!("{real:?}")),
        Cell::Infinite => Cow::Borrowed("±Inf"),
        Cell::Text(text) => Cow::Borrowed(text),
        Cell::Blob(blob) => {
            let mut hex = String::new();
            literal::push_blob(&mut hex, blob);
            Cow::Owned(hex)
        }
    }
}

fn csv_field(cell: &Cell) -> Cow<'_, str> {
    match cell {
        Cell::Text(text) => csv_text(text),
        other => text_of(other, ""),
    }
}

fn csv_text(text: &str) -> Cow<'_, str> {
    let is_plain =
        !text.is_empty() && !text.contains([',', '"', '\r', '\n']) && !text.starts_with(' ') && !text.ends_with(' ');
    if is_plain { Cow::Borrowed(text) } else { Cow::Owned(format!("\"{}\"", text.replace('"', "\"\""))) }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Integers keep all their digits; what reads them may not.
fn json_value(cell: &Cell) -> Cow<'_, str> {
    match cell {
        Cell::Null | Cell::Infinite => Cow::Borrowed("null"),
        Cell::Integer(_) | Cell::Real(_) => text_of(cell, ""),
        Cell::Text(text) => Cow::Owned(json_string(text)),
        Cell::Blob(blob) => Cow::Owned(json_string(&STANDARD.encode(blob))),
    }
}

/// Writes control characters, except those in `keep`, as `^X`.
fn visible<'t>(text: &'t str, keep: &[char]) -> Cow<'t, str> {
    let obeyed = |c: char| c.is_control() && !keep.contains(&c);
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if !obeyed(c) => shown.push(c),
            '\x7f' => shown.push_str("^?"),
            c if c.is_ascii() => shown.extend(['^', char::from(c as u8 + b'@')]),
            _ => shown.push(char::REPLACEMENT_CHARACTER),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests;
