//! A database as a script that makes it again, here or in `sqlite3`. The server's `GET …/dump` and the shell's `.dump`
//! write the same text, from different [`Source`]s.
//!
//! The order is what makes it loadable: tables and their rows, virtual ones last; then indexes, views, triggers, so
//! that none of them does its work a second time while rows come in, and a trigger on a view finds
//! the view; last what is built from other tables. Everything is read in one transaction, so it is
//! one moment of the database.
//!
//! Rows keep their rowids: where no column is the rowid, each row from the first on whose rowid is not the one that it
//! would get by itself (1, 2, 3 …) names it. A table whose columns have taken all three names of the rowid can't tell
//! it, and one of [`COLUMNS_MAX`] columns has no room for it.
//!
//! What can't be dumped is an error before the first byte ([`check`]), as far as it can be known by then; nothing is left
//! out.
//!
//! A dump of a whole database ends with `COMMIT;`. One that broke off does not, so it cannot be taken for a whole one.
//!
//! Text in a database of UTF-16 is written as UTF-8 like all else, and so that it is the same there; the script begins
//! by asking for that encoding, which SQLite grants to a database that is still empty.

pub mod literal;
pub mod virtual_table;

mod full_text;
mod schema;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};

use self::full_text::FullTextTable;
use self::literal::{identifier, push_blob, push_real, push_text};
use self::schema::{Object, TableKind, TableShape, read_objects, read_shapes, text_of};
use self::virtual_table::Content;
use crate::hrana::value::ValueRef;

/// Columns that a result may have under the limits of [`crate::session::connection`].
const COLUMNS_MAX: usize = 400;

/// Takes a row.
pub type EachRow<'r> = &'r mut dyn FnMut(&[ValueRef<'_>]) -> io::Result<()>;

/// A database to be dumped, in a transaction that has begun.
pub trait Source {
    type Error: Display;

    /// The rows of a query about the schema.
    fn rows(&mut self, sql: &str, each: EachRow<'_>) -> Result<(), Self::Error>;

    /// The rows of `SELECT columns FROM from`, exactly: infinite floats are floats, and text is its bytes in UTF-8, or
    /// whatever bytes a database of UTF-8 has there.
    fn table_rows(&mut self, columns: &[String], from: &str, encoding: Encoding, each: EachRow<'_>) -> Result<(), Self::Error>;

    /// The output failed.
    fn not_written(error: io::Error) -> Self::Error;

    /// The database has something that no dump can carry.
    fn impossible(why: String) -> Self::Error;
}

/// How a database keeps text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Utf16Little,
    Utf16Big,
}

impl Encoding {
    /// By SQLite's own name.
    pub fn named(name: &str) -> Self {
        match name {
            "UTF-16le" => Self::Utf16Little,
            "UTF-16be" => Self::Utf16Big,
            _ => Self::Utf8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16Little => "UTF-16le",
            Self::Utf16Big => "UTF-16be",
        }
    }
}

/// What of a database is dumped, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'o> {
    /// Only tables whose names are like this, with what belongs to them.
    pub pattern: Option<&'o str>,
    /// All rows of tables name their rowids, also where they would get the same ones without.
    pub with_rowids: bool,
}

/// Looks for what can't be dumped. [`dump`] does it too, before the first byte.
pub fn check<S: Source>(source: &mut S, options: Options<'_>) -> Result<(), S::Error> {
    for object in read_objects(source, options.pattern)? {
        if object.kind == "table" && object.virtual_content() == Some(Content::Unknown) {
            return Err(unknown(&object, S::impossible));
        }
    }
    // Fails for a virtual table that SQLite can't open.
    read_shapes(source).map(drop)
}

fn unknown<E>(object: &Object, impossible: impl Fn(String) -> E) -> E {
    let text = "is of a module that is not known here, so no SQL can carry its content: export the database as a file";
    impossible(format!("the virtual table {} {text}", identifier(&object.name)))
}

/// Prints the database.
pub fn dump<S: Source>(source: &mut S, out: &mut dyn Write, options: Options<'_>) -> Result<(), S::Error> {
    check(source, options)?;
    let mut dump = Dump { source, out, rebuilds: Vec::new(), encoding: Encoding::Utf8, options };
    let outcome = dump.print_start().and_then(|()| dump.print_all());
    let out = dump.out;
    match &outcome {
        Ok(()) => out.write_all(b"COMMIT;\n").map_err(S::not_written)?,
        // Half a database must not be mistaken for a whole one.
        Err(error) => {
            let why = error.to_string().replace(['\n', '\r'], " ");
            out.write_all(format!("ROLLBACK; -- the dump ended early: {why}\n").as_bytes()).map_err(S::not_written)?;
        }
    }
    outcome
}

struct Dump<'d, S> {
    source: &'d mut S,
    out: &'d mut dyn Write,
    /// Full-text tables that are made from others at the end, as SQL names them.
    rebuilds: Vec<String>,
    encoding: Encoding,
    options: Options<'d>,
}

/// Rows to print, of a table as SQL names it, with columns as SQL names them.
struct Rows<'r> {
    table: &'r str,
    columns: &'r [String],
    /// Whether the columns are named, or are all that there are.
    are_named: bool,
    /// What follows `FROM`, if it is not just the table.
    from: Option<&'r str>,
    order: Option<&'r str>,
    /// The rowid, for rows that must name it.
    rowid: Option<&'r str>,
}

impl<'r> Rows<'r> {
    fn of(table: &'r str, columns: &'r [String]) -> Self {
        Self { table, columns, are_named: false, from: None, order: None, rowid: None }
    }

    fn named(table: &'r str, columns: &'r [String]) -> Self {
        Self { are_named: true, ..Self::of(table, columns) }
    }

    fn by(self, order: impl Into<Option<&'r str>>) -> Self {
        Self { order: order.into(), ..self }
    }
}

impl<S: Source> Dump<'_, S> {
    fn print_start(&mut self) -> Result<(), S::Error> {
        self.write("PRAGMA foreign_keys=OFF;\n")?;
        if let Some(name) = self.first_text("PRAGMA encoding")? {
            self.encoding = Encoding::named(&name);
        }
        if self.encoding != Encoding::Utf8 && self.options.pattern.is_none() {
            let name = self.encoding.name();
            self.write(&format!("PRAGMA encoding='{name}';\n"))?;
        }
        self.write("BEGIN TRANSACTION;\n")
    }

    fn print_all(&mut self) -> Result<(), S::Error> {
        self.print_numbers()?;
        let objects = read_objects(self.source, self.options.pattern)?;
        let shapes = read_shapes(self.source)?;
        let tables = objects.iter().filter(|object| object.kind == "table" && !is_internal(&object.name));
        let tables: Vec<_> = tables.filter_map(|object| Some((object, shapes.get(&object.name)?))).collect();
        let (virtual_tables, ordinary): (Vec<_>, Vec<_>) = tables.into_iter().partition(|(_, it)| it.kind == TableKind::Virtual);
        for (object, shape) in ordinary {
            let is_made = virtual_tables.iter().any(|(owner, _)| owner.makes(&object.name));
            if shape.kind == TableKind::Ordinary || !is_made {
                self.print_table(object, shape)?;
            }
        }
        for (object, shape) in virtual_tables {
            self.print_virtual(object, shape, &shapes)?;
        }
        if self.options.pattern.is_none() {
            self.print_internal_tables(&objects)?;
        }
        for kind in ["index", "view", "trigger"] {
            for object in objects.iter().filter(|object| object.kind == kind) {
                self.print_statement(&object.sql)?;
            }
        }
        for name in std::mem::take(&mut self.rebuilds) {
            self.print_statement(&format!("INSERT INTO {name}({name}) VALUES('rebuild')"))?;
        }
        Ok(())
    }

    /// The numbers by which programs know their file, and migration tools the schema's version.
    fn print_numbers(&mut self) -> Result<(), S::Error> {
        if self.options.pattern.is_some() {
            return Ok(());
        }
        for pragma in ["application_id", "user_version"] {
            let mut number = 0;
            self.source.rows(&format!("PRAGMA {pragma}"), &mut |row| {
                if let [ValueRef::Integer(value)] = row {
                    number = *value;
                }
                Ok(())
            })?;
            if number != 0 {
                self.print_statement(&format!("PRAGMA {pragma}={number}"))?;
            }
        }
        Ok(())
    }

    /// The first column of a query's first row, if that is text.
    fn first_text(&mut self, sql: &str) -> Result<Option<String>, S::Error> {
        let mut text = None;
        self.source.rows(sql, &mut |row| {
            text = text.take().or_else(|| text_of(row.first()?));
            Ok(())
        })?;
        Ok(text)
    }

    fn has_rows(&mut self, table: &str) -> Result<bool, S::Error> {
        let mut has_rows = false;
        self.source.rows(&format!("SELECT 1 FROM {table} LIMIT 1"), &mut |_| {
            has_rows = true;
            Ok(())
        })?;
        Ok(has_rows)
    }

    fn print_table(&mut self, object: &Object, shape: &TableShape) -> Result<(), S::Error> {
        self.print_statement(&object.sql)?;
        let (table, mut columns, alias) = (identifier(&object.name), identifiers(&shape.columns), shape.rowid_alias());
        let asked_for = alias.filter(|_| self.options.with_rowids);
        columns.splice(0..0, asked_for.map(String::from));
        let rowid = if asked_for.is_some() { None } else { shape.implicit_rowid() };
        let are_named = asked_for.is_some() || !shape.others.is_empty();
        self.print_rows(&Rows { are_named, rowid, ..Rows::of(&table, &columns).by(alias) })
    }

    fn print_virtual(
        &mut self,
        object: &Object,
        shape: &TableShape,
        shapes: &BTreeMap<String, TableShape>,
    ) -> Result<(), S::Error> {
        self.print_statement(&object.sql)?;
        let (table, mut columns) = (identifier(&object.name), identifiers(&shape.columns));
        match virtual_table::content(&object.sql) {
            Content::Rows => self.print_rows(&Rows::named(&table, &columns)),
            Content::RowsWithRowid => {
                columns.insert(0, "rowid".into());
                self.print_rows(&Rows::named(&table, &columns).by("rowid"))
            }
            Content::FullText(declared) => {
                self.print_full_text(&FullTextTable { name: &object.name, shape, declared }, shapes)
            }
            Content::Derived => Ok(()),
            Content::Unknown => Err(unknown(object, S::impossible)),
        }
    }

    /// Tables that SQLite makes by itself, when their time comes.
    fn print_internal_tables(&mut self, objects: &[Object]) -> Result<(), S::Error> {
        let exists = |name: &str| objects.iter().any(|object| object.name == name);
        if exists("sqlite_stat1") {
            // Makes the table, and nothing else.
            self.print_statement("ANALYZE sqlite_schema")?;
            let columns = identifiers(&["tbl", "idx", "stat"].map(String::from));
            self.print_rows(&Rows::of("sqlite_stat1", &columns).by("rowid"))?;
        }
        // Without a row, there may be no table that makes it in the copy.
        if exists("sqlite_sequence") && self.has_rows("sqlite_sequence")? {
            self.print_statement("DELETE FROM sqlite_sequence")?;
            let columns = identifiers(&["name", "seq"].map(String::from));
            self.print_rows(&Rows::of("sqlite_sequence", &columns).by("rowid"))?;
        }
        Ok(())
    }

    /// Prints an INSERT for each row.
    fn print_rows(&mut self, rows: &Rows<'_>) -> Result<(), S::Error> {
        let Rows { table, columns, are_named, from, order, rowid } = *rows;
        let selected: Vec<String> = rowid.map(String::from).into_iter().chain(columns.iter().cloned()).collect();
        let plain = match are_named {
            true => format!("INSERT INTO {table}({}) VALUES(", columns.join(",")),
            false => format!("INSERT INTO {table} VALUES("),
        };
        let exact = format!("INSERT INTO {table}({}) VALUES(", selected.join(","));
        let order = order.map_or(String::new(), |order| format!(" ORDER BY {order}"));
        let from = format!("{}{order}", from.unwrap_or(table));
        let (out, encoding, mut line) = (&mut *self.out, self.encoding, String::new());
        // The rowid that the next row gets by itself; none once a row had another one.
        let mut expected = rowid.map(|_| 1_i64);
        self.source.table_rows(&selected, &from, encoding, &mut |row| {
            line.clear();
            let values = match (rowid, row) {
                (Some(_), [rowid, values @ ..]) => {
                    let next = expected.filter(|expected| *rowid == ValueRef::Integer(*expected));
                    expected = next.and_then(|rowid| rowid.checked_add(1));
                    if next.is_some() { values } else { row }
                }
                _ => row,
            };
            line.push_str(if rowid.is_some() && values.len() == row.len() { &exact } else { &plain });
            push_values(&mut line, values, encoding);
            line.push_str(");\n");
            out.write_all(line.as_bytes())
        })
    }

    fn print_statement(&mut self, sql: &str) -> Result<(), S::Error> {
        self.write(sql)?;
        // A comment at the end of what `sqlite_schema` has would hide the semicolon.
        self.write(if sql.contains("--") { "\n;\n" } else { ";\n" })
    }

    fn write(&mut self, text: &str) -> Result<(), S::Error> {
        self.out.write_all(text.as_bytes()).map_err(S::not_written)
    }
}

/// Appends the literals of a row's values.
fn push_values(sql: &mut String, row: &[ValueRef<'_>], encoding: Encoding) {
    for (index, value) in row.iter().enumerate() {
        if index > 0 {
            sql.push(',');
        }
        push_value(sql, value, encoding);
    }
}

/// Appends the literal of a value.
fn push_value(sql: &mut String, value: &ValueRef<'_>, encoding: Encoding) {
    match value {
        ValueRef::Null => sql.push_str("NULL"),
        ValueRef::Integer(integer) => sql.push_str(&integer.to_string()),
        ValueRef::Float(real) if *real == f64::INFINITY => sql.push_str("1e999"),
        ValueRef::Float(real) if *real == f64::NEG_INFINITY => sql.push_str("-1e999"),
        ValueRef::Float(real) => push_real(sql, *real),
        ValueRef::Text(text) => push_text(sql, text, encoding),
        ValueRef::Blob(blob) => push_blob(sql, blob),
    }
}

fn identifiers(names: &[String]) -> Vec<String> {
    names.iter().map(|name| identifier(name)).collect()
}

fn is_internal(name: &str) -> bool {
    name.get(..7).is_some_and(|prefix| prefix.eq_ignore_ascii_case("sqlite_"))
}
