//! A database as a script that makes it again, here or in `sqlite3`.
//!
//! The order is what makes it loadable: tables and their rows; then indexes, views, triggers, so
//! that none of them does its work a second time while rows come in, and a trigger on a view finds
//! the view; last what is built from other tables. Everything is read in one transaction, so it is
//! one moment of the database.
//!
//! Rows come through a cursor, of any number. Each column is read as bytes where it is text (JSON
//! has no word for text that is no UTF-8), and beside the columns go *marks*, one letter each, that
//! tell its type and the sign of an infinite float:
//!
//! | mark | type | | mark | type |
//! |---|---|---|---|---|
//! | `n` | NULL | | `t` | TEXT |
//! | `i` | INTEGER | | `b` | BLOB |
//! | `r` | finite REAL | | `+`, `-` | +∞, -∞ |

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::literal::{identifier, push_blob, push_real, push_text, string};
use super::query;
use super::virtual_table::{self, Content};
use crate::cli::client::{Client, ClientError, RowSink};
use crate::cli::wire::{Cell, Step};

/// Marks that share one result column. Each `||` is a level of the expression's depth, and servers
/// limit that.
const MARKS_PER_COLUMN: usize = 16;

/// Prints the database, or the tables whose names are like `pattern` with what belongs to them.
/// Returns a note for each thing that a script can't carry.
pub fn dump(client: &mut Client, out: &mut dyn Write, pattern: Option<&str>) -> Result<Vec<String>, ClientError> {
    let own_transaction = !client.in_transaction()?;
    if own_transaction {
        run(client, "BEGIN")?;
    }
    write(out, "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n")?;
    let mut dump = Dump { client, out, notes: Vec::new() };
    let outcome = dump.print_all(pattern);
    let (client, out, notes) = (dump.client, dump.out, dump.notes);
    match outcome {
        Ok(()) => write(out, "COMMIT;\n")?,
        // Half a database must not be mistaken for a whole one.
        Err(ref error) => write(out, &format!("ROLLBACK; -- the dump ended early: {}\n", one_line(error)))?,
    }
    if own_transaction {
        // It has read only; if it is gone already, that changes nothing.
        let _ = run(client, "ROLLBACK");
    }
    outcome.map(|()| notes)
}

struct Dump<'d> {
    client: &'d mut Client,
    out: &'d mut dyn Write,
    notes: Vec<String>,
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

impl Dump<'_> {
    fn print_all(&mut self, pattern: Option<&str>) -> Result<(), ClientError> {
        self.print_user_version(pattern)?;
        let objects = self.read_objects(pattern)?;
        let mut shapes = self.read_shapes()?;
        let mut rebuilds = Vec::new();
        for object in objects.iter().filter(|object| object.kind == "table") {
            if let Some(shape) = shapes.remove(&object.name)
                && !is_internal(&object.name)
            {
                self.print_table(object, &shape, &mut rebuilds)?;
            }
        }
        if pattern.is_none() {
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

    /// The number by which many migration tools know the schema's version.
    fn print_user_version(&mut self, pattern: Option<&str>) -> Result<(), ClientError> {
        if pattern.is_some() {
            return Ok(());
        }
        match query(self.client, "PRAGMA user_version")?.first().map(Vec::as_slice) {
            Some([Cell::Integer(version)]) if *version != 0 => {
                self.print_statement(&format!("PRAGMA user_version={version}"))
            }
            _ => Ok(()),
        }
    }

    fn read_objects(&mut self, pattern: Option<&str>) -> Result<Vec<Object>, ClientError> {
        let like = pattern.map_or(String::new(), |pattern| format!(" AND tbl_name LIKE {}", string(pattern)));
        let sql = format!("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL{like} ORDER BY rowid");
        let objects = query(self.client, &sql)?.into_iter().filter_map(|row| match <[Cell; 3]>::try_from(row) {
            Ok([Cell::Text(kind), Cell::Text(name), Cell::Text(sql)]) => Some(Object { kind, name, sql }),
            _ => None,
        });
        Ok(objects.collect())
    }

    /// The shapes of all tables, by name.
    fn read_shapes(&mut self) -> Result<BTreeMap<String, TableShape>, ClientError> {
        // CROSS JOIN keeps the order of the loops; a view that is broken would fail as a table.
        let sql = "SELECT t.name, t.type, t.wr, c.name, c.hidden FROM pragma_table_list t \
                   CROSS JOIN pragma_table_xinfo(t.name) c \
                   WHERE t.schema='main' AND t.type<>'view' ORDER BY t.name, c.cid";
        let mut shapes = BTreeMap::new();
        for row in query(self.client, sql)? {
            let Ok([Cell::Text(name), Cell::Text(kind), without_rowid, Cell::Text(column), hidden]) =
                <[Cell; 5]>::try_from(row)
            else {
                continue;
            };
            let shape = shapes.entry(name).or_insert_with(|| TableShape {
                kind: match kind.as_str() {
                    "virtual" => TableKind::Virtual,
                    "shadow" => TableKind::Shadow,
                    _ => TableKind::Ordinary { has_rowid: without_rowid == Cell::Integer(0) },
                },
                columns: Vec::new(),
                others: Vec::new(),
            });
            match hidden {
                Cell::Integer(0) => shape.columns.push(column),
                _ => shape.others.push(column),
            }
        }
        Ok(shapes)
    }

    fn print_table(
        &mut self,
        object: &Object,
        shape: &TableShape,
        rebuilds: &mut Vec<String>,
    ) -> Result<(), ClientError> {
        let table = identifier(&object.name);
        match shape.kind {
            TableKind::Shadow => Ok(()),
            TableKind::Ordinary { has_rowid } => {
                self.print_statement(&object.sql)?;
                let order = has_rowid.then(|| shape.rowid_alias()).flatten();
                let some_are_generated = !shape.others.is_empty();
                self.print_rows(&table, &identifiers(&shape.columns), some_are_generated, order)
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
    fn print_internal_tables(&mut self, objects: &[Object]) -> Result<(), ClientError> {
        let exists = |name: &str| objects.iter().any(|object| object.name == name);
        if exists("sqlite_stat1") {
            // Makes the table, and nothing else.
            self.print_statement("ANALYZE sqlite_schema")?;
            let columns = identifiers(&["tbl", "idx", "stat"].map(String::from));
            self.print_rows("sqlite_stat1", &columns, false, Some("rowid"))?;
        }
        // Without a row, there may be no table that makes it in the copy.
        if exists("sqlite_sequence") && !query(self.client, "SELECT 1 FROM sqlite_sequence LIMIT 1")?.is_empty() {
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
    ) -> Result<(), ClientError> {
        let names = if name_columns { format!("({})", columns.join(",")) } else { String::new() };
        let order = order.map_or(String::new(), |order| format!(" ORDER BY {order}"));
        let sql = format!("SELECT {} FROM {table}{order}", exact_columns(columns));
        let prefix = format!("INSERT INTO {table}{names} VALUES(");
        let mut inserts = Inserts { out: &mut *self.out, prefix, column_count: columns.len(), line: String::new() };
        self.client.stream_rows(&sql, &mut inserts)
    }

    fn print_statement(&mut self, sql: &str) -> Result<(), ClientError> {
        write(self.out, sql)?;
        // A comment at the end of what `sqlite_schema` has would hide the semicolon.
        write(self.out, if sql.contains("--") { "\n;\n" } else { ";\n" })
    }

    fn leave_out(&mut self, note: String) -> Result<(), ClientError> {
        write(self.out, &format!("-- {}\n", note.replace(['\n', '\r'], " ")))?;
        self.notes.push(note);
        Ok(())
    }
}

/// Turns rows into INSERT statements.
struct Inserts<'d> {
    out: &'d mut dyn Write,
    prefix: String,
    column_count: usize,
    line: String,
}

impl RowSink for Inserts<'_> {
    fn columns(&mut self, _: Vec<String>) -> io::Result<()> {
        Ok(())
    }

    fn row(&mut self, cells: Vec<Cell>) -> io::Result<()> {
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "the server's row doesn't fit its query");
        let (values, marks) = cells.split_at_checked(self.column_count).ok_or_else(odd)?;
        let marks = marks.iter().flat_map(|mark| match mark {
            Cell::Blob(letters) => letters.as_slice(),
            _ => &[],
        });
        self.line.clear();
        self.line.push_str(&self.prefix);
        let mut written = 0;
        for (value, mark) in values.iter().zip(marks) {
            if written > 0 {
                self.line.push(',');
            }
            push_value(&mut self.line, value, *mark).ok_or_else(odd)?;
            written += 1;
        }
        if written != self.column_count {
            return Err(odd());
        }
        self.line.push_str(");\n");
        self.out.write_all(self.line.as_bytes())
    }
}

/// Appends the literal of a value; nothing if the mark and the value contradict each other.
fn push_value(sql: &mut String, value: &Cell, mark: u8) -> Option<()> {
    match (mark, value) {
        (b'n', Cell::Null) => sql.push_str("NULL"),
        (b'i', Cell::Integer(integer)) => sql.push_str(&integer.to_string()),
        (b'r', Cell::Real(real)) => push_real(sql, *real),
        (b'+', _) => sql.push_str("1e999"),
        (b'-', _) => sql.push_str("-1e999"),
        (b't', Cell::Blob(text)) => push_text(sql, text),
        (b'b', Cell::Blob(blob)) => push_blob(sql, blob),
        _ => return None,
    }
    Some(())
}

/// The columns to select, exactly, and their marks.
fn exact_columns(columns: &[String]) -> String {
    let values = columns.iter().map(|c| format!("iif(typeof({c})='text',CAST({c} AS BLOB),{c})"));
    let marks = columns.chunks(MARKS_PER_COLUMN).map(|chunk| {
        let letters: Vec<String> = chunk.iter().map(|column| mark_of(column)).collect();
        // As a blob, because text may come with a collation or be changed on its way, bytes may not.
        format!("CAST({} AS BLOB)", letters.join("||"))
    });
    values.chain(marks).collect::<Vec<_>>().join(",")
}

fn mark_of(column: &str) -> String {
    format!(
        "CASE typeof({column}) WHEN 'null' THEN 'n' WHEN 'integer' THEN 'i' WHEN 'text' THEN 't' \
         WHEN 'blob' THEN 'b' ELSE CASE {column} WHEN 9e999 THEN '+' WHEN -9e999 THEN '-' ELSE 'r' END END"
    )
}

fn identifiers(names: &[String]) -> Vec<String> {
    names.iter().map(|name| identifier(name)).collect()
}

fn is_internal(name: &str) -> bool {
    name.get(..7).is_some_and(|prefix| prefix.eq_ignore_ascii_case("sqlite_"))
}

fn one_line(error: &ClientError) -> String {
    error.to_string().replace(['\n', '\r'], " ")
}

fn write(out: &mut dyn Write, text: &str) -> Result<(), ClientError> {
    out.write_all(text.as_bytes()).map_err(ClientError::Output)
}

fn run(client: &mut Client, sql: &str) -> Result<(), ClientError> {
    client.batch(&[sql])?.into_iter().try_for_each(|step| match step {
        Step::Failed(error) => Err(error.into()),
        Step::Done(_) | Step::Skipped => Ok(()),
    })
}
