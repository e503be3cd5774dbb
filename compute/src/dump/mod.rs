//! A database as a script that makes it again, here or in `sqlite3`. The server's `GET …/dump` and the shell's `.dump`
//! write the same text, from different [`Source`]s.
//!
//! The order is what makes it loadable: tables and their rows; then indexes, views, triggers, so
//! that none of them does its work a second time while rows come in, and a trigger on a view finds
//! the view; last what is built from other tables. Everything is read in one transaction, so it is
//! one moment of the database.
//!
//! A dump of a whole database ends with `COMMIT;`. One that broke off does not, so it cannot be taken for a whole one.
//!
//! Text in a database of UTF-16 is written as UTF-8 like all else, and so that it is the same there; the script begins
//! by asking for that encoding, which SQLite grants to a database that is still empty.

pub mod literal;
pub mod virtual_table;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};

use self::literal::{identifier, push_blob, push_real, push_text, string};
use self::virtual_table::Content;
use crate::hrana::value::ValueRef;

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
    /// Rows keep their rowids, also where no column of their table is one.
    pub with_rowids: bool,
}

/// Prints the database. Returns a note for each thing that a script can't carry.
pub fn dump<S: Source>(source: &mut S, out: &mut dyn Write, options: Options<'_>) -> Result<Vec<String>, S::Error> {
    let mut dump = Dump { source, out, notes: Vec::new(), encoding: Encoding::Utf8, options };
    let outcome = dump.print_start().and_then(|()| dump.print_all());
    let (out, notes) = (dump.out, dump.notes);
    match &outcome {
        Ok(()) => out.write_all(b"COMMIT;\n").map_err(S::not_written)?,
        // Half a database must not be mistaken for a whole one.
        Err(error) => {
            let why = error.to_string().replace(['\n', '\r'], " ");
            out.write_all(format!("ROLLBACK; -- the dump ended early: {why}\n").as_bytes()).map_err(S::not_written)?;
        }
    }
    outcome.map(|()| notes)
}

struct Dump<'d, S> {
    source: &'d mut S,
    out: &'d mut dyn Write,
    notes: Vec<String>,
    encoding: Encoding,
    options: Options<'d>,
}

/// A row of `sqlite_schema`.
struct Object {
    kind: String,
    name: String,
    sql: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TableKind {
    Ordinary { has_rowid: bool },
    Virtual,
    Shadow,
}

/// What of a table is read and written.
struct TableShape {
    kind: TableKind,
    /// Those that can be written.
    columns: Vec<String>,
    /// Those that can't: generated ones, and a virtual table's hidden ones.
    others: Vec<String>,
}

impl TableShape {
    /// A name by which the rowid can be asked for, if no column has taken all three.
    fn rowid_alias(&self) -> Option<&'static str> {
        let names = self.columns.iter().chain(&self.others);
        let is_taken = |alias: &str| names.clone().any(|name| name.eq_ignore_ascii_case(alias));
        ["rowid", "_rowid_", "oid"].into_iter().find(|alias| !is_taken(alias))
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
        let objects = self.read_objects()?;
        let mut shapes = self.read_shapes()?;
        let mut rebuilds = Vec::new();
        for object in objects.iter().filter(|object| object.kind == "table") {
            if let Some(shape) = shapes.remove(&object.name)
                && !is_internal(&object.name)
            {
                self.print_table(object, &shape, &mut rebuilds)?;
            }
        }
        if self.options.pattern.is_none() {
            self.print_internal_tables(&objects)?;
        }
        for kind in ["index", "view", "trigger"] {
            for object in objects.iter().filter(|object| object.kind == kind) {
                self.print_statement(&object.sql)?;
            }
        }
        rebuilds
            .iter()
            .try_for_each(|name| self.print_statement(&format!("INSERT INTO {name}({name}) VALUES('rebuild')")))
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

    fn read_objects(&mut self) -> Result<Vec<Object>, S::Error> {
        let like = self.options.pattern.map_or(String::new(), |pattern| format!(" AND tbl_name LIKE {}", string(pattern)));
        let sql = format!("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL{like} ORDER BY rowid");
        let mut objects = Vec::new();
        self.source.rows(&sql, &mut |row| {
            if let [kind, name, sql] = row
                && let (Some(kind), Some(name), Some(sql)) = (text_of(kind), text_of(name), text_of(sql))
            {
                objects.push(Object { kind, name, sql });
            }
            Ok(())
        })?;
        Ok(objects)
    }

    /// The shapes of all tables, by name.
    fn read_shapes(&mut self) -> Result<BTreeMap<String, TableShape>, S::Error> {
        // CROSS JOIN keeps the order of the loops; a view that is broken would fail as a table.
        let sql = "SELECT t.name, t.type, t.wr, c.name, c.hidden FROM pragma_table_list t \
                   CROSS JOIN pragma_table_xinfo(t.name) c \
                   WHERE t.schema='main' AND t.type<>'view' ORDER BY t.name, c.cid";
        let mut shapes = BTreeMap::new();
        self.source.rows(sql, &mut |row| {
            let [name, kind, without_rowid, column, hidden] = row else { return Ok(()) };
            let (Some(name), Some(kind), Some(column)) = (text_of(name), text_of(kind), text_of(column)) else {
                return Ok(());
            };
            let shape = shapes.entry(name).or_insert_with(|| TableShape {
                kind: match kind.as_str() {
                    "virtual" => TableKind::Virtual,
                    "shadow" => TableKind::Shadow,
                    _ => TableKind::Ordinary { has_rowid: *without_rowid == ValueRef::Integer(0) },
                },
                columns: Vec::new(),
                others: Vec::new(),
            });
            match hidden {
                ValueRef::Integer(0) => shape.columns.push(column),
                _ => shape.others.push(column),
            }
            Ok(())
        })?;
        Ok(shapes)
    }

    fn print_table(
        &mut self,
        object: &Object,
        shape: &TableShape,
        rebuilds: &mut Vec<String>,
    ) -> Result<(), S::Error> {
        let table = identifier(&object.name);
        match shape.kind {
            TableKind::Shadow => Ok(()),
            TableKind::Ordinary { has_rowid } => {
                self.print_statement(&object.sql)?;
                let order = has_rowid.then(|| shape.rowid_alias()).flatten();
                let mut columns = identifiers(&shape.columns);
                let rowid = order.filter(|_| self.options.with_rowids);
                columns.splice(0..0, rowid.map(String::from));
                self.print_rows(&table, &columns, rowid.is_some() || !shape.others.is_empty(), order)
            }
            TableKind::Virtual => {
                self.print_statement(&object.sql)?;
                match virtual_table::content(&object.sql) {
                    Content::Rows => self.print_rows(&table, &identifiers(&shape.columns), true, None),
                    Content::RowsWithRowid => {
                        let mut columns = identifiers(&shape.columns);
                        columns.insert(0, "rowid".into());
                        self.print_rows(&table, &columns, true, Some("rowid"))
                    }
                    Content::Rebuild => {
                        rebuilds.push(table);
                        Ok(())
                    }
                    Content::Derived => Ok(()),
                    Content::Lost => self.leave_out(format!("the content of the virtual table {table} can't be read")),
                }
            }
        }
    }

    /// Tables that SQLite makes by itself, when their time comes.
    fn print_internal_tables(&mut self, objects: &[Object]) -> Result<(), S::Error> {
        let exists = |name: &str| objects.iter().any(|object| object.name == name);
        if exists("sqlite_stat1") {
            // Makes the table, and nothing else.
            self.print_statement("ANALYZE sqlite_schema")?;
            let columns = identifiers(&["tbl", "idx", "stat"].map(String::from));
            self.print_rows("sqlite_stat1", &columns, false, Some("rowid"))?;
        }
        // Without a row, there may be no table that makes it in the copy.
        if exists("sqlite_sequence") && self.has_rows("sqlite_sequence")? {
            self.print_statement("DELETE FROM sqlite_sequence")?;
            let columns = identifiers(&["name", "seq"].map(String::from));
            self.print_rows("sqlite_sequence", &columns, false, Some("rowid"))?;
        }
        Ok(())
    }

    /// Prints an INSERT for each row. `columns` and `table` are identifiers as SQL has them.
    fn print_rows(
        &mut self,
        table: &str,
        columns: &[String],
        name_columns: bool,
        order: Option<&str>,
    ) -> Result<(), S::Error> {
        let names = if name_columns { format!("({})", columns.join(",")) } else { String::new() };
        let order = order.map_or(String::new(), |order| format!(" ORDER BY {order}"));
        let prefix = format!("INSERT INTO {table}{names} VALUES(");
        let (out, encoding, mut line) = (&mut *self.out, self.encoding, String::new());
        self.source.table_rows(columns, &format!("{table}{order}"), encoding, &mut |row| {
            line.clear();
            line.push_str(&prefix);
            for (index, value) in row.iter().enumerate() {
                if index > 0 {
                    line.push(',');
                }
                push_value(&mut line, value, encoding);
            }
            line.push_str(");\n");
            out.write_all(line.as_bytes())
        })
    }

    fn print_statement(&mut self, sql: &str) -> Result<(), S::Error> {
        self.write(sql)?;
        // A comment at the end of what `sqlite_schema` has would hide the semicolon.
        self.write(if sql.contains("--") { "\n;\n" } else { ";\n" })
    }

    fn leave_out(&mut self, note: String) -> Result<(), S::Error> {
        self.write(&format!("-- {}\n", note.replace(['\n', '\r'], " ")))?;
        self.notes.push(note);
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<(), S::Error> {
        self.out.write_all(text.as_bytes()).map_err(S::not_written)
    }
}

fn text_of(value: &ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
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
